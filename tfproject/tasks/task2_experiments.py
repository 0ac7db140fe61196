"""Task 2: what augmentation, batch size, BatchNorm and cures of overfit do to the custom CNN."""

import dataclasses
import json
import pathlib

from tfproject.errors import UserError
from tfproject.experiments.experiment import Experiment, Variation
from tfproject.experiments.reading import SIGNIFICANCE
from tfproject.statistics import compare, holm
from tfproject.tasks.publishing import copy, record, usual_precision
from tfproject.training.recipe import Recipe

RESULTS = pathlib.Path("results", "task2-experiments")
SETS = {"real": "cifar10", "synthetic": "synthetic-objects"}


@dataclasses.dataclass(frozen=True)
class Profile:
    """How large the studies are.

    Attributes:
        train_images: of the first three studies; None for all.
        epochs: of the first three studies.
        small: training images of the overfit.
        small_epochs: epochs over them; larger sets get as many steps.
        val_images: validation images of the first five studies; None for all. Where an epoch is short, validation would
            take most of the time.
        reproduction_epochs: of the reproduction, which trains on all images unless `few`.
        precision: of all studies.
        noise_scale: images in a big batch when the gradient noise scale is measured.
        width: of the custom CNN.
        seeds: of every variation.
        few: only some variations of each study.
        reproduce: whether the reproduction is run without being asked for by its name.
    """

    train_images: int | None
    epochs: int
    small: int
    small_epochs: int
    val_images: int | None
    reproduction_epochs: int = 10
    precision: str = "float32"
    noise_scale: int = 2_048
    width: float = 1.0
    seeds: tuple[int, ...] = (0, 1, 2)
    few: bool = False
    reproduce: bool = True


PROFILES = {
    "quick": Profile(
        384, 4, 128, 12, None, reproduction_epochs=4, precision="float32", noise_scale=256, width=0.25, seeds=(0, 1),
        few=True,
    ),
    "cpu": Profile(10_000, 6, 1_000, small_epochs=30, val_images=2_000, reproduce=False),
    "full": Profile(None, 30, 2_000, small_epochs=60, val_images=None),
}
BASE = Recipe(
    batch_size=128, optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=5e-4, schedule="one-cycle",
    warmup=0.2, jit_compile=False,
)  # fmt: skip
AUGMENTATIONS = {
    "none": (),
    "flip": ("flip",),
    "crop": ("shift",),
    "flip, crop": ("flip", "shift"),
    "flip, crop, cutout": ("flip", "shift", "cutout"),
    "flip, crop, colour": ("flip", "shift", "colour"),
    "flip, crop, mixup": ("flip", "shift", "mixup"),
    "flip, crop, cutmix": ("flip", "shift", "cutmix"),
}
BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
LEARNING_RATES = (0.01, 0.05, 0.2)
FIXED, SCALED = "learning rate fixed", "learning rate scaled with the batch"

# The course project's own runs on CIFAR-10: 10 epochs, accuracy on test at the epoch where that was highest.
PUBLISHED = {"none": 0.786, "augmentation": 0.813, "batch 512": 0.801, "BatchNorm": 0.847, "dropout": 0.836}
OVERFIT_ACCURACY, OVERFIT_GAP = 0.99, 0.20


def experiments(profile, precision=None):
    """The six studies.

    Args:
        profile: a name from PROFILES.
        precision: of all trainings, such as "mixed_bfloat16"; None for the profile's.

    Returns:
        A tuple of Experiments.
    """
    size = PROFILES[profile]
    size = dataclasses.replace(size, precision=precision or size.precision)
    studies = _augmentation, _batch_size, _batch_norm, _overfit, _cures, _reproduction
    return tuple(dataclasses.replace(study(size), seeds=size.seeds) for study in studies)


EXPERIMENTS = ("augmentation", "batch-size", "batch-norm", "overfit", "cures", "reproduction")


def _options(size):
    return {} if size.width == 1 else {"width": size.width}


