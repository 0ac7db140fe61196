"""What units stand for: planted units, made-up activations and hand-made kernels whose meaning is known."""

import collections
import dataclasses
import io
import itertools

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers as L
from PIL import Image

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.interpret import semantics, words
from tfproject.interpret.network import lay_open
from tfproject.interpret.samples import TopSamples, top_samples
from tfproject.report import figures, semantics_figures, style

CLASSES = ("red", "yellow", "blue", "cyan")
GROUPS = {"warm": ("red", "yellow"), "cold": ("blue", "cyan")}
COLOURS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])


def samples_of(class_means, average=None, minimum=0.0, indices=None, places=None, maximum=9.0, name="conv"):
    class_means = np.asarray(class_means, np.float64)
    units = len(class_means)
    indices = np.zeros((units, 1), np.int64) if indices is None else np.asarray(indices)
    return TopSamples(
        name=name,
        indices=indices,
        values=np.full(indices.shape, maximum, np.float32),
        places=np.zeros((*indices.shape, 2), np.int32) if places is None else places,
        class_means=class_means,
        class_means_average=class_means if average is None else np.asarray(average, np.float64),
        active_share=np.ones(units),
        minimum=np.full(units, minimum, np.float32),
    )


def test_selectivity_is_the_published_index_for_activations_above_zero():
    index, order = semantics.class_selectivity([[3, 1, 1, 1], [2, 2, 2, 2], [0, 0, 5, 0], [0, 0, 0, 0]], np.zeros(4))
    np.testing.assert_allclose(index, [(3 - 1) / (3 + 1), 0, 1, np.nan])
    np.testing.assert_array_equal(order[[0, 2], 0], [0, 2])


def test_selectivity_below_zero_counts_from_the_least_activation():
    means = np.array([[3.0, 1, 1, -1]])
    index, order = semantics.class_selectivity(means, np.array([-2.0]))
    assert index[0] == pytest.approx((5 - 7 / 3) / (5 + 7 / 3))
    scaled, _ = semantics.class_selectivity(10 * means, np.array([-20.0]))
    assert scaled[0] == pytest.approx(index[0])
    np.testing.assert_array_equal(order[0], [0, 1, 2, 3])
    # Means over places may lie below the least maximum; the index stays within 0..1.
    index, _ = semantics.class_selectivity([[-3.0, -1, -2, -2]], np.array([0.5]))
    assert index[0] == pytest.approx((2 - 2 / 3) / (2 + 2 / 3))


def test_a_class_without_images_does_not_count():
    index, order = semantics.class_selectivity([[4, np.nan, 2]], np.zeros(1))
    assert index[0] == pytest.approx(2 / 6) and order[0].tolist() == [0, 2, 1]
    assert np.isnan(semantics.class_selectivity([[4, np.nan]], np.zeros(1))[0][0])


