"""Training: a network, an image set and a recipe in, a run directory out."""

from tfproject.training.recipe import Recipe
from tfproject.training.run import Run

__all__ = ["Recipe", "Run", "fit"]


def __getattr__(name):
    # TensorFlow takes seconds to import; recipes and runs can be read without it.
    if name == "fit":
        from tfproject.training.fitting import fit

        return fit
    raise AttributeError(f"module 'tfproject.training' has no attribute '{name}'")
