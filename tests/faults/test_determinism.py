"""The same seed gives the same weights, metrics and figures' data, also after an interruption; another seed others."""

import signal
import time

import pytest
import victims


@pytest.mark.long
@pytest.mark.parametrize("work", [victims.train, victims.train_frozen, victims.study])
def test_twice_the_same_and_resumed_the_same(work, child, tally, tmp_path):
    for name in ("first", "second"):
        child(work, tmp_path / name).end_well()
    first = victims.result(tmp_path / "first")
    tally.result(victims.result(tmp_path / "second"), first)
    with tally.fault():
        process = child(work, tmp_path / "resumed")
        while not list((tmp_path / "resumed").rglob("epoch-*.npz")) and process.process.is_alive():
            time.sleep(0.005)
        process.signal(signal.SIGKILL)
        process.end()
        child(work, tmp_path / "resumed").end_well()
        tally.result(victims.result(tmp_path / "resumed"), first)


def seeded(directory, seed):
    victims.train(directory, seed=seed, epochs=1)


def test_another_seed_gives_other_weights_and_the_same_seed_does_not(child, tally, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        child(seeded, tmp_path / name, seed).end_well()
    a, b, c = (victims.result(tmp_path / name) for name in "abc")
    tally.result(b, a)
    trained = [name for name, (shape, _) in a[0].items() if len(shape) > 1]
    assert trained and not any(a[0][name] == c[0][name] for name in trained)
    assert a[1][0]["loss"] != c[1][0]["loss"]
