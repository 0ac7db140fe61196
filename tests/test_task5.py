import dataclasses
import json
import zlib

import numpy as np
import pytest

from tfproject import data as image_sets
from tfproject import training
from tfproject.data.image_set import ImageSet, Origin, Split
from tfproject.errors import UserError
from tfproject.tasks import task5_analysis, task5_page
from tfproject.tasks import task5_eurosat as task5
from tfproject.tasks.interpretation import Extent
from tfproject.training import fitting

SMALL = dataclasses.replace(
    task5.PROFILES["quick"],
    changes={"epochs": 1, "batch_size": 30, "precision": "float32", "jit_compile": False},
    network={"widths": (8, 8, 8, 8)}, train_images=60, val_images=None, trials=2, rungs=((30, 1),),
    vgg16_options={"width": 0.0625, "depth": 1, "head": ()}, corrupted_images=9,
    vgg16_changes={"epochs": 1, "batch_size": 30, "precision": "float32", "jit_compile": False},
)  # fmt: skip
CHOOSING = ("search", "preparation", "steps")


class Guarded(Split):
    """Test tiles that may be looked at only while `opened`."""

    opened = True

    def __getattribute__(self, name):
        if name in ("images", "labels", "digests") and not Guarded.opened:
            raise AssertionError("a test tile was looked at")
        return super().__getattribute__(name)


def tiles():
    """Three classes of 32x32 noise, each brighter in a channel of its own."""
    random = np.random.default_rng(0)

    def split(kind, name, count):
        labels = np.arange(count) % 3
        images = random.integers(0, 120, (count, 32, 32, 3)).astype(np.uint8)
        images[np.arange(count), :, :, labels] += 60
        return kind(images, labels.astype(np.int64), tuple(f"{name}_{i}.png" for i in range(count)))

    splits = {"train": split(Split, "train", 90), "val": split(Split, "val", 30), "test": split(Guarded, "test", 30)}
    return ImageSet("toy", ("red", "green", "blue"), splits, Origin("Noise with a tint", synthetic=True))


def darker():
    """The same under the same names, one value of one pixel less."""
    changed = tiles()
    changed.train.images[0, 0, 0, 0] ^= 1
    return changed


