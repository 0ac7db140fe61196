import argparse
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import claims  # noqa: E402
import frozen_prefix  # noqa: E402
import growth  # noqa: E402
import interpret  # noqa: E402
import machine  # noqa: E402
import precision  # noqa: E402
import readme  # noqa: E402
import start_up  # noqa: E402
import training_step  # noqa: E402
import whole_runs  # noqa: E402

from tfproject import training  # noqa: E402
from tfproject.experiments.experiment import Variation  # noqa: E402
from tfproject.training.run import Run  # noqa: E402

MACHINE = {
    "processor": {"name": "Abacus", "instructions": []}, "cores": 2, "gpus": [], "packages": {"keras": "3.0"},
    "commit": "c", "matrix_product_gflops": 100,
}  # fmt: skip


def test_a_ratio_is_of_rounds_and_above_one_where_ours_is_better():
    seconds = claims.claim("a", "b", "s", [1, 2, 4], [2, 2, 2], target=1.5)
    assert (seconds["ratio"], seconds["lowest"], seconds["highest"]) == (1, 0.5, 2)
    assert claims.met(seconds) is False
    rates = claims.claim("a", "b", "images/s", [30, 30], [10, 20], target=2, rate=True)
    assert (rates["ratio"], rates["lowest"]) == (2.25, 1.5)
    assert claims.met(rates) is True


def test_a_limit_is_met_from_below_and_a_share_from_above():
    assert claims.met(claims.measure("wait", "%", [1.5], target=2, at_most=True))
    assert not claims.met(claims.measure("share", "%", [1.5], target=2))
    assert claims.met(claims.measure("share", "%", [1.5])) is None


def test_the_page_has_each_claim_with_its_source_and_says_what_was_missed():
    good = claims.claim("step", "Keras", "images/s", [300, 310, 290], [100, 100, 100], target=1.4, rate=True)
    bad = claims.claim("run", "course", "s", [100], [200], target=4.0, remark="stopped early")
    text = readme.page({
        "first": {"claims": [good], "machine": MACHINE},
        "second": {"claims": [bad], "machine": MACHINE | {"matrix_product_gflops": 150}},
        "third": {"machine": MACHINE, "not_measured": ["PyTorch"]},
    })  # fmt: skip
    row = next(line for line in text.splitlines() if line.startswith("| step"))
    cells = ("step", "Keras", "300 images/s", "100 images/s", "**3** (2.9 to 3.1)", "1.4")
    assert row == f"| {' | '.join(cells)} | [first](results/first.json) |"
    missed = next(line for line in text.splitlines() if line.startswith("| run"))
    assert "**2**, measured once" in missed and "4, **missed**" in missed
    assert "Abacus, 2 cores; keras 3.0" in text and "100 to 150 GFLOP/s" in text
    assert "- run: stopped early." in text
    assert "without a claim about speed: [`third`](results/third.json)" in text
    assert "Not measured in [`third`](results/third.json): PyTorch." in text


