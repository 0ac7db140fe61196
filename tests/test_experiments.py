import csv
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import toy
from scipy import stats

from tfproject import training
from tfproject.errors import UserError
from tfproject.experiments import Experiment, Study, Trial, Variation, analysis, reading, run_study, run_trial, runner
from tfproject.experiments.reading import read
from tfproject.statistics import compare
from tfproject.tasks import task2_experiments
from tfproject.training import Recipe

RECIPE = Recipe(
    epochs=5, batch_size=20, learning_rate=0.05, schedule="constant", weight_decay=0.0, precision="float32",
    jit_compile=False,
)  # fmt: skip
PLAIN = Variation("plain", RECIPE, "toy:network")


def followed(results):
    (plain, _), (other, _) = results
    return plain.combined_with([other], "again")


def toy_study(directory):
    """Two experiments with a variation in common, and one that follows and is no new run: eight runs."""
    flip = dataclasses.replace(PLAIN, name="flip", recipe=dataclasses.replace(RECIPE, augment=("flip",)))
    early = dataclasses.replace(RECIPE, early_stopping=1, keep_epoch="best")
    early = dataclasses.replace(PLAIN, name="early", recipe=early, options={"dropout": 0.5}, train_images=60)
    steady = dataclasses.replace(PLAIN, name="without dropout", options={"dropout": 0.0})
    return Study(
        directory,
        (
            Experiment("mirror", "Does it", (PLAIN, flip), "plain", (0, 1), figures=("accuracy", "epochs-and-seconds")),
            Experiment("rest", "And that?", (PLAIN, early), "plain", (0, 1), follow_up=followed),
            Experiment("dropout", "Dropout?", (PLAIN, steady), "plain", (0, 1), figures=("curves", "learning-rate")),
        ),
        images="toy:image_set",
    )


RUN = "import sys, test_experiments as t; print(t.run_study(t.toy_study(sys.argv[1])))"


def run_python(code, *arguments):
    """A new Python process that finds the tests' own modules."""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


@functools.cache
def done_by_one_process(directory):
    directory.mkdir()
    finish(run_python(RUN, directory))
    return directory


@pytest.fixture(scope="session")
def one_process(tmp_path_factory):
    """The toy study's directory, made by one process from beginning to end; once, whichever files use it."""
    return done_by_one_process(tmp_path_factory.getbasetemp() / "one-process")


def tables(directory):
    """The study's tables without what the machine's speed decides."""
    found = {}
    for path in sorted(pathlib.Path(directory).glob("*.csv")):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and set(analysis.TIMING) <= set(rows[0])
        found[path.name] = [{k: v for k, v in row.items() if k not in analysis.TIMING} for row in rows]
    assert len(found) == 6 and "val_loss" in found["mirror-trials.csv"][0]
    return found


def begun_run(directory, process, epoch=2):
    """Wait until a run has so many epochs behind it and is not finished: its directory."""
    while process.poll() is None:
        for checkpoint in pathlib.Path(directory).glob(f"runs/*/checkpoints/epoch-{epoch:04d}.npz"):
            return checkpoint.parents[1]
        time.sleep(0.005)
    raise AssertionError(f"the study ended by itself: {process.communicate()[1][-3000:]}")


def first_row(run):
    return (run / "history.csv").read_text().splitlines()[1]


