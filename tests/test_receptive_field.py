"""Receptive fields against the pixels that a unit's gradient reaches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from tfproject import models
from tfproject.errors import UserError
from tfproject.interpret import lay_open, receptive_field


def positive(model):
    """The model with weights above 0 and no clipping, so that no gradient on the way to a pixel is 0 or cancels out."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1, weight.shape) / max(1, np.prod(weight.shape[:-1])))
    return model


def chain(shape, *parts):
    """The parts one after the other, then the classes."""
    return keras.Sequential([keras.Input(shape), *parts, L.GlobalAveragePooling2D(), L.Dense(2)])


def residual():
    image = keras.Input((21, 18, 3))
    x = L.Conv2D(3, 3, padding="same")(image)
    y = L.Conv2D(3, 5, padding="same", strides=2)(x)
    y = L.Conv2D(3, 3, padding="same")(y)
    x = L.Add()([L.Conv2D(3, 1, strides=2, padding="same")(x), y])
    x = L.Concatenate()([x, L.AveragePooling2D(3, 1, padding="same")(x)])
    x = L.Conv2D(2, 2, name="last")(x * 2.0 + 1.0)
    return keras.Model(image, L.Dense(2)(L.Flatten()(x)))


def kernels_of_two_shapes():
    image = keras.Input((12, 14, 3))
    x = L.Add()([L.Conv2D(2, (1, 5), padding="same")(image), L.Conv2D(2, (3, 3), padding="same")(image)])
    return keras.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(2, (3, 1), strides=(2, 1), name="last")(x))))


def preprocessed():
    """Channels in another order and statistics of the channels, by operations and by layers."""
    image = keras.Input((13, 12, 3))
    x = keras.ops.flip(image, axis=-1)[..., ::-1] * 2.0 - np.ones(3, "float32")
    x = L.UnitNormalization()(L.Conv2D(3, 3, name="first")(x))
    x = L.Permute((1, 2, 3))(keras.ops.transpose(x, (0, 1, 2, 3)))
    return keras.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(3, 3, name="last")(x))))


NETWORKS = {
    "valid": lambda: chain((12, 11, 3), L.Conv2D(2, 3), L.Conv2D(2, (2, 4))),
    "same, odd kernels": lambda: chain((12, 11, 3), L.Conv2D(2, 3, padding="same"), L.Conv2D(2, 5, padding="same")),
    "same, even kernels": lambda: chain((12, 11, 3), L.Conv2D(2, 2, padding="same"), L.Conv2D(2, 4, padding="same")),
    "strides, same": lambda: chain(
        (17, 20, 3), *(L.Conv2D(2, size, strides=2, padding="same") for size in (3, 4, 3))
    ),
    "strides, valid, pixels left over": lambda: chain(
        (20, 17, 3), L.Conv2D(2, 3, strides=2), L.Conv2D(2, 3, padding="same"), L.Conv2D(2, 2, strides=3)
    ),
    "kernel smaller than its stride": lambda: chain((13, 14, 3), L.Conv2D(2, 1, strides=3), L.Conv2D(2, 2)),
    "dilation": lambda: chain(
        (18, 17, 3), L.Conv2D(2, 3, dilation_rate=2), L.Conv2D(2, 3, dilation_rate=(1, 3), padding="same")
    ),
    "pooling": lambda: chain(
        (19, 22, 3), L.Conv2D(2, 3, padding="same"), L.AveragePooling2D(3, 2), L.Conv2D(2, 3),
        L.AveragePooling2D(2, padding="same"), L.Conv2D(2, 2, padding="same"),
    ),
    "padding and cropping": lambda: chain(
        (14, 13, 3), L.ZeroPadding2D(((2, 1), (0, 2))), L.Conv2D(2, 3), L.Cropping2D(((1, 0), (2, 1))),
        L.Conv2D(2, 3, padding="same"), L.Conv2D(2, 3, padding="same"),
    ),
    "separable": lambda: chain(
        (15, 16, 3), L.DepthwiseConv2D(3, strides=2, padding="same"), L.SeparableConv2D(2, 3),
        L.BatchNormalization(), L.ReLU(), L.LayerNormalization(),
        L.SeparableConv2D(2, 2, padding="same", activation="softplus"),
    ),
    "residual": residual,
    "preprocessed": preprocessed,
    "kernels of two shapes": kernels_of_two_shapes,
    "like VGG": lambda: chain(
        (32, 32, 3),
        *(
            part
            for filters in (2, 3, 4)
            for part in (
                L.Conv2D(filters, 3, padding="same", activation="relu"),
                L.Conv2D(filters, 3, padding="same", activation="relu"),
                L.AveragePooling2D(2),
            )
        ),
    ),
}  # fmt: skip


