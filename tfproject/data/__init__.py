"""Image sets: images in, splits and batches out.

from tfproject import data

tiles = data.load("eurosat", split="holdout", seed=0)
tiles.train, tiles.val, tiles.test, tiles.class_names
"""

import importlib

_HOMES = {
    "load": "catalog",
    "load_all": "catalog",
    "NAMES": "catalog",
    "ImageSet": "image_set",
    "Split": "image_set",
    "concatenate": "image_set",
}
__all__ = [*_HOMES, "audit"]


def __getattr__(name):
    # On first use, so that the command line can answer --help without loading NumPy and Pillow.
    if name == "audit":
        return importlib.import_module(f"{__name__}.audit")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
