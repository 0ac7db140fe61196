"""Kernels as images and what filters respond to most: hand-made filters whose answers are known; and the figures."""

import io

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tfproject.errors import UserError
from tfproject.interpret import filters
from tfproject.interpret.network import lay_open
from tfproject.report import figures, filter_figures, style

SIDE = 12


def model_of(convolution, before=None, after=(), side=SIDE):
    """Preprocessing to -1..1, the convolution and what follows it, a classifier."""
    keras.utils.set_random_seed(6)
    image = keras.Input((side, side, 3))
    x = before(image) if before else layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = convolution(x)
    for layer in after:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(2, activation="softmax", name="classes")(x))


@pytest.fixture(scope="module")
def known():
    """Five filters of 3x3 with ReLU: red; top minus bottom; red, silent on all but pure red; grey, turned by the
    normalisation; blue. And a class that is the red filter, another that is the blue one."""
    convolution = layers.Conv2D(5, 3, padding="same", name="conv")
    norm = layers.BatchNormalization(epsilon=0, name="norm")
    model = model_of(convolution, after=[norm, layers.ReLU()])
    kernel = np.zeros((3, 3, 3, 5), np.float32)
    kernel[1, 1, :, 0] = kernel[1, 1, :, 2] = (1, -1, -1)
    kernel[0, :, :, 1], kernel[2, :, :, 1] = 1, -1
    kernel[1, 1, :, 3] = 1
    kernel[1, 1, :, 4] = (-1, -1, 1)
    convolution.set_weights([kernel, np.array([0, 0, -2.2, 0, 0], np.float32)])
    norm.set_weights([np.array([1, 1, 1, -1, 1], np.float32), np.zeros(5), np.zeros(5), np.ones(5)])
    weights = np.zeros((5, 2), np.float32)
    weights[0, 0] = weights[4, 1] = 1
    model.get_layer("classes").set_weights([weights, np.zeros(2, np.float32)])
    return lay_open(model)


@pytest.fixture(scope="module")
def maximised(known):
    return filters.maximise_activation(known, "conv", range(5), steps=40, batch_size=3, learning_rate=0.1)


def test_a_colour_filter_gives_its_colour(maximised):
    means = maximised.images.reshape(5, -1, 3).mean(axis=1)
    for unit, colour in ((0, (1, 0, 0)), (2, (1, 0, 0)), (4, (0, 0, 1))):
        np.testing.assert_array_equal(means[unit] > 127, np.array(colour, bool))
        assert means[unit].max() > 190 and means[unit].min() < 65
    assert maximised.images.dtype == np.uint8 and maximised.images.shape == (5, SIDE, SIDE, 3)


def test_a_unit_silent_on_noise_is_brought_to_speak(maximised):
    assert maximised.on_noise[2] < 0.01 < maximised.reached[2]


def test_a_unit_turned_by_its_normalisation_gives_the_dark(maximised):
    assert maximised.images[3].mean() < 60
    assert maximised.reached[3] > 2 * maximised.on_noise[3]


def test_an_edge_filter_gives_stripes_across_its_edge(maximised):
    image = maximised.images[1].astype(float).mean(axis=-1)
    assert np.abs(np.diff(image, axis=0)).mean() > 3 * np.abs(np.diff(image, axis=1)).mean()


def test_what_is_reached_is_the_units_output_on_the_image(maximised, known):
    (outputs,) = known.function([known["conv"].output], 5)(maximised.images)
    own = [outputs[i, :, :, i].mean() for i in range(5)]
    np.testing.assert_allclose(maximised.reached, own, rtol=1e-4)
    assert (maximised.reached > maximised.on_noise).all()
    row = maximised.rows()[2]
    assert (row["layer"], row["unit"], row["steps"]) == ("conv", 2, 40)
    assert row["reached"] == pytest.approx(own[2], rel=1e-4)


def test_a_class_is_maximised_by_what_its_filter_likes(known):
    found = filters.maximise_activation(known, "classes", [1, 0], steps=25, learning_rate=0.1)
    blue, red = found.images.reshape(2, -1, 3).mean(axis=1)
    assert blue.argmax() == 2 and red.argmax() == 0
    assert found.units.tolist() == [1, 0] and (found.reached > found.on_noise).all()


