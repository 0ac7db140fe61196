"""Silencing against networks whose units' worth is known, and against networks that are built without the unit."""

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy import stats

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.interpret import words
from tfproject.interpret.network import lay_open
from tfproject.interpret.silencing import (
    SilencedSet,
    Silencing,
    set_rows,
    silence_sets,
    silence_units,
)
from tfproject.report import semantics_figures

CLASSES = ("red", "green", "blue")


def split_of(images, labels):
    return Split(images.astype(np.uint8), np.asarray(labels), tuple(f"{i}.png" for i in range(len(images))))


@pytest.fixture(scope="module")
def colours():
    """Sixty images, each of one colour: the class."""
    labels = np.arange(60) % 3
    images = np.zeros((60, 4, 4, 3))
    images[np.arange(60), :, :, labels] = 200
    return split_of(images, labels)


@pytest.fixture(scope="module")
def planted():
    """Units 0, 1 and 2 detect a class each, 3 says the same as 1 and counts half, 4 is not read, 5 to 9 are dead.

    Without any evidence the class is the first.
    """
    image = keras.Input((4, 4, 3))
    x = L.Conv2D(10, 1, activation="relu", name="conv")(image)
    x = L.GlobalMaxPooling2D()(x)
    model = keras.Model(image, L.Dense(3, activation="softmax", name="classes")(x))
    kernel = np.zeros((1, 1, 3, 10), np.float32)
    kernel[0, 0, :, :3] = np.eye(3) / 100
    kernel[0, 0, :, 3], kernel[0, 0, :, 4] = kernel[0, 0, :, 1], 1
    model.get_layer("conv").set_weights([kernel, np.where(np.arange(10) < 5, 0, -1).astype(np.float32)])
    weights = np.zeros((10, 3), np.float32)
    weights[:3, :] = np.eye(3)
    weights[3, 1] = -0.5  # works against its class, and alone does nothing
    weights[5:, 2] = 9
    model.get_layer("classes").set_weights([weights, np.array([0.1, 0, 0], np.float32)])
    return lay_open(model)


def test_a_detector_is_worth_its_class(planted, colours):
    found = silence_units(planted, colours, batch_size=7)
    assert set(found) == {"conv"}
    conv = found["conv"]
    assert conv.before.all()
    np.testing.assert_allclose(conv.drop, [0, 1 / 3, 1 / 3, *[0] * 7])
    for unit, label in ((1, 1), (2, 2)):
        lost = [conv.class_drop(c)[unit] for c in range(3)]
        np.testing.assert_array_equal(lost, np.eye(3)[label])
    rows = conv.rows(CLASSES, {0: "red", 1: "green", 2: "green", 5: None})
    assert [row["worst_class"] for row in rows[1:3]] == ["green", "blue"]
    assert (rows[1]["class_drop"], rows[1]["class_images"]) == (1, 20) and rows[2]["class_drop"] == 0
    assert rows[5]["preferred"] is None and rows[5]["class_drop"] is None
    assert rows[1]["drop_low"] > 0.2 and rows[1]["p_corrected"] < 1e-4
    assert rows[0]["p_corrected"] == 1 and rows[0]["drop_low"] < 0 < rows[0]["drop_high"]


def network_with_skips(mask=1.0, at=None):
    """Two convolutions with what goes past each, and a dense layer; the named one's output times mask."""
    keras.utils.set_random_seed(3)

    def masked(x, name):
        return x * mask if name == at else x

    image = keras.Input((8, 8, 3))
    x = L.Rescaling(1 / 128, offset=-1)(image)
    a = masked(L.LeakyReLU(0.2)(L.BatchNormalization()(L.Conv2D(6, 3, padding="same", name="a")(x))), "a")
    b = masked(L.Conv2D(6, 3, padding="same", activation="relu", name="b")(a), "b")
    x = L.Concatenate()([L.Add()([a, b]), image / 100])
    x = L.Flatten()(L.MaxPooling2D(2)(x))
    dense = masked(L.Dense(7, activation="elu", name="dense")(x), "dense")
    output = L.Dense(3, name="classes")(L.Concatenate()([dense, L.Flatten()(a)]))
    return keras.Model(image, L.Softmax()(output))


