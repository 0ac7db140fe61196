"""Top samples against a full sort of all activations, their crops, their table and their sheet."""

import csv

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers as L

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.interpret import crops, lay_open, top_samples
from tfproject.interpret.samples import GREY, to_csv
from tfproject.report import figures, style
from tfproject.report.unit_figures import top_samples_sheet

SHAPE = (16, 12, 3)
COUNT = 61


@pytest.fixture(scope="module")
def split():
    """Images in which many activations are equal: blocks of few colours, and some images twice."""
    random = np.random.default_rng(0)
    images = np.kron(random.integers(0, 3, (COUNT, 4, 3, 3)) * 100, np.ones((1, 4, 4, 1))).astype(np.uint8)
    images[40:50] = images[10:20]
    labels = np.arange(COUNT) % 4
    labels[labels == 2] = 1  # a class without images
    return Split(images, labels, tuple(f"image_{i}.png" for i in range(COUNT)))


@pytest.fixture(scope="module")
def network():
    """Whole numbers as weights, so that sums have no rounding and equal stays equal."""
    random = np.random.default_rng(1)
    image = keras.Input(SHAPE)
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(image)
    x = L.MaxPooling2D(2)(x)
    x = L.Conv2D(5, 3, activation="relu", name="conv2")(x)
    x = L.GlobalMaxPooling2D()(x)
    x = L.Dense(7, activation="relu", name="dense")(x)
    model = keras.Model(image, L.Dense(4, activation="softmax", name="classes")(x))
    for weight in model.weights:
        weight.assign(random.integers(-2, 3, weight.shape))
    model.get_layer("conv1").bias.assign([0, 0, 0, 0, 0, -9999])  # the last unit is dead
    return lay_open(model)


def everything(network, split, name):
    """All maxima, their places and the means over space, (images, units) each, from all feature maps at once."""
    (maps,) = network.function([network[name].output], len(split))(split.images)
    if maps.ndim == 2:
        return maps, np.full((*maps.shape, 2), -1), maps
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    places = np.stack(np.unravel_index(flat.argmax(axis=1), maps.shape[1:3]), axis=-1)
    return flat.max(axis=1), places, flat.mean(axis=1)


@pytest.mark.parametrize("batch_size", [1, 7, 61, 500, None])
def test_equals_a_stable_full_sort_whatever_the_batch_size(network, split, batch_size):
    found = top_samples(network, split, k=9, batch_size=batch_size)
    assert list(found) == ["conv1", "conv2", "dense", "classes"]
    for name, samples in found.items():
        values, places, averages = everything(network, split, name)
        order = np.argsort(-values, axis=0, kind="stable")[:9].T
        assert samples.name == name
        np.testing.assert_array_equal(samples.indices, order)
        np.testing.assert_array_equal(samples.values, np.take_along_axis(values.T, order, axis=1))
        units = np.arange(len(order))[:, None]
        np.testing.assert_array_equal(samples.places, places[order, units])
        np.testing.assert_array_equal(samples.maximum, values.max(axis=0))
        np.testing.assert_array_equal(samples.minimum, values.min(axis=0))
        np.testing.assert_array_equal(samples.active_share, (values > 0).mean(axis=0))
        for means, of_images in ((samples.class_means, values), (samples.class_means_average, averages)):
            expected = [of_images[split.labels == label].astype(float).mean(axis=0) for label in (0, 1, 3)]
            np.testing.assert_allclose(means[:, [0, 1, 3]], np.transpose(expected), rtol=1e-6)
            assert np.isnan(means[:, 2]).all()
        dtypes = (samples.indices.dtype, samples.values.dtype, samples.places.dtype, samples.class_means.dtype)
        assert dtypes == (np.int64, np.float32, np.int32, np.float64)
    assert found["conv1"].active_share[5] == 0 and (found["conv1"].indices[5] == np.arange(9)).all()
    assert len(np.unique(found["conv2"].values[:, :5])) < found["conv2"].values[:, :5].size  # some were equal


