"""Saved models: a `.keras` file that is whole, and beside it a JSON file with its class names and its card."""

import dataclasses
import json
import pathlib
import tempfile
import warnings
import zipfile
from typing import Any

import numpy as np

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.native_log import native_log_silenced

METRES_PER_PIXEL = {"eurosat": 10}  # of image sets, for models whose card does not say it
MAX_CONFIG_BYTES = 64_000_000  # of a model's description once unpacked; those of keras.applications have 0.5 MB


@dataclasses.dataclass(frozen=True, eq=False)
class SavedModel:
    """A model to use.

    Attributes:
        model: the Keras model: float32 RGB images in 0..255, (b, h, w, 3), to class probabilities (b, c).
        class_names: c names.
        image_size: (height, width) of its images, in pixels.
        path: the `.keras` file.
        card: all that its JSON file says.
        precision: what it was told to compute in; None is what it was saved in.
    """

    model: Any
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    path: pathlib.Path
    card: dict
    precision: str | None = None

    @property
    def metres_per_pixel(self):
        """Of the images that it was trained on: `metres_per_pixel` of its card, or what is known of the set, or None.

        Raises:
            UserError: if the card says anything but a number above 0.
        """
        data = self.card.get("data")
        known = METRES_PER_PIXEL.get(data.get("name")) if isinstance(data, dict) else None
        found = self.card.get("metres_per_pixel", known)
        if found is not None and (isinstance(found, bool) or not isinstance(found, (int, float)) or not found > 0):
            raise UserError(f"The card of {self.path} says {found!r} metres per pixel; write a number above 0 there.")
        return found


def load(path, precision=None):
    """Load a model that `save` wrote, or any Keras model with such a JSON file beside it.

    Nothing but Keras' own layers is loaded, as a model file may come from anywhere and a Lambda layer is a program.

    Args:
        path: the `.keras` file; its class names are read from the `.json` file of the same name.
        precision: float32, mixed_bfloat16 or mixed_float16 to compute in; None for what the model was saved in.

    Returns:
        SavedModel.

    Raises:
        UserError: if a file is missing or damaged, the model holds anything that is not Keras' own, or it does not
            take RGB images of the named size and give one output per class, or cannot compute in that precision.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no model file {path}; give the path of a .keras file.")
    if path.suffix != ".keras":
        raise UserError(f"{path} is not named as a Keras model; give the path of a .keras file.")
    _check_parts(_architecture(path), path)
    class_names, image_size, card = _read_card(path.with_suffix(".json"))
    with native_log_silenced(), warnings.catch_warnings():
        import keras

        # Keras only warns where it leaves weights as they were drawn; such a model is of no use.
        warnings.filterwarnings("error", message=".*freshly-initialized", category=UserWarning)
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises whatever the damaged place gives
            raise UserError(
                f"Keras cannot load {path} ({type(error).__name__}); it is damaged or of another version of Keras than "
                f"{keras.__version__}, so get or train it anew."
            ) from error
    _check_shapes(model, path)
    (_, height, width, _), (_, outputs) = model.input_shape, model.output_shape
    if len(class_names) != outputs:
        raise UserError(
            f"{path} has {outputs} outputs and {path.stem}.json names {len(class_names)} classes; "
            "put the JSON file that belongs to the model beside it."
        )
    if image_size != (height, width):
        raise UserError(
            f"{path} takes images of {height}x{width} and {path.stem}.json says {image_size[0]}x{image_size[1]}; "
            "put the JSON file that belongs to the model beside it."
        )
    if precision:
        model = _in_precision(model, precision, path)
    return SavedModel(model, class_names, image_size, path, card, precision)


def save(model, path, class_names, **card):
    """Write a model to a `.keras` file, and its class names, image size and card to a `.json` file beside it.

    The model is saved without optimiser, loss and metrics: a third of the size, and nothing of ours is needed to load
    it. Either file is written whole or not at all.

    Args:
        model: a functional Keras model from (b, h, w, 3) to (b, c), of Keras' own layers.
        path: where to; ends with `.keras`.
        class_names: c names.
        **card: what else the JSON file shall say; JSON values.

    Returns:
        The pathlib.Path of the model file.

    Raises:
        UserError: if the model is not of this kind, or the files cannot be written.
    """
    import keras

    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise UserError(f"A model is saved as a .keras file, not as {path}; give such a path.")
    _check_shapes(model, path)
    if len(class_names) != model.output_shape[-1]:
        raise UserError(
            f"The model has {model.output_shape[-1]} outputs for {len(class_names)} class names; give one name each."
        )
    plain = keras.Model(model.input, model.output, name=model.name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = pathlib.Path(folder, "model.keras")
            plain.save(whole)
            _check_parts(_architecture(whole), path)
            content = whole.read_bytes()
    except OSError as error:
        raise UserError(
            f"The model cannot be saved to {path}: {tempfile.gettempdir()}, where it is put together, cannot be "
            f"written ({error.strerror or error}); make room there, or set TMPDIR to another folder."
        ) from error
    description = {**card, "class_names": list(class_names), "image_size": list(model.input_shape[1:3])}
    write_atomically(path, content)
    write_atomically(path.with_suffix(".json"), json.dumps(description, indent=1) + "\n")
    return path


def _architecture(path):
    """The model's configuration, read without building anything; a damaged file is found out by its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES or archive.testzip() is not None:
                raise zipfile.BadZipFile
            archive.getinfo("model.weights.h5")
            config = dict(json.loads(archive.read("config.json")))
    except Exception as error:  # a file from anywhere: zipfile and zlib raise a dozen kinds
        raise UserError(f"{path} is damaged or not a Keras model file; get or train it anew.") from error
    # Optimiser, loss and metrics are never loaded, so they may be anyone's.
    return {key: value for key, value in config.items() if key != "compile_config"}


