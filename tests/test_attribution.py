"""Attribution maps against tf-keras-vis, which they are to equal, and what tf-keras-vis cannot do."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy.ndimage import zoom

from tfproject.errors import UserError
from tfproject.interpret import attribution
from tfproject.interpret.attribution import METHODS, attribute
from tfproject.interpret.network import lay_open

SHAPE, CLASSES, SAMPLES = (20, 28, 3), 5, 4
CAMS = attribution.CLASS_ACTIVATION_MAPS


def filled(model, seed=0):
    """The model with random weights that make all of its parts count."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        else:
            fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 10
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    return model


def convolutions():
    return [
        L.Rescaling(1 / 127.5, offset=-1, name="preprocessing"),
        L.Conv2D(6, 3, padding="same", activation="relu", name="conv1"),
        L.MaxPooling2D(name="pool"),
        L.Conv2D(8, 3, padding="same", name="conv2"),
        L.BatchNormalization(name="norm"),
        L.LeakyReLU(0.1, name="leaky"),
        L.Conv2D(10, 3, activation="relu", name="conv3"),
    ]


def head():
    return [L.Flatten(name="flat"), L.Dense(CLASSES, activation="softmax", name="classes")]


def chained(parts, shape=SHAPE):
    image = x = keras.Input(shape, name="image")
    for part in parts:
        x = part(x)
    return keras.Model([image], x)


@pytest.fixture(scope="module")
def model():
    return filled(chained(convolutions() + head()))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def found(model, images):
    return attribute(model, images, samples=SAMPLES)


