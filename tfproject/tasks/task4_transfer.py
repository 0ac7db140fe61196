"""Task 4: transfer learning on buildings, from a small CNN trained from scratch to a fine-tuned VGG16."""

import dataclasses
import functools
import json
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np

from tfproject.errors import UserError
from tfproject.experiments.experiment import Experiment, Trial
from tfproject.experiments.transfer import TransferStudy, TransferVariation
from tfproject.statistics import summarise, wilson
from tfproject.tasks.publishing import copy
from tfproject.training.layer_rates import rates_by_depth
from tfproject.training.recipe import Recipe
from tfproject.training.run import RECORD
from tfproject.training.stages import gradual_unfreezing, head_first

SETS = {"real": ("terrassa", "paris"), "synthetic": ("synthetic-buildings", "synthetic-city")}
CIFAR_CNN = pathlib.Path("saved_models", "cifar10_custom_cnn.keras")
BLOCKS = ("block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool")

# The course's small CNN, and its one new layer when all others are frozen. The rates were chosen on validation photos:
# from CIFAR-10 weights 0.01 came to 80.1 % over three seeds, 0.02 to 82.6 %, 0.04 to 83.2 %, 0.08 to 82.6 % (one seed);
# from scratch 0.02 to 68.4 % over two seeds, 0.04 to 64.7 %.
CUSTOM = Recipe(
    batch_size=32, optimizer="sgd", learning_rate=0.02, momentum=0.9, weight_decay=5e-4, schedule="one-cycle",
    warmup=0.2, label_smoothing=0.1, augment=("flip", "shift"), precision="float32", jit_compile=False,
)  # fmt: skip
OUTPUT_LAYER = Recipe(
    batch_size=32, optimizer="adam", learning_rate=0.003, weight_decay=0.0, schedule="one-cycle", warmup=0.1,
    augment=("alternating_flip",), views=2, frozen_until="dense_relu", precision="float32", jit_compile=False,
)  # fmt: skip
# VGG16. Two views, an image and its mirror image each a little moved, are what its frozen part runs on. Chosen on
# validation photos at 160x160, single runs of seed 0 from the same new layers (88.7 %): a rate of 0.0001 destroys (82 %
# in the second epoch), 0.00002 came to 90.6 % in 5 epochs, 0.00004 to 91.2 % in 10. With the new layers alone larger
# photos are better, 90.6 % at 192x192 and 91.6 % at 224x224, whose arithmetic costs 1.4 times as much again. Where cuts
# are compared, frozen to block3_pool: 3 epochs at 48x48 hardly moved anything (68.1 %), 6 at 64x64 came to 81.6 %, at
# 96x96 to 84.9 % in twice the time; a rate of 0.0001 destroys there, too.
TUNED = Recipe(
    batch_size=16, optimizer="adam", learning_rate=4e-5, weight_decay=0.0, schedule="one-cycle", warmup=0.2,
    label_smoothing=0.1, augment=("alternating_flip", "shift"), views=2, frozen_until="block4_pool",
    precision="float32", jit_compile=False,
)  # fmt: skip
# VGG16's new layers alone, and the rate of their training. Chosen on validation photos at 160x160, single runs of seed
# 0, nothing else trained: 6 epochs at 0.001 with a dropout of 0.5 came to 62 %, 30 to 77 %, 30 at 0.003 to 84 %, 60 at
# 0.003 to 86 %, 40 at 0.003 with a dropout of 0.3 to 89 %, with 0.2 to 86 %; 512 units or none were no better.
HEAD_RATE = 3e-3
HEAD = {"head": (256,), "dropout": 0.3}
UNFREEZING_EPOCHS = 2  # of each block but the last, when one block after the other is trained

BALANCED = ", balanced"  # ends the name of a variation that is shown every class as often
SCRATCH, CONTINUED = "1 from scratch", "1 from CIFAR-10 weights"
SOFTMAX, SVM = "2 CIFAR-10 features, softmax", "2 CIFAR-10 features, SVM"
FLOOR, FINE_TUNED, WITH_CITY = "3 VGG16 features, SVM", "3 VGG16, fine-tuned", "4 VGG16, fine-tuned with Paris"
# The course project's, on another edition of the set.
PUBLISHED = {SCRATCH: 0.686, CONTINUED: 0.791, SOFTMAX: 0.379, SVM: 0.379, FINE_TUNED: 0.601, WITH_CITY: 0.529}


