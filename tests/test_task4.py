import json
import shutil

import numpy as np
import pytest

from tfproject import evaluation, models
from tfproject.data import audit, buildings, catalog, concatenate
from tfproject.data.image_set import ImageSet, Origin, Split
from tfproject.data.synthetic import write_buildings, write_city
from tfproject.errors import UserError
from tfproject.evaluation.unknown import unknown_scores
from tfproject.experiments.transfer import TransferStudy
from tfproject.models import saved_models, transferred
from tfproject.models.linear_svm import fit_linear_svm
from tfproject.report import transfer_figures
from tfproject.statistics import summarise
from tfproject.tasks import task4_page, task4_reading
from tfproject.tasks import task4_transfer as task4


def image_set(name, class_names, seed=0, **labels):
    """Photos of smooth noise: {split: labels}."""
    random = np.random.default_rng(seed)

    def split(split_name, of_split):
        small = random.integers(0, 255, (len(of_split), 6, 6, 3))
        images = np.kron(small, np.ones((1, 6, 6, 1))).astype(np.uint8)
        return Split(images, np.array(of_split, np.int64), tuple(f"{split_name}{i}.jpg" for i in range(len(of_split))))

    return ImageSet(name, class_names, {k: split(k, v) for k, v in labels.items()}, Origin(name, synthetic=True))


def test_the_union_of_two_sets_classes_keeps_what_each_photo_shows():
    first = image_set("home", ("hall", "unknown"), train=[0, 1], val=[1], test=[0, 1])
    second = image_set("away", ("hall", "tower"), seed=1, train=[1, 0, 1])
    both = concatenate(first, second)
    assert both.class_names == ("hall", "unknown", "tower")
    assert both.train.labels.tolist() == [0, 1, 2, 0, 2]
    assert (both.train.images[2:] == second.train.images).all() and len(both.test) == 2


def test_a_linear_svm_is_scikit_learns_and_its_cost_the_best_on_validation():
    from sklearn.datasets import load_iris
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    x, y = load_iris(return_X_y=True)
    train, val = slice(0, None, 2), slice(1, None, 2)
    costs = (1e-4, 1e-2, 1.0)
    svm = fit_linear_svm(x[train], y[train], (x[val], y[val]), costs, seed=3)
    scaler = StandardScaler().fit(x[train])
    theirs = {
        cost: LinearSVC(C=cost, dual="auto", max_iter=10_000, random_state=3).fit(scaler.transform(x[train]), y[train])
        for cost in costs
    }
    accuracies = {cost: their.score(scaler.transform(x[val]), y[val]) for cost, their in theirs.items()}
    assert svm.accuracies == pytest.approx(accuracies) and svm.cost == max(costs, key=accuracies.get)
    np.testing.assert_array_equal(svm.predict(x[val]), theirs[svm.cost].predict(scaler.transform(x[val])))
    probabilities = svm.probabilities(x[val], 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, 3:] == 0).all()
    np.testing.assert_array_equal(probabilities.argmax(axis=1), svm.predict(x[val]))
    two = y < 2
    binary = fit_linear_svm(x[two], y[two], costs=(1.0,))
    np.testing.assert_array_equal(binary.probabilities(x[two], 2).argmax(axis=1), y[two])
    with pytest.raises(UserError, match="at least two classes"):
        fit_linear_svm(x, np.zeros(len(x), int))


def test_test_photos_that_training_has_a_duplicate_of_are_left_out():
    images = image_set("home", ("a", "b"), train=[0, 1] * 10, val=[0, 1], test=[0, 1] * 5)
    test = images.test.images.copy()
    test[2] = images.train.images[4]  # identical
    test[5] = np.clip(images.train.images[7].astype(int) + 3, 0, 255)  # a little brighter
    test[8] = test[5]  # identical to what is nearly a training photo
    test[9] = images.val.images[0]  # training has not seen this one
    splits = {**images.splits, "test": Split(test, images.test.labels, images.test.names)}
    images = ImageSet("home", images.class_names, splits, images.origin)
    partners = buildings.duplicates_in(audit.audit(images))
    distinct = buildings.with_distinct(images, partners).splits["distinct"]
    assert set(images.test.names) - set(distinct.names) == {"test2.jpg", "test5.jpg", "test8.jpg"}
    assert len(images.test) == 10


