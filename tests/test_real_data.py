"""The real sets and the committed model, where they are; each test says what it lacks otherwise."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tfproject import data, evaluation
from tfproject.errors import UserError
from tfproject.models import saved_models

ROOT = pathlib.Path(__file__).parents[1]
MODEL = ROOT / "saved_models" / "eurosat_best.keras"


def prepared(name, **options):
    try:
        return data.load(name, **options)
    except UserError as error:
        pytest.skip(f"{name} is not prepared: {error}")


@pytest.fixture(scope="module")
def eurosat():
    return prepared("eurosat", split_files="eurosat-random")


def test_eurosat_is_complete_and_its_splits_are_apart(eurosat):
    assert {name: len(split) for name, split in eurosat.splits.items()} == {"train": 18900, "val": 4050, "test": 4050}
    counts = np.bincount(np.concatenate([split.labels for split in eurosat.splits.values()]))
    assert counts.tolist() == [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]
    assert eurosat.image_shape == (64, 64, 3) and not eurosat.bad_images
    assert not eurosat.overlaps()
    for split in eurosat.splits.values():
        assert all(name.startswith(eurosat.class_names[label] + "_") for name, label in zip(split.names, split.labels))


def test_the_committed_model_keeps_its_word_on_unseen_tiles(eurosat):
    card = json.loads(MODEL.with_suffix(".json").read_text())
    saved = saved_models.load(MODEL)
    assert card["data"]["sha256"] == eurosat.fingerprint
    every_fourth = eurosat.test.take(range(0, len(eurosat.test), 4))
    low, high = evaluation.evaluate(saved.model, every_fourth, saved.class_names).accuracy_interval
    assert low < card["scores"]["test"]["accuracy"] < high
    assert card["scores"]["test"]["accuracy"] > 0.975


def test_the_committed_models_were_trained_on_the_splits_that_they_are_named_after(eurosat):
    spatial = prepared("eurosat", split_files="eurosat-spatial")
    cards = [json.loads(MODEL.with_stem(name).with_suffix(".json").read_text())
             for name in ("eurosat_best", "eurosat_spatial")]  # fmt: skip
    assert [card["data"]["sha256"] for card in cards] == [eurosat.fingerprint, spatial.fingerprint]
    both = set(spatial.test.names) & (set(eurosat.train.names) | set(eurosat.val.names))
    drop = json.loads((ROOT / "results" / "open-project" / "metrics.json").read_text())["parts"]["analysis"]["drop"]
    assert drop["seen_in_choosing"]["hits"] == len(both) and drop["seen_in_choosing"]["count"] == len(spatial.test)


def test_bfloat16_says_of_hardly_any_tile_what_float32_does_not(eurosat):
    tiles = eurosat.val.take(range(0, len(eurosat.val), 8))
    expected, found = (
        saved_models.load(MODEL, precision).model.predict(tiles.images.astype(np.float32), verbose=0)
        for precision in (None, "mixed_bfloat16")
    )
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.99
    right = [(p.argmax(axis=1) == tiles.labels).mean() for p in (expected, found)]
    assert abs(right[0] - right[1]) < 0.005


def test_predict_gives_the_classes_of_evaluate_on_the_same_tiles(eurosat, tmp_path):
    saved = saved_models.load(MODEL)
    tiles = eurosat.test.take(range(0, len(eurosat.test), 40))
    for image, name in zip(tiles.images, tiles.names):
        Image.fromarray(image).save(tmp_path / name.replace(".jpg", ".png"))
    predictions = evaluation.predict_files(saved, evaluation.find_images([tmp_path]))
    truth = {name.replace(".jpg", ".png"): eurosat.class_names[label] for name, label in zip(tiles.names, tiles.labels)}
    right = sum(truth[pathlib.Path(name).name] == c for name, c in zip(predictions.names, predictions.classes))
    scores = evaluation.evaluate(saved.model, tiles, saved.class_names)
    assert len(predictions) == scores.count == len(tiles)
    assert right == round(scores.accuracy * scores.count)


@pytest.mark.parametrize(
    "format, packages", [("onnx", ("onnx", "tf2onnx", "onnxruntime")), ("tflite", ()), ("savedmodel", ())]
)
def test_an_export_says_of_real_tiles_what_keras_says(eurosat, tmp_path, format, packages):
    from tfproject.tools import export

    for package in packages:
        pytest.importorskip(package)
    tiles = eurosat.test.take(range(0, len(eurosat.test), 40))
    path = tmp_path / f"eurosat{export.FORMATS[format][1]}"
    done = export.export_model(saved_models.load(MODEL), path, format, tiles.images)
    assert done.path.exists() and done.images == len(tiles) and done.largest_difference <= export.TOLERANCE


def test_a_map_of_a_mosaic_gives_back_the_classes_of_its_tiles(eurosat, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from tfproject import tools

    side, tiles = 18, eurosat.test.take(np.linspace(0, len(eurosat.test) - 1, 18 * 18).astype(int))
    order = np.random.default_rng(0).permutation(side * side)  # so that neighbours are of different classes
    mosaic = tiles.images[order].reshape(side, side, 64, 64, 3).swapaxes(1, 2).reshape(side * 64, side * 64, 3)
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)}
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", count=3, height=side * 64, width=side * 64,
                       dtype="uint8", photometric="RGB", **place) as tiff:  # fmt: skip
        tiff.write(np.moveaxis(mosaic, -1, 0))
    result = tools.map_scene(saved_models.load(MODEL), tmp_path / "scene.tif", tmp_path / "map", progress=False)
    with rasterio.open(tmp_path / "map" / "classes.tif") as tiff:
        classes = tiff.read(1).astype(int) - 1
    stride, (top, left) = result.summary["stride"], result.summary["cells_begin_at"]
    middles = [[(64 * tile + 32 - first) // stride for tile in range(side)] for first in (top, left)]
    found = classes[np.ix_(*middles)].ravel()  # the cell over each tile's middle, far from its seams
    assert (found == tiles.labels[order]).mean() >= 0.97


def test_compression_costs_the_committed_model_little(eurosat):
    saved, tiles = saved_models.load(MODEL), eurosat.test.take(range(0, len(eurosat.test), 8))

    def compressed(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=75)
        return np.asarray(Image.open(buffer))

    accuracies = [
        (saved.model.predict(images.astype(np.float32), verbose=0).argmax(axis=1) == tiles.labels).mean()
        for images in (tiles.images, np.stack([compressed(image) for image in tiles.images]))
    ]
    assert accuracies[1] > accuracies[0] - 0.03


def test_cifar10_has_its_official_splits():
    cifar10 = prepared("cifar10")
    assert {name: len(split) for name, split in cifar10.splits.items()} == {"train": 45000, "val": 5000, "test": 10000}
    assert np.bincount(cifar10.test.labels).tolist() == [1000] * 10
    assert np.bincount(cifar10.val.labels).tolist() == [500] * 10


@pytest.mark.filterwarnings("ignore:terrassa has images with identical pixels")
def test_terrassa_and_paris_are_read_with_their_faults_listed():
    terrassa, paris = prepared("terrassa", image_size=(32, 32)), prepared("paris", image_size=(32, 32))
    assert len(terrassa.class_names) == 13 and len(terrassa.test) == 717
    assert sum(len(split) for split in paris.splits.values()) == 279
    assert [bad.name.split("/")[0] for bad in paris.bad_images] == ["louvre", "moulinrouge", "sacrecoeur"]
    both = data.concatenate(terrassa, paris)
    assert set(both.class_names) == {*terrassa.class_names, *paris.class_names}
