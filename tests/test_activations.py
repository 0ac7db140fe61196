"""What units say of many images: against numbers made by hand and by the whole feature maps."""

import keras
import numpy as np
import pytest
from keras import layers

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.interpret import activations
from tfproject.interpret.network import lay_open


def split_of(images):
    return Split(images, np.zeros(len(images), np.int64), tuple(map(str, range(len(images)))))


@pytest.fixture(scope="module")
def split():
    return split_of(np.random.default_rng(0).integers(0, 256, (21, 10, 12, 3), dtype=np.uint8))


def model_with(activation):
    """A convolution of four units and this activation: units 0 to 3 get the biases of `planted`."""
    keras.utils.set_random_seed(4)
    image = keras.Input((10, 12, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = activation(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))


def planted(activation, bias):
    """The layer's activity with these biases; kernels small beside a bias of 100."""
    model = model_with(activation)
    model.get_layer("conv").bias.assign(np.asarray(bias, np.float32))
    return model


def activity_of(model, split):
    found = activations.activity(lay_open(model), split, batch_size=8)  # the last batch has five
    return {of_layer.layer: of_layer for of_layer in found}


@pytest.mark.parametrize(
    "activation",
    [layers.ReLU(), layers.LeakyReLU(0.2), layers.ELU(), layers.Activation("gelu"), layers.ReLU(max_value=6)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_unit_with_a_large_negative_bias_is_dead(split, activation):
    found = activity_of(planted(activation, [0, -100, 0, 100]), split)["conv"]
    np.testing.assert_array_equal(found.dead, [False, True, False, activation.get_config().get("max_value") == 6])
    assert found.always_on[3] == (not found.dead[3])
    assert found.sparsity[1] == 1 and 0.1 < found.sparsity[0] < 0.9 and found.sparsity[3] == 0
    row = found.row()
    assert row["dead"] == found.dead.sum() and row["dead_share"] == found.dead.mean()


def test_a_leaky_unit_below_zero_is_dead_though_it_varies(split):
    found = activity_of(planted(layers.LeakyReLU(0.2), [0, -100, 0, 0]), split)["conv"]
    assert found.dead[1] and found.spread[1] > 0 and found.highest[1] < 0


@pytest.mark.parametrize("name, bounds", [("tanh", (-1, 1)), ("sigmoid", (0, 1))])
def test_a_bounded_unit_near_its_bound_is_saturated_and_one_on_it_dead(split, name, bounds):
    model = planted(layers.Activation(name), [0, 4, -4, 100])
    conv = model.get_layer("conv")
    conv.kernel.assign(conv.kernel * 0.3)
    found = activity_of(model, split)["conv"]
    np.testing.assert_array_equal(found.saturated, [False, True, True, False])
    np.testing.assert_array_equal(found.dead, [False, False, False, True])  # constant in float32
    assert found.highest[1] < bounds[1] and found.lowest[2] > bounds[0]
    assert not found.always_on.any()


def test_relu6_is_saturated_above_only(split):
    model = planted(layers.Activation("relu6"), [0, 5.95, 0.05, -50])
    conv = model.get_layer("conv")
    conv.kernel.assign(conv.kernel * 0.1)  # the sums lie within 0.3 of the bias
    found = activity_of(model, split)["conv"]
    np.testing.assert_array_equal(found.saturated, [False, True, False, False])
    np.testing.assert_array_equal(found.dead, [False, False, False, True])


def test_a_linear_unit_is_never_saturated_and_dead_only_if_constant(split):
    model = planted(layers.Activation("linear"), [0, -100, 100, 7])
    kernel = model.get_layer("conv").kernel.numpy()
    kernel[..., 3] = 0
    model.get_layer("conv").kernel.assign(kernel)
    found = activity_of(model, split)["conv"]
    np.testing.assert_array_equal(found.dead, [False, False, False, True])
    assert not found.saturated.any() and not found.always_on.any()


@pytest.mark.parametrize("norm_first", [True, False])
def test_statistics_are_those_of_the_whole_feature_maps(split, norm_first):
    def activation(x):
        norm = layers.BatchNormalization(name="norm")
        return layers.ReLU(name="relu")(norm(x)) if norm_first else norm(layers.ReLU(name="relu")(x))

    model = model_with(activation)
    random = np.random.default_rng(1)
    model.get_layer("norm").set_weights([random.normal(1, 0.3, 4), random.normal(0, 1, 4), np.zeros(4), np.ones(4)])
    found = activity_of(model, split)
    part = keras.Model(model.input, [model.get_layer("relu").output, model.output])
    maps, probabilities = (x.numpy() for x in part(split.images.astype("float32"), training=False))
    conv, classes = found["conv"], found["classes"]
    places = maps.reshape(-1, 4)
    np.testing.assert_allclose(conv.mean, places.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(conv.spread, places.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(conv.sparsity, (places <= 0).mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(conv.highest, places.max(axis=0), rtol=1e-4)
    row = conv.row()
    assert (row["units"], row["images"], row["kind"]) == (4, 21, "convolution")
    assert row["mean"] == pytest.approx(places.mean(), rel=1e-4)
    assert row["spread"] == pytest.approx(places.std(), rel=1e-4)
    # The classifying layer is looked at before its softmax: differences of logits are those of log-probabilities.
    logs = np.log(probabilities)
    differences = (logs - logs[:, :1]).mean(axis=0)
    np.testing.assert_allclose(classes.mean - classes.mean[0], differences, rtol=1e-3, atol=1e-4)
    assert classes.activation == "linear"


def test_unit_rows_are_plain_numbers(split):
    (rows, _) = (of_layer.unit_rows() for of_layer in activity_of(model_with(layers.ReLU()), split).values())
    assert [row["unit"] for row in rows] == [0, 1, 2, 3]
    assert {type(row["dead"]) for row in rows} == {bool} and {type(row["mean"]) for row in rows} == {float}


def test_layers_asked_for(split):
    network = lay_open(model_with(layers.ReLU()))
    (found,) = activations.activity(network, split, ["classes"])
    assert found.layer == "classes"
    with pytest.raises(UserError, match="'absent'"):
        activations.activity(network, split, ["absent"])


def test_images_that_do_not_fit(split):
    network = lay_open(model_with(layers.ReLU()))
    with pytest.raises(UserError, match="no image"):
        activations.activity(network, split_of(split.images[:0]))
    with pytest.raises(UserError, match=r"\(4, 4, 3\) and the network takes \(10, 12, 3\)"):
        activations.activity(network, split_of(split.images[:, :4, :4]))


def test_a_network_without_units(split):
    image = keras.Input((10, 12, 3))
    network = lay_open(keras.Model(image, layers.Softmax()(layers.GlobalAveragePooling2D()(image))))
    assert activations.activity(network, split) == []
    with pytest.raises(UserError, match="no convolution"):
        activations.feature_maps(network, split.images)


def test_feature_maps_are_the_most_active_on_a_common_scale(split):
    model = model_with(layers.ReLU(name="relu"))
    images = split.images[:5]
    (found,) = activations.feature_maps(lay_open(model), images, count=2, batch_size=2)
    whole = keras.Model(model.input, model.get_layer("relu").output)(images.astype("float32"), training=False).numpy()
    assert found.maps.shape == (5, 2, 10, 12)
    assert (found.low, found.high) == pytest.approx((whole.min(), whole.max()), abs=1e-5)
    for image in range(5):
        best = sorted(range(4), key=lambda unit: -whole[image, :, :, unit].mean())[:2]
        assert found.units[image].tolist() == best
        np.testing.assert_allclose(found.maps[image], whole[image][..., best].transpose(2, 0, 1), atol=1e-5)


def test_all_feature_maps_in_order(split):
    (found,) = activations.feature_maps(lay_open(model_with(layers.ReLU())), split.images[:3], ["conv"], count=None)
    assert found.units.tolist() == [[0, 1, 2, 3]] * 3
    with pytest.raises(UserError, match="classes is dense"):
        activations.feature_maps(lay_open(model_with(layers.ReLU())), split.images[:1], ["classes"])
