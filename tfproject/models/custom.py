"""The course's custom CNN."""

import keras
from keras import layers

from tfproject.models.layers import batch_normalization, class_probabilities

NEGATIVE_SLOPE = 0.01


def custom_cnn(
    image_shape, class_count, batch_norm=True, dropout=0.0, width=1.0, depth=2, norm_after_activation=False
):
    """Three blocks of two 3x3 convolutions and a pooling, then a dense layer of 128 units.

    32, 64 and 128 filters, LeakyReLU. 551,466 trainable parameters with BatchNorm for 32x32 images in ten classes.

    Args:
        image_shape: (height, width, 3), at least 8 pixels each way.
        class_count: number of classes.
        batch_norm: BatchNorm after each convolution.
        dropout: share of units dropped after each pooling and after the dense layer.
        width: what the numbers of filters and dense units are multiplied with.
        depth: convolutions a block.
        norm_after_activation: BatchNorm after each convolution's activation rather than before it.

    Returns:
        A functional keras.Model: RGB images (b, height, width, 3) in 0..255 to probabilities (b, class_count).
    """
    image = keras.Input(image_shape, name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(image)
    for block, filters in enumerate((32, 64, 128), start=1):
        for conv in range(1, depth + 1):
            name = f"block{block}_conv{conv}"
            x = layers.Conv2D(round(width * filters), 3, padding="same", name=name)(x)
            if batch_norm and not norm_after_activation:
                x = batch_normalization(x, f"{name}_norm")
            x = layers.LeakyReLU(NEGATIVE_SLOPE, name=f"{name}_relu")(x)
            if batch_norm and norm_after_activation:
                x = batch_normalization(x, f"{name}_norm")
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"block{block}_dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(round(width * 128), name="dense")(x)
    x = layers.LeakyReLU(NEGATIVE_SLOPE, name="dense_relu")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dense_dropout")(x)
    return keras.Model([image], class_probabilities(x, class_count), name="custom_cnn")
