import csv
import dataclasses
import html
import json

import keras
import numpy as np
import pytest
import toy

from tfproject import data as image_sets
from tfproject import interpret, training
from tfproject.errors import UserError
from tfproject.interpret import faithfulness
from tfproject.report import filter_figures
from tfproject.tasks import interpretation, interpretation_page
from tfproject.tasks import task3_visualizations as task3

MAXIMISED = []  # the names below the pictures of each sheet
TINY = interpretation.Extent(
    samples=5, layers=2, maximised=2, steps=2, activity_images=20, perplexity=5, projector_images=12, attributed=2,
    checked=3, smoothgrad_samples=2, channels=2, draws=1, levels=2, curve_steps=4, silenced=3, silenced_images=15,
    set_images=21, compared_images=20,
)  # fmt: skip


def toy_network(seed):
    """The toy network with a hidden dense layer, trained."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(image)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="conv1")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(6, activation="relu", name="hidden")(x)
    model = keras.Model([image], keras.layers.Dense(3, activation="softmax", name="classes")(x), name="toy")
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    images = toy.image_set()
    model.fit(images.train.images.astype("float32"), images.train.labels, epochs=8, verbose=0)
    return model


def network_without_convolutions():
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Dense(8, activation="relu", name="hidden")(keras.layers.Flatten()(image))
    return keras.Model([image], keras.layers.Dense(3, activation="softmax", name="classes")(x), name="flat")


@pytest.fixture(scope="module")
def networks():
    return [toy_network(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def finished(networks, tmp_path_factory):
    """Task 3 with toy networks in the place of the custom CNN's, and one without convolutions in VGG16's, run twice."""
    directory = tmp_path_factory.mktemp("task3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_sets, "load", lambda *args, **options: toy.image_set())
        patch.setitem(task3.PROFILES, "tiny", task3.Profile(TINY))
        patch.setattr(task3, "_custom_cnns", lambda *args: (networks, "a toy"))
        patch.setattr(task3, "_vgg16", lambda *args: (network_without_convolutions(), "another toy"))
        drawn = filter_figures.maximised_activations
        patch.setattr(
            filter_figures, "maximised_activations",
            lambda images, names, *numbers: MAXIMISED.append(names) or drawn(images, names, *numbers),
        )  # fmt: skip
        page = task3.run_task("toy", "tiny", directory)
        before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        patch.setattr(interpret, "lay_open", lambda model: pytest.fail("a stage that was done ran again"))
        assert task3.run_task("toy", "tiny", directory) == page
        assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    return directory


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_its_numbers_are_those_of_the_modules(finished, networks):
    metrics = json.loads((finished / "metrics.json").read_text())
    found, folder = metrics["networks"]["CustomCNN"], finished / "CustomCNN"
    assert found["subtitle"] == "a toy" and found == {"subtitle": "a toy"} | json.loads(
        (folder / "metrics.json").read_text()
    )
    test = toy.image_set().test
    said = networks[0].predict(test.images.astype("float32"), verbose=0).argmax(axis=1)
    assert found["scores"]["accuracy"] == pytest.approx((said == test.labels).mean())

    network = interpret.lay_open(networks[0])
    for name, layer in interpret.top_samples(network, test, k=5).items():
        rows = [row for row in rows_of(folder / "top_samples.csv") if row["layer"] == name]
        assert [row["image"] for row in rows] == [test.names[index] for index in layer.indices.flat]
    features = interpret.features(network, test)
    by_layer = {row["layer"]: row for row in rows_of(folder / "neighbourhoods.csv")}
    assert list(by_layer) == ["hidden", "classes"]
    for name, values in features.items():
        expected = interpret.neighbourhood_accuracy(values, test.labels)
        assert float(by_layer[name]["accuracy"]) == pytest.approx(expected, rel=1e-4)

    silenced = {(row["layer"], int(row["unit"])): row for row in rows_of(folder / "silencing.csv")}
    assert {layer for layer, _ in silenced} == {"conv1", "hidden"}  # the first and the last before the classes
    weights = networks[0].get_weights()
    unit = max((unit for layer, unit in silenced if layer == "hidden"), key=lambda u: np.abs(weights[6][u]).sum())
    cut = keras.models.clone_model(networks[0])
    weights[6][unit] = 0
    cut.set_weights(weights)
    some = interpretation._some(test, 15)
    correct = [
        (model.predict(some.images.astype("float32"), verbose=0).argmax(axis=1) == some.labels).mean()
        for model in (networks[0], cut)
    ]
    assert float(silenced["hidden", unit]["drop"]) == pytest.approx(correct[0] - correct[1], abs=1e-6)
    assert {row["images"] for row in rows_of(folder / "silenced_sets.csv")} == {"21"}


def test_what_it_leaves(finished):
    for name in task3.NETWORKS:
        folder = finished / name
        stages = {path.stem for path in (folder / "stages").glob("*.json")} - {"of"}
        assert stages == set(interpretation.STAGES) - ({"similarity"} if name == "VGG16" else set())
        for stage in stages:
            found = json.loads((folder / "stages" / f"{stage}.json").read_text())
            assert all((folder / file).stat().st_size > 5000 for file, _ in found["figures"])
            assert all(rows_of(folder / file) for file in found["files"])
        units = {"CustomCNN": 6 + 8 + 6 + 3, "VGG16": 8 + 3}[name]
        assert len(rows_of(folder / "units.csv")) == len(rows_of(folder / "norms.csv")) == units
        projector = (folder / "tensorboard" / "projector_config.pbtxt").read_text()
        assert "hidden" in projector and len((folder / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 13
        assert list((folder / "tensorboard").glob("events*"))
        checked = rows_of(folder / "faithfulness.csv")
        verdicts = {row["method"]: row["verdict"] for row in checked}
        assert list(verdicts.values()) == [faithfulness.verdict(row) for row in checked]
        of_maps = {"gradcam", "gradcam++", "scorecam", "layercam"} if name == "CustomCNN" else set()
        assert set(verdicts) == {"gradients", "smoothgrad"} | of_maps
        page = (finished / "report.html").read_text()
        assert all(f"<td>{verdict}</td>".replace("'", "&#39;") in page for verdict in verdicts.values())
        assert f'href="{name}/units.csv"' in page
    assert "generated images" in page


def test_each_section_tells_its_terms_and_what_was_found_of_them(finished):
    page = html.unescape((finished / "report.html").read_text())
    sections = dict(part.split("</h2>", 1) for part in page.split("<h2>")[1:])
    assert set(interpretation_page.LEADS) == set(interpretation_page.HEADINGS)
    for stage, heading in interpretation_page.HEADINGS.items():
        assert sections[heading].count(interpretation_page.LEADS[stage]) == 1
    for name in task3.NETWORKS:
        summary = json.loads((finished / name / "metrics.json").read_text())
        assert len(summary["conclusions"]) == 2
        assert all(text in sections[f"{name} in short"] for text in summary["conclusions"])
        told = {stage: summary[stage]["told"] for stage in summary if "told" in summary[stage]}
        assert {"semantics", "silencing"} <= set(told) and sum(told.values(), []) == summary["story"]
        for stage, texts in told.items():
            for text in texts:
                holding = [heading for heading, section in sections.items() if f"{name}: {text}" in section]
                assert holding == [interpretation_page.HEADINGS[stage]]


def test_the_favourite_images_of_classes_bear_their_names(finished):
    assert MAXIMISED[:2] == [["unit 0", "unit 5"], list(toy.image_set().class_names[::2])]


def test_what_it_publishes(finished, tmp_path):
    with pytest.raises(UserError, match="publish from the folder"):
        task3.publish(finished, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfproject.report.readme.check", lambda root: None)
        patch.setattr("tfproject.report.readme.update", lambda root: None)
        with pytest.raises(UserError, match="no finished Task 3"):
            task3.publish(tmp_path, tmp_path)
        goal = task3.publish(finished, tmp_path)
    assert goal == tmp_path / "results" / "task3-visualizations"
    copied = {path.relative_to(goal) for path in goal.rglob("*") if path.is_file()}
    left = {path.relative_to(finished) for path in finished.rglob("*") if path.is_file()} - copied
    assert {path.parts[1] for path in left} == {"stages", "tensorboard"}
    files = [path for path in copied if path.suffix != ".html"]
    assert all((goal / path).read_bytes() == (finished / path).read_bytes() for path in files)
    assert "base64" not in (goal / "report.html").read_text()


def test_a_network_without_dense_layers_and_what_does_not_fit(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="conv"),
        keras.layers.Conv2D(3, 1, name="scores"), keras.layers.GlobalAveragePooling2D(), keras.layers.Softmax(),
    ])  # fmt: skip
    images = toy.image_set()
    summary = interpretation.interpret_network(model, images, tmp_path / "net", TINY, split="val", progress=False)
    assert [row["layer"] for row in summary["embedding"]["layers"]] == ["scores"]  # the last convolution
    assert summary["scores"]["split"] == "val" and summary["scores"]["images"] == 30 and "similarity" not in summary
    page = interpretation_page.write_page(tmp_path / "report.html", "A network", {"net": tmp_path / "net"})
    assert "Grad-CAM++" in page.read_text()

    def shared(second):
        found = interpretation.interpret_network(
            model, images, tmp_path / "net", TINY, split="val", other=second, progress=False
        )
        return found["similarity"]["layers"][0]["share"]

    another = keras.models.clone_model(model)
    another.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    assert shared(model) > shared(another) and shared(model) > 0.9  # a second network's numbers are its own

    with pytest.raises(UserError, match="another network, other images or to another extent"):
        interpretation.interpret_network(
            model, images, tmp_path / "net", dataclasses.replace(TINY, steps=3), split="val", progress=False
        )


def test_the_networks_are_made_from_what_is_given(tmp_path, monkeypatch):
    asked = []

    def fit(network, images, recipe, directory):
        asked.append((network((32, 32, 3), 3), len(images.train), recipe, directory.name))
        return training.Run(directory)

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(training.Run, "model", "a model")
    size = task3.Profile(TINY, seeds=(0, 1), custom={"width": 0.25}, vgg16_weights=None)
    networks, subtitle = task3._custom_cnns(toy.image_set(), size, tmp_path, None, None)
    assert networks == ("a model", "a model") and "0.25 times as wide" in subtitle
    assert [(count, recipe.seed, name) for _, count, recipe, name in asked] == [
        (150, 0, "custom_cnn-seed0"), (150, 1, "custom_cnn-seed1"),
    ]  # fmt: skip
    assert asked[0][0].get_layer("dense").units == 32
    network, subtitle = task3._vgg16(toy.image_set(), size, tmp_path, None)
    model, _, recipe, _ = asked[2]
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [256, 128, 3]
    assert recipe.frozen_until == "block5_pool" and "random weights" in subtitle
    assert interpretation.known_groups(("cat", "ship")) == {}
    animals, vehicles = interpretation.GROUPS[0].values()
    assert list(interpretation.known_groups((*animals, *vehicles))) == ["animal", "vehicle"]