def _base(size):
    recipe = dataclasses.replace(BASE, epochs=size.epochs, precision=size.precision)
    return Variation(
        "none", recipe, options=_options(size), train_images=size.train_images, val_images=size.val_images
    )


def _augmentation(size):
    names = ("none", "flip, crop") if size.few else AUGMENTATIONS
    base = _base(size)
    return Experiment(
        "augmentation",
        "Which random changes of the training images help?",
        tuple(
            dataclasses.replace(base, name=name, recipe=dataclasses.replace(base.recipe, augment=AUGMENTATIONS[name]))
            for name in names
        ),
        baseline="none",
        contrasts=tuple((name, "flip, crop") for name in names if name.startswith("flip, crop, ")),
    )


def _batch_size(size):
    base = _base(size)
    variations = []
    for batch_size in (32, 128) if size.few else BATCH_SIZES:
        fixed = dataclasses.replace(base.recipe, batch_size=batch_size)
        factor = batch_size / BASE.batch_size
        if factor == 1:
            variations.append(dataclasses.replace(base, name=f"{batch_size}", recipe=fixed, group=f"{FIXED}|{SCALED}"))
            continue
        variations.append(dataclasses.replace(base, name=f"{batch_size}", recipe=fixed, group=FIXED))
        if not size.few:
            scaled = dataclasses.replace(fixed, learning_rate=BASE.learning_rate * factor)
            variations.append(dataclasses.replace(base, name=f"{batch_size}, scaled", recipe=scaled, group=SCALED))
    return Experiment(
        "batch-size",
        "How large should the batch be, with the learning rate left as it is or scaled in proportion?",
        tuple(variations),
        baseline=f"{BASE.batch_size}",
        figures=("batch-size", "epochs-and-seconds", "accuracy"),
        noise_scale=size.noise_scale,
        remark=_noise_scale_remark,
        contrasts=tuple((v.name, v.name.split(",")[0]) for v in variations if v.group == SCALED),
    )


def _batch_norm(size):
    base = _base(size)
    places = {
        "before": {},
        "after": {"norm_after_activation": True},
        "without": {"batch_norm": False},
    }
    if size.few:
        places = {"before": {}, "without": {"batch_norm": False}}
    rates = (BASE.learning_rate,) if size.few else LEARNING_RATES
    variations = [
        dataclasses.replace(
            base,
            name=f"{place}, rate {rate:g}",
            recipe=dataclasses.replace(base.recipe, learning_rate=rate),
            options=base.options | options,
            group=f"BatchNorm {place} the activation" if options.get("batch_norm", True) else "without BatchNorm",
        )
        for place, options in places.items()
        for rate in rates
    ]
    return Experiment(
        "batch-norm",
        "What does BatchNorm do, at which learning rates, and does it belong before or after the activation?",
        tuple(variations),
        baseline=f"before, rate {BASE.learning_rate:g}",
        figures=("learning-rate", "curves", "accuracy"),
        contrasts=tuple(
            (f"{place}, rate {rate:g}", f"before, rate {rate:g}")
            for place in places if place != "before"
            for rate in rates
        ),
    )  # fmt: skip


def _unregularised(size):
    recipe = dataclasses.replace(
        BASE, epochs=size.small_epochs, batch_size=64, learning_rate=0.02, weight_decay=0.0, schedule="constant",
        precision=size.precision,
    )  # fmt: skip
    return Variation(
        "nothing", recipe, options=_options(size), train_images=size.small, val_images=size.val_images,
        group="no regularisation",
    )  # fmt: skip


def _with_images(variation, count, name):
    """On so many images in as many steps."""
    epochs = max(1, round(variation.recipe.epochs * variation.train_images / count))
    recipe = dataclasses.replace(variation.recipe, epochs=epochs)
    return dataclasses.replace(variation, name=name, recipe=recipe, train_images=count)


def _overfit(size):
    base = _unregularised(size)
    factors = (1,) if size.few else (0.5, 1, 2, 5, 10)
    counts = [round(factor * size.small) for factor in factors]
    if size.few:
        counts.append(3 * size.small)
    return Experiment(
        "overfit",
        "How small must the training set be for the network to know it by heart and little else?",
        tuple(_with_images(base, count, f"{count:,} images") for count in counts),
        baseline=f"{size.small:,} images",
        figures=("train-images", "curves"),
        remark=_overfit_remark,
    )