@pytest.fixture(scope="module")
def skipping():
    """The network with its classes balanced, its weights, and noise of which it classifies most as labelled."""
    model = network_with_skips()
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (150, 8, 8, 3))
    logits = keras.Model(model.inputs[0], model.get_layer("classes").output)(images.astype(np.float32)).numpy()
    model.get_layer("classes").bias.assign(-logits.mean(axis=0))
    labels = (logits - logits.mean(axis=0)).argmax(axis=1)
    labels[::4] = random.integers(0, 3, len(labels[::4]))
    return lay_open(model), split_of(images, labels), model.get_weights()


@pytest.mark.parametrize("name, units", [("a", (0, 4)), ("b", (1, 5)), ("dense", (2, 6))])
def test_silencing_is_what_a_network_without_the_unit_does(skipping, name, units):
    network, split, weights = skipping
    found = silence_units(network, split, {name: units}, batch_size=16)[name]
    for i, unit in enumerate(units):
        mask = np.ones(network[name].units, np.float32)
        mask[unit] = 0
        other = network_with_skips(mask, at=name)
        other.set_weights(weights)
        predicted = other(split.images.astype(np.float32), training=False).numpy().argmax(axis=1)
        np.testing.assert_array_equal(found.after[i], predicted == split.labels)
    assert 0.5 < found.before.mean() < 1
    assert not np.array_equal(found.after, np.tile(found.before, (len(units), 1)))


def test_the_batch_size_does_not_matter(skipping):
    network, split, _ = skipping
    split = split.take(range(40))
    units = {"a": (0, 3), "dense": None}
    one, many = (silence_units(network, split, units, batch_size=size) for size in (13, 40))
    for name in units:
        np.testing.assert_array_equal(one[name].after, many[name].after)


def test_a_set_loses_more_than_random_ones(planted, colours):
    green, both, nothing = silence_sets(
        planted, "conv", {"green": [1, 3], "red and blue": [0, 2], "none": [], "quiet": [4]}, colours, draws=30
    )
    assert (green.name, both.name, nothing.name) == ("green", "red and blue", "quiet")
    assert green.control.shape == (30, 60)
    row = green.row(CLASSES)
    assert row["units"] == 2 and row["drop"] == pytest.approx(1 / 3) and row["class_drop"] == 1
    # A random pair of the five that speak loses a class for each of units 1 and 2 in it: 2 * 2 / 5 classes of three.
    assert row["control_drop"] == pytest.approx(0.8 / 3, abs=0.08)
    assert row["excess"] == pytest.approx(row["drop"] - row["control_drop"])
    assert row["class_excess"] == pytest.approx(1 - row["class_control_drop"]) and row["class_excess_low"] > 0.3
    assert row["p"] == pytest.approx((1 + (green.control.mean(axis=1) <= 2 / 3 + 1e-9).sum()) / 31)
    assert both.row(CLASSES)["class_drop"] is None
    assert nothing.row(CLASSES)["drop"] == 0


def test_the_p_values_of_sets_are_corrected_for_their_number(planted, colours):
    sets = {"green": [1], "red": [0], "red and blue": [0, 2], "quiet": [4]}
    rows = set_rows(silence_sets(planted, "conv", sets, colours, draws=40), CLASSES)
    p = [row["p"] for row in rows]
    assert [row["p_corrected"] for row in rows] == pytest.approx(stats.false_discovery_control(p))
    named = [row for row in rows if row["class_p"] is not None]
    assert [row["set"] for row in named] == ["green", "red"]
    assert [row["class_p_corrected"] for row in named] == pytest.approx(
        stats.false_discovery_control([row["class_p"] for row in named])
    )
    assert rows[2]["class_p_corrected"] is None


def test_random_sets_are_of_units_that_speak(planted, colours):
    """All five that speak: every random set is the set itself."""
    (found,) = silence_sets(planted, "conv", {"all": [4, 2, 0, 1, 0]}, colours, draws=3)
    np.testing.assert_array_equal(found.units, [0, 1, 2, 4])
    np.testing.assert_array_equal(found.control, np.tile(found.after, (3, 1)))
    # Of six units there are not enough that speak.
    (found,) = silence_sets(planted, "conv", {"more": range(6)}, colours, draws=3)
    assert found.control.shape == (3, 60)


