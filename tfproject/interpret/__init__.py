"""What a network has learnt: its units, the images that excite them, and where in an image they look."""

import importlib

_HOME = {
    "lay_open": "network", "Network": "network", "UnitLayer": "network",
    "receptive_field": "receptive_fields", "ReceptiveField": "receptive_fields",
    "top_samples": "samples", "TopSamples": "samples", "crops": "samples",
    "kernels": "filters", "colour_kernels": "filters", "kernel_slices": "filters", "norm_rows": "filters",
    "maximise_activation": "filters", "MaximisedActivations": "filters",
    "feature_maps": "activations", "activity": "activations", "LayerActivity": "activations",
    "features": "embedding", "tsne": "embedding", "neighbourhood_accuracy": "embedding",
    "trustworthiness": "embedding", "neighbourhood_rows": "embedding", "write_projector": "embedding",
    "attribute": "attribution", "attributor": "attribution",
    "unit_rows": "semantics", "layer_rows": "semantics", "growth": "semantics", "selective_sets": "semantics",
    "silence_units": "silencing", "silence_sets": "silencing", "compare_networks": "similarity",
    "describe_network": "words",
    "sanity_check": "faithfulness", "SanityCheck": "faithfulness",
    "deletion_insertion": "faithfulness", "PixelCurves": "faithfulness",
}  # fmt: skip
__all__ = tuple(_HOME)


def __getattr__(name):
    # TensorFlow takes seconds to import; `tfproject --help` does without it.
    if name in _HOME:
        return getattr(importlib.import_module(f"tfproject.interpret.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfproject.interpret' has no attribute '{name}'")