def test_fewer_images_than_k_and_chosen_layers(network, split):
    few = split.take(range(5))
    found = top_samples(network, few, k=9, layers=["dense", "conv1"], class_count=6)
    assert list(found) == ["dense", "conv1"]
    assert found["conv1"].indices.shape == (6, 5) and found["conv1"].class_means.shape == (6, 6)
    assert (np.sort(found["conv1"].indices) == np.arange(5)).all()
    assert top_samples(network, few, layers=[]) == {}


def test_images_of_another_size_are_resized(network, split):
    small = Split(split.images[:, ::2, ::2], split.labels, split.names)
    found = top_samples(network, small, k=3, layers=["conv1"])["conv1"]
    resized = keras.ops.image.resize(small.images.astype("float32"), SHAPE[:2], antialias=True)
    (maps,) = network.function([network["conv1"].output], COUNT)(np.asarray(resized))
    np.testing.assert_allclose(found.values, -np.sort(-maps.max(axis=(1, 2)), axis=0)[:3].T, rtol=1e-5)
    large = Split(np.kron(split.images, np.ones((1, 3, 3, 1), np.uint8)), split.labels, split.names)
    assert crops(network, top_samples(network, large, 2)["dense"], large.images).shape == (7, 2, *SHAPE)


def test_crops_show_what_the_unit_saw(network, split):
    samples = top_samples(network, split, k=4)["conv1"]
    shown = crops(network, samples, split.images)
    assert shown.shape == (6, 4, 3, 3, 3) and shown.dtype == np.uint8
    padded = np.pad(split.images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=GREY)
    for unit, rank in np.ndindex(6, 4):
        row, column = samples.places[unit, rank]
        expected = padded[samples.indices[unit, rank], row : row + 3, column : column + 3]
        np.testing.assert_array_equal(shown[unit, rank], expected)
    np.testing.assert_array_equal(crops(network, samples, split.images, units=[4, 2]), shown[[4, 2]])


def test_a_crop_is_enough_for_the_unit(network, split):
    """The layer, run on nothing but the crop, gives the unit's activation: places without padding only."""
    samples = top_samples(network, split, k=9)["conv2"]
    shown = crops(network, samples, split.images)
    assert shown.shape[2:] == (8, 8, 3)
    alone = keras.Sequential([
        keras.Input((8, 8, 3)), L.Conv2D(6, 3, activation="relu"), L.MaxPooling2D(2), L.Conv2D(5, 3, activation="relu")
    ])  # fmt: skip
    alone.layers[0].set_weights(network["conv1"].layer.get_weights())
    alone.layers[2].set_weights(network["conv2"].layer.get_weights())
    inside = 0
    for unit, rank in np.ndindex(5, 9):
        row, column = samples.places[unit, rank]
        if 1 <= row <= 4 and 1 <= column <= 2:  # of 6 x 4 places those whose field is wholly inside
            value = alone(shown[unit, rank][None].astype("float32"))[0, 0, 0, unit]
            assert value == samples.values[unit, rank]
            inside += 1
    assert inside > 3


def test_crops_of_dense_units_and_of_fields_larger_than_the_image(split):
    image = keras.Input(SHAPE)
    x = L.Conv2D(2, 13, padding="same", name="wide")(image)
    network = lay_open(keras.Model(image, L.Dense(2, name="classes")(L.GlobalMaxPooling2D()(x))))
    found = top_samples(network, split, k=2)
    np.testing.assert_array_equal(
        crops(network, found["classes"], split.images), split.images[found["classes"].indices]
    )
    shown = crops(network, found["wide"], split.images)
    assert shown.shape == (2, 2, 13, 12, 3)  # 13 rows fit into the image's 16, 13 columns do not
    for unit, rank in np.ndindex(2, 2):
        row, column = found["wide"].places[unit, rank]
        expected = np.full((13, 12, 3), GREY, np.uint8)
        for i, j in np.ndindex(13, 12):
            if 0 <= row - 6 + i < 16 and abs(j - column) <= 6:
                expected[i, j] = split.images[found["wide"].indices[unit, rank], row - 6 + i, j]
        np.testing.assert_array_equal(shown[unit, rank], expected)


