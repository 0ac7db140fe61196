"""A model in the formats of other programs, each checked against Keras before it gets its name."""

import contextlib
import dataclasses
import glob
import json
import logging
import os
import pathlib
import shutil
import tempfile
import warnings

import numpy as np

from tfproject.data.decoding import resize
from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.native_log import native_log_silenced

# name: (Keras' name, how the path ends, what it is)
FORMATS = {
    "onnx": ("onnx", ".onnx", "ONNX, for ONNX Runtime and others"),
    "tflite": ("litert", ".tflite", "TensorFlow Lite (LiteRT), for phones and small computers"),
    "savedmodel": ("tf_saved_model", "", "a folder for TensorFlow Serving and others"),
}
TEMPORARY = ".exported"  # how the folder's name ends in which an export is put together
TOLERANCE = 1e-4  # of a probability
STEPS = (1, 5, 16)  # images a call, again and again: the number must be free


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: the file or folder; beside it a file with ".json" after the same name holds the class names.
        largest_difference: from Keras' probabilities, over all images and classes of the check.
        images: how many images it was checked on.
    """

    path: pathlib.Path
    largest_difference: float
    images: int


def export_model(saved_model, path, format, images=None, tolerance=TOLERANCE):
    """Write a model in another program's format, after what it says has been compared with Keras.

    The exported model takes float32 RGB images in 0..255, any number at a time, and gives probabilities, as the model
    itself does: all preprocessing is inside.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        path: where to; a name that ends with .onnx or .tflite, or a folder that does not exist yet.
        format: a key of FORMATS.
        images: uint8 (n, h, w, 3), real images to check it on; noise and smooth patterns of all kinds if None.
        tolerance: the largest difference of a probability that is accepted.

    Returns:
        Export.

    Raises:
        UserError: if the format is unknown, a package is missing, Keras cannot convert the model, the file cannot be
            written, or the exported model differs; nothing is left at the path then.
    """
    path = pathlib.Path(path)
    if format not in FORMATS:
        raise UserError(f"There is no format {format!r}; give one of {', '.join(FORMATS)}.")
    kind, suffix, _ = FORMATS[format]
    if suffix and path.suffix != suffix:
        raise UserError(f"A model in the format {format} is a file *{suffix}, not {path}; give such a path.")
    if not suffix and path.exists():
        raise UserError(f"{path} exists already; name a folder that does not, or delete this one.")
    beside = path.with_name(path.name + ".json")
    if beside.resolve() == saved_model.path.with_suffix(".json").resolve():
        raise UserError(f"{beside} is the model's own card and would be overwritten; give the export another name.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}; make it, or name another.")
    images = made_up_images(saved_model.image_size) if images is None else np.asarray(images)
    if not len(images) or images.shape[1:] != (*saved_model.image_size, 3):
        size = "x".join(map(str, saved_model.image_size))
        raise UserError(f"The images have the shape {images.shape}; give some of {size} pixels and 3 colours.")
    for left in path.absolute().parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
        shutil.rmtree(left, ignore_errors=True)  # of an export that was interrupted
    try:
        folder = tempfile.TemporaryDirectory(TEMPORARY, f".{path.name}.", path.absolute().parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name a folder that can be.") from error
    with folder:
        temporary = pathlib.Path(folder.name, "model" + suffix)
        with _quiet():
            run = _converted(saved_model, temporary, kind, format)
            difference = _largest_difference(saved_model, run, images)
        if not difference <= tolerance:  # NaN too
            raise UserError(
                f"The model says something else as {format} than in Keras (a probability differs by {difference:.2g}, "
                f"more than {tolerance:g}), so it was not written; give another format."
            )
        about = {
            "class_names": list(saved_model.class_names),
            "image_size": list(saved_model.image_size),
            "input": "float32 RGB images in 0..255, (any number, height, width, 3)",
            "output": "float32 probabilities, (any number, classes)",
            "format": format,
            "made_from": saved_model.path.name,
            "checked_on": len(images),
            "largest_difference": difference,
        }
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); name another path.") from error
    try:
        write_atomically(beside, json.dumps(about, indent=1) + "\n")
    except UserError:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    return Export(path, difference, len(images))


def made_up_images(size, count=48, seed=0):
    """Images from plain to noisy: uint8 (count, h, w, 3)."""
    random = np.random.default_rng(seed)
    images = []
    for i in range(count):
        coarse = random.integers(0, 256, (2 ** (i % 6), 2 ** (i % 6), 3), np.uint8)
        noise = random.normal(0, 4 * (i % 4), (*size, 3))
        images.append(np.clip(resize(coarse, size) + noise, 0, 255).astype(np.uint8))
    return np.stack(images)


def _converted(saved_model, path, kind, format):
    """Write the model to the path; a function from float32 images to its probabilities, run from that file."""
    import keras

    model = saved_model.model
    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    plain(np.zeros((1, *saved_model.image_size, 3), np.float32), training=False)  # Keras wants it called once
    try:
        plain.export(path, format=kind, verbose=False)
        return _RUNNERS[format](path)
    except ImportError as error:
        raise UserError(
            f"The format {format} needs {error.name or error}, which is missing; pip install 'tfproject[export]'."
        ) from error
    except Exception as error:  # converters raise nearly anything on a layer that they do not know
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(". ")
        raise UserError(
            f"The model cannot be written as {format} ({type(error).__name__}: {reason}); give another format."
        ) from error


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _tflite(path):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path))
    given, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images):
        interpreter.resize_tensor_input(given, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given, images)
        interpreter.invoke()
        return interpreter.get_tensor(made)

    return run


def _savedmodel(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(images):
        return loaded.serve(tf.constant(images)).numpy()

    return run


_RUNNERS = {"onnx": _onnx, "tflite": _tflite, "savedmodel": _savedmodel}


def _largest_difference(saved_model, run, images):
    def expected(step):  # Keras' own, and not what `predict` makes of the network
        return np.asarray(saved_model.model(step, training=False), np.float32)

    largest, start, turn = 0.0, 0, 0
    while start < len(images):
        step = images[start : start + STEPS[turn % len(STEPS)]].astype(np.float32)
        try:
            found = run(step)
        except Exception:  # the runtimes raise kinds of their own, as on a number of images that they do not take
            return float("inf")
        if found.shape != (len(step), len(saved_model.class_names)):
            return float("inf")
        largest = np.maximum(largest, np.abs(found - expected(step)).max())  # keeps NaN
        start, turn = start + len(step), turn + 1
    return float(largest)


@contextlib.contextmanager
def _quiet():
    """Without what the converters log and warn of: deprecations inside TensorFlow, which the user cannot mend."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with native_log_silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