def _cures(size):
    base = _unregularised(size)

    def cure(name, options=None, **recipe):
        return dataclasses.replace(
            base, name=name, recipe=dataclasses.replace(base.recipe, **recipe), options=base.options | (options or {})
        )

    cures = (
        cure("dropout", options={"dropout": 0.3}),
        cure("augmentation", augment=("flip", "shift")),
        cure("weight decay", weight_decay=0.05),
        cure("early stopping", early_stopping=5, keep_epoch="best"),
        cure("smaller model", options={"width": 0.25 * size.width}),
        cure("label smoothing", label_smoothing=0.1),
        _with_images(base, 10 * size.small, "more data"),
    )
    return Experiment(
        "cures",
        f"What cures the overfit on {size.small:,} images: each cure alone, and the best together?",
        (base, *(cures[:1] if size.few else cures)),
        baseline="nothing",
        follow_up=_best_together,
        figures=("accuracy", "curves"),
        remark=_cures_remark,
    )


def _best_together(results):
    """The cures whose gain has an interval above 0 together, or else the best two that gain, or else the best one.

    The intervals are each for itself: this chooses what to try, and shows nothing.

    More data is not among them: it is what the others are to make up for.
    """
    (base, baseline), *cures = results
    gains = []
    for cure, accuracies in cures:
        if cure.train_images == base.train_images and None not in accuracies and None not in baseline:
            gains.append((compare(accuracies, baseline), cure))
    promising = [cure for gain, cure in gains if gain.low is not None and gain.low > 0]
    ranked = [cure for _, cure in sorted(gains, key=lambda pair: -pair[0].mean)]
    gaining = sum(gain.mean > 0 for gain, _ in gains)
    best = promising if len(promising) > 1 else ranked[: max(1, min(2, gaining))]
    return base.combined_with(best, "best together")


def _reproduction(size):
    recipe = Recipe(
        epochs=size.reproduction_epochs, batch_size=128, optimizer="adam", learning_rate=0.001, weight_decay=0.0,
        schedule="constant", keep_epoch="best", precision=size.precision, jit_compile=False,
    )  # fmt: skip
    images = size.train_images if size.few else None
    plain = _options(size) | {"batch_norm": False}
    base = Variation("none", recipe, options=plain, train_images=images)
    variations = (
        base,
        dataclasses.replace(base, name="BatchNorm", options=_options(size)),
        dataclasses.replace(base, name="augmentation", recipe=dataclasses.replace(recipe, augment=("flip", "shift"))),
        dataclasses.replace(base, name="batch 512", recipe=dataclasses.replace(recipe, batch_size=512)),
        dataclasses.replace(base, name="dropout", options=plain | {"dropout": 0.25}),
    )
    variations = variations[:2] if size.few else variations
    return Experiment(
        "reproduction",
        "Do the course project's five runs come out again, with the same architecture and 10 epochs?",
        variations,
        baseline="none",
        # Their numbers are of CIFAR-10 after ten epochs and nothing else; see `run_task`.
        published={} if size.few else PUBLISHED,
        figures=("accuracy", "curves"),
        remark=None if size.few else _reproduction_remark,
    )


def _noise_scale_remark(analysis):
    known = [row for row in analysis["rows"] if row["noise_scale"] is not None]
    if not known:
        return "The gradient noise scale could not be told from the images looked at."
    low, high = (f(known, key=lambda row: row["noise_scale"]) for f in (min, max))
    single = [trial["noise_scale"] for trial in analysis["trials"] if trial["noise_scale"] is not None]
    return (
        "The gradient noise scale of the trained networks (McCandlish et al. 2018; on training images without "
        f"augmentation) has means from {low['noise_scale']:,.0f} images for '{low['variation']}' to "
        f"{high['noise_scale']:,.0f} for '{high['variation']}', and of single seeds from {min(single):,.0f} to "
        f"{max(single):,.0f}. Earlier in training, where it would tell how far a larger batch helps, it was not "
        "measured."
    )