def test_purity_by_chance_is_that_of_all_choices():
    labels = np.array([0, 0, 0, 1, 1, -1, -1, 2])
    found = semantics.purity(np.array([[0, 1, 2], [3, 4, 7], [5, 6, 7], [5, 6, 5]]), labels)
    np.testing.assert_allclose(found["share"], [1, 2 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(found["label"], [0, 1, 2, -1])
    choices = [labels[list(choice)] for choice in itertools.combinations(range(8), 3)]
    counts = np.array([[np.count_nonzero(choice == label) for label in range(3)] for choice in choices])
    for unit, (label, most) in enumerate(((0, 3), (1, 2), (2, 1))):
        assert found["p"][unit] == pytest.approx(min(1, 3 * np.mean(counts[:, label] >= most)))
    assert found["by_chance"] == pytest.approx(counts.max(axis=1).mean() / 3, abs=0.01)


def test_random_units_are_not_called_selective():
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 2000)
    indices = np.array([random.choice(2000, 25, replace=False) for _ in range(500)])
    found = semantics.purity(indices, labels)
    assert np.mean(found["p"] < 0.05) < 0.07
    assert found["share"].mean() == pytest.approx(found["by_chance"], abs=0.01)


@pytest.fixture(scope="module")
def split():
    """Eighty images of 12x12, each class a colour on noise."""
    random = np.random.default_rng(0)
    labels = np.arange(80) % 4
    images = random.integers(0, 60, (80, 12, 12, 3)) + 150 * COLOURS[labels][:, None, None]
    return Split(images.astype(np.uint8), labels, tuple(f"{i}.png" for i in range(80)))


@pytest.fixture(scope="module")
def network():
    """A first layer of seven pixel detectors (the fifth turned round by the normalisation), then detectors of classes.

    "deep": a class, two groups, two that are silent in the two ways there are, one that fires at random.
    """
    image = keras.Input((12, 12, 3))
    x = L.Conv2D(7, 3, use_bias=False, name="first")(L.Rescaling(1 / 128, offset=-1)(image))
    x = L.LeakyReLU(0.01)(L.BatchNormalization(epsilon=0, name="norm")(x))
    x = L.LeakyReLU(0.01)(L.Conv2D(6, 1, name="deep")(x))
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(image, L.Dense(4, activation="softmax", name="classes")(x))
    kernel = np.zeros((3, 3, 3, 7), np.float32)
    kernel[1, 1, :, 0] = 1, -0.5, -0.5
    kernel[1, 1, :, 1] = -1, -1, 2
    kernel[0, :, :, 2], kernel[2, :, :, 2] = 1, -1
    kernel[..., 3] = 1
    kernel[1, 1, :, 4] = -1, 0.5, 0.5
    kernel[:, 0, 0, 5], kernel[:, 2, 0, 5] = 1, -1
    kernel[:, 0, 1, 5], kernel[:, 2, 1, 5] = -1, 1
    kernel[..., 6] = np.random.default_rng(0).normal(size=(3, 3, 3))
    model.get_layer("first").set_weights([kernel])
    gamma = np.array([1, 1, 1, 1, -1, 1, 1], np.float32)
    model.get_layer("norm").set_weights([gamma, np.zeros(7), np.zeros(7), np.ones(7)])
    deep = np.zeros((7, 6), np.float32)
    deep[0, 0], deep[1, 0] = 1, -1  # red, and yellow more weakly: less blue than the others
    deep[1, 1], deep[1, 2] = 1, -1
    deep[2, 5] = 1
    bias = np.array([-1.6, 0, 0, -50, 7, 0], np.float32)
    deep[:2, 3] = 0.01
    model.get_layer("deep").set_weights([deep[None, None], bias])
    return lay_open(model)


@pytest.fixture(scope="module")
def rows(network, split):
    found = top_samples(network, split, k=15)
    return {name: semantics.unit_rows(network, of_layer, split, CLASSES, GROUPS) for name, of_layer in found.items()}


def test_first_layer_units_are_named_by_their_kernels(rows):
    kinds = [row["kind"] for row in rows["first"]]
    assert kinds[:6] == ["colour", "colour", "edge", "brightness", "colour", "colour edge"]
    meanings = [row["meaning"] for row in rows["first"]]
    assert meanings[:5] == [
        "colour: red-cyan",
        "colour: blue-yellow",
        "edge 0 degrees",
        "brightness",
        "colour: red-cyan",
    ]
    assert rows["first"][5]["orientation"] == pytest.approx(90) and rows["first"][5]["frequency"] is None
    assert rows["first"][1]["purity_class"] == "blue" and rows["first"][1]["class_selective"]


def test_deeper_units_are_named_by_what_excites_them(rows):
    deep = rows["deep"]
    assert [row["meaning"] for row in deep[:4]] == ["class: red", "class: blue", "class: yellow", "silent"]
    assert deep[4]["kind"] == "silent"  # always the same
    assert deep[5]["kind"] == "mixed" and not deep[5]["class_selective"]
    assert deep[0]["preferred"] == "red" and deep[0]["purity"] == 1 and deep[0]["purity_p_corrected"] < 1e-6
    assert deep[3]["selectivity"] is None and deep[3]["class_selective"] is False
    assert deep[0]["second"] == "yellow" and deep[0]["group"] == "warm" and deep[0]["group_purity"] == 1
    assert deep[1]["colour"] == "blue"
    assert all(row["logits"] for row in rows["classes"]) and not any(row["logits"] for row in deep)
    keys = {tuple(row) for of_layer in rows.values() for row in of_layer}
    assert len(keys) == 1


def test_images_that_do_not_excite_a_unit_say_nothing_of_it(network, split):
    """It fires on three images of the last class; the other places of its top hold the set's first images, of 0."""
    order = np.argsort(split.labels, kind="stable")
    by_class = split.take(order)
    three = np.flatnonzero(by_class.labels == 3)[:3]
    indices = np.array([[*three, *range(12)]] * 7)
    samples = samples_of(np.ones((7, 4)), np.ones((7, 4)) / 10, indices=indices, name="deep")
    values = np.where(np.arange(15) < 3, 9, 0) * np.ones((7, 1), np.float32)
    first = semantics.unit_rows(network, dataclasses.replace(samples, values=values), by_class, CLASSES)[0]
    assert first["purity_class"] == CLASSES[3] and first["purity"] == 1 and not first["class_selective"]
    tied = semantics.unit_rows(network, samples, by_class, CLASSES)[0]
    assert tied["purity_class"] == CLASSES[0] and tied["class_selective"]


def test_a_unit_of_a_group_is_not_one_of_a_class(network, split):
    """Its best images are of both cold classes, half and half but for one."""
    cold = np.flatnonzero(split.labels >= 2)[:15]
    mixed = np.arange(15)
    means = np.ones((7, 4))
    samples = samples_of(means, means / 10, indices=[cold] + [mixed] * 6, name="deep")
    group, *_, other = semantics.unit_rows(network, samples, split, CLASSES, GROUPS)
    assert group["purity"] == pytest.approx(8 / 15) and group["group_purity"] == 1
    assert group["meaning"] == "group: cold" and group["purity_p_corrected"] > 0.05
    assert other["meaning"] == "mixed"
    without, *_ = semantics.unit_rows(network, samples, split, CLASSES)
    assert without["group"] is None and without["group_p_corrected"] is None


def test_groups_and_names_that_do_not_suit_are_told(network, split, rows):
    samples = samples_of(np.ones((2, 4)), indices=np.zeros((2, 3), int))
    with pytest.raises(UserError, match="4 classes"):
        semantics.unit_rows(network, samples, split, CLASSES[:2])
    for groups in ({"warm": ("red", "pink")}, {"warm": ()}):
        with pytest.raises(UserError, match="group 'warm'"):
            semantics.unit_rows(network, samples, split, CLASSES, groups)


def test_the_colour_of_top_crops_is_told_from_random_ones(network, split):
    random = np.random.default_rng(1)
    yellow = np.flatnonzero(split.labels == 1)[:9]
    draws = [random.choice(80, 9, replace=False) for _ in range(200)]
    samples = samples_of(
        np.ones((201, 4)), indices=[yellow, *draws], places=random.integers(0, 10, (201, 9, 2)), name="deep"
    )
    distance, angle, p = semantics.colour_distance(network, samples, split.images)
    assert semantics.hue_name(angle[0]) == "yellow" and p[0] < 1e-3 and distance[0] > 1
    assert np.mean(p[1:] < 0.05) < 0.1 and distance[0] > distance[1:].max()
    # Images of another size than the network's are brought to it.
    large = np.kron(split.images, np.ones((1, 2, 2, 1), np.uint8))
    np.testing.assert_allclose(semantics.colour_distance(network, samples, large)[1][0], angle[0], atol=1)
    grey = np.repeat(split.images[..., :1], 3, axis=-1)
    _, angle, p = semantics.colour_distance(network, samples, grey)
    assert p.min() == pytest.approx(1) and np.isnan(angle).all()


def test_fill_is_high_for_what_answers_everywhere(network):
    most = [[1, 8.0], [1, 8.0], [1, 8.0]]
    for minimum in (0.0, 2.0):  # that some spot of every image excites it makes it no less of a texture
        samples = samples_of(most, average=[[0, 8.0], [0.5, 4.0], [0, 0.1]], minimum=minimum)
        np.testing.assert_allclose(semantics.fill(network["deep"], samples), [1, 0.5, 0.0125])
    samples = samples_of(most, average=[[0, 8.0], [0.5, 5.0], [0, 0.1]], minimum=-2.0)
    np.testing.assert_allclose(semantics.fill(network["deep"], samples), [1, 0.7, 0.21])
    # The class that it prefers is that of the mean over the places, as everywhere.
    samples = samples_of([[9, 8.0]] * 3, average=[[0.9, 4.0]] * 3, minimum=0.0)
    np.testing.assert_allclose(semantics.fill(network["deep"], samples), [0.5] * 3)
    assert semantics.fill(network["classes"], samples) is None


def gabor(side, angle, frequency, phase):
    """Stripes that run at this angle, counter-clockwise from horizontal, under a Gaussian."""
    middle = np.arange(side) - (side - 1) / 2
    across = middle[None] * np.sin(np.radians(angle)) + middle[:, None] * np.cos(np.radians(angle))  # rows go downwards
    window = np.exp(-(middle[None] ** 2 + middle[:, None] ** 2) / (2 * (side / 3) ** 2))
    return window * np.cos(2 * np.pi * frequency * across + phase)


def in_colour(pattern, colour):
    return pattern[..., None] * np.asarray(colour, float)


@pytest.mark.parametrize("side", [7, 11])
@pytest.mark.parametrize("angle", [0, 22, 45, 90, 100, 135, 170])
@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.35])
def test_gabor_kernels_have_their_orientation_and_frequency(side, angle, frequency):
    phases = np.linspace(0, 2 * np.pi, 5)
    for row in semantics.filter_rows([in_colour(gabor(side, angle, frequency, p), (1, 1, 1)) for p in phases]):
        assert row["kernel_kind"] == "edge"
        assert abs((row["orientation"] - angle + 90) % 180 - 90) < 5
        assert row["frequency"] == pytest.approx(frequency, abs=0.035)
        assert row["colour_share"] == pytest.approx(0, abs=1e-9)


