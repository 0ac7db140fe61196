"""What each layer of a Keras model costs: parameters, memory, arithmetic and time, and why."""

import importlib

_HOME = {
    "study": "layer_costs", "CostTable": "table", "RULES": "kinds", "peak_training_memory": "memory",
    "measured_training_memory": "memory", "profiled_flops": "profiler", "scaling": "growth", "explain": "explanation",
    "load_model": "loading",
}  # fmt: skip
__all__ = (*_HOME, "figures")


def __getattr__(name):
    # TensorFlow takes seconds to import; `tfproject --help` does without it.
    if name in _HOME:
        return getattr(importlib.import_module(f"tfproject.cost.{_HOME[name]}"), name)
    if name == "figures":
        return importlib.import_module("tfproject.cost.figures")
    raise AttributeError(f"module 'tfproject.cost' has no attribute '{name}'")