@dataclasses.dataclass(frozen=True)
class Profile:
    """How large the task is.

    Attributes:
        seeds: of every trial.
        small: pixels a side of the custom CNN's images, which are those of its CIFAR-10 weights.
        large: of VGG16's images in parts 3 and 4.
        middle: of VGG16's images where cuts and recipes are compared: there are many runs, some of nearly all layers.
        custom_epochs, output_epochs, tuned_epochs, cut_epochs, head_epochs: of the custom CNN, of its output layer, of
            VGG16 in parts 3 and 4, of VGG16 where cuts and recipes are compared, and of VGG16's new layers alone.
        per_class: training photos a class of the learning curves; None for all.
        longer: how many times more epochs a training on so many photos a class has.
        curve_val_images: validation photos of the learning curves' VGG16, which are scored on test.
        cuts: the block boundaries to cut at.
        network: where VGG16, or what stands in for it, is built.
        options: its arguments.
        precision: of VGG16's trainings.
        width: of the custom CNN where its first weights are trained by the task itself; None for those of Task 1.
        changes: fields of all recipes that are changed.
        few: only some of the experiments and variations.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    small: int = 32
    large: int = 192
    middle: int = 64
    custom_epochs: int = 20
    output_epochs: int = 30
    tuned_epochs: int = 6
    cut_epochs: int = 6
    head_epochs: int = 40
    per_class: tuple[int | None, ...] = (5, 10, 25, None)
    longer: Mapping[int, int] = dataclasses.field(default_factory=lambda: {5: 4, 10: 3, 25: 2})
    curve_val_images: int | None = 100
    cuts: tuple[str, ...] = BLOCKS
    network: str = "tfproject.models.backbones:pretrained_cnn"
    options: Mapping[str, object] = dataclasses.field(default_factory=lambda: {"name": "VGG16", **HEAD})
    precision: str = "float32"
    width: float | None = None
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    few: bool = False


PROFILES = {
    "quick": Profile(
        seeds=(0, 1), large=32, middle=32, custom_epochs=3, output_epochs=3, tuned_epochs=2, cut_epochs=2,
        head_epochs=2, per_class=(5, None), longer={5: 1}, cuts=("block2_pool", "block4_pool"),
        network="tfproject.models.transferred:small_vgg", options=HEAD | {"head": (16,), "depth": 1}, width=0.25,
        few=True,
    ),
    "cpu": Profile(precision="auto"),
}  # fmt: skip
EXPERIMENTS = ("parts", "parts-70-30", "cuts", "recipes", "balance", "learning-curves")


def experiments(profile, weights, city, largest):
    """Everything that is trained.

    Args:
        profile: a Profile.
        weights: path of the custom CNN trained on CIFAR-10.
        city: the other city's image set; None leaves part 4 out.
        largest: as `largest_class` gives it.

    Returns:
        A tuple of Experiments.
    """
    ways = _ways(profile, weights, city)
    return (
        _parts(profile, ways), _parts_seventy_thirty(profile, ways), _cuts(profile), _recipes(profile),
        _balance(profile, ways, *largest), _learning_curves(profile, ways),
    )  # fmt: skip


def _changed(recipe, size, **changes):
    return dataclasses.replace(recipe, **(changes | dict(size.changes)))


def _ways(size, weights, city):
    """The ways to transfer that are the task's parts, by name."""
    small, large = {"image_size": size.small}, {"image_size": size.large}
    width = {} if size.width is None else {"width": size.width}
    pretrained = {"network": "tfproject.models.transferred:custom_cnn_from",
                  "options": {"weights": str(weights), **width}}  # fmt: skip
    custom = _changed(CUSTOM, size, epochs=size.custom_epochs)
    output = _changed(OUTPUT_LAYER, size, epochs=size.output_epochs)
    tuned = _changed(TUNED, size, epochs=size.tuned_epochs, precision=size.precision)
    vgg = {"network": size.network, "options": size.options}
    ways = [
        # (1) The custom CNN from scratch, and from its CIFAR-10 weights, which bear a higher learning rate.
        TransferVariation(SCRATCH, custom, options=width, images=small),
        TransferVariation(CONTINUED, dataclasses.replace(custom, learning_rate=0.04), images=small, **pretrained),
        # (2) The same weights, all frozen: a new output layer, or a linear SVM in its place.
        TransferVariation(SOFTMAX, output, images=small, **pretrained),
        TransferVariation(SVM, output, images=small, svm=True, **pretrained),
        # (3) VGG16: its frozen features for comparison; then its last block trained after the new layers.
        TransferVariation(FLOOR, dataclasses.replace(tuned, frozen_until="block5_pool"), images=large, svm=True, **vgg),
        TransferVariation(FINE_TUNED, tuned, images=large, stages=_new_layers_first(tuned, size), **vgg),
    ]
    if city:
        # (4) The same with the other city's photos and classes.
        together = {"images": large | {"city": city}}
        ways.append(TransferVariation(WITH_CITY, tuned, stages=_new_layers_first(tuned, size), **together, **vgg))
    return {way.name: way for way in ways}