def reference(method, model, images, classes, **options):
    """tf-keras-vis's map with its defaults, the softmax taken off; SmoothGrad with the same noise as ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
        from tf_keras_vis.layercam import Layercam
        from tf_keras_vis.saliency import Saliency
        from tf_keras_vis.scorecam import Scorecam
        from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
        from tf_keras_vis.utils.scores import CategoricalScore

        kinds = {
            "gradients": Saliency, "smoothgrad": Saliency, "gradcam": Gradcam, "gradcam++": GradcamPlusPlus,
            "scorecam": Scorecam, "layercam": Layercam,
        }  # fmt: skip
        explain = kinds[method](model, model_modifier=ReplaceToLinear(), clone=True)
        return explain(CategoricalScore([int(c) for c in classes]), images.astype(np.float32), **options)


def same_noise(monkeypatch, seed=0):
    def normal(mean, scale, shape):
        noise = [attribution.standard_noise(seed, sample, shape[2:]) for sample in range(shape[0])]
        return np.asarray(scale) * np.stack(noise)[:, None]

    monkeypatch.setattr(np.random, "normal", normal)


# Grad-CAM++ divides by what can come near 0 and so enlarges rounding, which differs in batches of different size.
ROUNDING = dict.fromkeys(METHODS, 1e-4) | {"gradcam++": 2e-3}


def assert_same(maps, expected, tolerance=1e-4):
    assert maps.shape == expected.shape and maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, rtol=0, atol=tolerance)


def predicted(model, images):
    return model.predict(images, verbose=0).argmax(axis=1)


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_are_those_of_tf_keras_vis(method, model, images, found, monkeypatch):
    same_noise(monkeypatch)
    options = {"smooth_samples": SAMPLES} if method == "smoothgrad" else {}
    expected = reference(method, model, images, predicted(model, images), **options)
    assert np.ptp(expected, axis=(1, 2)).min() > 0.9  # there is something to compare
    assert_same(found[method], expected)


def test_any_class_can_be_asked_for(model, images, monkeypatch):
    same_noise(monkeypatch, seed=3)
    classes = np.array([4, 3, 2, 1, 0])
    maps = attribute(model, images, classes, samples=2, noise=0.5, seed=3)
    for method in METHODS:
        options = {"smooth_samples": 2, "smooth_noise": 0.5} if method == "smoothgrad" else {}
        assert_same(maps[method], reference(method, model, images, classes, **options))


def reference_at(layer, method, model, images):
    return reference(
        method, model, images, predicted(model, images), penultimate_layer=layer, seek_penultimate_conv_layer=False
    )


@pytest.mark.parametrize("convolution, activated", [("conv1", "conv1"), ("conv2", "leaky")])
def test_the_maps_of_an_earlier_layer_are_those_after_its_activation(convolution, activated, model, images):
    maps = attribute(model, images, methods=CAMS, layer=convolution)
    for method in CAMS:
        assert_same(maps[method], reference_at(activated, method, model, images), ROUNDING[method])


def branches():
    """The last convolution is one of two branches, so no cut through the network gives it alone."""
    image = keras.Input(SHAPE)
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="stem")(image / 255)
    left = L.Conv2D(6, 1, name="left")(x)
    right = L.ReLU(name="right_relu")(L.BatchNormalization(name="right_norm")(L.Conv2D(6, 3, padding="same")(x)))
    x = L.SeparableConv2D(6, 3, name="separable")(L.Add()([left, right]))
    x = keras.ops.relu(L.Concatenate()([x, L.Cropping2D(1)(right)]))
    return filled(keras.Model([image], L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(x))))


def test_a_layer_beside_which_others_lead_to_the_class(images):
    model = branches()
    maps = attribute(model, images, methods=CAMS)
    for method in CAMS:
        assert_same(maps[method], reference(method, model, images, predicted(model, images)))


def test_faster_score_cam_takes_the_channels_that_vary_most(model, images):
    maps = attribute(model, images, methods="scorecam", max_channels=3)["scorecam"]
    for i, class_number in enumerate(predicted(model, images)[:2]):
        expected = reference("scorecam", model, images[i : i + 1], [class_number], max_N=3)
        assert_same(maps[i : i + 1], expected)


def nested(dtype=None):
    with_policy = keras.config.dtype_policy()
    if dtype:
        keras.config.set_dtype_policy(dtype)
    try:
        base = chained(convolutions())
        image = keras.Input(SHAPE)
        x = L.RandomFlip()(image)
        x = base(x)
        for part in head():
            x = part(L.Dropout(0.5)(x))
        return keras.Model(image, x)
    finally:
        keras.config.set_dtype_policy(with_policy)


def softmax_apart():
    *parts, _ = convolutions() + head()
    return chained([*parts, L.Dense(CLASSES, name="logits"), L.Softmax(name="softmax")])


@pytest.mark.parametrize(
    "other",
    [
        lambda: keras.Sequential([keras.Input(SHAPE), *convolutions(), *head()]),
        nested,
        lambda: nested("mixed_bfloat16"),
        softmax_apart,
    ],
    ids=["Sequential", "nested", "mixed_bfloat16", "Softmax layer"],
)
def test_the_same_network_in_another_form_has_the_same_maps(other, model, images, found):
    same = other()
    same.set_weights(model.get_weights())
    maps = attribute(same, images, predicted(model, images), samples=SAMPLES)
    for method in METHODS:
        assert_same(maps[method], found[method])
    np.testing.assert_array_equal(same.get_weights()[0], model.get_weights()[0])


def test_a_batch_is_its_images_one_by_one(model, images, found):
    explain = attribution.attributor(lay_open(model), samples=SAMPLES)
    for i in range(len(images)):
        for method, maps in explain(images[i : i + 1]).items():
            assert_same(maps[0], found[method][i], ROUNDING[method])
    assert {maps.shape for maps in explain(images[:0]).values()} == {(0, *SHAPE[:2])}


def test_the_batch_size_does_not_matter(model, images, found):
    maps = attribute(model, images, batch_size=3, samples=SAMPLES)
    for method in METHODS:
        assert_same(maps[method], found[method], ROUNDING[method])


def test_methods_alone_are_as_together(model, images, found):
    for method in ("smoothgrad", "scorecam", "layercam"):
        (maps,) = attribute(model, images, methods=(method,), samples=SAMPLES).values()
        assert_same(maps, found[method], ROUNDING[method])


def test_smoothgrad_comes_from_its_seed(model, images, found):
    again = attribute(model, images, methods="smoothgrad", samples=SAMPLES)["smoothgrad"]
    np.testing.assert_array_equal(again, found["smoothgrad"])
    other = attribute(model, images, methods="smoothgrad", samples=SAMPLES, seed=1)["smoothgrad"]
    assert np.abs(other - again).max() > 0.01
    noise = np.stack([attribution.standard_noise(5, sample, (40, 40, 3)) for sample in range(20)])
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.06


def test_maps_follow_a_networks_weights(model, images):
    network = lay_open(model)
    explain = attribution.attributor(network, ("gradients", "gradcam"))
    before = explain(images)
    filled(network.model, seed=7)
    after = explain(images)
    expected = attribute(network, images, methods=("gradients", "gradcam"))
    for method in expected:
        assert_same(after[method], expected[method])
        assert np.abs(after[method] - before[method]).max() > 0.1


def test_no_convolution(images):
    model = filled(chained([L.Flatten(), L.Dense(4, activation="relu"), L.Dense(CLASSES, activation="softmax")]))
    methods = ("gradients", "smoothgrad")
    maps = attribute(model, images, methods=methods, samples=2)
    assert_same(maps["gradients"], reference("gradients", model, images, predicted(model, images)))
    assert np.ptp(maps["smoothgrad"], axis=(1, 2)).min() > 0.9
    for method in CAMS:
        with pytest.raises(UserError, match="no convolution"):
            attribute(model, images, methods=method)


def test_one_class(images):
    """A single sigmoid; Score-CAM weights with its probability, where tf-keras-vis has a softmax of one number, 1."""
    parts = [*convolutions(), L.GlobalAveragePooling2D(), L.Dense(1, activation="sigmoid")]
    model = filled(chained(parts))
    maps = attribute(model, images, samples=2)
    for method in ("gradients", "gradcam", "gradcam++", "layercam"):
        assert_same(maps[method], reference(method, model, images, [0] * len(images)))
    network = lay_open(model)
    features = network.function([network["conv3"].output], 5)(images)[0]
    factors = (SHAPE[0] / features.shape[1], SHAPE[1] / features.shape[2])
    for i, image in enumerate(images):
        masks = np.stack([zoom(channel, factors, order=1) for channel in np.moveaxis(features[i], -1, 0)])
        masks -= masks.min(axis=(1, 2), keepdims=True)
        masks /= masks.max(axis=(1, 2), keepdims=True) + 1e-7
        cam = zoom(features[i] @ model.predict(image * masks[..., None], verbose=0)[:, 0], factors, order=1)
        assert_same(maps["scorecam"][i], (cam - cam.min()) / (np.ptp(cam) + 1e-7))


def test_a_map_without_differences_is_zero(images):
    model = chained([L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax")])
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    for maps in attribute(model, images, samples=2).values():
        np.testing.assert_array_equal(maps, np.zeros_like(maps))


def test_large_logits_are_no_overflow(model, images, found):
    """The same number added to every logit changes nothing but exp(logit), which Grad-CAM++ is taken of."""
    sure = chained(convolutions() + head())
    *weights, bias = model.get_weights()
    sure.set_weights([*weights, bias + 200])
    maps = attribute(sure, images, predicted(model, images), "gradcam++")["gradcam++"]
    assert_same(maps, found["gradcam++"], ROUNDING["gradcam++"])


def test_what_the_maps_measure_is_told_with_its_layer_and_cells(model):
    rows = {row["method"]: row for row in attribution.described(lay_open(model))}
    assert tuple(rows) == METHODS and all(row["measures"] for row in rows.values())
    places = {method: (row["layer"], row["rows"], row["columns"]) for method, row in rows.items()}
    assert {places[method] for method in ("gradients", "smoothgrad")} == {("the image", 20, 28)}
    assert {places[method] for method in CAMS} == {("conv3", 8, 12)}
    (row,) = attribution.described(lay_open(model), ("layercam",), "conv1")
    assert (row["layer"], row["rows"], row["columns"]) == ("conv1", 20, 28)


def test_no_warning_is_printed(model, images, caplog):
    network = lay_open(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(network, images[:1], samples=1)
        for _ in range(6):  # TensorFlow warns of its fifth tracing of a function
            attribute(network, images[:1], methods="gradients")
    assert not caplog.records


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"methods": ("gradcam", "lime")}, "no attribution method 'lime'; give some of gradients"),
        ({"methods": ()}, "give some of"),
        ({"layer": "conv9"}, "conv9"),
        ({"layer": "classes"}, "give a convolution"),
        ({"classes": [0, 1]}, "one whole number for each of the 5 images"),
        ({"classes": [0, 1, 2, 3, 5]}, "run from 0 to 5; the network knows 0 to 4"),
        ({"classes": [0.0] * 5}, "whole number"),
        ({"images": np.zeros((2, 8, 8, 3))}, r"\(8, 8, 3\) and the network takes \(20, 28, 3\)"),
        ({"samples": 0}, "samples is 0"),
        ({"max_channels": 0}, "max_channels is 0"),
    ],
)
def test_what_cannot_be(arguments, message, model, images):
    with pytest.raises(UserError, match=message):
        attribute(**{"model": model, "images": images, **arguments})
