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

from tfproject.data import pipeline
from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.models.architecture import architecture
from tfproject.training import batch_norm, memory_guard
from tfproject.training.optimization import make_loss, make_optimizer

WORTH_IT = 1.1  # a choice other than plain float32 must be faster by this factor
STEPS = 4  # steps timed together
ROUNDS = 3  # how often each choice is timed, in turn with the others; the best counts, as the rest is other load
SECONDS = 30  # no further round when a choice has taken so long


def compile_for_training(model, recipe, steps):
    """Compile the model with the recipe's optimiser and loss, its training step as fast as `fit` has it.

    Args:
        model: a keras.Model, changed in place.
        recipe: a Recipe without "auto".
        steps: training steps in all, which the learning-rate schedule is laid over.
    """
    batch_norm.fuse(model)
    optimizer = make_optimizer(recipe, steps)
    model.compile(optimizer, make_loss(recipe), metrics=["accuracy"], jit_compile=recipe.jit_compile)
    model.optimizer.build(model.trainable_variables)  # in mixed_float16 Keras' own, which scales the loss, around ours
    # Makes the metrics' variables, too: a step that makes any is traced twice.
    outputs = tf.zeros([1, *model.output_shape[1:]])
    model.compute_metrics(None, outputs, outputs)
    model.reset_metrics()


def cache_path():
    """Where the measurements are kept: $TFPROJECT_CACHE or ~/.cache/tfproject, acceleration.json."""
    root = os.environ.get("TFPROJECT_CACHE") or pathlib.Path.home() / ".cache" / "tfproject"
    return pathlib.Path(root) / "acceleration.json"


def resolve(recipe, build_model, image_shape, class_count, replicas=1):
    """The recipe with "auto" replaced by what trains fastest here.

    The measurement is kept for this machine, network and batch size, so that the same recipe trains the same way,
    bit for bit, the next time.

    Args:
        recipe: a Recipe.
        build_model: function (image_shape, class_count) to an uncompiled keras.Model.
        image_shape: (height, width, 3).
        class_count: number of classes.
        replicas: how many devices share a batch; what one of them has to do is measured.

    Returns:
        A Recipe without "auto".
    """
    if "auto" not in (recipe.precision, recipe.jit_compile):
        return recipe
    of_one = dataclasses.replace(recipe, batch_size=max(1, recipe.batch_size // replicas))
    measured = measurements(of_one, build_model, image_shape, class_count)
    best = max(measured, key=measured.get)
    default = "float32 plain"
    if default in measured and measured[best] < WORTH_IT * measured[default]:
        best = default
    precision, compiler = best.split()
    return dataclasses.replace(recipe, precision=precision, jit_compile=compiler == "xla")


def measurements(recipe, build_model, image_shape, class_count):
    """Images/s of the training step by "precision compiler", for what the recipe leaves open; kept on disk."""
    gpu = bool(tf.config.list_physical_devices("GPU"))
    precisions, compilers = (recipe.precision,), ("xla" if recipe.jit_compile is True else "plain",)
    if recipe.precision == "auto":
        precisions = ("float32", "mixed_float16") if gpu else precisions_of_the_processor()
    if recipe.jit_compile == "auto" and not gpu:  # on a GPU, XLA and deterministic kernels exclude each other
        compilers = ("plain", "xla")
    candidates = [f"{precision} {compiler}" for precision in precisions for compiler in compilers]
    if len(candidates) == 1:
        return {candidates[0]: 1.0}
    network = architecture(build_model(image_shape, class_count))
    # The last three are our own, of the step that is timed and of its timing.
    onednn = f"oneDNN {os.environ['TF_ENABLE_ONEDNN_OPTS']}"
    versions = [tf.__version__, keras.__version__, "untuned", "fused BatchNorm", onednn]
    question = [network, recipe.batch_size, recipe.optimizer, candidates, *versions, _machine()]
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:32]
    path = cache_path()
    known = _known(path)
    if key not in known:
        found = _measure(candidates, recipe, build_model, image_shape, class_count)
        known = _known(path) | {key: found}  # others may have written while this was measured
        with contextlib.suppress(OSError, UserError):  # a folder that may not be written to: measured anew next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(known, indent=1))
    return known[key]


def _known(path):
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def precisions_of_the_processor():
    """The precisions worth measuring on the CPU: without instructions for bfloat16, that is many times slower."""
    instructions = set(_instructions().split())
    if instructions and not instructions & {"avx512_bf16", "amx_bf16"}:
        return ("float32",)
    return ("float32", "mixed_bfloat16")


def _machine():
    """What tells one machine from another: its devices, cores, and the processor's instructions."""
    devices = [tf.config.experimental.get_device_details(d).get("device_name", d.name)
               for d in tf.config.list_physical_devices()]  # fmt: skip
    return [devices, os.cpu_count(), _instructions()]


def _instructions():
    """The processor's instruction sets as the system lists them, in one line; "" where it does not."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def _measure(candidates, recipe, build_model, image_shape, class_count):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (recipe.batch_size, *image_shape)).astype("float32")
    labels = np.eye(class_count, dtype="float32")[random.integers(class_count, size=recipe.batch_size)]
    batch = pipeline.untuned(tf.data.Dataset.from_tensors((images, labels)).repeat())
    models = {}
    for candidate in candidates:
        precision, compiler = candidate.split()
        with dtype_policy(precision):
            models[candidate] = build_model(image_shape, class_count)
        compile_for_training(models[candidate], dataclasses.replace(recipe, jit_compile=compiler == "xla"), steps=100)
        if not tf.config.list_physical_devices("GPU"):  # whose memory is not the machine's
            memory_guard.check(models[candidate], recipe.batch_size)
        with memory_guard.shortage_told(recipe.batch_size):
            models[candidate].fit(batch, steps_per_epoch=2, verbose=0, shuffle=False)  # traces, compiles, warms up
    spent = dict.fromkeys(candidates, 0.0)
    best = {}
    for _ in range(ROUNDS):
        for candidate in candidates:
            if spent[candidate] > SECONDS:
                continue
            start = time.perf_counter()
            models[candidate].fit(batch, steps_per_epoch=STEPS, verbose=0, shuffle=False)
            seconds = time.perf_counter() - start
            spent[candidate] += seconds
            best[candidate] = max(best.get(candidate, 0), round(STEPS * recipe.batch_size / seconds, 1))
    return best


@contextlib.contextmanager
def dtype_policy(precision):
    """Layers built within have this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