def _new_layers_first(recipe, size):
    """The first stage: VGG16's new layers alone."""
    return head_first(recipe, "block5_pool", size.head_epochs, HEAD_RATE)[:1]


def _parts(size, ways):
    return Experiment(
        "parts",
        "How much does it help to start from what another training has learnt?",
        tuple(ways.values()),
        baseline=SCRATCH,
        seeds=size.seeds,
        published={} if size.few else PUBLISHED,
    )


def _parts_seventy_thirty(size, ways):
    protocol = {"protocol": "70/30"}
    names = [SCRATCH, SVM] if size.few else [name for name in ways if name != WITH_CITY]
    return Experiment(
        "parts-70-30",
        "The same, trained on 70 % of the photos and validated on 30 %, drawn by the seed?",
        tuple(dataclasses.replace(ways[name], images=ways[name].images | protocol) for name in names),
        baseline=SCRATCH,
        seeds=size.seeds,
    )


def _middle(size, name, until, **changes):
    recipe = _changed(TUNED, size, epochs=size.cut_epochs, precision=size.precision, frozen_until=until)
    return TransferVariation(
        name, recipe, network=size.network, options=size.options, images={"image_size": size.middle}, **changes
    )


def _cuts(size):
    """Every cut from the same trained new layers, which otherwise would cost the deep cuts most of their epochs."""
    cuts = [_middle(size, f"frozen to {cut}", cut) for cut in size.cuts]
    return Experiment(
        "cuts",
        "Where should VGG16 be cut into a frozen and a trained part?",
        tuple(dataclasses.replace(cut, stages=_new_layers_first(cut.recipe, size)) for cut in cuts),
        baseline=f"frozen to {size.cuts[-1]}",
        seeds=size.seeds,
    )


SLOWER = "layers nearer the image slower"


def _recipes(size):
    """Ways to train what is not frozen, all with the same cut and as many epochs with all of it in motion.

    Those that begin with some layers alone do that in epochs of their own, so they train longer in all.
    """
    until = size.cuts[len(size.cuts) // 2]
    deeper = [block for block in BLOCKS if block > until]
    at_once = _middle(size, "all at once", until)
    recipe = at_once.recipe
    new_layers = _new_layers_first(recipe, size)
    slower = dataclasses.replace(recipe, learning_rate=HEAD_RATE, layer_rates=rates_by_depth(
        [f"{cut[:6]}_conv*" for cut in deeper], last=recipe.learning_rate / HEAD_RATE
    ))  # fmt: skip
    *blocks, _ = gradual_unfreezing(recipe, (*reversed(deeper[:-1]), until), UNFREEZING_EPOCHS)
    variations = (
        at_once,
        dataclasses.replace(at_once, name="new layers first", stages=new_layers),
        dataclasses.replace(at_once, name=SLOWER, recipe=slower),
        dataclasses.replace(at_once, name="gradual unfreezing", stages=(*new_layers, *blocks)),
    )
    return Experiment(
        "recipes",
        f"VGG16 frozen to {until}: how should the rest be trained?",
        variations[:2] if size.few else variations,
        baseline="all at once",
        seeds=size.seeds,
        remark=functools.partial(_recipes_remark, variations),
    )


def _recipes_remark(variations, analysis):
    rows = {row["variation"]: row for row in analysis["rows"]}
    shown = [variation for variation in variations if variation.name in rows]
    listed = "; ".join(f"'{v.name}' {training_words(v)}" for v in shown)
    text = f"They differ in more than the order. Stage by stage: {listed}. "
    gap = rows.get(SLOWER, {})
    if gap.get("difference_low") is not None:
        text += (
            f"'{SLOWER}' has the epochs and the augmentation of '{analysis['baseline']}' and differs from it in rates "
            f"alone, that of the new layers above all, which makes {100 * gap['difference']:+.1f} points "
            f"({100 * gap['difference_low']:+.1f} to {100 * gap['difference_high']:+.1f}). "
        )
    return text + (
        "The ways that begin with the new layers alone train them at the higher rate, in more epochs, without "
        "augmentation and before the rest; how much of what they gain is which was not measured."
    )


def training_words(variation):
    """The stages of a variation's training, with epochs, rates and augmentation, in words."""
    return ", then ".join(_stage_words(recipe) for recipe in (*variation.stages, variation.recipe))


def _stage_words(recipe):
    rates = _plain(recipe.learning_rate)
    rates += "".join(f", of {layers.split('_')[0]} {_plain(recipe.learning_rate * factor)}"
                     for layers, factor in recipe.layer_rates)  # fmt: skip
    epochs = f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}"
    frozen = f"frozen to {recipe.frozen_until}, " if recipe.frozen_until else ""
    return f"{epochs} {frozen}{'' if recipe.augment else 'not '}augmented, at a rate of {rates}"