def test_table(network, split, tmp_path):
    found = top_samples(network, split, k=2, layers=["conv2", "dense"])
    to_csv(tmp_path / "top.csv", network, found, split, class_names=["a", "b", "c", "d"])
    with open(tmp_path / "top.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (5 + 7) * 2
    row, samples = rows[2 * 3 + 1], found["conv2"]  # unit 3, rank 2
    index, place = samples.indices[3, 1], samples.places[3, 1]
    assert (row["layer"], row["unit"], row["rank"]) == ("conv2", "3", "2")
    assert (row["image"], row["label"]) == (f"image_{index}.png", "abcd"[split.labels[index]])
    assert float(row["value"]) == pytest.approx(samples.values[3, 1], rel=1e-5)
    assert [int(row["row"]), int(row["column"])] == place.tolist()
    assert int(row["top"]) == max(0, 2 * place[0] - 1) and int(row["bottom"]) == min(16, 2 * place[0] + 7)
    assert int(row["left"]) == max(0, 2 * place[1] - 1) and int(row["right"]) == min(12, 2 * place[1] + 7)
    assert rows[-1]["layer"] == "dense" and rows[-1]["row"] == rows[-1]["column"] == ""
    assert [rows[-1][side] for side in ("top", "left", "bottom", "right")] == ["0", "0", "16", "12"]
    to_csv(tmp_path / "numbers.csv", network, found, split)
    assert (tmp_path / "numbers.csv").read_text().splitlines()[1].split(",")[4] in "0123"


def test_mistakes_are_told(network, split):
    for words, arguments in (
        ("k is 0", (split, 0)), ("no image", (split.take([]), 3)), ("'conv9'", (split, 3, ["conv9"])),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            top_samples(network, *arguments)
    grey = lay_open(keras.Sequential([keras.Input((16, 12, 1)), L.Flatten(), L.Dense(2)]))
    with pytest.raises(UserError, match="1 channels"):
        top_samples(grey, split)


def sheet():
    random = np.random.default_rng(0)
    texts = ["7 of 9 dog, purity 0.78", "", "a text that goes on and on and on and on, and is longer than any row " * 3]
    crops_of_units = random.integers(0, 256, (3, 9, 5, 5, 3), dtype=np.uint8)
    return crops_of_units, top_samples_sheet(list(zip((3, 17, 511), crops_of_units, texts)), "block1_conv2")


def test_sheet_shows_each_crop_in_its_place_and_no_text_leaves_it():
    crops_of_units, figure = sheet()
    content = figures.to_png_bytes(figure)
    assert content == figures.to_png_bytes(sheet()[1])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for found, crop in zip(shown, crops_of_units.reshape(-1, 5, 5, 3), strict=True):
        assert found.shape[0] >= 64
        times = found.shape[0] // 5
        np.testing.assert_array_equal(found[times // 2 :: times, times // 2 :: times], crop)
    lefts = [axes.get_position().x0 for axes in figure.axes[:9]]
    assert lefts == sorted(lefts)
    assert figure.axes[0].get_position().y0 > figure.axes[9].get_position().y0
    words = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert {"3", "17", "511", "block1_conv2"} < {text.get_text() for text in words}
    assert all(text.get_fontsize() >= 7 for text in words)
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    boxes = [text.get_window_extent() for text in words if text.get_text()[0] in "7a"]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])


def test_sheet_of_rows_of_different_lengths():
    random = np.random.default_rng(0)
    rows = [(i, random.integers(0, 256, (n, 40, 20, 3), dtype=np.uint8), "") for i, n in enumerate((2, 3))]
    figure = top_samples_sheet(rows)
    assert sum(len(axes.images) for axes in figure.axes) == 5
    _, _, width, height = figure.axes[0].get_position().bounds
    size = figure.get_size_inches()
    assert height * size[1] == pytest.approx(2 * width * size[0])
