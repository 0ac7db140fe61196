"""The few blocks that the networks are made of, with names that say their role."""

import tensorflow as tf
from keras import layers


def batch_normalization(x, name):
    """BatchNorm over the whole batch, however many devices share it."""
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1  # slower, so only where it matters
    return layers.BatchNormalization(momentum=0.9, synchronized=synchronized, name=name)(x)


def conv_norm_relu(x, filters, name, kernel_size=3, strides=1):
    """Convolution without bias, BatchNorm (which has one), ReLU."""
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(name=f"{name}_relu")(batch_normalization(x, f"{name}_norm"))


def class_probabilities(x, class_count):
    """The output layer: one probability per class, in float32 under every precision.

    The softmax is the dense layer's own activation, not a layer, so that attribution methods can take it off.
    """
    return layers.Dense(class_count, activation="softmax", dtype="float32", name="classes")(x)