def _plain(rate):
    return np.format_float_positional(rate, precision=2, fractional=False, trim="-")


def largest_class(images):
    """(its name, its share of the training photos, how much longer an epoch is when all classes are as frequent)."""
    counts = np.bincount(images.train.labels, minlength=len(images.class_names))
    most = int(counts.argmax())
    share = counts[most] / counts.sum()
    return images.class_names[most], float(share), float(share * np.count_nonzero(counts))


def _balance(size, ways, name_of_largest, share, longer):
    """Photos of rarer classes repeated until all are as frequent, in about as many steps."""
    variations = []
    for name in (CONTINUED, SOFTMAX)[: 1 if size.few else 2]:
        way = ways[name]
        recipe = dataclasses.replace(way.recipe, epochs=max(1, round(way.recipe.epochs / longer)))
        variations += [way, dataclasses.replace(
            way, name=f"{name}{BALANCED}", recipe=recipe, images=way.images | {"balanced": True}
        )]  # fmt: skip
    return Experiment(
        "balance",
        f"{share:.0%} of the training photos are of one class, {name_of_largest}: does it help to show every class as "
        "often?",
        tuple(variations),
        baseline=CONTINUED,
        seeds=size.seeds,
    )


CURVES = {"from scratch": SCRATCH, "CIFAR-10 features": SOFTMAX, "VGG16 fine-tuned": FINE_TUNED}


def _learning_curves(size, ways):
    variations = []
    for method, name in list(CURVES.items())[: 2 if size.few else None]:
        for count in size.per_class:
            way = dataclasses.replace(ways[name], name=f"{method}, {count or 'all'}", group=method)
            if count is not None:
                recipe, *stages = (
                    dataclasses.replace(r, epochs=r.epochs * size.longer[count]) for r in (way.recipe, *way.stages)
                )
                fewer = {"per_class": count}
                if name == FINE_TUNED:  # whose many short epochs would be spent on validation
                    fewer["val_images"] = size.curve_val_images
                way = dataclasses.replace(way, recipe=recipe, stages=tuple(stages), images=way.images | fewer)
            variations.append(way)
    return Experiment(
        "learning-curves",
        "How many photos of each class does each way need?",
        tuple(variations),
        baseline=variations[len(size.per_class) - 1].name,
        seeds=size.seeds,
    )