def test_duplicates_beyond_those_that_are_listed_are_kept_out_too(monkeypatch):
    images = image_set("home", ("a", "b"), train=[0, 1] * 10, val=[0, 1], test=[0, 1] * 5)
    test = np.concatenate([images.train.images[:9], images.test.images[9:]])
    images = ImageSet(
        "home", images.class_names, {**images.splits, "test": Split(test, images.test.labels, images.test.names)},
        images.origin,
    )  # fmt: skip
    monkeypatch.setattr(audit, "LIST_LIMIT", 2)
    monkeypatch.setattr(buildings, "_read", lambda *_: images)
    buildings.duplicates.cache_clear()
    partners = buildings.duplicates("home")
    assert buildings.with_distinct(images, partners).splits["distinct"].names == ("test9.jpg",)
    buildings.duplicates.cache_clear()
    monkeypatch.setattr(audit, "PAIR_LIMIT", 0)
    with pytest.raises(UserError, match="too many to keep all of them out of the test"):
        buildings.duplicates("home")
    buildings.duplicates.cache_clear()


def test_the_largest_class_tells_how_much_longer_balance_takes():
    images = image_set("home", ("a", "b", "c"), train=[0] * 12 + [1] * 5 + [2] * 3)
    name, share, longer = task4.largest_class(images)
    assert (name, share) == ("a", 0.6)
    assert longer == pytest.approx(len(buildings.repeat_to_balance(images.train, 0)) / len(images.train))


def test_without_a_test_there_are_no_test_accuracies():
    ways = task4._ways(TINY, "weights.keras", None)
    assert all(variation.has_test for variation in task4._parts(TINY, ways).variations)
    assert not any(variation.has_test for variation in task4._parts_seventy_thirty(TINY, ways).variations)


def test_fewer_validation_photos_change_nothing_else():
    whole, fewer = (buildings.load("synthetic-buildings", 32, val_images=count) for count in (None, 5))
    assert len(fewer.val) == 5 < len(whole.val) and set(fewer.val.names) < set(whole.val.names)
    assert {n: s.names for n, s in fewer.splits.items() if n != "val"} == {
        n: s.names for n, s in whole.splits.items() if n != "val"
    }
    only_val = buildings.load("synthetic-buildings", 32, protocol="70/30", val_images=5)
    assert len(only_val.val) > 5  # which is what is scored


def test_draws_per_class_are_nested_and_balance_repeats_evenly():
    split = image_set("home", ("a", "b", "c"), train=[0] * 12 + [1] * 5 + [2] * 3).train
    few, more = (buildings.draw_per_class(split, count, seed=1) for count in (2, 4))
    assert np.bincount(few.labels).tolist() == [2, 2, 2] and np.bincount(more.labels).tolist() == [4, 4, 3]
    assert set(few.names) < set(more.names)
    assert set(few.names) != set(buildings.draw_per_class(split, 2, seed=2).names)
    balanced = buildings.repeat_to_balance(split, seed=1)
    assert np.bincount(balanced.labels).tolist() == [12, 12, 12] and set(balanced.names) == set(split.names)
    times = [balanced.names.count(name) for name in split.names]
    assert set(times[:12]) == {1} and set(times[12:17]) == {2, 3} and set(times[17:]) == {4}


def test_unknown_is_told_from_known_by_made_up_probabilities():
    # Classes a, b and unknown; every pair of an unknown and a known photo is counted by hand.
    probabilities = np.array([
        [0.9, 0.0, 0.1], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7],  # of a, b, b: the last is taken for unknown
        [0.2, 0.3, 0.5], [0.6, 0.1, 0.3],  # unknown
    ])  # fmt: skip
    labels = np.array([0, 1, 1, 2, 2])
    scores = unknown_scores(probabilities, labels, [0, 1])
    assert scores["known"] == 3 and scores["unknown"] == 2
    assert scores["known_accuracy"] == pytest.approx(2 / 3) and scores["known_accuracy_among_known"] == 1

    def auroc(rank):
        pairs = [(u > k) + 0.5 * (u == k) for u in rank[3:] for k in rank[:3]]
        return sum(pairs) / len(pairs)

    assert scores["auroc_least_sure"] == pytest.approx(auroc(1 - probabilities[:, :2].max(axis=1)))
    assert scores["auroc_own"] == pytest.approx(auroc(probabilities[:, 2]))
    assert scores["auroc_least_sure"] != scores["auroc_own"]
    assert unknown_scores(probabilities[:3], labels[:3], [0, 1])["auroc_own"] is None
    with pytest.raises(UserError, match="No class is known"):
        unknown_scores(probabilities, labels, [])


