"""Experiments: named variations of a recipe, each trained from several seeds, compared with their uncertainty.

    from tfproject.experiments import Experiment, Study, Variation, run_study

    plain = Variation("none", Recipe(epochs=10))
    flipped = Variation("flip", Recipe(epochs=10, augment=("flip",)))
    question = Experiment("augmentation", "Does mirroring help?", (plain, flipped), baseline="none")
    run_study(Study("runs/mirror", (question,), images="tfproject.data:load", image_options={"name": "cifar10"}))
"""

import importlib

_HOMES = {
    "Experiment": "experiment",
    "Trial": "experiment",
    "Variation": "experiment",
    "Study": "study",
    "run_study": "runner",
    "run_trial": "runner",
    "analyse": "analysis",
}
__all__ = [*_HOMES]


def __getattr__(name):
    # On first use, so that the command line can name the experiments without loading TensorFlow.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
