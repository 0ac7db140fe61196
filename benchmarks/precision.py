"""Whether accuracy pays for speed: the same recipe in float32 and in mixed_bfloat16, the main change made for speed.

EuroSAT with the land-cover CNN and CIFAR-10 with the custom CNN, each with its recommended recipe over fewer images and
epochs. Both precisions have the same seeds, images and order, so that their difference is paired; accuracy is on
validation after the last epoch. Stopped and started again, a run goes on where it was.
"""

import argparse
import dataclasses
import pathlib

import machine
from claims import claim, difference_in_words, measure

from tfproject import data, training
from tfproject.experiments.experiment import Trial, Variation
from tfproject.statistics import compare
from tfproject.tasks.task1_custom_cnn import CUSTOM
from tfproject.tasks.task5_eurosat import LAND_COVER

PRECISIONS = ("float32", "mixed_bfloat16")  # before and after
SETS = {
    "eurosat": Variation(
        "land_cover_cnn", LAND_COVER, "tfproject.models:land_cover_cnn", train_images=4_000, val_images=2_000
    ),
    "cifar10": Variation("custom_cnn", CUSTOM, "tfproject.models:custom_cnn", train_images=10_000, val_images=5_000),
}
LISTS = {"eurosat": "eurosat-random"}


def trained(image_set, variation, seeds, directory):
    """A row for each seed: accuracy on validation and seconds of all epochs in each precision.

    Args:
        image_set: an ImageSet with a split `val`.
        variation: a Variation; its recipe's precision and compiler are replaced.
        seeds: how many.
        directory: of the runs.
    """
    rows = []
    for seed in range(seeds):
        row = {"seed": seed}
        for precision in PRECISIONS:
            recipe = dataclasses.replace(variation.recipe, precision=precision, jit_compile=False)
            trial = Trial(dataclasses.replace(variation, recipe=recipe), seed)
            run = training.fit(
                trial.build_model, trial.images(image_set), trial.recipe,
                directory / f"{image_set.name}-{precision}-seed{seed}", progress=False,
            )  # fmt: skip
            row[precision] = {"val_accuracy": run.history["val_accuracy"][-1], "seconds": sum(run.history["seconds"])}
        rows.append(row)
    return rows


def claims_of(name, rows):
    """The rows of the table."""
    before, after = ([100 * row[precision]["val_accuracy"] for row in rows] for precision in PRECISIONS)
    for precision, accuracies in zip(PRECISIONS, (before, after)):
        yield measure(f"{name}: validation accuracy, trained in {precision}", "%", accuracies)
    found = compare(after, before)
    excluded = "" if found.low is None else f", and a loss of more than {max(0, -found.low):.2f} points is excluded"
    yield measure(
        f"{name}: validation accuracy in mixed_bfloat16 less that in float32", "points",
        [b - a for a, b in zip(before, after)], remark=difference_in_words(found, " points") + excluded,
    )  # fmt: skip
    slow, fast = ([row[precision]["seconds"] for row in rows] for precision in PRECISIONS)
    yield claim(f"{name}: the same training in mixed_bfloat16", "float32", "s", fast, slow)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3, help="runs in each precision")
    parser.add_argument("--train-images", type=int, help="(default 4,000 of EuroSAT, 10,000 of CIFAR-10)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--directory", type=pathlib.Path, default=pathlib.Path("runs", "benchmarks", "precision"))
    arguments = parser.parse_args()
    machine.check_runs(arguments.directory)
    result, claims = {}, []
    for name in arguments.sets:
        variation = SETS[name]
        variation = dataclasses.replace(
            variation, recipe=dataclasses.replace(variation.recipe, epochs=arguments.epochs),
            train_images=arguments.train_images or variation.train_images,
        )  # fmt: skip
        image_set = data.load(name, split_files=LISTS.get(name))
        result[name] = trained(image_set, variation, arguments.seeds, arguments.directory)
        claims += claims_of(f"{name}, {variation.name}", result[name])
        machine.write("precision", {"runs": result, "claims": claims, "machine": machine.describe()})


if __name__ == "__main__":
    main()