def test_a_network_with_a_single_sigmoid():
    image = keras.Input((4, 4, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(2, 1, activation="relu", name="conv")(image))
    model = keras.Model(image, L.Dense(1, activation="sigmoid")(x))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 1, 1] = 0.01
    model.layers[1].set_weights([kernel, np.zeros(2, np.float32)])
    model.layers[-1].set_weights([np.array([[1], [-1]], np.float32), np.array([-0.1], np.float32)])
    images = np.zeros((10, 4, 4, 3))
    images[:5, ..., 0] = images[5:, ..., 1] = 200
    found = silence_units(lay_open(model), split_of(images, [1] * 5 + [0] * 5))["conv"]
    np.testing.assert_array_equal(found.before, True)
    np.testing.assert_allclose(found.drop, [0.5, 0])


@pytest.mark.parametrize(
    "units, message",
    [
        ({"nothing": None}, "no convolution or dense layer"),
        ({"classes": None}, "gives the classes themselves"),
        ({"conv": [10]}, "from 0 to 9"),
    ],
)
def test_what_cannot_be_silenced_is_told(planted, colours, units, message):
    with pytest.raises(UserError, match=message):
        silence_units(planted, colours, units)


def test_images_that_do_not_suit_are_told(planted, colours):
    for other, message in (
        (colours.take([]), "no image"),
        (split_of(np.zeros((2, 5, 4, 3)), [0, 1]), "load the images"),
        (split_of(np.zeros((2, 4, 4, 3)), [0, 3]), "3 classes"),
    ):
        with pytest.raises(UserError, match=message):
            silence_units(planted, other)


def made_up(drop, low, high, p, unit=0, layer="conv", **more):
    row = {"layer": layer, "unit": unit, "images": 500, "accuracy": 0.9, "drop": drop, "drop_low": low,
           "drop_high": high, "p": p, "p_corrected": p, "worst_class": "red", "worst_class_drop": drop}  # fmt: skip
    return row | more


def test_words_claim_no_loss_that_is_not_shown():
    open_ = [made_up(0.02, -0.01, 0.05, 0.2), made_up(0.02, 0.001, 0.04, 0.06, unit=1)]
    assert "no unit" in words.silenced_units(open_)
    shown = made_up(0.03, 0.01, 0.05, 0.001, unit=7, preferred="red", class_drop=0.3, class_drop_low=0.2,
                    class_drop_high=0.4, class_images=50)  # fmt: skip
    text = words.silenced_units([*open_, shown])
    assert "1 of 3" in text and "unit 7" in text and "3.0 points" in text and "30.0 points" in text
    gain = made_up(-0.03, -0.05, -0.01, 0.001, unit=8)
    assert "gained" in words.silenced_units([gain]) and "unit 8" in words.silenced_units([gain])


def test_words_of_sets(planted, colours):
    rows = set_rows(silence_sets(planted, "conv", {"green": [1], "quiet": [4]}, colours), CLASSES)
    # One of five random sets is the set itself, so that nothing is shown.
    text = words.silenced_sets(rows)
    assert "the images of that class lose more" in text and text.count("for none of") == 2 and "33.3" not in text
    text = words.silenced_sets([rows[0] | {"p_corrected": 0.01, "class_p_corrected": 0.01}, rows[1]])
    assert "for 1 of 1 such sets: green (1 unit: 100.0 points" in text
    assert "for 1 of 2 such sets: green (1 unit: 33.3 points" in text and text.endswith("It is left open for quiet.")
    assert words.silenced_sets([]) == ""


def test_figure_of_what_silencing_costs(planted, colours):
    rows = silence_units(planted, colours)["conv"].rows(CLASSES, {1: "green"})
    figure = semantics_figures.silencing_drops(rows)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "1 green, 2" in texts


def test_results_can_be_made_up_for_a_page():
    """The dataclasses hold nothing of the network: a study may keep them."""
    truth = np.array([True, True, False, True])
    silencing = Silencing("x", np.array([3]), np.array([0, 0, 1, 1]), truth, truth[None] & [1, 0, 1, 1])
    assert silencing.drop == pytest.approx(0.25) and silencing.class_drop(1) == 0
    assert np.isnan(silencing.class_drop(2)).all()
    found = SilencedSet("x", "s", np.array([3]), np.array([0, 0, 1, 1]), truth, truth, truth[None])
    assert found.row(("r", "g"))["p"] == 1
