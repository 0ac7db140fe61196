"""What a trained model is used for: land-cover maps of large scenes, other programs' formats, and a page."""

import importlib

_HOME = {
    "map_scene": "mapping", "SceneMap": "mapping", "open_scene": "scenes", "Scene": "scenes",
    "export_model": "export", "FORMATS": "export", "serve": "serving", "build_app": "serving",
    "explain_files": "heat_maps",
}  # fmt: skip
__all__ = tuple(_HOME)


def __getattr__(name):
    # TensorFlow takes seconds to import; `tfproject --help` does without it.
    if name in _HOME:
        return getattr(importlib.import_module(f"tfproject.tools.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tfproject.tools' has no attribute '{name}'")
