"""The land-cover network with its images prepared in other ways, to measure what the preparation is worth."""

import keras
from keras import layers

from tfproject.models.land_cover import land_cover_cnn

# What a pixel in 0..255 is multiplied with, and what is added then.
NORMALISATIONS = {"none": (1.0, 0.0), "0..1": (1 / 255, 0.0), "standardised": (1 / 64, -1.6)}


def prepared_cnn(image_shape, class_count, normalisation="standardised", shrink=1, widths=(64, 64, 128, 256)):
    """`land_cover_cnn` behind another preparation; with the defaults it does what that does.

    Args:
        image_shape: (height, width, 3).
        class_count: number of classes.
        normalisation: a name from NORMALISATIONS; "standardised" brings EuroSAT's mean to about 0, as the network has
            it.
        shrink: every so many pixels each way become their mean.
        widths: see `land_cover_cnn`.

    Returns:
        A functional keras.Model with the network as one of its layers.
    """
    image = x = keras.Input(image_shape, name="image")
    if shrink > 1:
        x = layers.AveragePooling2D(shrink, dtype="float32", name="shrink")(x)
    network = land_cover_cnn(tuple(x.shape[1:]), class_count, widths)
    scale, offset = NORMALISATIONS[normalisation]
    x = layers.Rescaling(scale, offset=offset, name="normalisation")(x)
    rest = keras.Model(network.get_layer("preprocessing").output, network.output, name="network")
    rest.layers[0].name = "prepared"  # the same at every call, where Keras would count
    return keras.Model([image], rest(x), name="prepared_cnn")