def test_results_without_claims_of_their_own_are_read_out():
    pipeline = {
        "images_per_second": {"ours": [1000, 2000], "keras": [500, 500]},
        "training_step_images_per_second": {"float32 plain": 10, "float32 xla": 5}, "waiting_share": [0.01, 0.03, 0.02],
    }  # fmt: skip
    faster, wait = readme.claims_in("input_pipeline", pipeline)
    assert faster["ratio"] == 3 and "any angle" in faster["remark"]
    assert wait["ours"] == pytest.approx(2) and claims.met(wait) and "up to 1.0 %" in wait["remark"]  # 1 of 100 ms
    cut = {
        "epochs": 20, "frozen_until": "block5_pool", "precision": "mixed_bfloat16", "trained_in": "mixed_bfloat16",
        "run_once_seconds": 10.0, "as_keras_does_it_seconds": 150, "as_keras_does_it_spread": 0.2, "times_faster": 15.0,
        "times_less_arithmetic": 19.9, "as_keras_does_it_epochs_measured": 2,
    }  # fmt: skip
    (row,) = readme.claims_in("frozen_prefix", {"data": "terrassa", "cuts": [cut]})
    assert (row["ratio"], row["lowest"]) == (15, pytest.approx(13.5)) and row["what"].endswith("mixed_bfloat16")
    speeds = {"predict": [30, 40], "map": [20, 20], "model.predict": [10, 20], "onnxruntime": [40, 40],
              "map_overlapping": [310, 290], "predict in mixed_bfloat16": [60, 80]}  # fmt: skip
    rates = {name: {"rounds": v} for name, v in speeds.items()}
    alike = {"predict": 1, "predict in mixed_bfloat16": 0.9975}
    inference = {"images_per_second": rates, "tiles_right": {"map": 0.99, "map_overlapping": 0.96},
                 "tiles_seen_as_in_float32": alike}  # fmt: skip
    *rows, windows, right = readme.claims_in("inference", inference)
    assert [row["ratio"] for row in rows] == [2.5, 0.875, 1.5, 0.5, 5, 1.75]
    assert [row["remark"][:7] for row in rows] == ["", "", "", "", "99.75 %", ""]
    assert claims.met(windows) and not claims.met(right)
    rates["model.predict, same batches"] = {"rounds": [30, 30]}
    by_waiting, *_ = readme.claims_in("inference", inference)
    assert claims.met(by_waiting) and "the ratio is 1.17, so that the goal is met only where" in by_waiting["remark"]
    rates["model.predict, tf.data's tuner off"] = {"rounds": [15, 20]}
    rates["model.predict, from the files"] = {"rounds": [5, 5]}
    inference["at_the_peak_against_model_predict"] = [1.6, 1.4, 1.7]
    anyway, from_files, without, *others = readme.claims_in("inference", inference)
    assert anyway["remark"].endswith("tuner off` the ratio is 2.00")
    assert "would be 1.60 (1.40 to 1.70)" in anyway["remark"]
    assert (from_files["ratio"], without["ratio"]) == (7, 2) and from_files["target"] is without["target"] is None
    assert not any("would be" in row.get("remark", "") for row in others if "bfloat16" in row["what"])
    top = {"units": 4_224, "images": 10_000, "seconds": [100, 200], "forward_seconds": [80, 170],
           "peak_memory_mb": 2_500}  # fmt: skip
    alone, seconds, memory = readme.claims_in("interpret_top_samples", top)
    assert (alone["lowest"], alone["highest"]) == (0.8, 0.85)
    assert claims.met(seconds) and not claims.met(memory)
    alone, *_ = readme.claims_in("interpret_top_samples", top | {"seconds": 100, "forward_seconds": 80})
    assert alone["ratio"] == 0.8 and alone["rounds"] == 1


def test_looking_into_a_network_is_compared_round_by_round():
    row = {"images": 10_000, "width": 512,
           "openTSNE": {"seconds": [10, 20], "trustworthiness": [0.90, 0.90]},
           "scikit_learn": {"seconds": [30, 50], "trustworthiness": [0.95, 0.95]}}  # fmt: skip
    faster, seconds, trust = interpret.tsne_claims(row)
    assert (faster["lowest"], faster["highest"]) == (2.5, 3) and claims.met(faster)
    assert claims.met(seconds) and not claims.met(trust) and "750 iterations" in faster["remark"]
    assert trust["remark"] == "on average -0.05000, too few different runs for an interval"
    row["openTSNE"]["trustworthiness"] = [0.94, 0.961]
    assert interpret.tsne_claims(row)[-1]["remark"].endswith("not shown to differ")
    row["openTSNE"]["trustworthiness"] = [0.940, 0.9401]
    assert interpret.tsne_claims(row)[-1]["remark"].endswith(": shown to differ")
    together = "gradcam, gradcam++ and layercam"
    ours = {name: {"images": 4, "seconds": [1, 1], "times_its_arithmetic": [1.2, 1.2]}
            for name in ("gradcam", together)}  # fmt: skip
    ours["scorecam"] = {"images": 2, "seconds": [8], "times_its_arithmetic": [1.6], "passes_an_image": 11.0}
    theirs = {name: {"images": 4, "seconds": [2, 3]} for name in interpret.SHARED}
    theirs["scorecam"] = {"images": 1, "seconds": [8]}
    alone, shared, once, slowest = interpret.attribution_claims(ours, theirs)
    assert (alone["lowest"], alone["highest"], alone["ours"]) == (2, 3, 0.25)
    assert (shared["lowest"], shared["highest"], shared["target"]) == (6, 9, 3)
    assert once["ratio"] == 2 and once["rounds"] == 1 and not claims.met(once)
    assert "11 forward passes" in once["remark"] and "allows 3.20 times" in once["remark"]
    assert alone["target"] == 3
    assert "scorecam" in slowest["what"] and not claims.met(slowest)