def _overfit_remark(analysis):
    reached = [
        row for row in analysis["rows"]
        if row["train_accuracy"] is not None and row["train_accuracy"] > OVERFIT_ACCURACY and row["gap"] > OVERFIT_GAP
    ]  # fmt: skip
    wanted = f"over {OVERFIT_ACCURACY:.0%} on the training images and a gap of over {100 * OVERFIT_GAP:.0f} points"
    if not reached:
        return f"No set came to {wanted}."
    listed = "; ".join(
        f"{row['variation']}: {row['train_accuracy']:.1%} and {100 * row['gap']:.1f} points" for row in reached
    )
    remark = f"Overfit, which is {wanted}, was reached with {listed}."
    steps = [row["steps"] for row in analysis["rows"] if row["steps"] is not None]
    return f"{remark} All sizes had about as many steps: {min(steps)} to {max(steps)}."


def _cures_remark(analysis):
    rows = {row["variation"]: row for row in analysis["rows"]}
    together = rows["best together"]
    baseline = rows[analysis["baseline"]]
    if together["gap"] is None or baseline["gap"] is None:
        return f"Together are: {together['changes']}."
    remark = (
        f"Together are: {together['changes']}. The gap between training and validation is {100 * baseline['gap']:.1f} "
        f"points without a cure and {100 * together['gap']:.1f} with these, by "
        f"{100 * (together['train_accuracy'] - baseline['train_accuracy']):+.1f} points of accuracy in training and "
        f"{100 * together['difference']:+.1f} on validation. {_losses(analysis)}"
    )
    if "early stopping" in rows:
        remark += (
            " Early stopping looks at the validation images that measure it, which slightly flatters its accuracy; it "
            "watches accuracy, which hardly falls while the loss grows."
        )
    return remark


def _losses(analysis):
    """Which cures are shown to lower the loss on validation, of those that train on the same loss: a sentence."""
    losses = {}
    for trial in analysis["trials"]:
        losses.setdefault(trial["variation"], []).append(trial["val_loss"])
    before = losses.pop(analysis["baseline"])
    smoothed = {row["variation"] for row in analysis["rows"] if "label_smoothing" in row["changes"]}
    found = {name: compare(own, before) for name, own in losses.items() if None not in (*own, *before)}
    found = {name: change for name, change in found.items() if name not in smoothed}
    corrected = holm([change.p for change in found.values()])
    shown = [
        f"'{name}' ({change.mean:+.2f}, {change.low:+.2f} to {change.high:+.2f})"
        for (name, change), p in zip(found.items(), corrected)
        if p is not None and p < SIGNIFICANCE and change.mean < 0
    ]
    base = next(row["val_loss"] for row in analysis["rows"] if row["variation"] == analysis["baseline"])
    return (
        f"The loss on validation, which tells more of overfitting than accuracy, is {base:.2f} at the end without a "
        f"cure; shown lower it is with {', '.join(shown) or 'none'} (corrected for their number by Holm's method; "
        "label smoothing is left out, as its loss is another)."
    )


def _reproduction_remark(analysis):
    rows = analysis["rows"]
    listed = "; ".join(
        f"{row['variation']} {row['test_accuracy']:.1%} against {row['published_test_accuracy']:.1%}"
        for row in rows
        if row["test_accuracy"] is not None
    )
    return (
        "The published numbers are single runs at the epoch where accuracy on test was highest, which flatters them; "
        "ours are means over seeds at the epoch where accuracy on validation was highest, tested once, with nine "
        "tenths of the training images to train on and the rest for validation. Of their settings the architecture, "
        "the epochs and the batch of 512 are known; the rest is chosen here: Adam with 0.001, a batch of 128, dropout "
        "0.25, flip and crop. "
        f"Ours against theirs, on test: {listed}."
    )