def test_the_same_seed_gives_the_same_image_and_another_another(known):
    state = np.random.get_state()[1].copy()
    first, again, other = (
        filters.maximise_activation(known, "conv", [1], steps=6, seed=seed).images for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # nobody else's random numbers are used up


@pytest.mark.parametrize("units", [[5], [-1], [], [0.5]])
def test_units_that_are_not_there(known, units):
    with pytest.raises(UserError, match="give numbers from 0 to 4"):
        filters.maximise_activation(known, "conv", units)


def test_a_layer_that_is_not_there(known):
    with pytest.raises(UserError, match="'absent'"):
        filters.maximise_activation(known, "absent", [0])


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.Conv2D(6, 3, padding="same", groups=3, name="conv"),
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="conv"),
        layers.SeparableConv2D(5, (3, 2), padding="same", depth_multiplier=2, name="conv"),
    ],
    ids=["whole", "groups", "depthwise", "separable"],
)
def test_kernels_are_what_the_layer_computes_with(layer):
    network = lay_open(model_of(layer, before=lambda image: image * 1.0))
    found = filters.colour_kernels(network)
    # A plain convolution with these kernels gives what the layer gives.
    images = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    (outputs,) = network.function([network["conv"].raw], 2)(images)
    plain = keras.ops.conv(images, found.weights.transpose(1, 2, 3, 0), padding="same")
    np.testing.assert_allclose(plain, outputs, atol=1e-4)


def test_colour_kernels_are_in_the_images_colours():
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, :, 0], kernel[0, 0, :, 1] = (0, 0, 2), (-1, 0, 0)  # of B, G, R
    convolution = layers.Conv2D(2, 1, use_bias=False, name="conv")
    model = model_of(convolution, before=lambda image: image[..., ::-1] - np.array([103.9, 116.8, 123.7], np.float32))
    convolution.set_weights([kernel])
    found = filters.colour_kernels(lay_open(model))
    assert found.channels == "the image's R, G, B" and found.scale == pytest.approx(2, rel=1e-4)
    np.testing.assert_allclose(found.weights[:, 0, 0], [[2, 0, 0], [0, 0, -1]], atol=1e-4)
    np.testing.assert_array_equal(found.images[:, 0, 0], [[255, 128, 128], [128, 128, 64]])


def test_colour_kernels_after_more_than_arithmetic_are_the_layers_own():
    convolution = layers.Conv2D(2, 3, name="conv")
    model = model_of(convolution, before=lambda image: layers.Activation("tanh")(image / 100))
    found = filters.colour_kernels(lay_open(model))
    assert found.channels == "the layer's own three input channels"
    np.testing.assert_allclose(found.weights, convolution.get_weights()[0].transpose(3, 0, 1, 2))
    largest = np.abs(found.weights).max()
    assert found.scale == pytest.approx(largest)
    np.testing.assert_allclose((found.images.astype(float) - 128) / 127 * largest, found.weights, atol=largest / 200)


def test_no_convolution_or_one_of_other_than_three_channels():
    image = keras.Input((4, 4, 3))
    flat = keras.Model(image, layers.Dense(2, activation="softmax", name="classes")(layers.Flatten()(image)))
    with pytest.raises(UserError, match="no convolution"):
        filters.colour_kernels(lay_open(flat))
    with pytest.raises(UserError, match="classes is a dense layer"):
        filters.kernel_slices(lay_open(flat)["classes"])
    four = model_of(layers.Conv2D(2, 3, name="conv"), before=lambda x: layers.Concatenate()([x, x[..., :1]]))
    with pytest.raises(UserError, match="conv reads 4 channels"):
        filters.colour_kernels(lay_open(four))


def test_kernel_slices_show_the_channels_with_the_largest_weights():
    convolution = layers.Conv2D(5, 3, name="deeper")
    model = model_of(layers.Conv2D(7, 3, name="conv"), after=[convolution])
    kernel = convolution.get_weights()[0]
    found = filters.kernel_slices(lay_open(model)["deeper"], units=[4, 1], channel_count=3)
    assert found.slices.shape == (2, 3, 3, 3)
    for place, unit in enumerate((4, 1)):
        strength = [np.linalg.norm(kernel[:, :, channel, unit]) for channel in range(7)]
        assert found.channels[place].tolist() == sorted(range(7), key=lambda channel: -strength[channel])[:3]
        np.testing.assert_array_equal(found.slices[place, 0], kernel[:, :, np.argmax(strength), unit])
        np.testing.assert_allclose(found.mean[place], kernel[..., unit].mean(axis=2), rtol=1e-5)
    assert found.scale == np.abs(kernel).max()
    norms = np.linalg.norm(kernel.reshape(-1, 5), axis=0)
    assert filters.kernel_slices(lay_open(model)["deeper"]).units.tolist() == np.argsort(-norms).tolist()


def test_norms_of_every_unit(known):
    rows = filters.norm_rows(known)
    assert [(row["layer"], row["unit"]) for row in rows] == [
        *(("conv", i) for i in range(5)), ("classes", 0), ("classes", 1),
    ]  # fmt: skip
    assert [row["l2"] for row in rows] == pytest.approx([3**0.5, 18**0.5, 3**0.5, 3**0.5, 3**0.5, 1, 1])
    assert [row["l1"] for row in rows] == pytest.approx([3, 18, 3, 3, 3, 1, 1])
    assert rows[1]["to_median"] == pytest.approx(6**0.5) and rows[0]["weights"] == 27 and rows[5]["weights"] == 5


