import pytest

from tfproject.errors import UserError
from tfproject.experiments.search import STARTUP, Range, search

SPACE = {"x": Range(-4, 4), "rate": Range(1e-4, 1.0, logarithmic=True), "kind": ("plain", "bent")}
OPTIONS = {"trials": 12, "rungs": 2, "progress": False, "question": "a parabola"}


def parabola(settings, rung, directory):
    """Best at x = 1 and the kind "bent"; the second rung gives a little more."""
    return -((settings["x"] - 1) ** 2) - (settings["kind"] == "plain") + 0.01 * rung


def test_what_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole = search(SPACE, parabola, tmp_path / "whole", **OPTIONS)
    calls = []

    def killed(settings, rung, directory):
        calls.append((directory.name, settings))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return parabola(settings, rung, directory)

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, killed, tmp_path / "parts", **OPTIONS)
    before = list(calls)
    parts = search(SPACE, killed, tmp_path / "parts", **OPTIONS)
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in found.rows] for found in (whole, parts)]
    assert untimed[0] == untimed[1] and parts.best == whole.best
    assert calls[9] == before[8]  # the interrupted training is the first to be done again, and no other is
    assert len({name for name, _ in calls}) == len(calls) - 1
    assert len(parts.rows) == 12
    count = len(calls)
    search(SPACE, killed, tmp_path / "parts", **OPTIONS)
    assert len(calls) == count
    with pytest.raises(UserError, match="another search"):
        search(SPACE, parabola, tmp_path / "parts", **(OPTIONS | {"question": "a line"}))


def test_the_best_is_the_one_with_the_highest_score_of_those_that_finished(tmp_path):
    scores = {}

    def score(settings, rung, directory):
        if int(directory.name[:3]) == 3:
            return None  # diverged
        scores[directory.name] = parabola(settings, rung, directory)
        return scores[directory.name]

    first = {"x": -4.0, "rate": 0.5, "kind": "plain"}
    found = search(SPACE, score, tmp_path, first=first, **OPTIONS)
    assert {name: found.rows[0][name] for name in SPACE} == first and found.rows[3]["state"] == "diverged"
    last = {row["trial"]: scores[f"{row['trial']:03d}-rung1"] for row in found.rows if row["state"] == "finished"}
    best = found.rows[max(last, key=last.get)]
    assert found.best == {name: best[name] for name in SPACE} and best["score"] == max(last.values())
    assert all(1e-4 <= row["rate"] <= 1 and -4 <= row["x"] <= 4 for row in found.rows)
    assert sum(found.importances.values()) == pytest.approx(1, abs=0.01)
    assert max(found.importances, key=found.importances.get) == "x"


def test_what_is_worse_than_the_median_of_the_finished_is_not_trained_further(tmp_path):
    def score(settings, rung, directory):
        number = int(directory.name[:3])
        return [0.5, 0.6, 0.7, 0.8, 0.64, 0.66, 0.1, 0.9][number]

    rows = search({"x": Range(0, 1)}, score, tmp_path, trials=8, rungs=2, progress=False).rows
    # The medians of the first rung are 0.65, and with the sixth and the eighth trial more.
    assert [row["state"] for row in rows[:STARTUP]] == ["finished"] * STARTUP
    assert [row["state"] for row in rows[STARTUP:]] == ["pruned", "finished", "pruned", "finished"]
    assert [row["rungs"] for row in rows] == [2, 2, 2, 2, 1, 2, 1, 2]
