"""A network laid open says what the model says, and shows each layer inside it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from keras import layers as L

from tfproject import models
from tfproject.errors import UserError
from tfproject.interpret import lay_open

SHAPE = (16, 16, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)) * np.linspace(0.1, 1, 5)[:, None, None, None]
IMAGES = (IMAGES * np.random.default_rng(1).uniform(0, 1, (5, 1, 1, 3))).astype(np.uint8)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def sharpened(model):
    """The model with random weights everywhere, in normalisations too, and answers that differ between the images."""
    random = np.random.default_rng(0)
    kernels = []
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(random.uniform(0.5, 2, weight.shape))
        elif "kernel" in weight.path:
            weight.assign(random.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape))
            kernels.append(weight)
        elif "seed" not in weight.path and "count" not in weight.path:
            weight.assign(random.normal(0, 0.2, weight.shape))
    for layer in model.layers:
        if isinstance(layer, L.Normalization):
            layer.finalize_state()
    while True:
        said = model(tf.constant(IMAGES, tf.float32), training=False)
        if tf.reduce_max(said) < 0.95 and (said.shape[1] > 1 or tf.reduce_min(said) > 0.05):
            return model
        kernels[-1].assign(0.6 * kernels[-1])


def sequential():
    return keras.Sequential([
        keras.Input(SHAPE), L.Rescaling(1 / 255), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(),
        L.Dense(6, activation="tanh"), L.Dense(3, activation="softmax"),
    ])  # fmt: skip


def convolutional_part(name, filters=4):
    x = image = keras.Input((16, 16, 3))
    x = L.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = L.BatchNormalization(name="norm")(x)
    return keras.Model(image, L.ReLU(name="relu")(x), name=name)


def nested():
    image = keras.Input(SHAPE, name="image")
    x = L.Rescaling(1 / 255)(image)
    x = convolutional_part("eye")(x)
    x = keras.Sequential([L.Conv2D(3, 3, padding="same"), L.LeakyReLU()], name="middle")(x)
    x = convolutional_part("mind", 5)(x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model([image], L.Dense(3, activation="softmax", name="conv")(x))


def augmented():
    return keras.Sequential([
        keras.Input(SHAPE), L.RandomFlip(), L.RandomRotation(0.3), L.RandomBrightness(0.5), L.RandomCrop(12, 12),
        L.GaussianNoise(0.9), L.Rescaling(1 / 255), L.Conv2D(4, 3), L.SpatialDropout2D(0.5), L.ReLU(), L.Dropout(0.5),
        L.GlobalMaxPooling2D(), L.Dense(3), L.Softmax(),
    ])  # fmt: skip


def with_operations():
    image = keras.Input(SHAPE)
    x = L.Conv2D(4, 3, padding="same", activation="relu")(image / 255.0 - 0.5)
    y = keras.ops.relu(L.Conv2D(4, 3, padding="same", name="second")(x))
    x = L.Concatenate()([L.Add()([x, y]), keras.ops.max(x, axis=-1, keepdims=True)])
    x = keras.ops.mean(x, axis=(1, 2))
    return keras.Model(image, keras.ops.softmax(L.Dense(3, name="classes")(x)))


def with_shared_layer():
    image = keras.Input(SHAPE)
    shared = L.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    x = L.GlobalAveragePooling2D()(L.Add()([shared(shared(image)), image]))
    return keras.Model(image, L.Dense(3, activation="softmax", name="classes")(x))


def with_other_layers():
    """Normalisation by adapted statistics, an activation with weights inside a layer, separable convolutions."""
    normalization = L.Normalization()
    normalization.adapt(np.random.default_rng(1).normal(100, 50, (64, *SHAPE)))
    model = keras.Sequential([
        keras.Input(SHAPE), normalization, L.Conv2D(4, 3, activation=L.PReLU(shared_axes=(1, 2)), name="conv"),
        L.SeparableConv2D(5, 3, activation="elu", name="separable"), L.GroupNormalization(5),
        L.DepthwiseConv2D(3, name="depthwise"), L.Flatten(), L.Dense(3, activation="softmax", name="classes"),
    ])  # fmt: skip
    model(tf.constant(IMAGES, tf.float32))  # Keras makes the activation's weights only now
    return model


def one_class():
    return keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), L.Flatten(), L.Dense(1, activation="sigmoid")])


def without_dense():
    return keras.Sequential([keras.Input(SHAPE), L.Conv2D(3, 3), L.GlobalAveragePooling2D(), L.Softmax()])


def without_convolution():
    return keras.Sequential([
        keras.Input(SHAPE), L.Rescaling(1 / 255), L.Flatten(), L.Dense(5, activation="relu"),
        L.Dense(3, activation="softmax"),
    ])  # fmt: skip


MODELS = {
    f.__name__: f
    for f in (
        sequential, nested, augmented, with_operations, with_shared_layer, with_other_layers, one_class, without_dense,
        without_convolution,
    )
}  # fmt: skip
MODELS["custom_cnn"] = lambda: models.custom_cnn(SHAPE, 3, dropout=0.3)
MODELS["land_cover_cnn"] = lambda: models.land_cover_cnn(SHAPE, 3, widths=(4, 4, 6, 8))


@pytest.mark.parametrize("name", MODELS)
def test_the_flat_model_says_what_the_model_says_and_leaves_it_as_it_was(name):
    model = sharpened(MODELS[name]())
    images = tf.constant(IMAGES, tf.float32)
    expected, weights = model(images, training=False).numpy(), model.get_weights()
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert np.ptp(expected, axis=0).max() > 0.01  # else anything would be equal
    network = lay_open(model)
    found = network.model(images).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(found, network.model(images, training=False))
    assert not any(isinstance(layer, keras.Model) for layer in network.model.layers)
    assert (network.image_shape, network.class_count) == (SHAPE, expected.shape[1])
    for layer in network.model.layers:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    np.testing.assert_array_equal(model(images, training=False), expected)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights))
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes


@pytest.mark.parametrize("name", MODELS)
def test_logits_become_the_probabilities(name):
    network = lay_open(sharpened(MODELS[name]()))
    logits, probabilities = network.function([network.logits, network.model.output], 8)(IMAGES)
    expected = tf.sigmoid(logits) if network.class_count == 1 else tf.nn.softmax(logits)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_every_precision_becomes_float32(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input(SHAPE)
        x = convolutional_part("eye")(keras.ops.cast(L.Rescaling(1 / 255)(image), policy.removeprefix("mixed_")))
        x = L.Dense(6, activation="relu")(L.GlobalAveragePooling2D()(x))
        x = L.Activation("softmax", dtype="float32")(L.Dense(3, name="classes")(x))
        model = keras.Model(image, keras.ops.cast(L.Activation("linear", dtype="float32")(x), "float32"))
        network = lay_open(sharpened(model))
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in network.model.layers[1:]} == {"float32"}
    assert {operation.output.dtype for operation in network.model.operations} == {"float32"}
    assert {weight.dtype for weight in network.model.weights} == {"float32"}
    (found,) = network.function([network.model.output], 5)(IMAGES)
    expected = model(tf.constant(IMAGES, tf.float32), training=False)
    np.testing.assert_allclose(found, tf.cast(expected, tf.float32), atol=0.03 if "bfloat16" in policy else 1e-6)
    assert network.logits is network["classes"].output


def names(network):
    return [unit_layer.name for unit_layer in network.unit_layers]


def test_unit_layers_of_nested_parts_with_repeated_names():
    network = lay_open(nested())
    assert names(network)[0] == "eye/conv" and names(network)[2:] == ["mind/conv", "conv"]
    assert [u.kind for u in network.unit_layers] == ["convolution"] * 3 + ["dense"]
    assert [u.units for u in network.unit_layers] == [4, 3, 5, 3]
    assert network.convolutions == network.unit_layers[:3] and network.dense == network.unit_layers[3:]
    assert network["mind/conv"] is network.unit_layers[2]


def test_what_units_say_is_normalised_and_activated_and_raw_is_the_weighted_sum():
    model = sharpened(nested())
    network = lay_open(model)
    eye = model.get_layer("eye")
    part = keras.Model(eye.input, [eye.get_layer("conv").output, eye.output])
    raw, output = part(tf.constant(IMAGES, tf.float32) / 255, training=False)
    unit_layer = network["eye/conv"]
    found_raw, found = network.function([unit_layer.raw, unit_layer.output], 5)(IMAGES)
    np.testing.assert_allclose(found_raw, raw, atol=1e-5)
    np.testing.assert_allclose(found, output, atol=1e-5)
    assert found.min() == 0 > found_raw.min()


def test_an_activation_inside_a_layer_is_taken_apart():
    model = sharpened(with_other_layers())
    network = lay_open(model)
    unit_layer = network["conv"]
    assert unit_layer.layer.activation is keras.activations.linear
    raw, output = network.function([unit_layer.raw, unit_layer.output], 5)(IMAGES)
    slope = np.asarray(model.get_layer("conv").activation.alpha).reshape(-1)
    np.testing.assert_allclose(output, np.where(raw > 0, raw, slope * raw), rtol=1e-5)
    assert raw.min() < 0
    # Followed by a normalisation, its activation comes first and is the end.
    separable_raw, separable = network.function([network["separable"].raw, network["separable"].output], 5)(IMAGES)
    np.testing.assert_allclose(separable, tf.nn.elu(separable_raw), atol=1e-5)


def test_output_ends_where_a_branch_begins_and_at_the_logits():
    network = lay_open(with_operations())
    first, second, classes = network.unit_layers
    assert first.output is not first.raw and second.output is not second.raw  # ReLU as layer and as operation
    assert classes.raw is classes.output is network.logits
    image = keras.Input(SHAPE)
    x = L.Conv2D(3, 3, padding="same", name="conv")(image)
    x = L.Flatten()(L.Add()([x, L.ReLU()(x)]))
    network = lay_open(keras.Model(image, L.Dense(3)(x)))
    assert network["conv"].output is network["conv"].raw
    assert network.logits is network.model.output


def test_each_call_of_a_shared_layer_is_there_with_the_same_weights():
    network = lay_open(with_shared_layer())
    assert names(network) == ["shared", "shared#2", "classes"]
    first, second, _ = network.unit_layers
    assert first.layer is second.layer and first.output is not second.output
    once, twice = network.function([first.output, second.output], 5)(IMAGES)
    np.testing.assert_allclose(tf.nn.relu(first.layer(once)), twice, atol=1e-4)


def test_augmentation_and_dropout_are_left_out_but_not_what_works_in_use():
    network = lay_open(augmented())
    kinds = " ".join(type(layer).__name__ for layer in network.model.layers)
    assert kinds == "InputLayer RandomCrop Rescaling Conv2D ReLU GlobalMaxPooling2D Dense Softmax"


def test_no_unit_layers():
    flat = keras.Sequential([keras.Input(SHAPE), L.GlobalAveragePooling2D(), L.Softmax()])
    network = lay_open(flat)
    assert network.unit_layers == network.convolutions == network.dense == ()
    with pytest.raises(UserError, match="none at all"):
        network["conv"]
    assert lay_open(without_dense()).dense == ()
    assert lay_open(without_convolution()).convolutions == ()


def test_a_layer_that_is_not_there():
    with pytest.raises(UserError, match=r"'conv9'.*conv1, conv2, classes"):
        lay_open(toy.network(SHAPE, 3))["conv9"]


def test_function_takes_any_number_up_to_its_batch_and_traces_once():
    network = lay_open(sharpened(toy.network(SHAPE, 3)))
    tensors = [network["conv1"].output, network.logits]
    function = network.function(tensors, 5)
    whole = function(IMAGES)
    assert [value.shape for value in whole] == [(5, 8, 8, 8), (5, 3)]
    assert all(value.dtype == np.float32 for value in whole)
    for value, alone in zip(whole, function(IMAGES[1:3].astype("float32"))):
        np.testing.assert_allclose(alone, value[1:3], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="at most 5"):
        function(np.concatenate([IMAGES, IMAGES]))


def several_inputs():
    a, b = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model([a, b], L.Dense(2)(L.Flatten()(L.Add()([a, b]))))


def several_outputs():
    a = keras.Input(SHAPE)
    x = L.Flatten()(a)
    return keras.Model(a, [L.Dense(2)(x), L.Dense(2)(x)])


class Opaque(keras.Model):
    def call(self, x):
        return x


def with_lambda():
    return keras.Sequential([keras.Input(SHAPE), L.Lambda(lambda x: x * 2), L.Flatten(), L.Dense(2)])


@pytest.mark.parametrize(
    "make, words",
    [
        (several_inputs, "2 inputs"),
        (several_outputs, "2 outputs"),
        (lambda: keras.Sequential([L.Flatten(), L.Dense(2)]), "not been built"),
        (lambda: keras.Sequential([keras.Input((7,)), L.Dense(2)]), r"\(None, 7\)"),
        (lambda: keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPooling2D()]), "fixed size"),
        (lambda: keras.Sequential([keras.Input(SHAPE), L.Conv2D(2, 3)]), r"\(None, 14, 14, 2\)"),
        (Opaque, "does not show what is inside"),
        (with_lambda, "of type Lambda cannot be made anew"),
    ],
)
def test_models_that_cannot_be_laid_open(make, words):
    with pytest.raises(UserError, match=words) as error:
        lay_open(make())
    assert "\n" not in str(error.value)


def test_deep_networks_of_keras_applications():
    model = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(32, 32, 3), alpha=0.35)
    for weight in model.weights:
        if "moving" in weight.path:
            weight.assign(np.random.default_rng(0).uniform(0.01, 0.1, weight.shape))
    images = tf.constant(np.random.default_rng(0).normal(0, 1, (3, 32, 32, 3)), tf.float32)
    network = lay_open(model)
    found = network.model(images)
    np.testing.assert_allclose(found, model(images, training=False), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01
    assert len(network.convolutions) == 52 and len(network.dense) == 1