SMALL_EDGES = {
    0: [[1, 1, 1], [0, 0, 0], [-1, -1, -1]],
    90: [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]],
    45: [[2, 1, 0], [1, 0, -1], [0, -1, -2]],
    135: [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
}


@pytest.mark.parametrize("angle", SMALL_EDGES)
def test_of_small_kernels_only_the_orientation_is_told(angle):
    (row,) = semantics.filter_rows([in_colour(np.array(SMALL_EDGES[angle]), (1, 1, 1))])
    assert row["kernel_kind"] == "edge" and row["orientation"] == pytest.approx(angle, abs=4)
    assert row["frequency"] is None


def test_of_the_smallest_kernels_no_orientation_is_told():
    (row,) = semantics.filter_rows([in_colour(np.array([[1, 1], [-1, -1]]), (1, 1, 1))])
    assert row["orientation"] is None and row["frequency"] is None and row["kernel_kind"] == "mixed"
    assert row["colour_share"] == pytest.approx(0)


@pytest.mark.parametrize(
    "colour, degrees, opponents",
    [
        ((1, 0, 0), 0, "red-cyan"),
        ((1, 1, 0), 60, "yellow-blue"),
        ((0, 1, 0), 120, "green-magenta"),
        ((0, 0, 1), 240, "blue-yellow"),
        ((-1, 1, 1), 180, "cyan-red"),
        ((1, -1, 1), 300, "magenta-green"),
    ],
)
def test_colour_kernels_have_their_hue(colour, degrees, opponents):
    """A colour without its grey, spread over the kernel or in its middle."""
    chroma = np.array(colour) - np.mean(colour)
    spot = np.exp(-np.square(np.indices((5, 5)) - 2).sum(axis=0) / 3)
    for row in semantics.filter_rows([in_colour(np.ones((5, 5)), chroma), in_colour(spot, chroma)]):
        assert row["hue"] == pytest.approx(degrees, abs=1e-6) or row["hue"] == pytest.approx(degrees + 360)
        assert (row["opponents"], row["colour_share"]) == (opponents, pytest.approx(1))
        assert "colour" in row["kernel_kind"]
    assert semantics.filter_rows([in_colour(np.ones((5, 5)), chroma)])[0]["kernel_kind"] == "colour"


