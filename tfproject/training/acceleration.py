"""Which precision and compiler train fastest on this machine: measured once, then remembered."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from tfproject.files import write_atomically
from tfproject.training.optimization import make_loss, make_optimizer

WORTH_IT = 1.1  # a choice other than plain float32 must be faster by this factor
STEPS = 6  # timed steps, after two that compile and warm up


def cache_path():
    """Where the measurements are kept: $TFPROJECT_CACHE or ~/.cache/tfproject, acceleration.json."""
    root = os.environ.get("TFPROJECT_CACHE") or pathlib.Path.home() / ".cache" / "tfproject"
    return pathlib.Path(root) / "acceleration.json"


def resolve(recipe, build_model, image_shape, class_count):
    """The recipe with "auto" replaced by what trains fastest here.

    The measurement is kept for this machine, network and batch size, so that the same recipe trains the same way,
    bit for bit, the next time.

    Args:
        recipe: a Recipe.
        build_model: function (image_shape, class_count) to an uncompiled keras.Model.
        image_shape: (height, width, 3).
        class_count: number of classes.

    Returns:
        A Recipe without "auto".
    """
    if "auto" not in (recipe.precision, recipe.jit_compile):
        return recipe
    measured = measurements(recipe, build_model, image_shape, class_count)
    default = "float32 plain"
    best = max(measured, key=measured.get)
    if default in measured and measured[best] < WORTH_IT * measured[default]:
        best = default
    precision, compiler = best.split()
    return dataclasses.replace(recipe, precision=precision, jit_compile=compiler == "xla")


def measurements(recipe, build_model, image_shape, class_count):
    """Images/s of the training step by "precision compiler", for what the recipe leaves open; kept on disk."""
    low = "mixed_float16" if tf.config.list_physical_devices("GPU") else "mixed_bfloat16"
    precisions = ("float32", low) if recipe.precision == "auto" else (recipe.precision,)
    compilers = ("plain", "xla") if recipe.jit_compile == "auto" else ("xla" if recipe.jit_compile else "plain",)
    model = build_model(image_shape, class_count)
    question = [
        model.to_json(), recipe.batch_size, recipe.optimizer, precisions, compilers, tf.__version__,
        keras.__version__, [d.name for d in tf.config.list_physical_devices()], _processor_flags(),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:32]
    path = cache_path()
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = {
            f"{precision} {compiler}": round(_images_per_second(
                dataclasses.replace(recipe, precision=precision, jit_compile=compiler == "xla"),
                build_model, image_shape, class_count,
            ), 1)
            for precision in precisions for compiler in compilers
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(known, indent=1))
    return known[key]


def _processor_flags():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "")


def _images_per_second(recipe, build_model, image_shape, class_count):
    with dtype_policy(recipe.precision):
        model = build_model(image_shape, class_count)
    model.compile(make_optimizer(recipe, 100), make_loss(recipe), jit_compile=recipe.jit_compile)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (recipe.batch_size, *image_shape)).astype("float32")
    labels = np.eye(class_count, dtype="float32")[random.integers(class_count, size=recipe.batch_size)]
    batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
    model.fit(batch, steps_per_epoch=2, verbose=0, shuffle=False)
    start = time.perf_counter()
    model.fit(batch, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    return STEPS * recipe.batch_size / (time.perf_counter() - start)


@contextlib.contextmanager
def dtype_policy(precision):
    """Layers built within have this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
