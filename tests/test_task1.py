import json

import pytest
import toy

from tfproject import cost, training
from tfproject import data as image_sets
from tfproject.errors import UserError
from tfproject.tasks import task1_custom_cnn as task1

SMALL = task1.Profile(
    seeds={"whitened_cnn": (0, 1), "custom_cnn": (0,)},
    changes={"epochs": 1, "batch_size": 50, "precision": "float32", "jit_compile": False},
    widths=(8, 8, 8), cost_batch=2, growth={"batch_size": (2, 4)},
)  # fmt: skip


def memory_of_steps(model, batch_size, optimizer):
    """In place of a new process each."""
    predicted = cost.peak_training_memory(model, batch_size, optimizer).total
    return {"bytes": 2 * predicted, "steps": [3 * predicted, predicted, 2 * predicted]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Task 1 on the toy set, with the smallest of everything."""
    directory = tmp_path_factory.mktemp("task1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_sets, "load", lambda *args, **options: toy.image_set())
        patch.setitem(task1.PROFILES, "small", SMALL)
        patch.setattr("tfproject.cost.memory.measured_training_memory", memory_of_steps)
        assert task1.run_task("toy", "small", directory, only="custom_cnn") == directory
        task1.run_task("toy", "small", directory, only="costs")
        for name in ("metrics.json", "report.html"):
            (directory / name).rename(directory / f"first-{name}")
        page = task1.run_task("toy", "small", directory)
        before = {path: path.stat().st_mtime_ns for path in directory.rglob("*.keras")}
        text = page.read_text()
        assert task1.run_task("toy", "small", directory) == page
        assert {path: path.stat().st_mtime_ns for path in directory.rglob("*.keras")} == before  # nothing ran twice
        assert page.read_text() == text
    return directory


def test_its_numbers_are_those_of_the_runs(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    strong, custom = (metrics["networks"][name] for name in ("whitened_cnn", "custom_cnn"))
    of_runs = [json.loads((finished / run / "metrics.json").read_text()) for run in strong["runs"]]
    assert strong["test_accuracies"] == [run["test_6_views"]["accuracy"] for run in of_runs]
    assert strong["test_accuracy"]["mean"] == pytest.approx(sum(strong["test_accuracies"]) / 2)
    assert strong["test_accuracies_one_view"] == [run["test"]["accuracy"] for run in of_runs]
    assert custom["views"] == 1 and custom["trainable_parameters"] < custom["parameters"]
    assert metrics["data"]["images"] == {"train": 150, "test": 30} and metrics["data"]["synthetic"]
    assert [row["batch_size"] for row in metrics["memory"]] == [2, 4]
    assert all(row["measured_bytes"] == 2 * row["predicted_bytes"] for row in metrics["memory"])
    header, *rows = (finished / "cost" / "custom_cnn.csv").read_text().splitlines()
    parameters = [int(row.split(",")[header.split(",").index("parameters")]) for row in rows]
    assert sum(parameters) == custom["parameters"]
    page = (finished / "report.html").read_text()
    assert "generated images" in page and f"{strong['test_accuracy']['mean']:.2%}" in page


def test_costs_are_studied_beside_what_is_finished(finished):
    first, then = (json.loads((finished / name).read_text()) for name in ("first-metrics.json", "metrics.json"))
    assert list(first["networks"]) == ["custom_cnn"] and set(first["costs"]) == {"custom_cnn", "whitened_cnn", "vgg16"}
    assert first["networks"]["custom_cnn"] == then["networks"]["custom_cnn"]
    assert (first["costs"], first["memory"]) == (then["costs"], then["memory"])  # measured once


def test_the_page_says_of_what_its_parts_are(finished):
    first, page = ((finished / name).read_text() for name in ("first-report.html", "report.html"))
    assert "whitened_cnn: planned and not run yet: seeds 0, 1." in first and "not run yet" not in page
    for what in ("loss and accuracy", "test images by true class"):
        assert f"whitened_cnn, seed 0: {what}" in page
    measured_on = json.loads((finished / "cost" / "costs.json").read_text())["measured_on"]
    assert f"keras {measured_on['packages']['keras']}; they do not compare" in page
    assert measured_on["processor"]["name"] in page and f"{measured_on['cores']} cores" in page
    assert "timed is a training step with BatchNorm in one operation" in page
    assert "differ by up to 100.0%" in page and "-50.0%" in page
    assert " MB" not in page.split("where it was measured")[1]


def test_costs_without_their_machine_are_measured_again(finished, tmp_path):
    (tmp_path / "cost").mkdir()
    (tmp_path / "cost" / "costs.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "study", lambda *args, **options: pytest.fail("measured again"), raising=False)
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            task1._study_costs(toy.image_set(), SMALL, tmp_path)


def test_what_it_publishes(finished, tmp_path):
    from tfproject.models import saved_models

    with pytest.raises(UserError, match="publish from the folder"):
        task1.publish(finished, tmp_path)
    with pytest.raises(UserError, match="no finished run of Task 1"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfproject.report.readme.check", lambda root: None)
        task1.publish(tmp_path, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfproject.report.readme.check", lambda root: None)
        patch.setattr("tfproject.report.readme.update", lambda root: None)
        goal = task1.publish(finished, tmp_path)
    assert goal == tmp_path / "results" / "task1-custom-cnn"
    assert (goal / "cost" / "vgg16.csv").exists() and (goal / "whitened_cnn-seed1" / "history.csv").exists()
    saved = saved_models.load(tmp_path / "saved_models" / "cifar10_best.keras")
    assert saved.class_names == ("red", "green", "blue")
    card = (tmp_path / "saved_models" / "cifar10_best.md").read_text()
    assert "| test | 30 | 6 |" in card and "| test | 30 | 1 |" in card

    before = json.loads((finished / "metrics.json").read_text())
    costs = {name: before[name] for name in ("costs", "memory", "measured_on")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_sets, "load", lambda *args, **options: toy.image_set())
        patch.setitem(task1.PROFILES, "small", SMALL)
        patch.setattr(training, "fit", lambda *args, **options: pytest.fail("a published run was trained again"))
        patch.setattr(task1, "_study_costs", lambda *args: costs)
        patch.setattr(task1, "_cost_sections", lambda *args: [])
        task1.run_task("toy", "small", tmp_path / "again", reuse=tmp_path)
        assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == before
        # What was found of other images, published or in the directory, says nothing of these.
        others = toy.image_set()
        others.train.images[0, 0, 0, 0] ^= 1
        patch.setattr(image_sets, "load", lambda *args, **options: others)
        for directory in ("others", "again"):
            with pytest.raises(pytest.fail.Exception, match="trained again"):
                task1.run_task("toy", "small", tmp_path / directory, reuse=tmp_path)
        assert not (tmp_path / "others").exists()
