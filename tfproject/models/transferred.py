"""Networks for transfer beside those of `backbones`: the custom CNN with trained weights, and a small VGG."""

import functools
import pathlib

import keras
from keras import layers

from tfproject.errors import UserError
from tfproject.models import saved_models
from tfproject.models.backbones import classifier
from tfproject.models.custom import custom_cnn

VGG16_PLAN = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters and convolutions of each block


def custom_cnn_from(image_shape, class_count, weights, width=1.0):
    """The custom CNN with the weights of a saved one wherever layers of the same name have the same shapes.

    The output layer is always drawn anew. For images of another size than the saved network's, the dense layer is new
    too, as its inputs are others.

    Args:
        image_shape: (height, width, 3).
        class_count: number of classes.
        weights: path of the saved network's .keras file.
        width: of the saved network, see `custom_cnn`.

    Returns:
        A functional keras.Model, as `custom_cnn` gives.

    Raises:
        UserError: if the file cannot be loaded, or its convolutions do not fit.
    """
    model = custom_cnn(image_shape, class_count, width=width)
    trained = _trained(weights)
    for layer in model.layers[:-1]:
        if not layer.weights:
            continue
        own, found = [w.shape for w in layer.get_weights()], [w.shape for w in trained.get(layer.name, ())]
        if own == found:
            layer.set_weights(trained[layer.name])
        elif layer.name != "dense":
            raise UserError(
                f"{weights} is no custom CNN of width {width:g}: its layer {layer.name} has weights {found} and {own} "
                "are needed; give the file that Task 1 saved."
            )
    return model


def _trained(path):
    """The weights in a file by layer; read once, as a study builds its network some times for each run."""
    path = pathlib.Path(path).absolute()
    return _read(path, (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None)


@functools.lru_cache(maxsize=1)
def _read(path, state):
    return {layer.name: layer.get_weights() for layer in saved_models.load(path).model.layers}


def small_vgg(image_shape, class_count, width=0.125, depth=3, head=(), dropout=0.0):
    """VGG16's plan and layer names with a fraction of its filters and random weights: to try a method, not to score.

    Args:
        image_shape: (height, width, 3), at least 32 pixels each way.
        class_count: number of classes.
        width: what the numbers of filters are multiplied with.
        depth: convolutions a block, at most.
        head, dropout: see `tfproject.models.backbones.classifier`.

    Returns:
        A functional keras.Model.
    """
    image = keras.Input(image_shape, name="image")
    x = layers.Rescaling(1 / 64, offset=-2, name="preprocessing")(image)
    for block, (filters, count) in enumerate(VGG16_PLAN, start=1):
        for i in range(1, min(count, depth) + 1):
            x = layers.Conv2D(
                round(width * filters), 3, padding="same", activation="relu", kernel_initializer="he_normal",
                name=f"block{block}_conv{i}",
            )(x)  # fmt: skip
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return classifier(keras.Model([image], x, name="small_vgg"), class_count, head, dropout)