def fit_without_training(build_model, image_set, recipe, directory, **options):
    """A run such as `training.fit` leaves, its network untrained and its accuracies drawn by the recipe."""
    from tfproject.models import saved_models

    run, random = training.Run(directory), np.random.default_rng(zlib.crc32(json.dumps(recipe.to_json()).encode()))
    model = build_model(image_set.image_shape, len(image_set.class_names))
    rows = [{"epoch": 1, "seconds": 1.0, "images_per_second": 9.0}]
    rows[0] |= {name: random.uniform() for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    run.write("recipe.json", {"asked": recipe.to_json(), "recipe": recipe.to_json(), "network": {},
                              "data": {"sha256": image_set.fingerprint}})  # fmt: skip
    run.write("environment.json", {"seed": recipe.seed})
    run.write_history(rows)
    saved_models.save(model, run.model_path, image_set.class_names)
    kept = {"kept": rows[0], "kept_epoch": 1, "epochs": 1, "seconds": 1.0, "images": len(image_set.train)}
    run.record(training=kept | {"parameters": model.count_params(), "peak_memory_mb": 1})
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The whole task, killed once within a part: its directory, what it published then, and what was run how often."""
    root = tmp_path_factory.mktemp("task5")
    directory, early, ran = root / "run", root / "early", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(task5.PROFILES, "small", SMALL)
        patch.setattr(image_sets, "load", lambda *args, **options: tiles())
        patch.setattr("tfproject.report.readme.check", lambda root: None)
        patch.setattr("tfproject.report.readme.update", lambda root: None)
        _forget()

        def counted(part, do):
            def run(task):
                ran.append(part)
                if part == "spatial" and ran.count(part) == 1:
                    raise KeyboardInterrupt
                return do(task)

            return run

        patch.setattr(task5, "DO", {part: counted(part, do) for part, do in task5.DO.items()})
        with pytest.MonkeyPatch.context() as closed:
            task5.load_tiles("toy", "random", (("data_dir", None), ("on_bad_image", "list")))
            closed.setattr(Guarded, "opened", False)
            closed.setattr(task5_page, "write", lambda task: None)
            closed.setattr(training, "fit", fit_without_training)
            task5.run_task("toy", "small", directory, only=CHOOSING, progress=False)
        with pytest.raises(KeyboardInterrupt):
            task5.run_task("toy", "small", directory, progress=False)
        task5.run_task("toy", "small", directory, only=["random"], progress=False)
        task5.publish(directory, early)
        page = task5.run_task("toy", "small", directory, progress=False)
        assert page == directory / "report.html"
    _forget()
    return directory, early, ran


def _forget():
    task5.load_tiles.cache_clear()
    task5.load_choices.cache_clear()


def test_what_is_finished_is_not_done_again_and_nothing_was_chosen_by_test_tiles(finished):
    _, _, ran = finished
    # That no test tile is looked at while choosing, the fixture has shown: it would have failed.
    assert ran[:3] == list(CHOOSING)
    assert sorted(ran) == sorted([*task5.PARTS, "spatial"])


def test_each_part_is_asked_anew_by_what_it_depends_on(tmp_path, monkeypatch):
    monkeypatch.setattr(image_sets, "load", lambda *args, **options: tiles())
    _forget()

    def questions(size):
        return {part: task5.Task("toy", size, tmp_path).question(part) for part in task5.PARTS}

    before = questions(SMALL)
    monkeypatch.setattr(task5, "VGG16", dataclasses.replace(task5.VGG16, learning_rate=0.5))
    after, wider = questions(SMALL), questions(dataclasses.replace(SMALL, vgg16_options={"width": 0.5}))
    assert [part for part in task5.PARTS if after[part] != before[part]] == ["vgg16"]
    assert [part for part in task5.PARTS if wider[part] != after[part]] == ["vgg16"]
    assert all(questions(dataclasses.replace(SMALL, trials=3))[part] != before[part] for part in task5.PARTS)
    brain = questions(dataclasses.replace(SMALL, precision="mixed_bfloat16"))
    assert [part for part in task5.PARTS if brain[part] != after[part]] == list(CHOOSING)
    closer = questions(dataclasses.replace(SMALL, extent=Extent()))
    assert [part for part in task5.PARTS if closer[part] != after[part]] == ["analysis"]
    monkeypatch.setattr(image_sets, "load", lambda *args, **options: darker())
    _forget()
    assert all(questions(SMALL)[part] != after[part] for part in task5.PARTS)
    _forget()


def test_its_numbers_are_those_of_the_runs(finished):
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    from tfproject.evaluation import calibration
    from tfproject.evaluation.robustness import corrupt
    from tfproject.statistics import share

    directory, _, _ = finished
    metrics = json.loads((directory / "metrics.json").read_text())
    parts, labels = metrics["parts"], tiles().test.labels
    assert list(parts) == list(task5.PARTS) and metrics["data"]["synthetic"]
    random = parts["random"]
    for i, name in enumerate(random["runs"]):
        with np.load(directory / "runs" / name / "predictions.npz") as file:
            found = {key: file[key] for key in file}
        for views, key in (("1", "test"), ("8", "test_8_views")):
            assert random["test"][views]["accuracies"][i] == accuracy_score(labels, found[key].argmax(1))
        chosen = found["test" if random["views"] == 1 else "test_8_views"].argmax(1)
        told = parts["analysis"]["tests"][i]
        assert told["accuracy"] == accuracy_score(labels, chosen)
        assert told["kappa"] == pytest.approx(cohen_kappa_score(labels, chosen))
        assert told["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro", zero_division=0))
        for key in ("accuracy", "kappa", "macro_f1"):
            low, high = told[f"{key}_interval"]
            assert low <= told[key] + 0.02 and told[key] - 0.02 <= high
    assert metrics["test"]["accuracy"] == random["test"]["1"]["accuracies"][0]
    on_validation = {int(v): own["accuracy"]["mean"] for v, own in random["validation"].items()}
    assert on_validation[random["views"]] == max(on_validation.values())
    searched = [row for row in parts["search"]["rows"] if row["state"] == "finished"]
    best = max(searched, key=lambda row: (row["score"], -row["trial"]))
    assert parts["search"]["best"] == {name: best[name] for name in task5.SEARCHED}
    assert parts["search"]["rows"][0]["learning_rate"] == task5.LAND_COVER.learning_rate
    for name in (*random["runs"], *parts["spatial"]["runs"]):
        scored = json.loads((directory / "runs" / name / "metrics.json").read_text())
        for split in ("validation", "test"):
            shown = [row["name"] for row in scored[split]["top_losses"]]
            assert shown and all(image.startswith(split.removesuffix("idation")) for image in shown)
    with np.load(directory / "runs" / random["runs"][0] / "predictions.npz") as file:
        on_val, on_test = (file[s if random["views"] == 1 else f"{s}_8_views"] for s in ("validation", "test"))
    chosen = calibration.abstention_table(on_val, tiles().val.labels, on_test, labels)
    assert parts["analysis"]["abstention"] == json.loads(json.dumps(chosen))
    steps = parts["steps"]["gains"]
    assert steps[1]["gain"] == pytest.approx(steps[1]["accuracy"] - steps[0]["accuracy"])
    assert steps[-1]["step"] == "+ 8 views of a tile" and len(steps) == 3
    robust = {(row["corruption"], row["step"]): row for row in parts["preparation"]["robustness"]}
    trials = [t for t in parts["preparation"]["experiments"]["augmentation"]["trials"] if t["variation"] == "none"]
    networks = [task5.Run(directory / "runs" / trial["run"]).model for trial in trials]
    val = tiles().val.take(np.linspace(0, 29, 9).round().astype(int))
    worse = [corrupt(val.images, "blur", severity) for severity in range(1, 6)]
    hits = [network.predict(images, verbose=0).argmax(1) == val.labels for network in networks for images in worse]
    assert len(trials) == 2 and robust["blur", "none"]["accuracy"] == pytest.approx(np.mean(hits))
    for views, key in (("1", "test"), ("8", "test_8_views")):
        with np.load(directory / "runs" / "spatial-seed0" / "predictions.npz") as file:
            kappa = cohen_kappa_score(labels, file[key].argmax(1))
        (low, high), found = parts["spatial"]["test"][views]["kappa_interval"][0], parts["spatial"]["test"][views]
        assert found["kappa"] == [pytest.approx(kappa)] and low <= kappa <= high
    against = parts["analysis"]["vgg16"]["random"]
    accuracies = [parts["random"]["test"]["1"]["accuracies"][0], parts["vgg16"]["random"]["test"]["1"]["accuracies"][0]]
    assert against["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    assert parts["analysis"]["drop"]["seen_in_choosing"] == share(0, 30)  # here both splits are the same
    assert parts["analysis"]["drop"]["difference"]["difference"] == pytest.approx(
        parts["analysis"]["tests"][0]["accuracy"] - parts["analysis"]["drop"]["accuracy"]["spatial"]["share"]
    )
    drop = parts["analysis"]["drop"]["accuracy"]
    assert drop["random"]["count"] == drop["spatial"]["count"] == 30


def test_its_page_has_all_sections_and_says_what_is_missing(finished):
    directory, early, _ = finished
    page = (directory / "report.html").read_text()
    for heading in (*task5_page.HEADINGS.values(), "Result", "Augmentation", "Image size",
                    "The same changes step by step, on tiles as they are and of lower quality", "Doubtful labels",
                    "Bias", "Robustness", "From the random to the spatial split, class by class", "Conclusions",
                    "Limits", "Extensions"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert "is missing: it is not finished" not in page and "generated images" in page
    told = (early / task5.RESULTS / "report.html").read_text()
    assert "The part &#39;spatial&#39; is missing" in told and "a missing result on the spatial split" in told


def test_what_it_publishes_and_takes_again(finished, tmp_path, monkeypatch):
    from tfproject.evaluation import calibration
    from tfproject.models import saved_models

    directory, early, _ = finished
    goal = early / task5.RESULTS
    partly = json.loads((goal / "metrics.json").read_text())["parts"]
    assert list(partly) == ["exploration", *CHOOSING, "random"]
    assert not (early / "saved_models" / "eurosat_spatial.keras").exists()
    assert not list(goal.glob("figures/spatial-*")) and list(goal.glob("figures/random-*"))
    assert not list(goal.glob("**/model.keras"))

    monkeypatch.setattr("tfproject.report.readme.check", lambda root: None)
    monkeypatch.setattr("tfproject.report.readme.update", lambda root: None)
    task5.publish(directory, early)
    whole = json.loads((goal / "metrics.json").read_text())
    assert set(whole["parts"]) == set(task5.PARTS)
    for kind in task5.SAVED_AS.values():
        saved = saved_models.load(early / "saved_models" / f"{kind}.keras")
        assert saved.class_names == ("red", "green", "blue") and set(saved.card["scores"]) >= {"test", "test_8_views"}
        assert any("sure than it is right" in limit for limit in saved.card["limits"])  # which the analysis found
    one_view = whole["parts"]["analysis"]["one_view"]
    for kind, name in task5.SAVED_AS.items():  # of 99 % right answers, on validation and with one view
        card = json.loads((early / "saved_models" / f"{name}.json").read_text())
        with np.load(directory / "runs" / f"{kind}-seed0" / "predictions.npz") as file:
            wanted = calibration.choose_threshold(file["validation"], tiles().val.labels, 0.99)
            sure, right = file["test"].max(1).mean(), np.mean(file["test"].argmax(1) == tiles().test.labels)
            few = wanted is not None and (file["validation"].max(1) >= wanted).mean() < 0.9
        assert card["abstain_below"] == (None if few else wanted)
        assert one_view[kind]["calibration"]["confidence"]["before"] == pytest.approx(sure, abs=1e-4)
        assert one_view[kind]["calibration"]["right"]["share"] == right
    with pytest.raises(UserError, match="no finished part"):
        task5.publish(tmp_path / "nowhere", tmp_path)

    monkeypatch.setitem(task5.PROFILES, "small", SMALL)
    monkeypatch.setattr(image_sets, "load", lambda *args, **options: tiles())
    for place in (training, fitting):
        monkeypatch.setattr(place, "fit", lambda *args, **options: pytest.fail("a published run was trained again"))
    _forget()
    again = task5.run_task("toy", "small", tmp_path / "again", reuse=early, progress=False)
    assert json.loads((again.parent / "metrics.json").read_text()) == whole
    assert again.read_text() == (directory / "report.html").read_text()
    with monkeypatch.context() as patch:  # what is found anew stands instead of what the published card had
        patch.setattr(task5_page, "limits_found", lambda kind, parts: [f"Other words of {kind}."])
        patch.setattr(task5_page, "abstain_below", lambda kind, parts: None)
        task5.publish(again.parent, tmp_path / "reworded")
    for kind, name in task5.SAVED_AS.items():
        card = json.loads((tmp_path / "reworded" / "saved_models" / f"{name}.json").read_text())
        assert card["limits"] == [*task5.LIMITS, task5.SPLIT_LIMITS[kind], f"Other words of {kind}."]
        assert card["abstain_below"] is None
    for path in (tmp_path / "again" / "parts").iterdir():  # without them the runs are taken, where nothing trains
        path.unlink()
    (tmp_path / "runs-alone").mkdir()
    for name in ("runs", "search"):
        (tmp_path / "again" / name).rename(tmp_path / "runs-alone" / name)
    parts = [part for part in task5.PARTS if part not in ("exploration", "analysis")]
    task5.run_task("toy", "small", tmp_path / "runs-alone", only=parts, progress=False)
    again = json.loads((tmp_path / "runs-alone" / "metrics.json").read_text())["parts"]
    assert again == {part: whole["parts"][part] for part in parts}
    with pytest.raises(pytest.fail.Exception, match="trained again"):  # what was found of other tiles says nothing
        monkeypatch.setattr(image_sets, "load", lambda *args, **options: darker())
        _forget()
        task5.run_task("toy", "small", tmp_path / "darker", only=["random"], reuse=early, progress=False)
    assert not (tmp_path / "darker" / "search").exists()
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        task5.run_task("toy", "small", tmp_path / "runs-alone", only=["random"], progress=False)
    monkeypatch.setattr(image_sets, "load", lambda *args, **options: tiles())
    _forget()
    monkeypatch.setattr(task5, "VGG16_HEAD", dataclasses.replace(task5.VGG16_HEAD, learning_rate=0.5))
    with pytest.raises(pytest.fail.Exception, match="trained again"):  # nor what came after another first stage
        task5.run_task("toy", "small", tmp_path / "head", only=["vgg16"], reuse=early, progress=False)
    for asked, precision in ((None, "float32"), ("mixed_bfloat16", "mixed_bfloat16")):  # of those published, or asked
        monkeypatch.setattr("tfproject.tasks.task5_page.write", lambda task: task.size.precision)
        monkeypatch.setitem(task5.PROFILES, "small", dataclasses.replace(SMALL, precision="mixed_float16"))
        found = task5.run_task("toy", "small", tmp_path / "other", only=[], precision=asked, reuse=early)
        assert found == precision
    _forget()


def test_what_it_refuses(tmp_path):
    with pytest.raises(UserError, match="no part 'serach'"):
        task5.run_task("synthetic", "quick", tmp_path, only=["serach"])


def test_gains_are_paired_differences_to_the_step_before():
    rows = task5.gains({"a": [0.5, 0.6, 0.7], "b": [0.6, 0.72, 0.78], "c": [None, 0.7, 0.8], "d": [0.8, 0.8, 0.8]})
    assert [row["gain"] is None for row in rows] == [True, False, True, True]
    from scipy import stats

    expected = stats.ttest_rel([0.6, 0.72, 0.78], [0.5, 0.6, 0.7])
    assert rows[1]["gain"] == pytest.approx(0.1) and rows[1]["p"] == pytest.approx(expected.pvalue)
    assert rows[1]["p_corrected"] == rows[1]["p"]  # the only one that is tested
    assert rows[2]["accuracy"] is None and rows[3]["accuracy"] == pytest.approx(0.8)


def test_gains_are_corrected_over_all_steps():
    from scipy import stats

    accuracies = {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.72, 0.78], "c": [0.75, 0.8, 0.95]}
    p = [stats.ttest_rel(accuracies[b], accuracies[a]).pvalue for a, b in (("a", "b"), ("b", "c"))]
    low, high = 2 * min(p), max(2 * min(p), max(p))
    found = [row["p_corrected"] for row in task5.gains(accuracies)[1:]]
    assert found == pytest.approx([low, high] if p[0] < p[1] else [high, low])


def test_what_both_tests_have_is_compared_tile_by_tile():
    drawn = tiles()
    spatial = dataclasses.replace(drawn, splits={**drawn.splits, "test": drawn.test.take(range(0, 20))})
    labels = drawn.test.labels
    all_right, half = np.eye(3)[labels], np.eye(3)[np.where(np.arange(20) % 2, labels[:20], (labels[:20] + 1) % 3)]
    kinds = {"random": (drawn, all_right), "spatial": (spatial, half)}
    found = task5_analysis._same_tiles(kinds, drawn.class_names)
    assert (found["random"]["hits"], found["spatial"]["hits"], found["spatial"]["count"]) == (20, 10, 20)
    assert found["difference"]["difference"] == pytest.approx(0.5)  # the random split's less the spatial's
    assert [row["random"] for row in found["classes"]] == np.bincount(labels[:20]).tolist()


def test_what_a_region_costs_is_said_as_far_as_it_is_shown():
    found = {"views": 1, "difference": {"difference": 0.05, "low": 0.04, "high": 0.06}}
    shown = task5_page.spatial_words(found)
    assert shown.startswith("Not to have seen the test's region costs accuracy: 5.00 points (95 %")
    found["difference"] = {"difference": 0.005, "low": -0.01, "high": 0.02}
    assert "is not shown" in task5_page.spatial_words(found)
    found["difference"] = {"difference": -0.05, "low": -0.06, "high": -0.04}
    assert "does better" in task5_page.spatial_words(found)


def test_a_card_tells_both_splits_and_how_sure_the_network_is_with_one_view():
    share = {"share": 0.91, "low": 0.9, "high": 0.92, "hits": 91, "count": 100}
    classes = [{"class": name, "spatial_recall": share | {"share": own}} for name, own in (("a", 0.9), ("b", 0.6))]
    calibrated = {"temperature": 0.7, "before": 0.06, "after": 0.03, "right": share,
                  "confidence": {"before": 0.86, "after": 0.94}}  # fmt: skip
    row = {"wanted": 0.99, "threshold": 0.8, "validation": {"coverage": share | {"share": 0.95}},
           "test": {"coverage": share | {"share": 0.44}, "accuracy": share}}  # fmt: skip
    one = {"calibration": calibrated, "abstention": [row | {"wanted": 0.999}, row]}
    drop = {"views": 8, "classes": classes, "accuracy": {"random": share | {"share": 0.98}, "spatial": share}}
    parts = {"analysis": {"one_view": {"spatial": one}, "drop": drop}}
    limits = list(task5_page.limits_found("spatial", parts))
    assert "gets 91.0% right instead of the 98.0%" in limits[0] and "b, its worst class, 60.0%" in limits[0]
    assert "With one view" in limits[1] and "says 86.0% on average without" in limits[1]
    assert limits[1].endswith(": not sure enough without, too sure with it.")
    assert "below a probability of 0.800" in limits[2] and "it answers 44.00%" in limits[2]
    assert task5_page.abstain_below("spatial", parts) == 0.8
    row["validation"]["coverage"]["share"] = 0.85  # too few that still get an answer
    assert "does not abstain unless told to" in list(task5_page.limits_found("spatial", parts))[2]
    assert task5_page.abstain_below("spatial", parts) is None
    calibrated["confidence"]["after"] = 0.915  # within the interval of the accuracy
    assert "too sure" not in list(task5_page.limits_found("spatial", parts))[1]
    assert list(task5_page.limits_found("spatial", {})) == [] and task5_page.abstain_below("spatial", {}) is None


def test_that_it_is_not_harder_tiles_is_said_only_where_it_is_shown():
    share = {"share": 0.9, "low": 0.8, "high": 1.0, "count": 100}
    same = {"random": share, "spatial": share, "difference": {"difference": 0.08, "low": 0.06, "high": 0.1},
            "classes": [{"class": "a", "count": 100, "random": 90, "spatial": 82}]}  # fmt: skip
    drop = {"same_tiles": same, "training_tiles": {"random": 18_900, "spatial": 16_200}}
    (shown,) = task5_page._same_tiles_words(drop, places=True)
    assert "it is not harder test tiles; the training tiles lie elsewhere and are 14% fewer. Most lose a" in shown
    same["difference"]["low"] = -0.01
    (open_,) = task5_page._same_tiles_words(drop, places=True)
    assert "paired. Most lose a" in open_


def test_which_maps_pass_their_checks_is_said_for_all_methods_and_among_the_limits():
    found = {"story": [], "checked_images": 12, "methods": ["gradients", "gradcam"],
             "verdicts": {"gradients": "left open", "gradcam": "left open", "scorecam": "passes"}}  # fmt: skip
    noise = {"share": {"hits": 0}}

    def told():
        parts = {"analysis": {"attribution": found, "label_noise": noise}}
        return " ".join(task5_page._attribution_words(found)), " ".join(task5_page._limits(parts).text)

    words, limits = told()
    assert "gradients and gradcam (left open); scorecam (passes). None of the maps below passes" in words
    assert "by the maps of scorecam alone" in limits
    found["verdicts"] = {"gradients": "passes", "gradcam": "left open"}
    assert "Of the maps below those of gradients pass all" in told()[0]
    found["verdicts"]["gradients"] = "left open"
    assert "is not shown by any of the 2 methods" in told()[1]


def test_a_step_that_is_not_shown_to_gain_does_not_back_its_choice():
    row = {"step": "+ residual network", "gain": 0.04, "gain_low": -0.07, "gain_high": 0.16}
    assert "+4.00 points (-7.00 to +16.00)" in next(task5_page._unbacked([row]))
    assert not list(task5_page._unbacked([row | {"gain_low": 0.01}]))


def test_minutes_say_what_they_leave_out():
    frozen = {"recipe": {"frozen_until": "block3_pool"}, "earlier": []}
    assert task5_page.minutes_lack(frozen) == ", without the passes through its frozen layers"
    assert task5_page.minutes_lack({"recipe": {"frozen_until": None}, "earlier": [{}]}) == ""


def test_colour_shift_is_found_where_it_was_made():
    drawn, random = tiles(), np.random.default_rng(1)
    images = np.clip(random.normal(100, 10, (400, 1, 1, 3)) + np.zeros((1, 8, 8, 1)), 0, 255).round().astype(np.uint8)
    labels = np.arange(400) % 3
    moved = images.copy()
    moved[labels == 1, :, :, 2] += 20  # two standard deviations
    names = tuple(map(str, range(400)))
    splits = {"train": Split(images, labels, names), "test": Split(moved, labels, names)}
    assert task5_analysis.colour_shift(dataclasses.replace(drawn, splits=splits)) == pytest.approx([0, 2, 0], abs=0.25)


def test_the_prepared_network_with_its_defaults_is_the_network():
    from tfproject.models.land_cover import land_cover_cnn
    from tfproject.models.prepared import prepared_cnn

    shape, options = (32, 32, 3), {"widths": (8, 8, 8, 8)}
    plain, prepared = land_cover_cnn(shape, 3, **options), prepared_cnn(shape, 3, **options)
    prepared.set_weights(plain.get_weights())
    images = tiles().train.images[:4].astype("float32")
    np.testing.assert_allclose(prepared(images, training=False), plain(images, training=False), atol=1e-6)
    small = land_cover_cnn((16, 16, 3), 3, **options)
    shrunk = prepared_cnn(shape, 3, normalisation="0..1", shrink=2, **options)
    shrunk.set_weights(small.get_weights())
    means = images.reshape(4, 16, 2, 16, 2, 3).mean((2, 4))
    rescaled = 64 * (means / 255 + 1.6)  # what the network's own preprocessing makes pixels / 255 of
    np.testing.assert_allclose(shrunk(images, training=False), small(rescaled, training=False), atol=1e-5)
