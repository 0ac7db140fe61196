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