def test_a_colour_edge_prefers_neither_side():
    (row,) = semantics.filter_rows([in_colour(gabor(7, 30, 0.2, np.pi / 2), (1, 1, -2))])
    assert row["kernel_kind"] == "colour edge" and row["opponents"] == "yellow-blue"
    assert row["orientation"] == pytest.approx(30, abs=4)


def test_energies_add_up_to_the_share_of_colour():
    grey, colour = gabor(7, 0, 0.2, 0), gabor(7, 90, 0.3, 1)
    kernel = in_colour(grey, (1, 1, 1)) + in_colour(colour, (2, -1, -1))
    (row,) = semantics.filter_rows([kernel])
    expected = 6 * np.square(colour).sum() / (6 * np.square(colour).sum() + 3 * np.square(grey).sum())
    assert row["colour_share"] == pytest.approx(expected)


@pytest.mark.parametrize("side", [3, 5])
def test_random_kernels_pass_as_often_as_is_said(side):
    kernels = np.random.default_rng(9).normal(size=(400, side, side, 3))
    counts = collections.Counter(row["kernel_kind"] for row in semantics.filter_rows(kernels))
    edges, coloured = counts["edge"] + counts["colour edge"], counts["colour"] + counts["colour edge"]
    assert 0.05 < coloured / 400 < 0.16 and 0.03 < edges / 400 < 0.16


