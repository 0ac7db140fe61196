"""Images/s of our input pipeline, of Keras' usual one, and of the training step that they feed.

Ours keeps the decoded images in memory and augments a batch at a time; Keras' reads the JPEG files of
`image_dataset_from_directory` every epoch and augments with Random* layers, in a process with TensorFlow's own threads.
Same images, same batch size, like augmentation (flips, turns, shifts by up to four pixels), in turn, several times.
Ours turns by quarters, Keras' layer by any angle up to a quarter, for which it interpolates. How long training waits
for its next batch, in the recipe's own augmentation, is told by TensorFlow's profiler.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import tfproject  # noqa: F401  # isort: skip  # before Keras, as it chooses TensorFlow's kernels
import keras
import machine
import tensorflow as tf
from PIL import Image
from training_step import profile

from tfproject import data, models
from tfproject.tasks.task5_eurosat import LAND_COVER
from tfproject.training import acceleration

SHIFT = 4 / 64
ALIKE = ("symmetries", "shift")  # the augmentation that Keras' layers have too


def write_folder(split, class_names, root):
    """The split's images as JPEG files, a folder per class."""
    for i, (image, label) in enumerate(zip(split.images, split.labels)):
        folder = root / class_names[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.jpg", quality=95)


def keras_pipeline(root, image_size, batch_size):
    """As Keras' guides write it."""
    augment = keras.Sequential([
        keras.layers.RandomFlip("horizontal_and_vertical"),
        keras.layers.RandomRotation(0.25, fill_mode="reflect"),
        keras.layers.RandomTranslation(SHIFT, SHIFT, fill_mode="reflect"),
    ])  # fmt: skip
    images = keras.utils.image_dataset_from_directory(
        root, label_mode="categorical", batch_size=batch_size, image_size=image_size, verbose=False
    )
    images = images.map(lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return images.prefetch(tf.data.AUTOTUNE)


def images_per_second(batches):
    """Two passes over the batches, of which the second counts."""
    for _ in range(2):
        count, start = 0, time.perf_counter()
        for images, _ in batches:
            count += len(images)
    return count / (time.perf_counter() - start)


def keras_images_per_second(root, side, batch_size):
    """The same of Keras' pipeline, in a process of its own."""
    command = [sys.executable, __file__, "--keras-alone", root, "--side", str(side), "--batch-size", str(batch_size)]
    found = subprocess.run(
        command, env=machine.plain_environment(), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return float(found.splitlines()[-1])


def waiting(image_set, recipe, rounds, steps=48):
    """The share of the training's time that it waits for the next batch, the first one included, of each round."""
    shape, classes = image_set.image_shape, len(image_set.class_names)
    recipe = acceleration.resolve(recipe, models.land_cover_cnn, shape, classes)
    with acceleration.dtype_policy(recipe.precision):
        model = models.land_cover_cnn(shape, classes)
    acceleration.compile_for_training(model, recipe, steps)
    batches = image_set.train.training_batches(classes, recipe.batch_size, recipe.augment, epochs=recipe.epochs)

    def train(count):
        model.fit(batches, steps_per_epoch=count, shuffle=False, verbose=0)

    train(2)
    # Of the profiler's events, "IteratorGetNextOp::DoCompute" is the time until the batch is there.
    shares = [profile(train, steps, {"input": "DoCompute"}, by_the_clock=True)["input"] for _ in range(rounds)]
    if not all(shares):  # the first batch alone takes a while
        raise SystemExit("The profiler tells no event DoCompute; this TensorFlow calls the wait for a batch otherwise.")
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="eurosat", help="a set's name (default eurosat)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="use so many training images")
    parser.add_argument("--keras-alone", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.keras_alone:
        side = arguments.side
        print(images_per_second(keras_pipeline(arguments.keras_alone, (side, side), arguments.batch_size)))
        return

    image_set = data.load(arguments.data)
    split = image_set.train.take(range(min(arguments.images, len(image_set.train))))
    classes, batch = len(image_set.class_names), LAND_COVER.batch_size
    rates = {"ours": [], "keras": [], "ours as trained": []}
    with tempfile.TemporaryDirectory() as root:
        write_folder(split, image_set.class_names, pathlib.Path(root))
        ours = {"ours": ALIKE, "ours as trained": LAND_COVER.augment}
        ours = {name: split.training_batches(classes, batch, augment) for name, augment in ours.items()}
        for _ in range(arguments.rounds):
            for name, batches in ours.items():
                rates[name].append(images_per_second(batches))
            rates["keras"].append(keras_images_per_second(root, split.image_shape[0], batch))
    steps = acceleration.measurements(LAND_COVER, models.land_cover_cnn, split.image_shape, classes)
    median = {name: statistics.median(values) for name, values in rates.items()}
    machine.write(
        "input_pipeline",
        {
            "data": image_set.name,
            "images": len(split),
            "batch_size": batch,
            "images_per_second": {name: [round(v) for v in values] for name, values in rates.items()},
            "training_step_images_per_second": steps,
            "waiting_share": waiting(image_set, LAND_COVER, arguments.rounds),
            "ours_against_keras": round(median["ours"] / median["keras"], 1),
            "ours_against_fastest_training_step": round(median["ours as trained"] / max(steps.values()), 1),
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