TINY = task4.Profile(
    seeds=(0, 1), small=32, large=32, middle=32, custom_epochs=1, output_epochs=1, tuned_epochs=1, cut_epochs=1,
    head_epochs=1, per_class=(3, None), longer={3: 1}, cuts=("block2_pool", "block4_pool"),
    network="tfproject.models.transferred:small_vgg",
    options={"width": 0.0625, "depth": 1, "head": (8,), "dropout": 0.5}, width=0.125, few=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def toy_cities(tmp_path_factory):
    """A folder with two toy cities, which the task "toy" knows in the profile "tiny"."""
    root = tmp_path_factory.mktemp("task4")
    home = str(write_buildings(root / "home", per_class=8, size=(40, 50)))
    away = str(write_city(root / "away", per_class=7, size=(40, 50)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(task4.PROFILES, "tiny", TINY)
        patch.setitem(task4.SETS, "toy", (home, away))
        patch.setattr(catalog, "BUILDING_SIZE", (32, 32))
        yield root


def forbid_training(patch):
    for name in ("_train", "_fit_svm"):
        patch.setattr(f"tfproject.experiments.transfer.{name}", lambda *args: pytest.fail("a trial ran twice"))


@pytest.fixture(scope="module")
def finished(toy_cities):
    """The parts and the learning curves, with the smallest of everything."""
    with pytest.MonkeyPatch.context() as patch:
        directory = toy_cities / "run"
        page = task4.run_task("toy", "tiny", directory, only=["learning-curves"], progress=False)
        assert page == directory / "report.html"
        forbid_training(patch)
        patch.setattr("tfproject.tasks.task4_page.write", lambda study, size, analyses: list(analyses))
        assert task4.run_task("toy", "tiny", directory, only=["parts"]) == ["parts", "learning-curves"]
    return directory


def test_its_numbers_are_those_of_the_runs(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    runs = {}
    for trial in metrics["experiments"]["parts"]["trials"]:
        runs.setdefault(trial["variation"], []).append(
            json.loads((finished / "runs" / trial["run"] / "metrics.json").read_text())
        )
    assert list(runs) == [
        task4.SCRATCH, task4.CONTINUED, task4.SOFTMAX, task4.SVM, task4.FLOOR, task4.FINE_TUNED, task4.WITH_CITY,
    ]  # fmt: skip
    for row in metrics["test"]["parts"]:
        own = runs[row["variation"]]
        assert row["distinct"]["mean"] == pytest.approx(np.mean([run["distinct"]["accuracy"] for run in own]))
        assert row["auroc_own"]["values"] == [run["distinct"]["unknown"]["auroc_own"] for run in own]
    left_out = metrics["data"]["left_out_of_test"]
    home, joint = (runs[name][0] for name in (task4.FINE_TUNED, task4.WITH_CITY))
    assert home["test"]["count"] - len(left_out) == home["distinct"]["count"] == joint["distinct"]["count"]
    assert len(home["test"]["class_names"]) == 13 and len(joint["test"]["class_names"]) == 20
    assert sum(sum(row) for row in joint["test"]["confusion"][13:]) == 0  # it is tested on the first city alone
    frozen = {layer.split("_")[0] for layer in home["frozen"]["layers"]}
    assert frozen == {"block1", "block2", "block3", "block4"}
    assert runs[task4.SOFTMAX][0]["frozen"]["layers"][-1] == "dense"
    distinct_runs = {t["run"] for found in metrics["experiments"].values() for t in found["trials"]}
    assert sum(row["runs"] for row in metrics["trained"]) == len(distinct_runs)
    assert all(row["precision"] == "float32" and row["seconds"] > 0 for row in metrics["trained"])
    curves = {(row["group"], row["train_images"]) for row in metrics["test"]["learning-curves"]}
    assert len(curves) == 4 and ("from scratch", 13 * 3) in curves


def test_trained_weights_are_taken_over_where_layers_fit(tmp_path):
    trained = models.custom_cnn((16, 16, 3), 10)
    saved_models.save(trained, tmp_path / "trained.keras", tuple("abcdefghij"))
    for size, new in ((16, {"classes"}), (32, {"dense", "classes"})):
        taken = transferred.custom_cnn_from((size, size, 3), 4, tmp_path / "trained.keras")
        for layer in taken.layers:
            if layer.weights and layer.name not in new:
                of_trained = trained.get_layer(layer.name).get_weights()
                for weight, expected in zip(layer.get_weights(), of_trained, strict=True):
                    np.testing.assert_array_equal(weight, expected)
        assert taken.output_shape == (None, 4)
        own = taken.get_layer("classes").get_weights()[0]
        assert not np.array_equal(own, trained.get_layer("classes").get_weights()[0][: len(own), :4])
    with pytest.raises(UserError, match="is no custom CNN of width 0.5"):
        transferred.custom_cnn_from((16, 16, 3), 4, tmp_path / "trained.keras", width=0.5)


def test_the_frozen_part_was_run_once_for_all_trials_that_share_it(finished):
    from tfproject.training.feature_store import RECORD

    # With random weights each seed has a frozen part of its own; in training and in testing it is the same one.
    of_cut = list(finished.glob("features/block4_pool-*"))
    assert len(of_cut) == 2
    for folder in of_cut:
        names = np.fromfile(folder / "index", RECORD)["name"]
        assert len(set(names.tolist())) == len(names)


@pytest.fixture
def a_readme_told(monkeypatch):
    told = []
    monkeypatch.setattr("tfproject.report.readme.check", lambda root: None)
    monkeypatch.setattr("tfproject.report.readme.update", told.append)
    return told


def test_it_is_published_into_the_repository_alone(finished, tmp_path):
    with pytest.raises(UserError, match="publish from the folder"):
        task4.publish(finished, tmp_path)


def test_its_page_and_what_it_publishes(finished, tmp_path, a_readme_told):
    page = (finished / "report.html").read_text()
    assert "look at the building" in page and "checked bit by bit" in page
    figures = {path.stem for path in finished.glob("figures/*.png")}
    assert {"parts", "photos", "learning-curves", "gradcam", "way1-curves", "way7-confusion"} <= figures
    header, *rows = (finished / "parts-test.csv").read_text().splitlines()
    assert header.startswith("variation,group,train_images") and len(rows) == 7
    goal = task4.publish(finished, tmp_path)
    assert goal == tmp_path / "results" / "task4-losses" and a_readme_told == [tmp_path]
    published = (goal / "report.html").read_text()
    assert 'src="figures/gradcam.png"' in published and "base64" in page and "base64" not in published
    assert len(list(goal.glob("runs/*/metrics.json"))) == len(list(finished.glob("runs/*/metrics.json")))
    assert any(goal.glob("runs/*/stage-1/history.csv")) and not any(goal.glob("**/*.keras"))
    with pytest.raises(UserError, match="no finished run of Task 4"):
        task4.publish(tmp_path, tmp_path)


@pytest.mark.usefixtures("a_readme_told")
def test_what_was_published_is_not_run_again(finished, tmp_path, monkeypatch):
    goal = task4.publish(finished, tmp_path)
    stale = goal / "runs" / "0123456789ab-seed0" / "metrics.json"
    stale.parent.mkdir()
    stale.write_text('{"outcome": {}}')
    forbid_training(monkeypatch)
    again = tmp_path / "again"
    shutil.copytree(finished / "objects", again / "objects")  # the first weights, which are part of the question
    page = task4.run_task("toy", "tiny", again, only=["learning-curves"], reuse=goal, progress=False)
    assert "look at the building" in page.read_text()
    assert json.loads((again / "metrics.json").read_text()) == json.loads((finished / "metrics.json").read_text())
    (finished_runs := tmp_path / "interrupted" / "runs").parent.mkdir()
    shutil.copytree(finished / "runs", finished_runs)
    task4.publish(finished_runs.parent, tmp_path)  # without a page there is nothing to take the place of what is there
    assert stale.exists() and (goal / "report.html").exists()
    task4.publish(again, tmp_path)
    assert not stale.exists() and (goal / "figures" / "gradcam.png").exists()
    with pytest.raises(UserError, match="holds no runs of a published Task 4"):
        task4.run_task("toy", "tiny", tmp_path / "third", reuse=tmp_path, progress=False)


def test_what_it_refuses(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no experiment 'cutz'"):
        task4.run_task("synthetic", "quick", tmp_path, only=["cutz"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="task1 --data real"):
        task4.run_task("real", "cpu", tmp_path)
    with pytest.raises(UserError, match="no protocol '60/40'"):
        buildings.load("synthetic-buildings", 32, protocol="60/40")


def test_the_order_is_explained_by_what_is_shown():
    accuracies = {
        task4.SCRATCH: [0.70, 0.71, 0.72], task4.CONTINUED: [0.70, 0.72, 0.71], task4.SOFTMAX: [0.45, 0.46, 0.48],
        task4.SVM: [0.46] * 3, task4.FLOOR: [0.85] * 3, task4.FINE_TUNED: [None] * 3,
    }  # fmt: skip
    parts = [
        {"variation": name, "distinct": {"mean": None if None in values else sum(values) / 3, "values": values}}
        for name, values in accuracies.items()
    ]
    rows = [{"variation": task4.SOFTMAX, "train_accuracy": 0.504}, {"variation": task4.SVM, "train_accuracy": 0.663}]
    features, continued, svm = task4_reading.explanation(
        {"test": {"parts": parts}, "experiments": {"parts": {"rows": rows}}}
    )
    assert features.startswith("CIFAR-10 features, softmax against from scratch: -24.7 points (-26.1 to -23.2): ")
    assert "new output layer gets only 50.4% right in the last epoch, and a linear SVM on the same features 66.3%" in (
        features
    )
    assert continued.endswith(" against from scratch: +0.0 points (-2.5 to +2.5): no difference is shown.")
    assert svm.startswith("VGG16 features, SVM against CIFAR-10 features, SVM: +39.0 points: the same classifier")


def told_sizes(large=192, middle=64, best_at_end=3):
    """What metrics.json holds where VGG16 sees photos of so many pixels a side."""
    accuracies = {
        "parts": {task4.SCRATCH: [0.70, 0.71, 0.72], task4.CONTINUED: [0.82, 0.81, 0.83],
                  task4.FINE_TUNED: [0.91, 0.90, 0.92]},
        "cuts": {"frozen to block1_pool": [0.83, 0.81, 0.82], "frozen to block4_pool": [0.77, 0.76, 0.78]},
    }  # fmt: skip
    test = {
        name: [{"variation": way, "scored_distinct": 699, "distinct": {"mean": sum(values) / 3, "values": values}}
               for way, values in of.items()]
        for name, of in accuracies.items()
    }  # fmt: skip
    scratch = {"variation": task4.SCRATCH, "train_accuracy": 0.868, "best_at_end": best_at_end}
    rows = [scratch | {"seeds": 3, "epochs": 20.0}, {"variation": task4.CONTINUED, "train_accuracy": 0.997}]
    return {
        "test": test, "pixels": {"small": 32, "middle": middle, "large": large},
        "experiments": {"parts": {"rows": rows}, "cuts": {"chosen": "frozen to block1_pool"}},
    }  # fmt: skip


def test_the_lead_of_vgg16_is_told_apart_by_image_size():
    sentences = list(task4_reading.explanation(told_sizes()))
    of_all, of_size, smaller, best = sentences[1:]
    assert of_all.startswith("VGG16, fine-tuned (at 192) against from CIFAR-10 weights: +9.0 points")
    assert of_all.endswith("(192 pixels a side, not 32): features and image size together, not told apart.")
    assert "against VGG16 at 64 pixels a side, frozen to block4_pool: +14.0 points: the same recipe" in of_size
    assert smaller.startswith("VGG16 at 64 pixels a side, frozen to block4_pool against from CIFAR-10 weights: -5.0 p")
    assert "frozen to block1_pool, the best cut on validation, against from CIFAR-10" in best
    limits = " ".join(task4_reading.limits(told_sizes()))
    assert "gets 91.0% at 192 pixels a side and 77.0% at 64" in limits
    alike = told_sizes(large=32, middle=32)
    assert not any("pixels" in s for s in (*task4_reading.explanation(alike), *task4_reading.limits(alike)))


def test_a_training_that_ended_too_soon_is_called_so():
    limits = " ".join(task4_reading.limits(told_sizes()))
    assert "still learning when it stopped: 86.8% of the training photos right in the last of 20 epochs" in limits
    ended = told_sizes(best_at_end=2)
    assert not any("still learning" in s for s in (*task4_reading.limits(ended), *task4_reading.explanation(ended)))


def on_test(name, rows):
    """What `on_test` makes of an experiment of two seeds: {(variation, group): (plain, balanced accuracies)}."""
    found = [
        {"variation": variation, "group": group}
        | {measure: {"mean": None if None in values else np.mean(values), "values": values}
           for measure, values in zip(task4_reading.MEASURES, measured)}
        for (variation, group), measured in rows.items()
    ]  # fmt: skip
    rows = [{"variation": row["variation"], "difference": 0.5, "p": 0.01} for row in found]
    return task4_reading.on_test({"name": name, "rows": rows, "reading": ["on validation"]}, found)


def test_balance_is_compared_with_the_same_without_it():
    made = on_test("balance", {
        ("a", ""): ([0.80, 0.81], [0.70, 0.71]), ("a, balanced", ""): ([0.81, 0.83], [0.75, 0.761]),
        ("b", ""): ([0.50, 0.52], [0.40, 0.42]), ("b, balanced", ""): ([0.44, 0.46], [None, 0.48]),
    })  # fmt: skip
    _, balanced, base, other = made["rows"]
    assert balanced["against"] == "a" and balanced["distinct_difference"] == pytest.approx(0.015)
    assert balanced["balanced_accuracy_difference"] == pytest.approx(0.0505)
    assert base["against"] is None and base["distinct_difference"] is None
    assert {row["difference"] for row in made["rows"]} == {None}
    assert other["balanced_accuracy_difference"] is None
    assert made["reading"][0].startswith("'a, balanced' against 'a': accuracy +1.5 points (-4.9 to +7.9; not shown); ")
    assert "balanced accuracy +5.1 points (+4.4 to +5.7; shown)" in made["reading"][0]
    assert "without comparison" in made["reading"][1] and made["reading"][-1] == task4_reading.ON_TEST


def test_learning_curves_are_compared_from_as_many_photos():
    made = on_test("learning-curves", {
        ("scratch, 5", "scratch"): ([0.3, 0.31], [0.35, 0.36]), ("scratch, all", "scratch"): ([0.7, 0.71], [0.7, 0.71]),
        ("VGG16, 5", "VGG16"): ([0.5, 0.51], [0.6, 0.6101]), ("VGG16, all", "VGG16"): ([0.9, 0.92], [0.91, 0.92]),
    })  # fmt: skip
    assert [row["against"] for row in made["rows"]] == [None, None, "scratch, 5", "scratch, all"]
    assert made["reading"][0] == (
        "VGG16 against scratch with as many photos, balanced accuracy: +25.0 points (+24.9 to +25.1; shown) with 5 a "
        "class, +21.0 points with all."
    )
    untouched = {"name": "cuts", "rows": [{"variation": "a"}]}
    assert task4_reading.on_test(untouched, []) is untouched


def test_what_differs_is_told_in_words():
    ways = task4._ways(task4.PROFILES["cpu"], "weights.keras", "paris")
    told = {name: task4_reading.differs_in(way, ways[task4.SCRATCH]) for name, way in ways.items()}
    assert told[task4.SCRATCH] == "" and told[task4.CONTINUED] == "from CIFAR-10's weights, a rate of 0.04"
    assert told[task4.FLOOR] == "VGG16 with ImageNet's weights, 192 pixels a side, linear SVM, frozen to block5_pool"
    assert told[task4.FINE_TUNED].endswith(
        "40 epochs frozen to block5_pool, not augmented, at a rate of 0.003, then 6 epochs frozen to block4_pool, "
        "augmented, at a rate of 0.00004"
    )
    assert "photos of another city in training" in told[task4.WITH_CITY]
    assert not any(sign in words for words in told.values() for sign in ("tfproject", "_conv", "[", "cifar10_"))


def test_the_remark_on_recipes_names_rates_epochs_and_augmentation():
    experiment = task4._recipes(task4.PROFILES["cpu"])
    rows = [{"variation": variation.name, "difference_low": None} for variation in experiment.variations]
    rows[2] |= {"difference": 0.302, "difference_low": 0.221, "difference_high": 0.383}
    remark = experiment.remark({"rows": rows, "baseline": experiment.baseline})
    assert "'all at once' 6 epochs frozen to block3_pool, augmented, at a rate of 0.00004;" in remark
    assert "at a rate of 0.003, of block4 0.000015, of block5 0.00004;" in remark
    assert "differs from it in rates alone, that of the new layers above all, which makes +30.2 points" in remark


def test_without_chance_of_the_seed_the_interval_is_that_of_the_photos():
    found = task4._over_seeds(summarise([0.5, 0.5]), 190)
    assert (found["low"], found["high"]) == (pytest.approx(0.4296, abs=1e-4), pytest.approx(0.5704, abs=1e-4))
    assert task4._over_seeds(summarise([0.5, 0.5]), None)["low"] is None
    assert task4._over_seeds(summarise([0.5, 0.6]), 190)["low"] == summarise([0.5, 0.6]).low


def test_losses_with_smoothed_labels_cannot_fall_below_the_labels_entropy():
    smoothed = np.full(13, 0.1 / 13) + np.eye(13)[0] * 0.9
    assert task4_page._least_loss(0.1, 13) == pytest.approx(-(smoothed * np.log(smoothed)).sum())
    assert task4_page._least_loss(0.0, 13) == 0


def test_curves_mark_the_stages_and_show_a_wide_range_of_losses():
    rest = {"accuracy": [0.1] * 3, "val_accuracy": [0.1] * 3, "val_loss": [2.0, 1.5, 1.2]}

    def loss(first):
        histories = {"a": [rest | {"loss": [first, 1.0, 0.9]}]}
        return transfer_figures.loss_and_accuracy(histories, {"a": "#000000"}, [2]).axes[0]

    assert loss(18.0).get_yscale() == "log" and loss(2.5).get_yscale() == "linear"
    assert [line.get_xdata()[0] for line in loss(2.5).lines if line.get_linestyle() == ":"] == [2.5]


def test_a_part_has_its_colour_in_every_figure():
    parts, _, _, _, balance, _ = task4.experiments(TINY, "weights.keras", "paris", ("unknown", 0.25, 3.0))
    study = TransferStudy("", (parts, balance))
    of_parts, of_balance = (task4_page._colours([v.name for v in e.variations], study) for e in (parts, balance))
    shared = of_parts.keys() & of_balance.keys()
    assert task4.CONTINUED in shared and all(of_parts[name] == of_balance[name] for name in shared)
    assert len(set(of_balance.values())) == len(of_balance)
    assert list(task4_page._colours(["x"], study)) == ["x"]


def test_classes_without_test_photos_are_told_together(finished):
    study = json.loads((finished / "metrics.json").read_text())
    run = next(t["run"] for t in study["experiments"]["parts"]["trials"] if t["variation"] == task4.WITH_CITY)
    measured = json.loads((finished / "runs" / run / "metrics.json").read_text())["test"]
    del measured["unknown"]
    whole = evaluation.Scores.from_json(measured)
    scores = task4_page._of_tested_classes(whole)
    assert len(whole.per_class) == 20 and len(scores.per_class) == 13
    assert scores.macro_f1 == pytest.approx(np.mean([row["f1"] for row in whole.per_class[:13]]))
    counts = np.array(scores.confusion)
    assert counts.shape == (14, 14) and counts[-1].sum() == 0 and counts.sum() == whole.count
    assert (counts[:-1, -1] == np.array(whole.confusion)[:13, 13:].sum(axis=1)).all()
    axes = task4_page._confusion(scores).axes[0]
    assert axes.get_ylim() == (12.5, -0.5) and axes.get_xticklabels()[-1].get_text() == task4_page.UNTESTED
