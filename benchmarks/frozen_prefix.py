"""Fine-tuning VGG16 with its first layers frozen: as Keras does it, against the frozen part run once and kept on disk.

As Keras does it: `layer.trainable = False`, `compile` and `fit` on images in memory, validation after every epoch;
one epoch is measured before and one after ours, both traced beforehand, and their mean multiplied, as twenty take
hours. Ours: `training.fit` with `frozen_until`, all epochs, from an empty features directory, checkpoints and saved
model included. Same images, batch size and optimiser; Keras' way with TensorFlow's threads and kernels, ours once in
Keras' precision, float32, and once in that which is measured to be the fastest here, as in every training that asks for
no other: that measurement is made beforehand, as it is remembered. Each in a process of its own, whose peak memory is
told. What the arithmetic alone allows is told, too: the ratio of the floating-point operations of both ways, as
`tfproject.cost` counts them.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import machine

BATCH = 32
PLAIN = "as_keras_does_it"


def load(arguments):
    """The image set, cut down to so many images a split where that is asked for."""
    import dataclasses

    import numpy as np

    from tfproject import data

    size = (arguments.image_size, arguments.image_size)
    image_set = data.load(arguments.data, image_size=size, on_overlap="drop")
    splits = dict(image_set.splits)
    if arguments.images:
        for name, split in splits.items():
            kept = np.random.default_rng(0).permutation(len(split))[: arguments.images]
            splits[name] = split.take(np.sort(kept))
    return dataclasses.replace(image_set, splits=splits)


def recipe(arguments, cut):
    from tfproject import training

    return training.Recipe(
        epochs=arguments.epochs, batch_size=BATCH, optimizer="adam", learning_rate=1e-4, weight_decay=0.0,
        schedule="constant", precision=arguments.precisions[0], jit_compile=arguments.jit_compile, frozen_until=cut,
    )  # fmt: skip


def as_keras_does_it(arguments, image_set, build, cut):
    """Seconds for one epoch with validation."""
    import keras
    import tensorflow as tf

    from tfproject.models import freezing

    classes = len(image_set.class_names)
    model = freezing.freeze_until(build(image_set.image_shape, classes), cut)
    model.compile(keras.optimizers.Adam(1e-4), "categorical_crossentropy", metrics=["accuracy"])
    batches = image_set.train.training_batches(classes, BATCH)
    validation = image_set.val.batches(BATCH).map(lambda images, labels: (images, tf.one_hot(labels, classes)))
    model.fit(batches.take(1), validation_data=validation.take(1), verbose=0)  # traces, which not every epoch does
    start = time.perf_counter()
    model.fit(batches, validation_data=validation, verbose=0)
    return {"seconds": time.perf_counter() - start}


def run_once(arguments, image_set, build, cut):
    """Seconds for all epochs, and those of them that passed before the first."""
    from tfproject import training
    from tfproject.training import acceleration, frozen_prefix

    asked, classes = recipe(arguments, cut), len(image_set.class_names)
    rest = frozen_prefix.suffix_builder(build, image_set.image_shape, classes, cut)
    acceleration.resolve(asked, *rest, classes)  # measured once on a machine, and then remembered
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        start = time.perf_counter()
        run = training.fit(
            build, image_set, asked, folder / "run", progress=False, features_dir=folder / "features"
        )
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (folder / "features").rglob("*"))
        return {
            "seconds": seconds, "epochs_seconds": sum(run.history["seconds"]), "features_mb": round(size / 1e6),
            "trained_in": run.recipe.precision, "arithmetic": arithmetic(image_set, build, cut, arguments.epochs),
        }  # fmt: skip


def arithmetic(image_set, build, cut, epochs):
    """How many times fewer floating-point operations it takes to run the frozen part once."""
    from tfproject import cost
    from tfproject.models import freezing
    from tfproject.training import frozen_prefix

    model = freezing.freeze_until(build(image_set.image_shape, len(image_set.class_names)), cut)
    (frozen, _), (forward, backward) = (
        [cost.study(part, 1).totals[name] for name in ("forward_flops", "backward_flops")]
        for part in frozen_prefix.split(model, cut)
    )
    train, val = len(image_set.train), len(image_set.val)
    each_epoch = train * (forward + backward) + val * forward
    return epochs * ((train + val) * frozen + each_epoch) / ((train + val) * frozen + epochs * each_epoch)


PARTS = {PLAIN: as_keras_does_it, "run_once": run_once}


def measure_here(arguments):
    """One part in this process; its result as JSON on standard output."""
    import functools
    import resource

    if arguments.part == PLAIN:
        import tensorflow  # noqa: F401  before tfproject, which chooses other kernels

    from tfproject.models import backbones

    weights = None if arguments.weights == "none" else arguments.weights
    build = functools.partial(backbones.pretrained_cnn, name="VGG16", weights=weights)
    image_set = load(arguments)
    result = PARTS[arguments.part](arguments, image_set, build, arguments.cuts[0])
    result["images"] = {name: len(image_set.splits[name]) for name in ("train", "val")}
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result))


def measure(part, cut, precision="float32"):
    """The same in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--cuts", cut, "--precisions", precision]
    environment = machine.plain_environment() if part == PLAIN else None
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(found.stdout.splitlines()[-1])


def compare(cut, epochs, precisions):
    """A row for each of our precisions, all measured between the two measurements of Keras' way."""
    before = measure(PLAIN, cut)
    in_precision = {precision: measure("run_once", cut, precision) for precision in precisions}
    after = measure(PLAIN, cut)
    return [row(cut, epochs, precision, before, ours, after) for precision, ours in in_precision.items()]


def row(cut, epochs, precision, before, ours, after):
    plain = [epochs * part["seconds"] for part in (before, after)]
    mean = sum(plain) / 2
    return {
        "frozen_until": cut, "images": ours["images"], "epochs": epochs,
        "precision": precision, "trained_in": ours["trained_in"],
        "as_keras_does_it_seconds": round(mean), "as_keras_does_it_epochs_measured": 2,
        "as_keras_does_it_spread": round(abs(plain[0] - plain[1]) / mean, 3),
        "run_once_seconds": round(ours["seconds"], 1),
        "of_that_before_the_first_epoch": round(ours["seconds"] - ours["epochs_seconds"], 1),
        "times_faster": round(mean / ours["seconds"], 1), "times_less_arithmetic": round(ours["arithmetic"], 1),
        "features_mb": ours["features_mb"],
        "peak_memory_mb": {"as_keras_does_it": before["peak_memory_mb"], "run_once": ours["peak_memory_mb"]},
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="terrassa", help="a set's name (default terrassa)")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--images", type=int, help="use so many images of each split")
    parser.add_argument("--cuts", nargs="+", default=["block4_pool", "block5_conv2", "block5_pool"])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--weights", default="imagenet", help="imagenet, none or a file")
    parser.add_argument("--precisions", nargs="+", default=["float32", "auto"], help="ours; Keras' is float32")
    parser.add_argument("--jit-compile", action="store_true", help="XLA for ours")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        return measure_here(arguments)
    rows = [row for cut in arguments.cuts for row in compare(cut, arguments.epochs, arguments.precisions)]
    machine.write(
        "frozen_prefix",
        {"data": arguments.data, "image_size": arguments.image_size, "network": "VGG16", "batch_size": BATCH,
         "jit_compile": arguments.jit_compile, "cuts": rows,
         "machine": machine.describe()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