RANDOM = np.random.default_rng(0)
CLASSES = ("cat", "dog", "a name that is longer than there is room for")
PICTURES = RANDOM.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
POINTS, LABELS = RANDOM.normal(size=(200, 2)), np.arange(200) % 3
NUMBERS = {"units": 64, "images": 1000, "dead": 3, "saturated": 1, "always_on": 2, "sparsity": 0.4}
NEAR = {"width": 9, "neighbours": 10, "images": 200, "accuracy": 0.5, "embedding_accuracy": 0.4,
        "trustworthiness": 0.9, "largest_class": 0.34}  # fmt: skip
MAPS = {
    "layer": "a/layer_with_a_very_long_name",
    "units": [511, 2],
    "maps": RANDOM.random((2, 8, 8)),
    "low": 0,
    "high": 1,
}
DRAW = {
    "colour_kernels": lambda: filter_figures.colour_kernels(PICTURES[:, :3, :3], "conv1", 0.3, "the image's R, G, B"),
    "kernel_slices": lambda: filter_figures.kernel_slices(
        RANDOM.random((3, 3, 3)), RANDOM.random((3, 8, 3, 3)), [0, 7, 511], np.tile(np.arange(8), (3, 1)), "conv9", 0.1
    ),
    "kernel_norms": lambda: filter_figures.kernel_norms(
        [{"layer": f"conv{i % 4}", "unit": i, "l2": 1 + i % 7} for i in range(100)]
    ),
    "maximised_activations": lambda: filter_figures.maximised_activations(
        PICTURES[:7], [f"unit {n}" for n in range(500, 507)], np.arange(7) * 123.4, np.arange(7) / 9, "conv", 200
    ),
    "feature_map_sheet": lambda: filter_figures.feature_map_sheet(PICTURES[0], [MAPS, MAPS]),
    "dead_units": lambda: filter_figures.dead_units([{"layer": "conv1", **NUMBERS}, {"layer": "conv2", **NUMBERS}]),
    "embedding_scatter": lambda: filter_figures.embedding_scatter(POINTS, LABELS, CLASSES, "fc1", 30.0, 0.812, 0.97),
    "embedding_images": lambda: filter_figures.embedding_images(POINTS, PICTURES, LABELS, CLASSES, "fc1", 30.0),
    "neighbourhood_curve": lambda: filter_figures.neighbourhood_curve([{"layer": f"fc{i}", **NEAR} for i in range(9)]),
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("name", DRAW)
def test_figures_fit_a_page_with_all_their_text_in_readable_size(name):
    figure = DRAW[name]()
    with Image.open(io.BytesIO(figures.to_png_bytes(figure))) as image:
        assert image.width == pytest.approx(style.WIDTH * style.DPI, abs=1)
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) >= 7


def test_a_sheet_of_many_units_shows_64_with_their_numbers():
    shown = texts(DRAW["colour_kernels"]())
    numbers = [int(text) for text in shown if text.isdigit()]
    assert len(numbers) == 64 and numbers[0] == 0 and numbers[-1] == 199
    assert any("64 of 200 kernels" in text for text in shown)


def test_a_picture_stands_over_its_own_unit_number():
    figure = DRAW["maximised_activations"]()
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[3].get_array(), PICTURES[3])
    left, right, *_ = axes.images[3].get_extent()
    (caption,) = [text for text in axes.texts if text.get_text().startswith("unit 503")]
    assert caption.get_position()[0] == pytest.approx((left + right) / 2)
    assert caption.get_text() == "unit 503\n370, noise 0.333"


def test_titles_say_how_far_a_layout_can_be_believed():
    (title,) = [text.replace("\n", " ") for text in texts(DRAW["embedding_scatter"]()) if "perplexity" in text]
    assert title == "fc1: t-SNE, perplexity 30, 200 images; class by 10 neighbours 81.2%, trustworthiness 0.970"
    few = filter_figures.embedding_scatter(POINTS[:2], LABELS[:2], CLASSES, "fc1", None, 1.0, float("nan"))
    assert any("principal components" in text for text in texts(few))


def test_each_image_is_framed_in_the_colour_of_its_class_at_its_place():
    points = np.array([[0.0, 0.0], [10.0, 10.0]])
    black = np.zeros((2, 8, 8, 3), np.uint8)
    figure = filter_figures.embedding_images(points, black, [0, 1], CLASSES, "fc1", 5.0, cells=4)
    canvas = figure.axes[0].images[0].get_array()
    colours = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in style.class_colours(CLASSES).values()]
    assert tuple(canvas[-30, 0]) == colours[0]  # the lowest point is at the bottom
    assert tuple(canvas[0, -30]) == colours[1]
    assert (canvas[-25:-10, 5:20] == 0).all()


def test_dead_units_are_counted_beside_their_bar():
    figure = DRAW["dead_units"]()
    assert "3 dead" in texts(figure)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([3 / 64, 3 / 64, 1 / 64, 1 / 64, 2 / 64, 2 / 64])
