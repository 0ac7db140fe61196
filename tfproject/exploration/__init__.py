"""What an image set holds before and beside any training: colours, spectra, simple statistics, embeddings."""

import importlib

_HOME = {
    "channel_statistics": "colour", "colour_histograms": "colour", "colour_statistics": "colour",
    "colour_floor": "colour",
    "mean_images": "spectra", "mean_log_spectra": "spectra", "radial_profiles": "spectra",
    "image_statistics": "appearance", "STATISTICS": "appearance", "WORDS": "appearance",
    "penultimate_features": "embeddings", "own_class_distance": "embeddings", "outliers": "embeddings",
    "clusters": "embeddings",
}  # fmt: skip
__all__ = tuple(_HOME)


def __getattr__(name):
    # On first use: scikit-learn and TensorFlow take seconds to import.
    if name in _HOME:
        return getattr(importlib.import_module(f"tfproject.exploration.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfproject.exploration' has no attribute '{name}'")