def test_a_kernel_of_zeros_has_no_meaning():
    (row,) = semantics.filter_rows(np.zeros((1, 3, 3, 3)))
    assert row["kernel_kind"] == "mixed" and row["hue"] is None


def made_up_row(layer, unit, kind="mixed", selectivity=0.1, purity=0.3, logits=False, **more):
    row = dict.fromkeys(semantics.COLUMNS) | {"layer": layer, "unit": unit, "logits": logits, "kind": kind}
    row |= {"selectivity": selectivity, "selectivity_of_maximum": selectivity, "purity": purity, "purity_class": "red",
            "preferred": "red", "purity_by_chance": 0.25}  # fmt: skip
    return row | {"class_selective": kind == "class", "meaning": kind} | more


@pytest.fixture(scope="module")
def five_layers():
    """Twenty units each; from layer to layer four more are of a class, and the last gives the classes."""
    found = []
    for depth in range(6):
        for unit in range(20):
            kind = "class" if unit < 4 * depth else "silent" if unit == 19 and depth < 5 else "mixed"
            value = None if kind == "silent" else 0.1 + 0.1 * depth + 0.001 * unit
            found.append(made_up_row(f"layer{depth}", unit, kind, value, value, logits=depth == 5))
    return found


def test_layers_are_summed_up(five_layers):
    table = semantics.layer_rows(five_layers)
    assert [row["depth"] for row in table] == [1, 2, 3, 4, 5, 6]
    third = table[2]
    assert (third["units"], third["speaking"], third["class_selective"]) == (20, 19, 8)
    assert (third["class"], third["silent"], third["mixed"]) == (8, 1, 11)
    assert third["class_selective_share"] == pytest.approx(0.4)
    # Wilson's interval of 8 of 20, by its formula.
    z = 1.959964
    middle, reach = (0.4 + z**2 / 40) / (1 + z**2 / 20), z * np.sqrt(0.24 / 20 + z**2 / 1600) / (1 + z**2 / 20)
    assert third["class_selective_share_low"] == pytest.approx(middle - reach, abs=1e-4)
    assert third["class_selective_share_high"] == pytest.approx(middle + reach, abs=1e-4)
    values = 0.3 + 0.001 * np.arange(19)
    assert third["selectivity"] == pytest.approx(values.mean())
    reach = 1.96 * values.std(ddof=1) / np.sqrt(19)
    assert third["selectivity_low"] == pytest.approx(values.mean() - reach, abs=0.4 * reach)
    assert third["selectivity_high"] == pytest.approx(values.mean() + reach, abs=0.4 * reach)


def test_growth_with_depth_counts_layers_before_the_classes(five_layers):
    found = semantics.growth(semantics.layer_rows(five_layers))
    assert found["layers"] == 5 and found["selectivity"] == pytest.approx(1)
    assert found["selectivity_p"] == pytest.approx(2 / 120)  # one order of 120, and its reverse
    assert found["class_selective_share"] == pytest.approx(1)
    table = semantics.layer_rows(five_layers)
    assert semantics.growth(table[:2])["selectivity"] is None
    assert semantics.growth([row | {"selectivity": 0.5} for row in table])["selectivity"] is None
    shuffled = [row | {"selectivity": value} for row, value in zip(table, (0.3, 0.1, 0.5, 0.2, 0.4))]
    expected = 1 - 6 * (2**2 + 1**2 + 2**2 + 2**2 + 1**2) / (5 * 24)
    assert semantics.growth(shuffled)["selectivity"] == pytest.approx(expected)


def test_units_of_a_class_make_a_set(rows, five_layers):
    assert semantics.selective_sets(rows["deep"]) == {"red": [0], "blue": [1], "yellow": [2]}
    assert semantics.selective_sets(five_layers[20:40]) == {"red": [0, 1, 2, 3]}