def run_task(data, profile, directory, *, only=None, reuse=None, data_dir=None, on_bad_image="list", progress=True):
    """Train and test what is missing, and write tables, figures and page.

    Begun before in the same directory, the task goes on; several processes may run it at once.

    Args:
        data: "real" (Terrassa and Paris Buildings), "synthetic", or a set's name or folder as `tfproject.data.load`
            takes it, without another city.
        profile: a name from PROFILES.
        directory: where runs, tables, figures and page go.
        only: names from EXPERIMENTS to run; None for all. Parts are always run.
        reuse: results that `publish` made; what is finished there is not run again.
        data_dir, on_bad_image: see `tfproject.data.load`.
        progress: tell of each trial.

    Returns:
        The page's pathlib.Path, report.html; metrics.json, tables and figures lie beside it.

    Raises:
        UserError: if an experiment is unknown, the images or the CIFAR-10 weights are not there or do not suit.
    """
    from tfproject.data import buildings as photos
    from tfproject.experiments.analysis import analyse
    from tfproject.experiments.runner import set_up_tensorflow
    from tfproject.tasks import task4_page

    unknown = set(only or ()) - set(EXPERIMENTS)
    if unknown:
        raise UserError(f"There is no experiment '{min(unknown)}'; choose from {', '.join(EXPERIMENTS)}.")
    set_up_tensorflow()
    size, directory = PROFILES[profile], pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    buildings, city = SETS.get(data, (str(data), None))
    options = {"data_dir": None if data_dir is None else str(data_dir), "on_bad_image": on_bad_image}
    largest = largest_class(photos.load(buildings, size.small, **options))
    studies = experiments(size, _cifar_weights(size, directory), city, largest)
    if buildings != SETS["real"][0]:  # others' numbers are of Terrassa
        studies = tuple(dataclasses.replace(experiment, published={}) for experiment in studies)
    study = TransferStudy(
        directory,
        studies,
        images="tfproject.data.buildings:load",
        image_options={"name": buildings, "image_size": size.small, **options},
    )
    names = [name for name in EXPERIMENTS if only is None or name in only or name == "parts"]
    if reuse:
        _reuse(study, names, pathlib.Path(reuse))
    _run_missing(study, names, progress)
    finished = [experiment for experiment in study.experiments if not study.missing([experiment.name])]
    return task4_page.write(study, size, {experiment.name: analyse(study, experiment) for experiment in finished})


def _cifar_weights(size, directory):
    """The custom CNN trained on CIFAR-10 by Task 1; in a small profile one that is trained here, on drawn objects."""
    if size.width is None:
        if not CIFAR_CNN.is_file():
            raise UserError(
                f"The custom CNN trained on CIFAR-10 is not in {CIFAR_CNN}; run `tfproject task1 --data real "
                "--publish` first, in the repository's folder."
            )
        return CIFAR_CNN.absolute()
    from tfproject import data, models, training

    run = training.Run(directory / "objects")
    if not run.finished:
        images = data.load("synthetic-objects", image_size=(size.small, size.small))
        network = functools.partial(models.custom_cnn, width=size.width)
        training.fit(network, images, _changed(CUSTOM, size, epochs=2), run.directory, progress=False)
    return run.model_path.absolute()


