"""A model by its name or from its file, for the command line."""

import pathlib

from tfproject.errors import UserError

_OWN = {"custom_cnn": (32, 32, 3), "land_cover_cnn": (64, 64, 3)}


def load_model(name):
    """Build or load a model to study.

    Args:
        name: "custom_cnn" or "land_cover_cnn" (ten classes, CIFAR-10's and EuroSAT's image size), a network of
            keras.applications such as "VGG16" (upper or lower case; without weights), or the path of a `.keras` file.

    Returns:
        keras.Model.

    Raises:
        UserError: if there is no such network or file, or Keras cannot load it.
    """
    import keras

    from tfproject import models

    if name in models.NAMES and name in _OWN:
        return getattr(models, name)(_OWN[name], 10)
    networks = {n.lower(): n for n in dir(keras.applications) if n[0].isupper()}
    if name.lower() in networks:
        return getattr(keras.applications, networks[name.lower()])(weights=None)
    path = pathlib.Path(name)
    if path.suffix != ".keras":
        raise UserError(
            f"There is no network {name}; give one of {', '.join(_OWN)}, of keras.applications (such as VGG16), "
            "or a .keras file."
        )
    if not path.is_file():
        raise UserError(f"There is no model file {path}; give the path of a .keras file.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged place gives
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"Keras cannot load {path} ({type(error).__name__}: {reason}); give a whole model of its own layers."
        ) from error


def default_input_shape(model):
    """224 pixels, as for ImageNet, for each side of its image that a model leaves open; None if it leaves none."""
    shapes = [tuple(x.shape[1:]) for x in getattr(model, "inputs", None) or ()]
    if len(shapes) == 1 and len(shapes[0]) == 3 and None in shapes[0][:2] and shapes[0][2]:
        return tuple(side or 224 for side in shapes[0])
    return None
