import keras
import numpy as np
import pytest
import tensorflow as tf

from tfproject.training import batch_norm

IMAGES = np.random.default_rng(0).normal(3, 2, (6, 5, 7, 4)).astype("float32")
TARGET = np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32")


def normalising(dtype="float32", **options):
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGES.shape[1:], name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv", dtype=dtype)(image)
    layer = keras.layers.BatchNormalization(momentum=0.7, name="norm", dtype=dtype, **options)
    return keras.Model([image], layer(x))


def step(model, training=True):
    """(output, gradients by weight, weights) of one pass in a compiled function."""

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            made = model(IMAGES, training=training)
            loss = tf.reduce_mean((tf.cast(made, tf.float32) - TARGET) ** 2)
        return made, tape.gradient(loss, [v.value for v in model.trainable_variables])

    made, gradients = run()
    return np.asarray(made, "float32"), [g.numpy() for g in gradients], model.get_weights()


def operations(model):
    traced = tf.function(lambda x: model(x, training=True)).get_concrete_function(tf.TensorSpec(IMAGES.shape))
    return {operation.type for operation in traced.graph.get_operations()}


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.05)])
def test_fused_and_plain_agree(options, dtype, tolerance):
    plain, fused = normalising(dtype, **options), normalising(dtype, **options)
    batch_norm.fuse(fused)
    assert "FusedBatchNormV3" in operations(fused) and "FusedBatchNormV3" not in operations(plain)
    expected, found = step(plain), step(fused)
    np.testing.assert_allclose(found[0], expected[0], atol=tolerance)
    for ours, theirs in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_inference_is_unchanged():
    plain, fused = normalising(), normalising()
    batch_norm.fuse(fused)
    np.testing.assert_array_equal(fused(IMAGES, training=False), plain(IMAGES, training=False))


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"axis": 1}, {"trainable": False}])
def test_what_it_cannot_do_is_left_to_keras(options):
    plain, fused = normalising(**options), normalising(**options)
    batch_norm.fuse(fused)
    assert "FusedBatchNormV3" not in operations(fused)
    np.testing.assert_array_equal(fused(IMAGES, training=True), plain(IMAGES, training=True))
