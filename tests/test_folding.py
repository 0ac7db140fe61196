import functools
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfproject import models
from tfproject.evaluation.prediction import predictor
from tfproject.models.folding import call_folded
from tfproject.models.precision import in_precision

pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras wants a list of one


def with_statistics(model):
    """The model with BatchNorms that do something."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    return model


def pixels(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def folded(model):
    return functools.partial(call_folded, model)


def norms_called(network, images):
    """How often a BatchNorm layer is called."""
    called = []

    def call(layer, inputs, training=None, mask=None):
        called.append(layer)
        return real(layer, inputs, training, mask)

    real = layers.BatchNormalization.call
    with unittest.mock.patch.object(layers.BatchNormalization, "call", call):
        network(images)
    return len(called)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_network_gives_what_it_gave_before(name):
    model = with_statistics(getattr(models, name)((32, 48, 3), 5))
    images = pixels(6, 32, 48, 3)
    expected = model(images, training=False)
    np.testing.assert_allclose(call_folded(model, images), expected, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the images are told apart, so that a mistake would be seen


def test_all_norms_of_the_land_cover_network_are_folded_and_in_bfloat16_it_rounds_alike():
    model = with_statistics(models.land_cover_cnn((64, 64, 3), 10))
    images = pixels(8, 64, 64, 3)
    assert norms_called(folded(model), images) == 0
    exact = model(images, training=False)
    half = in_precision(model, "mixed_bfloat16")
    found, plain = call_folded(half, images), half(images, training=False)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(np.argmax(found, axis=1), np.argmax(exact, axis=1))
    assert 0 < np.abs(found - exact).max() < 4 * np.abs(plain - exact).max()


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
@pytest.mark.parametrize("use_bias", [True, False])
def test_each_form_of_norm_and_layer_is_folded(options, use_bias):
    image = keras.Input((9, 8, 3))
    common = {"use_bias": use_bias, "bias_initializer": "random_normal"}
    x = layers.Conv2D(4, 3, strides=2, padding="valid", **common)(image)
    x = layers.ReLU()(layers.BatchNormalization(**options)(x))
    x = layers.Conv2D(6, (1, 3), padding="same", dilation_rate=(1, 2), groups=2, **common)(x)
    x = layers.Flatten()(layers.BatchNormalization(axis=3, **options)(x))
    x = layers.BatchNormalization(**options)(layers.Dense(5, **common)(x))
    model = with_statistics(keras.Model([image], layers.Softmax()(x)))
    images = pixels(4, 9, 8, 3) / 64 - 2
    np.testing.assert_allclose(call_folded(model, images), model(images, training=False), atol=1e-5)
    assert norms_called(folded(model), images) == 0


def test_models_in_models_and_sequential_ones():
    part = keras.Input((8, 8, 3))
    inner = keras.Model([part], layers.BatchNormalization()(layers.Conv2D(4, 3)(part)), name="inner")
    image = keras.Input((8, 8, 3))
    nested = keras.Model([image], layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255)(image))))
    sequential = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    for model in map(with_statistics, (nested, sequential)):
        images = pixels(4, 8, 8, 3)
        np.testing.assert_allclose(call_folded(model, images), model(images, training=False), rtol=1e-4, atol=1e-4)
        assert norms_called(folded(model), images) == 0


def not_alone():
    """Somebody else sees what is between convolution and BatchNorm."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(image)
    return keras.Model([image], layers.Add()([x, layers.BatchNormalization()(x)]))


def activation_between():
    image = keras.Input((8, 8, 3))
    return keras.Model([image], layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(image)))


def shared_convolution():
    image = keras.Input((8, 8, 3))
    convolution = layers.Conv2D(3, 3, padding="same")
    return keras.Model([image], layers.BatchNormalization()(convolution(convolution(image))))


def shared_norm():
    image = keras.Input((8, 8, 3))
    norm = layers.BatchNormalization()
    return keras.Model([image], norm(layers.Conv2D(3, 3)(norm(layers.Conv2D(3, 3)(image)))))