def test_a_study_leaves_tables_figures_a_page_and_says_what_it_is_made_of(one_process):
    runs = sorted(path.name for path in (one_process / "runs").iterdir() if path.is_dir())
    assert len(runs) == 8  # plain, flip, early, again, without dropout; two seeds each; again is early
    metrics = json.loads((one_process / "metrics.json").read_text())
    assert sorted(metrics["runs"]) == runs
    assert metrics["runs"][runs[0]]["recipe"]["precision"] == "float32"
    assert metrics["environments"][0]["threads"] == runner.THREADS
    assert "Trained in float32 on " in (page := (one_process / "index.html").read_text()) and "(8 runs)" in page
    rest = metrics["experiments"]["rest"]
    assert [row["variation"] for row in rest["rows"]] == ["plain", "early", "again"]
    early = [trial for trial in rest["trials"] if trial["variation"] == "early"]
    assert [trial["run"] for trial in early] == [t["run"] for t in rest["trials"] if t["variation"] == "again"]
    assert all(trial["train_images"] == 60 and trial["epochs"] <= 5 for trial in early)
    # The table's numbers follow from the trials'.
    plain = rest["rows"][0]
    values = [trial["val_accuracy"] for trial in rest["trials"] if trial["variation"] == "plain"]
    assert plain["val_accuracy"] == pytest.approx(np.mean(values))
    assert plain["val_accuracy_spread"] == pytest.approx(np.std(values, ddof=1))
    assert plain["gap"] == pytest.approx(plain["train_accuracy"] - plain["val_accuracy"])
    assert plain["seconds"] > 0 and plain["images_per_second"] > 0
    page = (one_process / "index.html").read_text()
    assert rest["reading"][0].split(";")[0].replace("'", "&#39;") in page
    for name in ("mirror-accuracy", "mirror-epochs-and-seconds", "rest-curves", "dropout-learning-rate"):
        assert (one_process / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(one_process.glob("runs/*/checkpoints"))


def test_only_what_was_chosen_and_the_baseline_go_on_test(one_process):
    wanted, tested, trained = set(), set(), set()  # runs, as two experiments may share one
    for experiment in json.loads((one_process / "metrics.json").read_text())["experiments"].values():
        to_test = (experiment["chosen"], experiment["baseline"])
        wanted |= {t["run"] for t in experiment["trials"] if t["variation"] in to_test}
        tested |= {t["run"] for t in experiment["trials"] if t["test_accuracy"] is not None}
        trained |= {t["run"] for t in experiment["trials"]}
        rows = {row["variation"]: row["val_accuracy"] for row in experiment["rows"]}
        assert rows[experiment["chosen"]] == max(rows.values())
    assert wanted == tested < trained
    for run in tested:
        scores = json.loads((one_process / "runs" / run / "metrics.json").read_text())["test"]
        assert all(row["name"].startswith("test") for row in scores["top_losses"])


def test_the_table_s_differences_are_the_variation_s_minus_the_baseline_s(one_process):
    tested = 0
    for experiment in json.loads((one_process / "metrics.json").read_text())["experiments"].values():
        of = {row["variation"]: [] for row in experiment["rows"]}
        for trial in experiment["trials"]:
            of[trial["variation"]].append(trial["val_accuracy"])
        for row in experiment["rows"]:
            if row["difference"] is not None:
                expected = np.mean(of[row["variation"]]) - np.mean(of[experiment["baseline"]])
                assert row["difference"] == pytest.approx(expected)
                tested += 1
    assert tested >= 3


def test_several_comparisons_of_a_study_are_corrected(monkeypatch, tmp_path):
    accuracies = {"plain": [0.5, 0.52, 0.51], "a": [0.6, 0.63, 0.6], "b": [0.55, 0.56, 0.57], "lost": [0.4, 0.4, None]}
    variations = tuple(dataclasses.replace(PLAIN, name=name, train_images=i + 1) for i, name in enumerate(accuracies))
    contrasts = (("a", "b"), ("lost", "a"))
    experiment = Experiment("made up", "?", variations, "plain", (0, 1, 2), contrasts=contrasts)
    study = Study(tmp_path, (experiment,), images="toy:image_set")
    for variation in variations:
        for seed in experiment.seeds:
            accuracy, learnt = accuracies[variation.name][seed], 0.7 if variation.name == "b" else 0.9
            outcome = {"val_accuracy": accuracy, "val_loss": 1.0, "train_accuracy": learnt, "gap": 0.1}
            outcome = outcome if accuracy else {"diverged": "of made up reasons"}
            study.run_of(Trial(variation, seed)).record(outcome=outcome)
    found = analysis.analyse(study, experiment)
    rows = found["rows"]
    assert rows[1]["difference"] == pytest.approx(0.1) and rows[2]["difference"] == pytest.approx(0.05)
    p = [stats.ttest_rel(accuracies[name], accuracies["plain"]).pvalue for name in ("a", "b")]
    assert [row["p"] for row in rows[1:3]] == pytest.approx(p)
    low, high = 2 * min(p), max(2 * min(p), max(p))
    assert [row["p_corrected"] for row in rows[1:3]] == pytest.approx([low, high] if p[0] < p[1] else [high, low])
    # The pairs that were asked for are compared with one another, and corrected among themselves.
    first, lost = found["contrasts"]
    assert (first["variation"], first["against"], first["difference"]) == ("a", "b", pytest.approx(0.05))
    assert first["p_corrected"] == first["p"] == pytest.approx(stats.ttest_rel(accuracies["a"], accuracies["b"]).pvalue)
    assert lost["difference"] is lost["p"] is rows[3]["val_accuracy"] is None
    told = reading.read_contrasts(found["contrasts"])
    assert "'a' against 'b' (+5.0 points" in told and "lost" not in told
    assert ("left open: 'a'" in told) == (first["p"] >= 0.05)
    # What learnt less of its training images is named, unless it is shown to be better all the same.
    shown = rows[2]["p_corrected"] < 0.05
    assert (found["remark"] is None) == shown
    less = {**found, "rows": [row | {"difference_low": -1, "difference": 0} for row in rows]}
    assert "with 'plain' (90%) are learnt with 'b' (70%): what" in reading.unlearnt(less)


def test_the_hparams_dashboard_finds_settings_and_results(one_process):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    top = EventAccumulator(str(one_process / "runs")).Reload()
    assert "hparams" in {m.plugin_data.plugin_name for m in top.summary_metadata.values()}
    run = next(path for path in (one_process / "runs").iterdir() if path.is_dir())
    logs = EventAccumulator(str(run / "tensorboard" / "hparams")).Reload()
    assert {"outcome/val_accuracy", "outcome/gap"} <= set(logs.Tags()["tensors"])
    (content,) = logs.summary_metadata["_hparams_/session_start_info"].plugin_data.content,
    assert b"learning_rate" in content and b"dropout" in content


def test_killed_with_minus_9_two_processes_share_what_is_left(one_process, tmp_path):
    killed = run_python(RUN, tmp_path)
    while not list(tmp_path.glob("runs/*/model.keras")) and killed.poll() is None:
        time.sleep(0.005)
    interrupted = begun_run(tmp_path, killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    finished = [path for path in tmp_path.glob("runs/*/metrics.json") if "outcome" in json.loads(path.read_text())]
    assert finished and interrupted / "metrics.json" not in finished
    before = {path.parent: path.parent.joinpath("model.keras").stat().st_mtime_ns for path in finished}
    row = first_row(interrupted)

    both = [run_python(RUN, tmp_path) for _ in range(2)]
    for process in both:
        finish(process)
    assert tables(tmp_path) == tables(one_process)
    assert first_row(interrupted) == row  # its seconds, too: the epoch was not run again
    for run, time_written in before.items():
        assert run.joinpath("model.keras").stat().st_mtime_ns == time_written
    trainers = {}  # TensorBoard's files have the number of the process in their names
    for run in (tmp_path / "runs").iterdir():
        if run.is_dir():
            trainers[run] = {path.name.split(".")[-3] for path in run.glob("tensorboard/validation/*")}
    own = {str(process.pid) for process in both}
    assert len(trainers) == 8 and set.union(*trainers.values()) == {str(killed.pid), *own}
    assert all(len(pids) == 1 for run, pids in trainers.items() if run != interrupted)
    assert len(trainers[interrupted]) == 2


def test_identical_trials_share_a_run_and_others_do_not(tmp_path):
    study = toy_study(tmp_path)
    trial = Trial(PLAIN, 0)
    same = dataclasses.replace(PLAIN, name="other name", options={"dropout": 0.2}, train_images=120, group="x")
    assert trial.key(study.image_set) == Trial(same, 0).key(study.image_set)
    for other in (
        Trial(PLAIN, 1),
        Trial(dataclasses.replace(PLAIN, train_images=60), 0),
        Trial(dataclasses.replace(PLAIN, options={"dropout": 0.1}), 0),
        Trial(dataclasses.replace(PLAIN, recipe=dataclasses.replace(RECIPE, epochs=3)), 0),
    ):
        assert other.key(study.image_set) != trial.key(study.image_set)
    assert len(study.missing()) == 8 and len(study.missing(["mirror"])) == 4


def test_draws_are_stratified_and_nested_and_leave_test_alone(toy_set):
    def names(count, seed):
        images = Trial(dataclasses.replace(PLAIN, train_images=count, val_images=9), seed).images(toy_set)
        assert np.bincount(images.train.labels).tolist() == [count // 3] * 3
        assert np.bincount(images.val.labels).tolist() == [3] * 3
        assert images.test is toy_set.test
        return set(images.train.names), set(images.val.names)

    small, large = names(30, 0), names(60, 0)
    assert small[0] < large[0] and small[1] == large[1]
    assert names(30, 1)[0] != small[0] and names(30, 1)[1] == small[1]
    with pytest.raises(UserError, match="999 images were asked for and there are 120"):
        names(999, 0)


def test_a_trial_that_another_process_is_at_is_passed_over(tmp_path, toy_set):
    from tfproject.training.run import held

    study = toy_study(tmp_path)
    trial = study.missing()[0]
    with held(study.run_of(trial).directory / ".trial-lock"):
        assert run_trial(study, trial) is False
    assert study.outcome(trial) is None


def test_divergence_is_a_result_and_has_no_mean(tmp_path):
    wild = dataclasses.replace(PLAIN, name="wild", recipe=dataclasses.replace(RECIPE, learning_rate=1e20, epochs=1))
    calm = dataclasses.replace(PLAIN, recipe=dataclasses.replace(RECIPE, epochs=1))
    study = Study(tmp_path, (Experiment("e", "How fast?", (calm, wild), "plain", (0, 1)),), images="toy:image_set")
    page = run_study(study, progress=False)
    rows = json.loads((tmp_path / "metrics.json").read_text())["experiments"]["e"]
    assert rows["rows"][1]["diverged"] == 2 and rows["rows"][1]["val_accuracy"] is None
    assert rows["reading"][1] == "Training diverged for 'wild' with 2 of 2 seeds."
    assert "2 of 2 diverged" in page.read_text()
    outcomes = [json.loads(path.read_text())["outcome"] for path in tmp_path.glob("runs/*/metrics.json")]
    told = [outcome.get("diverged", "") for outcome in outcomes]
    assert sum(map(bool, told)) == 2 and not any(str(tmp_path) in text for text in told)  # it is published
    assert study.missing() == []


def row(name, difference=None, low=None, high=None, p=None, diverged=0, accuracy=0.7):
    return {
        "variation": name, "seeds": 3, "diverged": diverged, "val_accuracy": accuracy,
        "val_accuracy_low": accuracy - 0.01, "val_accuracy_high": accuracy + 0.01,
        "difference": difference, "difference_low": low, "difference_high": high,
        "p_corrected": p,
    }  # fmt: skip


def test_the_reading_claims_what_the_interval_shows_and_no_more():
    rows = [
        row("base"),
        row("better", 0.05, 0.03, 0.07, 0.01, accuracy=0.75),
        row("worse", -0.05, -0.07, -0.03, 0.02, accuracy=0.65),
        row("unclear", 0.08, -0.02, 0.18, 0.2, accuracy=0.78),
        row("not after correction", 0.02, 0.001, 0.04, 0.09),
    ]
    first, second = read({"baseline": "base", "chosen": "unclear", "rows": rows})
    assert "'unclear', 78.0% (95 % interval 77.0% to 79.0%) over 3 seeds" in first
    assert "above the baseline 'base' is shown 'better' (+5.0 points, +3.0 to +7.0)" in first
    assert "below it is shown 'worse' (-5.0 points" in first
    assert "'unclear'" not in first.split(";")[1] and "not after correction" not in first
    assert second.startswith("These seeds leave open") and "'unclear' (+8.0 points, -2.0 to +18.0)" in second
    assert "not after correction" in second and "better" not in second
    first, second = read({"baseline": "base", "chosen": "base", "rows": rows[:1] + rows[3:4]})
    assert first.endswith("no variation is shown to differ from the baseline 'base'.")
    first, second = read({"baseline": "base", "chosen": "better", "rows": rows[:2]})
    assert second == "No difference to the baseline is left open."


def test_mistakes_in_an_experiment_are_told():
    for arguments, words in [
        ({"variations": (PLAIN, PLAIN)}, "two variations 'plain'"),
        ({"baseline": "nothing"}, "it must be one of its variations: plain"),
        ({"seeds": (3,)}, "at least two"),
    ]:
        with pytest.raises(UserError, match=words):
            Experiment(**{"name": "e", "question": "?", "variations": (PLAIN,), "baseline": "plain"} | arguments)
    with pytest.raises(UserError, match="no option 'depth'; it has: dropout"):
        dataclasses.replace(PLAIN, options={"depth": 3}).all_options  # noqa: B018


def test_combining_takes_what_each_changes():
    regularised = dataclasses.replace(PLAIN, recipe=dataclasses.replace(RECIPE, weight_decay=0.1))
    smaller = dataclasses.replace(PLAIN, options={"dropout": 0.4})
    both = PLAIN.combined_with([regularised, smaller], "both")
    assert both.changes(PLAIN) == {"weight_decay": 0.1, "dropout": 0.4}


@pytest.mark.parametrize("profile", task2_experiments.PROFILES)
def test_the_six_studies_are_well_made(profile):
    studies = task2_experiments.experiments(profile)
    assert tuple(e.name for e in studies) == task2_experiments.EXPERIMENTS
    for experiment in studies:
        assert len(experiment.seeds) >= (2 if profile == "quick" else 3) and len(experiment.variations) >= 2
        assert set(experiment.published) <= {v.name for v in experiment.variations}
        for variation in experiment.variations:
            assert "auto" not in (variation.recipe.precision, variation.recipe.jit_compile)
            assert variation.all_options["width"] > 0
    other = task2_experiments.experiments(profile, "mixed_bfloat16")
    assert {v.recipe.precision for e in other for v in e.variations} == {"mixed_bfloat16"}
    if profile == "cpu":
        batch_size = {v.name: v.recipe.learning_rate for v in studies[1].variations}
        assert batch_size["512"] == batch_size["128"] == batch_size["512, scaled"] / 4
        assert studies[5].published == task2_experiments.PUBLISHED


def test_numbers_of_cifar10_stand_beside_nothing_else(monkeypatch, tmp_path):
    published = {}
    monkeypatch.setattr(
        "tfproject.experiments.run_study",
        lambda study, **_: published.update({study.image_options["name"]: study.experiments[5]}),
    )
    monkeypatch.setattr(task2_experiments, "_check_sizes", lambda *_: None)  # which reads the images
    for name in ("real", "cifar10", "synthetic", str(tmp_path)):
        task2_experiments.run_task(name, "cpu", tmp_path)
    assert published["cifar10"].published and published["cifar10"].remark
    assert len(published) == 3 and sum(bool(each.published or each.remark) for each in published.values()) == 1


def test_a_set_that_is_too_small_for_the_profile_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match=r"wants 10,000 images of .* 'train', which has 1,125; choose --profile quick"):
        task2_experiments.run_task("synthetic", "cpu", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_the_end_of_a_study_is_one_process_s(monkeypatch, tmp_path):
    from tfproject.training import run

    monkeypatch.setattr(run, "POLL_SECONDS", 0.05)
    order, waits = [], threading.Event()

    def second():
        waits.set()
        with run.held_when_free(tmp_path / ".end-lock"):
            order.append("second")

    with run.held(tmp_path / ".end-lock"):
        other = threading.Thread(target=second)
        other.start()
        waits.wait()
        time.sleep(0.3)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_best_together_holds_the_cures_whose_gain_is_shown():
    cures = task2_experiments.experiments("cpu")[4]
    results = [(v, [0.40, 0.41, 0.42]) for v in cures.variations]
    gains = {"dropout": [0.45, 0.46, 0.48], "weight decay": [0.43, 0.445, 0.45], "more data": [0.7, 0.71, 0.725]}
    results = [(v, gains.get(v.name, accuracies)) for v, accuracies in results]
    together = cures.follow_up(results)
    assert together.changes(cures.variations[0]) == {"weight_decay": 0.05, "dropout": 0.3}


def test_publishing_copies_what_there_is_now(one_process, tmp_path):
    goal = tmp_path / "results"
    goal.mkdir()
    (goal / "old-curves.png").write_bytes(b"")
    assert task2_experiments.publish(one_process, goal) == goal
    copied = {path.name for path in goal.iterdir()}
    assert {"index.html", "metrics.json", "mirror.csv", "mirror-trials.csv", "mirror-accuracy.png"} <= copied
    assert "old-curves.png" not in copied
    with pytest.raises(UserError, match="no finished study"):
        task2_experiments.publish(tmp_path / "nothing", goal)


def test_what_was_published_is_not_run_again_unless_its_model_is_needed(one_process, tmp_path, monkeypatch):
    results, seen = task2_experiments.publish(one_process, tmp_path / "results"), []
    studies = toy_study(tmp_path).experiments
    monkeypatch.setattr(task2_experiments, "experiments", lambda *asked: seen.append(asked) or studies)
    monkeypatch.setattr(task2_experiments, "EXPERIMENTS", ("mirror", "rest", "dropout"))
    monkeypatch.setattr(Study, "image_set", property(lambda self: toy.image_set()))
    trained = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *args, **kw: trained.append(args[3].name) or fit(*args, **kw))
    task2_experiments.run_task("toy", "cpu", tmp_path / "again", only=["mirror", "rest", "dropout"], reuse=results)
    assert not trained and tables(tmp_path / "again") == tables(one_process)
    assert seen == [("cpu", "float32")]  # as those that were published, whatever the profile has

    noisy = toy_study(tmp_path)
    noisy = dataclasses.replace(noisy.experiments[2], noise_scale=128)
    monkeypatch.setattr(task2_experiments, "experiments", lambda *asked: (noisy,))
    task2_experiments.run_task("toy", "cpu", tmp_path / "again", only=["dropout"], reuse=results)
    assert len(trained) == 4  # plain and without dropout, from both seeds
    before, after = (
        {path.parent.name: json.loads(path.read_text()) for path in directory.glob("runs/*/metrics.json")}
        for directory in (one_process, tmp_path / "again")
    )
    for name, measured in after.items():
        assert ("noise_scale" in measured) == (name in trained)
        assert measured["outcome"] == before[name]["outcome"] and measured.get("test") == before[name].get("test")
    with pytest.raises(UserError, match="no runs of a published study"):
        task2_experiments.run_task("toy", "cpu", tmp_path / "other", reuse=tmp_path)


def test_the_custom_cnns_options_change_what_they_say():
    from tfproject import models

    usual = models.custom_cnn((32, 32, 3), 10)
    after = models.custom_cnn((32, 32, 3), 10, norm_after_activation=True)
    small = models.custom_cnn((32, 32, 3), 10, width=0.25)
    order = [layer.name for layer in after.layers]
    assert order.index("block1_conv1_norm") == order.index("block1_conv1_relu") + 1
    assert after.count_params() == usual.count_params()
    assert sum(int(np.prod(w.shape)) for w in usual.trainable_weights) == 551_466
    assert small.get_layer("block3_conv2").filters == 32 and small.count_params() < usual.count_params() / 14


def made_up(experiment):
    """An analysis as that of a finished experiment, each variation a point better than the one before."""
    rows = []
    for i, variation in enumerate(experiment.variations):
        accuracy = 0.6 + 0.01 * i
        rows.append(dict.fromkeys(analysis.COLUMNS))
        rows[-1] |= row(variation.name, 0.01 * i, 0.005, 0.02, 0.04, accuracy=accuracy)
        rows[-1] |= {
            "changes": "", "train_accuracy": 0.995, "gap": 0.395 - 0.01 * i, "test_accuracy": accuracy,
            "test_accuracy_low": accuracy - 0.02, "test_accuracy_high": accuracy + 0.02, "noise_scale": 1000 + i,
            "published_test_accuracy": experiment.published.get(variation.name), "train_images": 100 * (i + 1),
            "steps": 450 + i, "val_loss": 3.0,
        }  # fmt: skip
    if experiment.follow_up:
        rows.append(rows[-1] | {"variation": "best together", "changes": "dropout 0.3", "gap": 0.1})
    shared = "variation", "val_accuracy", "val_loss", "noise_scale"
    trials = [{key: row[key] for key in shared} | {"diverged": False} for row in rows]
    return {"baseline": experiment.baseline, "chosen": rows[-1]["variation"], "rows": rows, "trials": trials}


@pytest.mark.parametrize(
    "name, words",
    [
        ("batch-size", "means from 1,000 images for '32' to 1,010 for '1024, scaled'"),
        ("overfit", "over 99% on the training images and a gap of over 20 points, was reached with 500 images: 99.5%"),
        ("overfit", "All sizes had about as many steps: 450 to 454."),
        ("cures", "is 39.5 points without a cure and 10.0 with these, by +0.0 points of accuracy in training and +7.0"),
        ("cures", "Early stopping looks at"),
        ("reproduction", "none 60.0% against 78.6%; BatchNorm 61.0% against 84.7%"),
    ],
)
def test_remarks_are_made_from_the_numbers(name, words):
    experiment = next(e for e in task2_experiments.experiments("cpu") if e.name == name)
    assert words in experiment.remark(made_up(experiment))


def test_cures_are_judged_by_the_loss_on_validation_too():
    cures = task2_experiments.experiments("cpu")[4]
    found = made_up(cures)
    next(row for row in found["rows"] if row["variation"] == "label smoothing")["changes"] = "label_smoothing 0.1"
    losses = {"nothing": (3.0, 3.1, 2.9), "dropout": (1.5, 1.7, 1.4), "label smoothing": (1.5, 1.7, 1.4),
              "weight decay": (3.2, 2.9, 3.0)}  # fmt: skip
    found["trials"] = [{"variation": name, "val_loss": loss} for name, own in losses.items() for loss in own]
    told = cures.remark(found)
    change = compare(losses["dropout"], losses["nothing"])
    assert change.p < 0.025
    interval = f"{change.mean:+.2f}, {change.low:+.2f} to {change.high:+.2f}"
    assert f"lower it is with 'dropout' ({interval}) (corrected" in told


def test_figures_show_published_results_and_what_diverged():
    from tfproject.report import experiment_figures, figures

    numbers = made_up(task2_experiments.experiments("cpu")[5])
    lost = dict.fromkeys(analysis.COLUMNS) | {"variation": "wild", "diverged": 3, "seeds": 3}
    numbers["rows"].append(lost)
    figure = experiment_figures.accuracy(numbers["rows"], numbers["trials"], "none")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "wild"
    assert "published (test, best epoch by test)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "3 of 3 seeds diverged" in [text.get_text() for text in axes.texts]
    assert axes.get_xlim()[0] <= 0.6 and axes.get_xlim()[1] >= 0.847
    groups = {"with": [(0.01, 0.6, 0.55, 0.65), (0.1, None, None, None)], "without": [(0.1, 0.5, None, None)]}
    lines = experiment_figures.lines(groups, "learning rate")
    assert [text.get_text() for text in lines.axes[0].get_xticklabels()] == ["0.01", "0.1"]
    assert figures.to_png_bytes(lines).startswith(b"\x89PNG")
