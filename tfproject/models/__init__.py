"""Functional Keras models: RGB images in 0..255 in, one probability per class out, preprocessing inside."""

import importlib

_HOME = {"custom_cnn": "custom", "land_cover_cnn": "land_cover"}
NAMES = tuple(_HOME)


def __getattr__(name):
    # TensorFlow takes seconds to import; the names are known without it.
    if name in _HOME:
        return getattr(importlib.import_module(f"tfproject.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfproject.models' has no attribute '{name}'")
