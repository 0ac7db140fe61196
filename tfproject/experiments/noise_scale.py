"""The gradient noise scale: how large a batch can be before more images in it are a waste."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class NoiseScale:
    """The simple noise scale and what it is made of.

    Attributes:
        scale: trace / gradient, in images; None where the gradient's estimate is not positive (too few images to tell).
        gradient: estimate of the squared length of the gradient of the mean loss.
        trace: estimate of the trace of the covariance of single images' gradients.
        images: how many images were looked at.
    """

    scale: float | None
    gradient: float
    trace: float
    images: int


def measure(model, split, class_count, small=64, big=2048, draws=2, seed=0):
    """Estimate the gradient noise scale of a network on a split.

    The squared length of a batch's gradient is, in the mean, |G|² + trace/B. From batches of two sizes follow unbiased
    estimates of both terms; the big batches are made of the small ones, so every image is used for both. BatchNorm and
    dropout are in inference mode: the loss of an image must not depend on its neighbours.

    Args:
        model: a Keras model from float32 RGB images in 0..255 (b, h, w, 3) to class probabilities (b, c).
        split: a `tfproject.data.Split`; images are drawn from it with replacement.
        class_count: c.
        small, big: the two batch sizes, images; big is a multiple of small.
        draws: number of big batches.
        seed: of the draw.

    Returns:
        NoiseScale.

    Raises:
        ValueError: if big is not a multiple of small and at least twice as large.

    Reference: McCandlish et al. 2018, An empirical model of large-batch training (https://arxiv.org/abs/1812.06162),
        appendix A.1.
    """
    import keras
    import tensorflow as tf

    if big % small or big < 2 * small:
        raise ValueError(f"big must be a multiple of small and at least twice it, got {big} and {small}")
    loss_of = keras.losses.CategoricalCrossentropy()

    @tf.function
    def gradient_of(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=False))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return tf.concat([tf.reshape(tf.cast(g, tf.float32), [-1]) for g in gradients], axis=0)

    random = np.random.default_rng(seed)
    small_squares, big_squares = [], []
    for _ in range(draws):
        total = 0.0
        for _ in range(big // small):
            chosen = random.integers(len(split), size=small)
            labels = np.eye(class_count, dtype=np.float32)[split.labels[chosen]]
            gradient = gradient_of(split.images[chosen].astype(np.float32), labels).numpy().astype(np.float64)
            small_squares.append(gradient @ gradient)
            total = total + gradient
        mean = total / (big // small)
        big_squares.append(mean @ mean)
    of_small, of_big = float(np.mean(small_squares)), float(np.mean(big_squares))
    gradient = (big * of_big - small * of_small) / (big - small)
    trace = (of_small - of_big) / (1 / small - 1 / big)
    return NoiseScale(trace / gradient if gradient > 0 else None, gradient, trace, draws * big)