def along_another_axis():
    image = keras.Input((8, 8, 3))
    return keras.Model([image], layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(image)))


def in_another_precision():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, dtype="mixed_bfloat16")(image)
    return keras.Model([image], layers.BatchNormalization(dtype="float32")(x))


class DoublingConvolution(layers.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


def of_somebodys_own_kind():
    image = keras.Input((8, 8, 3))
    return keras.Model([image], layers.BatchNormalization()(DoublingConvolution(4, 3)(image)))


def in_float16():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(image)
    return keras.Model([image], layers.BatchNormalization(dtype="mixed_float16")(x))


def quantised():
    """Its kernel is whole numbers that are scaled later."""
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Dense(4)(layers.Flatten()(image)))
    model = keras.Model([image], x)
    model.quantize("int8")
    return model


def masked():
    """A mask goes through a dense layer and BatchNorm to the mean, which leaves out what it hides."""
    image = keras.Input((8, 8, 3))
    x = layers.Masking(-5.0)(layers.Reshape((8, 24))(layers.Cropping2D(0)(image)))
    x = layers.BatchNormalization()(layers.Dense(4)(x))
    return keras.Model([image], layers.GlobalAveragePooling1D()(x))


class Halved(keras.Model):
    def call(self, images, training=None):
        return super().call(images / 2, training=training)


def with_a_call_of_its_own():
    image = keras.Input((8, 8, 3))
    return Halved([image], layers.BatchNormalization()(layers.Conv2D(4, 3)(image)))


@pytest.mark.parametrize(
    "make",
    [not_alone, activation_between, shared_convolution, shared_norm, along_another_axis, in_another_precision,
     of_somebodys_own_kind, in_float16, quantised, masked, with_a_call_of_its_own],
)  # fmt: skip
def test_what_would_give_something_else_is_left_as_it_is(make):
    model = with_statistics(make())
    images = pixels(4, 8, 8, 3) / 64 - 2
    images[:2, 3:5] = -5
    plain = functools.partial(model, training=False)
    np.testing.assert_array_equal(call_folded(model, tf.constant(images)), plain(images))
    assert norms_called(folded(model), images) == norms_called(plain, images) > 0


@pytest.mark.parametrize("given", [lambda x: [x], lambda x: {"inner_image": x}, lambda x: x])
def test_a_model_in_a_model_may_be_called_in_any_way(given):
    part = keras.Input((8, 8, 3), name="inner_image")
    inner = keras.Model(given(part), layers.BatchNormalization()(layers.Conv2D(4, 3)(part)))
    image = keras.Input((8, 8, 3))
    model = with_statistics(keras.Model([image], layers.ReLU()(inner(given(image)))))
    images = pixels(4, 8, 8, 3) / 64 - 2
    np.testing.assert_allclose(call_folded(model, images), model(images, training=False), atol=1e-5)


@keras.saving.register_keras_serializable("test_folding")
class Flipped(layers.Layer):
    """A layer without an argument that says whether it is training."""

    def __init__(self):
        super().__init__()
        self.flip = layers.RandomFlip()

    def call(self, images):
        return self.flip(images)


@pytest.mark.parametrize("layer", [layers.RandomFlip, Flipped])
def test_random_layers_do_nothing(layer):
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(layer()(image)))
    model = with_statistics(keras.Model([image], layers.Dropout(0.5)(x)))
    images = pixels(4, 8, 8, 3) / 64 - 2
    np.testing.assert_allclose(call_folded(model, images), model(images, training=False), atol=1e-5)


def test_a_subclassed_model_is_called_as_it_is():
    class Own(keras.Model):
        def call(self, images, training=None):
            return images * (2 if training is False else 3)

    np.testing.assert_array_equal(call_folded(Own(), pixels(2, 3)), 2 * pixels(2, 3))


def test_what_predicts_folds():
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image)))
    model = with_statistics(keras.Model([image], layers.Softmax()(layers.GlobalAveragePooling2D()(x))))
    images = pixels(4, 8, 8, 3)
    assert norms_called(predictor(model, (8, 8), 4), images) == 0