def run_task(
    data, profile, directory, *, only=None, precision=None, reuse=None, scheduler=None, workers=None, data_dir=None,
    on_bad_image="list",
):  # fmt: skip
    """Run what is missing of the studies and write tables, figures and page.

    Args:
        data: "real" (CIFAR-10), "synthetic", or a set's name or folder as `tfproject.data.load` takes it.
        profile: a name from PROFILES.
        directory: the study's directory.
        only: names from EXPERIMENTS to run; None for all that the profile has without being asked.
        precision: of all trainings; None for that of the results to reuse, or else the profile's.
        reuse: results that `publish` made; what is finished there in the same precision is not run again.
        scheduler, workers: see `tfproject.experiments.run_study`.
        data_dir, on_bad_image: see `tfproject.data.load`.

    Returns:
        The page's pathlib.Path; metrics.json, tables and figures lie beside it.

    Raises:
        UserError: if an experiment is unknown, or the images do not suit the profile.
    """
    from tfproject.experiments import Study, run_study

    unknown = set(only or ()) - set(EXPERIMENTS)
    if unknown:
        raise UserError(f"There is no experiment '{min(unknown)}'; choose from {', '.join(EXPERIMENTS)}.")
    if reuse:
        reused = _reuse(pathlib.Path(reuse), pathlib.Path(directory))
        precision = precision or reused
    if only is None and not PROFILES[profile].reproduce:
        only = EXPERIMENTS[:-1]
    name, studies = str(SETS.get(data, data)), experiments(profile, precision)
    if name != SETS["real"]:
        studies = tuple(dataclasses.replace(e, published={}, remark=None) if e.published else e for e in studies)
    study = Study(
        directory,
        studies,
        image_options={
            "name": name, "data_dir": None if data_dir is None else str(data_dir),
            "on_bad_image": on_bad_image,
        },
    )  # fmt: skip
    _check_sizes(study, only, profile)
    return run_study(study, only=only, scheduler=scheduler, workers=workers)


def _check_sizes(study, only, profile):
    """Refuse a set that is smaller than what is asked of it, before hours are spent."""
    asked = [v for e in study.experiments if only is None or e.name in only for v in e.variations]
    for split, counts in (("train", [v.train_images for v in asked]), ("val", [v.val_images for v in asked])):
        most, there = max((count or 0 for count in counts), default=0), len(study.image_set.splits[split])
        if most > there:
            raise UserError(
                f"The profile '{profile}' wants {most:,} images of {study.image_set.name}'s split '{split}', which has "
                f"{there:,}; choose --profile quick, or give a larger set."
            )


def _reuse(results, directory):
    """Copy the runs that the directory has not begun itself; the precision of those that there are."""
    runs = sorted((results / "runs").glob("*/metrics.json"))
    if not runs:
        raise UserError(f"{results} holds no runs of a published study; give the folder that --publish wrote.")
    for run in (path.parent for path in runs):
        if not (directory / "runs" / run.name).exists():
            copy(results, directory, record(run))
    return usual_precision(path.parent for path in runs)


def publish(directory, goal=RESULTS):
    """Copy a study's tables, figures, numbers and page, and the numbers of each run.

    Args:
        directory: the study's directory, after `run_task`.
        goal: where to; made if it is not there. Tables and figures that it held before are removed.

    Returns:
        The goal, a pathlib.Path.
    """
    directory, goal = pathlib.Path(directory), pathlib.Path(goal)
    if not (directory / "index.html").exists():
        raise UserError(f"{directory} holds no finished study; run `tfproject task2` first.")
    goal.mkdir(parents=True, exist_ok=True)
    parts = [path for pattern in ("*.csv", "*.png") for path in sorted(directory.glob(pattern))]
    for old in [*goal.glob("*.csv"), *goal.glob("*.png")]:
        if old.name not in {path.name for path in parts}:
            old.unlink()
    runs = json.loads((directory / "metrics.json").read_text())["runs"]
    parts += [path for run in runs for path in record(directory / "runs" / run)]
    copy(directory, goal, [*parts, directory / "metrics.json", directory / "index.html"])
    return goal