def reached(network, unit_layer, row, column):
    """The box of the pixels with a gradient of the unit, by computing it."""
    part = network.part([unit_layer.output])
    images = tf.constant(np.random.default_rng(0).uniform(1, 2, (1, *network.image_shape)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = part(images)[0, row, column, 0]
    found = np.abs(tape.gradient(value, images)[0]).sum(axis=-1) > 0
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def cut(box, shape):
    top, left, bottom, right = box
    return max(top, 0), max(left, 0), min(bottom, shape[0]), min(right, shape[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_unit_sees_the_pixels_that_its_gradient_reaches(name):
    network = lay_open(positive(NETWORKS[name]()))
    for unit_layer in network.convolutions:
        field = receptive_field(network, unit_layer.name)
        _, height, width, _ = unit_layer.output.shape
        for row in sorted({0, 1 % height, height // 2, height - 1}):
            for column in sorted({0, width // 2, width - 1}):
                seen = field.seen(row, column)
                assert seen == reached(network, unit_layer, row, column), (unit_layer.name, row, column)
                top, left, bottom, right = cut(field.box(row, column), network.image_shape)
                assert top <= seen[0] and left <= seen[1] and seen[2] <= bottom and seen[3] <= right


@pytest.mark.parametrize("name", ["valid", "same, odd kernels", "same, even kernels", "like VGG"])
def test_the_uncut_box_is_what_a_unit_sees_but_for_the_border(name):
    network = lay_open(positive(NETWORKS[name]()))
    for unit_layer in network.convolutions:
        field = receptive_field(network, unit_layer.name)
        for place in np.ndindex(unit_layer.output.shape[1:3]):
            box = field.box(*place)
            assert (box[2] - box[0], box[3] - box[1]) == (field.height, field.width)
            assert cut(box, network.image_shape) == field.seen(*place)


def test_fields_of_vgg16_are_those_of_the_literature():
    """Sizes and strides of Araujo et al. 2019, table of VGG16."""
    network = lay_open(keras.applications.VGG16(weights=None, classes=2, input_shape=(32, 32, 3)))
    fields = {unit_layer.name: receptive_field(network, unit_layer.name) for unit_layer in network.unit_layers}
    sizes = {name: (field.height, field.width, *field.stride) for name, field in fields.items()}
    assert sizes["block1_conv2"] == (5, 5, 1, 1)
    assert sizes["block2_conv2"] == (14, 14, 2, 2)
    assert sizes["block3_conv3"] == (40, 40, 4, 4)
    assert sizes["block4_conv3"] == (92, 92, 8, 8)
    assert sizes["block5_conv3"] == (196, 196, 16, 16)
    assert fields["block5_conv3"].offset == (-90, -90)
    assert fields["fc1"].box(-1, -1) == fields["fc1"].seen(-1, -1) == (0, 0, 32, 32)


def test_behind_a_view_of_the_whole_image_every_unit_sees_it():
    image = keras.Input((10, 12, 3))
    x = L.Conv2D(3, 3, padding="same", name="before")(image)
    excitation = L.Dense(3, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Conv2D(2, 3, name="after")(L.Multiply()([x, excitation]))
    model = keras.Model(image, L.Dense(2, name="classes")(L.Flatten()(x)))
    network = lay_open(positive(model))
    for name, place in (("after", (3, 0)), ("classes", (-1, -1))):
        field = receptive_field(network, name)
        assert field.seen(*place) == field.box(*place) == (0, 0, 10, 12)
    assert receptive_field(network, "before").seen(3, 0) == (2, 0, 5, 2)
    assert reached(network, network["after"], 3, 0) == (0, 0, 10, 12)


@pytest.mark.parametrize(
    "mix",
    [
        L.GroupNormalization(1),
        L.LayerNormalization(axis=(1, 2)),
        L.Softmax(axis=1),
        lambda x: keras.ops.flip(x, axis=1),
        lambda x: keras.ops.maximum(x, keras.ops.max(x, axis=(1, 2), keepdims=True)),
        lambda x: keras.ops.cumsum(x, axis=2),
        lambda x: keras.ops.max(x, axis=(1, 2), keepdims=True) + x,
        L.UpSampling2D(2),
        L.Resizing(10, 12),
        L.Reshape((12, 10, 3)),
    ],
)
def test_what_mixes_the_places_lets_every_unit_see_the_image(mix):
    image = keras.Input((10, 12, 3))
    x = L.Conv2D(3, 3, padding="same", name="before")(image * 2.0)
    x = mix(x) if not isinstance(mix, L.Resizing) else mix(L.AveragePooling2D(2)(x))
    x = L.Conv2D(2, 3, name="after")(x)
    network = lay_open(keras.Model(image, L.Dense(2)(L.Flatten()(x))))
    assert receptive_field(network, "after").seen(3, 2) == (0, 0, 10, 12)


def test_a_place_in_the_padding_sees_nothing():
    network = lay_open(chain((6, 6, 3), L.ZeroPadding2D(2), L.Conv2D(2, 1, name="conv")))
    field = receptive_field(network, "conv")
    top, left, bottom, right = field.seen(0, 3)
    assert bottom <= top and field.seen(2, 3) == (0, 1, 1, 2)
    assert field.box(0, 3) == (-2, 1, -1, 2)


def test_every_unit_layer_of_the_project_s_networks_has_a_field():
    network = lay_open(models.land_cover_cnn((64, 64, 3), 10, widths=(4, 4, 4, 4)))
    fields = {unit_layer.name: receptive_field(network, unit_layer.name) for unit_layer in network.unit_layers}
    assert (fields["stem"].height, fields["stem"].stride, fields["stem"].offset) == (4, (2, 2), (-1, -1))
    assert fields["stage2_residual2"].stride == (8, 8)
    assert fields["classes"].seen(-1, -1) == (0, 0, 64, 64)


def test_a_layer_that_is_not_there():
    with pytest.raises(UserError, match="'nowhere'"):
        receptive_field(lay_open(NETWORKS["valid"]()), "nowhere")