def test_words_of_the_first_layer(rows):
    text = words.first_layer([row for of_layer in rows.values() for row in of_layer])
    assert "of the 7 filters of first, 1 looks for edges, 1 for edges between colours" in text
    assert "3 for a colour" in text and "red-cyan (3)" in text
    assert "too small to tell an edge's frequency" in text
    assert words.first_layer(rows["deep"]) == ""
    edges = semantics.filter_rows([in_colour(gabor(7, 10 * i, 0.2, i), (1, 1, 1)) for i in range(18)])
    made_up = [made_up_row("c", i, row["kernel_kind"], **row) for i, row in enumerate(edges)]
    assert "are more than that" in words.first_layer(made_up)
    assert "cycles per pixel" in words.first_layer(made_up)


def test_words_of_depth_claim_only_what_is_shown(five_layers):
    table = semantics.layer_rows(five_layers)
    text = words.depth(table, semantics.growth(table))
    assert "In layer0, 0 of 20 units (0 %, 95 % interval 0 % to 16.1 %) are class-selective" in text
    assert "in layer4, the last layer before the classes, 16 of 20 units" in text and "grows with depth" in text
    assert "training" not in text
    text = words.depth(table, semantics.growth(table) | {"selectivity_p": 0.2})
    assert "not shown to grow" in text
    untrained = [row | table[0] | {"layer": row["layer"], "selectivity": 0.07} for row in table]
    told = words.depth(table, semantics.growth(table), untrained)
    assert "weights are shown to make more" in told and "index is 0.07 there with random weights, 0." in told
    assert "weights are not shown to make more" in words.depth(table, semantics.growth(table), table)
    assert "too few layers" in words.depth(table[:1], semantics.growth(table[:1]))


def test_the_conclusion_about_depth_is_one_sentence(five_layers):
    table = semantics.layer_rows(five_layers)
    text = words.depth_in_short(table, semantics.growth(table))
    assert text.startswith("In layer0 0 % of the units are class-selective, in layer4, the last layer before the")
    assert " 80 %; over the 5 layers before the classes the mean selectivity index grows" in text and ". " not in text
    assert "there are too few layers" in words.depth_in_short(table[:1], semantics.growth(table[:1]))


def test_words_of_a_layer_and_of_its_units(five_layers):
    table = semantics.layer_rows(five_layers)
    text = words.layer(table[2])
    assert text.startswith("Of the 20 units of layer2, 8 stand for a class, 11 for none of these and 1 is silent.")
    assert "more than the 25 % of random images" in text
    assert "not shown to be more" in words.layer(table[0])
    text = words.selective_units(five_layers)
    assert "Of 100 units before the classes, 40 are class-selective" in text and "unit 15 of layer4 (red" in text
    assert "No unit of 20" in words.selective_units(five_layers[:20])


def test_the_paragraphs_of_a_network(five_layers):
    table = semantics.layer_rows(five_layers)
    texts = words.describe_network(five_layers, table, semantics.growth(table))
    assert list(texts) == ["semantics"] and len(texts["semantics"]) == 2
    assert all(text.endswith(".") for text in texts["semantics"])


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


MANY = [f"block{block}_conv{conv}" for block in range(1, 6) for conv in range(1, 4)]


def _draws():
    random = np.random.default_rng(0)
    units = [
        made_up_row(name, unit, random.choice(semantics.KINDS), float(random.beta(2, 5 - depth / 4)))
        for depth, name in enumerate(MANY)
        for unit in range(64)
    ]
    layers = semantics.layer_rows(units)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    drops = [
        {"layer": name, "unit": unit, "drop": drop, "drop_low": drop - 0.02, "drop_high": drop + 0.02,
         "p_corrected": 0.001, "preferred": "automobile"}
        for name in MANY
        for unit, drop in enumerate(random.exponential(0.01, 64))
    ]  # fmt: skip
    correlations = [
        {"layer": name, "correlations": np.sort(random.beta(5, 3, 64))[::-1], "null": np.full((2, 64), 0.1),
         "control": np.sort(random.beta(3, 5, 64))[::-1] if i else None}
        for i, name in enumerate(MANY)
    ]  # fmt: skip
    means = random.gamma(1, 1, (128, 10)) + 4 * np.eye(10)[random.choice(10, 128, p=np.arange(10) / 45)]
    selectivity = np.where(np.arange(128) < 8, np.nan, random.random(128))
    return {
        "selectivity_by_depth": lambda: semantics_figures.selectivity_by_depth(units, layers),
        "kinds_by_layer": lambda: semantics_figures.kinds_by_layer(layers),
        "silencing_drops": lambda: semantics_figures.silencing_drops(drops),
        "class_preferences": lambda: semantics_figures.class_preferences(means, selectivity, names, "block3_conv1"),
        "matched_correlations": lambda: semantics_figures.matched_correlations(correlations),
        "one_layer": lambda: semantics_figures.matched_correlations(correlations[:1]),
        "one_unit": lambda: semantics_figures.class_preferences(means[:1], [0.5], names, "dense"),
    }


