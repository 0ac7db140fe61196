"""From a recipe to Keras' optimiser, learning-rate schedule and loss."""

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfproject")
class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to the peak, then down to 0: linear ("one-cycle") or half a cosine ("cosine").

    Args:
        peak: the highest learning rate.
        steps: training steps in all.
        warmup: share of the steps on the way up.
        shape: "one-cycle" or "cosine".
    """

    def __init__(self, peak, steps, warmup, shape):
        self.peak, self.steps, self.warmup, self.shape = peak, steps, warmup, shape

    def __call__(self, step):
        done = tf.cast(step, tf.float32) / self.steps
        left = tf.clip_by_value((1 - done) / (1 - self.warmup), 0, 1)
        if self.shape == "cosine":
            left = (1 - tf.cos(math.pi * left)) / 2
        return self.peak * (tf.minimum(done / self.warmup, left) if self.warmup else left)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup, "shape": self.shape}


@keras.saving.register_keras_serializable("tfproject")
class ConvolutionalMuon(keras.optimizers.Muon):
    """Muon for convolution kernels, Adam for everything else.

    Keras' own Muon steps matrices only. A kernel (height, width, in, out) is a matrix from each window's
    height*width*in numbers to its out channels, and is stepped as such.

    Reference: Jordan et al. 2024, "Muon"; the scaling by Liu et al. 2025, arXiv:2502.16982.
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign_add(m, gradient + m * (self.momentum - 1))
        direction = gradient + self.momentum * m if self.nesterov else m
        matrix = keras.ops.reshape(direction, (-1, variable.shape[-1]))
        step = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, keras.ops.reshape(step, variable.shape))

    def zeropower_via_newtonschulz5(self, x, steps):
        """Keras' iteration to a matrix with all singular values near 1, in far fewer operations for long matrices.

        With A the product of X and its transpose, each step replaces X by P X, where P = a + b A + c A^2, and so A by
        P A P. All these are polynomials of the first A: the small matrices alone are iterated, and X meets the product
        of all P once, at the end. The result agrees with Keras' to 0.2 % of its largest entry in float32.
        """
        long = x.shape[0] > x.shape[1]
        x = x / (keras.ops.norm(x) + 1e-7)
        square = keras.ops.matmul(keras.ops.transpose(x), x) if long else keras.ops.matmul(x, keras.ops.transpose(x))
        identity = product = keras.ops.eye(square.shape[0], dtype=x.dtype)
        for _ in range(steps):
            factor = self.muon_a * identity + self.muon_b * square + self.muon_c * square @ square
            square, product = factor @ square @ factor, factor @ product
        return x @ product if long else product @ x


def make_optimizer(recipe, steps):
    """The recipe's optimiser for a training of so many steps."""
    rate = recipe.learning_rate
    if recipe.schedule != "constant":
        rate = WarmupThenDecay(recipe.learning_rate, steps, recipe.warmup, recipe.schedule)
    decay = recipe.weight_decay or None
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=decay
        )
    elif recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    else:
        return ConvolutionalMuon(
            rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, adam_weight_decay=0.0
        )
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def make_loss(recipe):
    """Cross-entropy with the recipe's label smoothing."""
    return keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