def test_the_committed_results_can_all_be_told(tmp_path):
    subprocess.run([sys.executable, BENCHMARKS / "readme.py", "--output", tmp_path / "README.md"], check=True)
    text = (tmp_path / "README.md").read_text()
    for path in (BENCHMARKS / "results").glob("*.json"):
        assert f"(results/{path.name})" in text


def test_an_exponent_is_found_again():
    sizes = [1, 2, 4, 8]
    assert growth.exponent(sizes, [3 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    assert growth.exponent(sizes, [0, 1, 2, 3]) is None


def test_growth_is_claimed_of_the_two_largest_sizes_where_a_constant_hides_least(monkeypatch):
    monkeypatch.setattr(growth, "measure", lambda axis, size: {"seconds": 10 + size**2, "memory_mb": 0})
    found = growth.grown("batch", (1, 2, 10, 100), rounds=2)
    (time,) = growth.claims_of("batch", found)
    assert time["ours"] == pytest.approx(1.96, abs=0.01) and not claims.met(time)
    assert "10 to 100" in time["what"] and time["rounds"] == 2
    assert found["seconds"]["exponent"] < 1.6


def test_seconds_count_to_the_end_of_the_first_epoch_that_reaches_the_goal():
    accuracies, seconds = [0.5, 0.8, 0.7, 0.9], [10, 20, 30, 40]
    assert whole_runs.seconds_to(0.75, accuracies, seconds) == 30
    assert whole_runs.seconds_to(0.95, accuracies, seconds) == 100  # all


def compared(found, goal, **seeds):
    return {"seed": 0, **seeds} | whole_runs.compared(found, goal)


def test_an_epoch_that_something_else_made_longer_counts_as_the_others(tmp_path):
    rows = [f"{epoch},0.9,0.8,{seconds}" for epoch, seconds in enumerate((10, 11, 90))]
    (tmp_path / "history.csv").write_text("\n".join(["epoch,accuracy,val_accuracy,seconds", *rows]))
    assert whole_runs._history(tmp_path / "history.csv", 3) == ([0.8] * 3, [10] * 3)
    assert whole_runs._history(tmp_path / "history.csv", 2)[1] == [10] * 2


def test_a_goal_that_ours_misses_is_told_and_no_time_to_it():
    found = {"ours": ([0.7, 0.82, 0.9], [4, 4, 4]), "course": ([0.6, 0.8, 0.7], [30, 30, 30])}
    for name, counts in (("eurosat", 1), ("cifar10", 0)):
        best, runs, *to_goal, to_their_best = whole_runs.claim_of(name, [compared(found, 0.85)], 0.85)
        assert best["ours"] == 90 and claims.met(best) and "with one 82.0%" in best["remark"] and claims.met(runs)
        assert [row["ratio"] for row in to_goal] == [7.5, 5]  # all of its 90 s or the 60 to its best, against 12
        assert "all of its 3 epochs" in to_goal[0]["against"] and "at least" in to_goal[0]["remark"]
        assert "80.0%, it had after epoch 2 of 3" in to_goal[0]["remark"]
        assert "80.0%" in to_goal[1]["against"] and to_goal[counts]["target"] == 4 and not to_goal[1 - counts]["target"]
        assert to_their_best["ratio"] == 7.5 and "80.0%" in to_their_best["what"]
    _, _, to_goal = whole_runs.claim_of("eurosat", [compared(found, 0.75)], 0.75)  # which theirs reaches
    assert to_goal["ratio"] == 7.5 and to_goal["remark"] == whole_runs.TIMED
    missed = [compared(found, 0.85), compared(found | {"ours": ([0.7, 0.84], [4, 4])}, 0.85, course_seed=0)]
    best, runs, *to_goal, to_their_best = whole_runs.claim_of("eurosat", missed, 0.85)
    assert runs["ours"] == 1 and claims.met(runs) is False
    assert [row["rounds"] for row in to_goal] == [1, 1] and "the 1 of 2 runs" in to_goal[0]["what"]
    _, runs, to_their_best = whole_runs.claim_of("eurosat", missed[1:], 0.85)  # none got there
    assert runs["ours"] == 0
    best, runs, *to_goal, to_their_best = whole_runs.claim_of("eurosat", missed, 0.85)
    assert to_their_best["target"] is None and to_their_best["remark"] == "2 runs of ours, 1 of theirs"


def test_runs_of_another_machine_are_not_told_as_this_one_s(tmp_path):
    machine.check_runs(tmp_path / "runs")
    machine.check_runs(tmp_path / "runs")
    path = tmp_path / "runs" / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cores": 64}))
    with pytest.raises(SystemExit, match="another machine .*'cores': 64"):
        machine.check_runs(tmp_path / "runs")


def test_fewer_seeds_of_the_course_are_compared_again(toy_set, tmp_path, monkeypatch):
    from tfproject import data

    def train(who, times):
        return lambda image_set, name, seed, directory, epochs: ([0.9], [times * (seed + 1)])

    monkeypatch.setattr(data, "load", lambda name: toy_set)
    monkeypatch.setattr(whole_runs, "ours", train("ours", 1))
    monkeypatch.setattr(whole_runs, "courses_apart", train("course", 10))
    options = {"epochs": None, "course_epochs": None, "goal": None, "directory": tmp_path, "seeds": 3}
    for course_seeds, theirs in ((3, [10, 20, 30]), (2, [10, 20, 10])):
        rows = whole_runs.trained("cifar10", argparse.Namespace(course_seeds=course_seeds, **options))
        assert [row["ours"]["seconds"] for row in rows] == [1, 2, 3]
        assert [row["course"]["seconds"] for row in rows] == theirs


def test_the_course_s_run_goes_on_where_it_stopped(toy_set, tmp_path, monkeypatch):
    import toy

    from tfproject import models

    monkeypatch.setattr(models, "custom_cnn", toy.network)
    whole_runs.courses(toy_set, "toy", 0, tmp_path, epochs=1)
    first = (tmp_path / "history.csv").read_text()
    accuracies, seconds = whole_runs.courses(toy_set, "toy", 0, tmp_path, epochs=3)
    assert len(accuracies) == len(seconds) == 3
    assert (tmp_path / "history.csv").read_text().startswith(first)
    again = whole_runs.courses(toy_set, "toy", 0, tmp_path, epochs=3)
    assert again == (accuracies, seconds)  # nothing was trained


def test_both_precisions_train_alike_and_go_on_where_they_stopped(toy_set, tmp_path):
    recipe = training.Recipe(epochs=1, batch_size=32)
    variation = Variation("toy", recipe, "toy:network", train_images=60, val_images=30)
    rows = precision.trained(toy_set, variation, 1, tmp_path)
    asked = {run.recipe.precision: run.question for run in map(Run, tmp_path.iterdir())}
    assert asked["float32"]["data"] == asked["mixed_bfloat16"]["data"]
    assert precision.trained(toy_set, variation, 1, tmp_path) == rows  # nothing was trained


def test_a_difference_of_precisions_is_shown_only_beyond_its_interval():
    def told(after):
        rows = [
            {"float32": {"val_accuracy": 0.9, "seconds": 20}, "mixed_bfloat16": {"val_accuracy": a, "seconds": 10}}
            for a in after
        ]
        return list(precision.claims_of("toy", rows))

    before, after, difference, seconds = told([0.88, 0.87, 0.89])
    assert (before["ours"], after["ours"], seconds["ratio"]) == pytest.approx((90, 88, 2))
    assert difference["ours"] == pytest.approx(-2) and claims.met(difference) is None
    assert "-2.00 points" in difference["remark"] and "-4.48 to +0.48: not shown to" in difference["remark"]
    assert difference["remark"].endswith("loss of more than 4.48 points is excluded")
    assert ": shown to differ" in told([0.88, 0.879, 0.881])[2]["remark"]
    assert "too few" in told([0.88])[2]["remark"]


def test_the_fastest_is_compared_with_the_fastest_and_float32_with_float32():
    rates = {
        "ours": [200, 200], "ours float32": [100, 100], "keras": [50, 50], "torch eager float32": [80, 80],
        "torch compile float32": [90, 60], "torch eager bfloat16": [160, 160], "torch compile bfloat16": [70, 70],
    }  # fmt: skip
    found = {
        "images_per_second": rates, "matrix_product_gflops": [100, 200], "step_flops_an_image": 0.5e9,
        "how": {"ours": {"precision": "mixed_bfloat16"}},
        "share_of_time": {
            "ours": {"convolution": 0.8, "BatchNorm": 0.1}, "ours float32": {"convolution": 0.0, "BatchNorm": 0.0},
            "keras": {"convolution": 0.6, "BatchNorm": 0.2},
        },
    }  # fmt: skip
    *fastest, share = training_step.claims_of("land_cover_cnn", found)[:3]
    assert [row["ratio"] for row in fastest] == [4, 1.25] and "eager bfloat16" in fastest[1]["against"]
    assert (share["lowest"], share["highest"], share["target"]) == (50, 100, None) and share["remark"]
    assert "5.00 times as fast as Keras' defaults" in fastest[0]["remark"]  # the ratio by the convolutions' share
    assert fastest[0]["remark"].endswith("take 94 % of the matrix-product peak")  # of 75 % by the same
    assert "1.56 times as fast as PyTorch" in fastest[1]["remark"]
    assert "10% in BatchNorm, of Keras' defaults 60% and 20%" in fastest[0]["remark"]
    *alike, share = training_step.claims_of("land_cover_cnn", found)[3:]
    assert [row["ratio"] for row in alike] == [2, 1.25] and "eager float32" in alike[1]["against"]
    assert not alike[0]["remark"]  # a profile that knows no convolutions
    assert (share["lowest"], share["highest"], share["target"]) == (25, 50, 50)


def test_where_float32_is_the_fastest_it_is_compared_once():
    found = {
        "images_per_second": {"ours": [100], "keras": [50]}, "matrix_product_gflops": [100],
        "step_flops_an_image": 0.5e9, "how": {"ours": {"precision": "float32"}},
        "share_of_time": dict.fromkeys(("ours", "keras"), {"convolution": 0.8, "BatchNorm": 0.1}),
    }  # fmt: skip
    keras, share = training_step.claims_of("custom_cnn", found)
    assert keras["ratio"] == 2 and "in float32" in keras["what"] and share["ours"] == 50


def test_theirs_is_traced_before_the_clock_starts(toy_set, monkeypatch):
    import keras
    import toy

    events = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, batches, **_: events.append(int(batches.cardinality())))
    clock = types.SimpleNamespace(perf_counter=lambda: events.append("clock") or 0.0)
    monkeypatch.setattr(frozen_prefix, "time", clock)
    frozen_prefix.as_keras_does_it(None, toy_set, toy.network, "conv1")
    assert events == [1, "clock", len(toy_set.train) // frozen_prefix.BATCH, "clock"]


def test_a_contestant_answers_with_seconds(tmp_path):
    script = tmp_path / "contestant.py"
    script.write_text(
        f"import sys, time; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from training_step import answer\n"
        "answer(lambda steps: time.sleep(0.05 * steps), 7, {})\n"
    )
    contestant = training_step.Contestant([sys.executable, script])
    assert contestant.says == {"parameters": 7, "how": {}}
    assert contestant.ask(4) >= 0.2
    contestant.close()


def test_a_contestant_that_ends_says_why():
    with pytest.raises(SystemExit, match="ModuleNotFoundError: No module named 'absent'$"):
        training_step.Contestant([sys.executable, "-c", "import absent"])
    contestant = training_step.Contestant([sys.executable, "-c", "print('{}', flush=True); input(); raise KeyError(7)"])
    with pytest.raises(SystemExit, match="KeyError: 7$"):
        contestant.ask(1)


def test_an_earlier_result_s_rows_of_pytorch_do_not_go_without_a_word(tmp_path, capsys):
    earlier = tmp_path / "training_step.json"
    assert training_step.left_out("python", earlier) == []
    (told,) = training_step.left_out(None, earlier)
    assert told.startswith("PyTorch (pip install") and not capsys.readouterr().err
    earlier.write_text('{"torch eager float32": 1}')
    training_step.left_out(None, earlier)
    assert "loses its rows" in capsys.readouterr().err


def test_our_first_step_is_beside_keras_and_xla_s_second_process_beside_its_first():
    seconds = {"plain": 6, "xla": 8, "xla again": 8, "auto": 20, "auto again": 3}
    steps = {name: [{"whole": s, "compile": s / 2, "resolve": s / 4}] for name, s in seconds.items()}
    rows = {row["what"]: row for row in start_up.claims_of([1], [2], steps)}
    assert rows["importing, building the custom CNN and its first step"]["ratio"] == 2
    kept = rows["compiling of the training step by XLA, in a second process"]
    assert kept["ratio"] == 1 and "compiles anew" in kept["remark"]


def test_make_bench_goes_on_after_a_failure_and_names_it(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "ran $1"\ncase $1 in *bad*) exit 3;; esac\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(
        ["make", "bench", f"BIN={tmp_path}", "INSTALLED=", "BENCHMARKS=bad good"], cwd=BENCHMARKS.parent,
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    ran = [line for line in made.stdout.splitlines() if line.startswith("ran")]
    assert ran == [f"ran benchmarks/{name}.py" for name in ("bad", "good", "readme")]
    assert made.returncode and "These benchmarks failed: bad\n" in made.stderr


@pytest.mark.parametrize("name", ["training_step", "whole_runs", "growth", "precision", "start_up", "study", "readme"])
def test_help_is_there(name):
    shown = subprocess.run([sys.executable, BENCHMARKS / f"{name}.py", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "--help" in shown.stdout


def test_a_profile_tells_what_the_time_went_into():
    import keras
    import tensorflow as tf

    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(64, 5, activation="relu")(keras.layers.BatchNormalization()(image))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    model.compile("adam", "mse")
    batches = tf.data.Dataset.from_tensors((tf.zeros((16, 64, 64, 3)), tf.zeros((16, 2)))).repeat()
    shares = training_step.profile(lambda steps: model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False), 8)
    assert 0.1 < shares["convolution"] < 1 and 0 < shares["BatchNorm"] < 1 and sum(shares.values()) < 1


def test_made_up_batches_are_the_same_in_every_process():
    images, labels = training_step.made_up(4, 8)
    assert images.shape == (4, 8, 8, 3) and labels.shape == (4, 10)
    np.testing.assert_array_equal(labels.sum(1), 1)
    np.testing.assert_array_equal(images, training_step.made_up(4, 8)[0])


def test_claims_go_to_json_and_back():
    row = claims.claim("a", "b", "s", [1.0], [2.0], target=1)
    assert json.loads(json.dumps(row)) == row