DRAW = _draws()


@pytest.mark.parametrize("name", DRAW)
def test_figures_fit_a_page_with_all_their_text_in_readable_size(name):
    figure = DRAW[name]()
    with Image.open(io.BytesIO(figures.to_png_bytes(figure))) as image:
        assert image.width == pytest.approx(style.WIDTH * style.DPI, abs=1)
        assert image.height < 11 * style.DPI
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) >= 7


def test_preferences_are_sorted_with_a_guide_beside():
    means = np.array([[0, 5, 1], [0, 1, 9], [2, 4, 0], [3, 3, 3], [0, 1, 1.0]])
    figure = semantics_figures.class_preferences(means, [0.5, 0.9, 0.7, np.nan, 0.1], ("a", "b", "c"), "dense")
    shown = next(axes for axes in figure.axes if axes.get_xlabel() == "class of the image").images[0].get_array()
    np.testing.assert_allclose(shown, [[0.5, 1, 0], [0, 1, 0.2], [0, 1, 1], [0, 1 / 9, 1]])
    assert {"b (3)", "c (1)"} <= set(texts_of(figure)) and "a (0)" not in texts_of(figure)
    assert any("4 units, 1 silent left out" in text for text in texts_of(figure))


def test_kinds_are_stacked_to_the_whole_layer():
    figure = DRAW["kinds_by_layer"]()
    widths = collections.defaultdict(float)
    for bar in figure.axes[0].patches:
        widths[round(bar.get_y(), 2)] += bar.get_width()
    assert len(widths) == len(MANY) and list(widths.values()) == pytest.approx([1] * len(MANY))


def test_a_loss_that_is_not_shown_is_not_named():
    row = {"layer": "c", "drop": 0.02, "drop_low": 0.01, "drop_high": 0.03, "p_corrected": 0.01, "preferred": None}
    rows = [row | {"unit": 11}, row | {"unit": 22, "p_corrected": 0.2}, row | {"unit": 33, "drop_low": -0.01}]
    shown = texts_of(semantics_figures.silencing_drops(rows))
    assert "11" in shown and "22" not in shown and "33" not in shown


def test_an_index_for_another_class_than_that_of_the_top_images_says_so():
    row = made_up_row("conv", 3, "class", 0.25)
    assert words.selectivity_in_words(row) == "selectivity 0.25"
    row["preferred"] = "blue"
    assert "unit 3 of conv (red, selectivity 0.25 for blue, purity 30 %)" in words.selective_units([row])


def test_a_kernel_of_one_pure_colour_is_told_by_the_images_that_excite_it():
    row = made_up_row("first", 0, kernel_kind="mixed", colour="red", colour_distance=6.7, colour_p_corrected=1e-9)
    assert semantics._meaning(row, of_kernel=True) == ("colour", "colour: red")
    assert semantics._meaning(row | {"colour_p_corrected": 0.5}, of_kernel=True) == ("mixed", "mixed")
    assert semantics._meaning(row | {"kernel_kind": "edge"}, of_kernel=True)[0] == "edge"


def test_the_least_loss_that_so_few_images_can_show_is_told():
    rows = [{"layer": "a", "unit": i, "images": 64, "p_corrected": 1, "drop": 0.0, "drop_low": -0.1, "drop_high": 0.1}
            for i in range(64)]  # fmt: skip
    text = words.silenced_units(rows)
    # 12 of 64: 64 * 2 / 2^12 < 0.05 < 64 * 2 / 2^11
    assert "a loss of one unit alone is shown from 18.8 points on" in text
