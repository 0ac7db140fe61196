"""A small image set and network that train in seconds, for tests in this and in other processes."""

import keras
import numpy as np

from tfproject.data.image_set import ImageSet, Origin, Split
from tfproject.models.layers import class_probabilities, conv_norm_relu


def image_set():
    """Three classes of 16x16 noise, each brighter in a channel of its own: learnt in a few steps."""
    random = np.random.default_rng(0)

    def split(name, count):
        labels = np.arange(count) % 3
        images = random.integers(0, 120, (count, 16, 16, 3)).astype(np.uint8)
        images[np.arange(count), :, :, labels] += 60
        return Split(images, labels.astype(np.int64), tuple(f"{name}_{i}.png" for i in range(count)))

    return ImageSet(
        name="toy",
        class_names=("red", "green", "blue"),
        splits={"train": split("train", 120), "val": split("val", 30), "test": split("test", 30)},
        origin=Origin("Noise with a tint.", synthetic=True),
    )


def network(image_shape, class_count, dropout=0.2):
    """Two convolutions with BatchNorm, dropout, a dense layer."""
    image = keras.Input(image_shape, name="image")
    x = keras.layers.Rescaling(1 / 64, name="preprocessing")(image)
    x = conv_norm_relu(x, 8, "conv1", strides=2)
    x = conv_norm_relu(x, 8, "conv2", strides=2)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model([image], class_probabilities(x, class_count), name="toy_network")


def network_in_float64(image_shape, class_count):
    """The like without dropout in double precision, where rounding cannot hide a difference."""
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        image = keras.Input(image_shape, name="image")
        x = keras.layers.Rescaling(1 / 64, name="preprocessing")(image)
        x = conv_norm_relu(x, 8, "conv1", strides=2)
        x = conv_norm_relu(x, 8, "conv2", strides=2)
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
        return keras.Model(
            [image], keras.layers.Dense(class_count, activation="softmax", name="classes")(x), name="toy64"
        )
    finally:
        keras.config.set_dtype_policy(with_policy)