def _in_precision(model, precision, path):
    from tfproject.models.precision import in_precision

    try:
        model = in_precision(model, precision)
        model.predict(np.zeros((1, *model.input_shape[1:]), np.float32), verbose=0)
    except Exception as error:  # whatever the layer or the device that cannot do it raises
        raise UserError(
            f"{path} cannot compute in {precision} here ({type(error).__name__}); leave it as the model has it."
        ) from error
    return model


def _check_parts(config, path):
    """Refuse whatever is not Keras' own: custom layers and functions, and Lambda layers, which hold programs."""
    if isinstance(config, list):
        for part in config:
            _check_parts(part, path)
    elif isinstance(config, dict):
        name, module = config.get("class_name"), config.get("module")
        if name is not None and "config" in config:
            kind = config["config"] if name == "function" else name
            built_in = module is not None and (module == "keras" or str(module).startswith("keras."))
            value = module is None and name in ("__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__slice__")
            if name in ("Lambda", "__lambda__"):
                raise UserError(f"{path} holds a Lambda layer, which can run any program; use a model without one.")
            if not built_in and not value:
                raise UserError(f"{path} holds {kind!r}, which is no part of Keras; use a model of Keras' own layers.")
        for part in config.values():
            _check_parts(part, path)


def _check_shapes(model, path):
    given, made = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    rgb = isinstance(given, tuple) and len(given) == 4 and None not in given[1:] and given[3] == 3
    if not rgb or not isinstance(made, tuple) or len(made) != 2:
        raise UserError(
            f"{path} is a model from {given} to {made}; one from RGB images (None, height, width, 3) to "
            "(None, classes) is needed."
        )


def _read_card(path):
    """(class names, image size, all of the JSON file)."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"The model's class names are missing: there is no {path}; put it beside the model.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}, with the model's class names, is damaged; get it anew.") from error
    names, size = (card.get("class_names"), card.get("image_size")) if isinstance(card, dict) else (None, None)
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or not isinstance(size, list)
        or [type(side) for side in size] != [int, int]
    ):
        raise UserError(
            f"{path} lacks class_names (a list of names) or image_size ([height, width]); "
            "get the one that was made with the model."
        )
    return tuple(names), tuple(size), card