def _run_missing(study, names, progress):
    from tfproject.experiments.transfer import run_trial

    while missing := study.missing(names):
        start, finished = time.perf_counter(), 0
        for trial in missing:
            if run_trial(study, trial, score):
                finished += 1
                outcome = study.outcome(trial)
                if progress:
                    said = f"val_accuracy {outcome['val_accuracy']:.4f}" if "val_accuracy" in outcome else "diverged"
                    print(
                        f"trial {finished}/{len(missing)}: {trial.variation.name}, seed {trial.seed}: {said}, "
                        f"{(time.perf_counter() - start) / 60:.1f} min so far",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
        if not finished:
            time.sleep(1)  # others are at all of them


def score(probabilities, split, class_names):
    """What is measured of a classifier on photos of buildings, for metrics.json.

    Args:
        probabilities: float (n, c).
        split: the tfproject.data.Split that they are of; the classes that occur in it, but for the unknown, are known.
        class_names: c names.

    Returns:
        What `Scores.to_json` gives, and "unknown": what `unknown_scores` gives.
    """
    from tfproject import evaluation
    from tfproject.data.buildings import UNKNOWN
    from tfproject.evaluation.unknown import unknown_scores

    known = [i for i in sorted(set(split.labels.tolist())) if class_names[i] != UNKNOWN]
    scores = evaluation.scores(probabilities, split.labels, class_names, split.names).to_json()
    return scores | {"unknown": unknown_scores(probabilities, split.labels, known)}


def summaries(study, experiment):
    """What the variations of an experiment came to on test photos, over the seeds.

    Args:
        study: the TransferStudy.
        experiment: one of its experiments, all of whose trials are finished.

    Returns:
        A list of dicts: variation, group, train_images, scored and scored_distinct (how many photos), and Summaries as
        dicts, with each seed's `values`, of: test and distinct (accuracies on all that is scored, and on it without
        duplicates of training photos), balanced_accuracy, known_accuracy, known_accuracy_among_known, auroc_least_sure
        and auroc_own (see `unknown_scores`; without duplicates). A mean is None where a seed diverged or there is no
        value. Where every seed gives the same, as an SVM does, the interval of test and distinct is Wilson's of the
        photos, and the others have none.
    """
    rows = []
    for variation in study.variations(experiment):
        measured = [study.run_of(Trial(variation, seed)).metrics for seed in experiment.seeds]
        values = {
            "test": [m.get("test", {}).get("accuracy") for m in measured],
            "distinct": [m.get("distinct", {}).get("accuracy") for m in measured],
            "balanced_accuracy": [m.get("distinct", {}).get("balanced_accuracy") for m in measured],
        }
        for name in ("known_accuracy", "known_accuracy_among_known", "auroc_least_sure", "auroc_own"):
            values[name] = [m.get("distinct", {}).get("unknown", {}).get(name) for m in measured]
        images = study.images_of(Trial(variation, experiment.seeds[0]))
        counts = {name: measured[0].get(name, {}).get("count") for name in ("test", "distinct")}
        rows.append(
            {
                "variation": variation.name, "group": variation.group, "train_images": len(images.train),
                "scored": counts["test"], "scored_distinct": counts["distinct"],
                **{
                    name: _over_seeds(summarise([] if None in found else found), counts.get(name)) | {"values": found}
                    for name, found in values.items()
                },
            }
        )  # fmt: skip
    return rows


def _over_seeds(summary, count):
    """A Summary as a dict; without chance of the seed its interval is that of the count photos, if these are known."""
    if summary.spread == 0:
        low, high = (None, None) if count is None else map(float, wilson(round(summary.mean * count), count))
        summary = dataclasses.replace(summary, low=low, high=high)
    return dataclasses.asdict(summary)


RESULTS = pathlib.Path("results", "task4-losses")


def publish(directory, root="."):
    """Copy tables, figures, numbers and page, and the numbers of each finished run, to results/, and tell the README.

    Where there is no page yet the finished runs alone are added, so that `reuse` finds them.

    Args:
        directory: the task's directory, after `run_task`, or while it is interrupted.
        root: the repository.

    Returns:
        The results folder, a pathlib.Path. What it held before is removed when there is a page to take its place.
    """
    from tfproject.report import readme

    readme.check(root)
    directory, goal = pathlib.Path(directory), pathlib.Path(root) / RESULTS
    runs = [run.parent for run in directory.glob("runs/*/metrics.json") if "outcome" in json.loads(run.read_text())]
    if not runs:
        raise UserError(f"{directory} holds no finished run of Task 4; run `tfproject task4` first.")
    paths = [path for run in runs for path in _record(run)]
    if (directory / "report.html").exists():
        paths += [directory / "report.html", directory / "metrics.json", *directory.glob("*.csv")]
        paths += directory.glob("figures/*.png")
        kept = {goal / path.relative_to(directory) for path in paths}
        for old in [*goal.glob("*.csv"), *goal.glob("figures/*.png"), *_record(goal / "runs")]:
            if old not in kept:
                old.unlink()
    copy(directory, goal, paths)
    readme.update(root)
    return goal


def _reuse(study, names, results):
    """Copy what the study is missing of experiments from what was published, and the drawing made with a model."""
    runs = {study.run_of(trial).directory for trial in study.missing(names)}
    if not (results / "runs").is_dir():
        raise UserError(f"{results} holds no runs of a published Task 4; give the folder that --publish wrote.")
    for run in runs:
        if not run.exists():
            copy(results, study.directory, _record(results / "runs" / run.name))
    copy(results, study.directory, results.glob("figures/gradcam.png"))


def _record(folder):
    """The files of a run's numbers, and of its stages'."""
    return [path for name in RECORD for path in folder.glob(f"**/{name}")]
