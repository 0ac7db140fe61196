"""Task 5: land use and land cover from EuroSAT's satellite tiles, from the first look at the data to the limits."""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import pkgutil
import shutil
from collections.abc import Mapping

from tfproject.errors import UserError
from tfproject.experiments.experiment import Experiment, Trial, Variation
from tfproject.experiments.search import Range
from tfproject.experiments.study import Study
from tfproject.files import write_atomically
from tfproject.statistics import compare, correct_p_values, summarise
from tfproject.tasks.interpretation import Extent
from tfproject.tasks.publishing import copy, record, usual_precision
from tfproject.training.recipe import Recipe
from tfproject.training.run import Run
from tfproject.training.stages import head_first

# Chosen on validation tiles. Of a first try with six epochs each, Muon came to 97.2 %, SGD with momentum (rate 0.2) to
# 90.0 %; Muon with a rate of 0.004 was at 90.4 % after two epochs, with 0.01 at 92.1 %. Single runs, a hint only. The
# part `search` shows how the rate, weight decay, smoothing and warm-up compare with others; it changes nothing here.
# Of three runs with six epochs on all training tiles, validation tiles as they are and as JPEG of quality 75: without
# `jpeg` 97.5 and 75.6 %, with it 97.3 and 96.1 %, with smoothing and sharpening too 96.8 and 95.1 %.
LAND_COVER = Recipe(
    epochs=40,
    batch_size=128,
    optimizer="muon",
    learning_rate=0.01,
    momentum=0.95,
    weight_decay=0.1,
    schedule="one-cycle",
    warmup=0.2,
    label_smoothing=0.1,
    augment=("symmetries", "shift", "jpeg"),
)
# Of VGG16 the new layers are trained first, on the tiles as they are, then with them the last two blocks; what comes
# before runs once on three views of each tile. The rate of single runs with 2,000 training tiles for four epochs, on
# 1,000 validation tiles: 4e-5 gave 89.6 %, 1e-4 91.9, 2e-4 93.2, 4e-4 90.6, 8e-4 87.0.
VGG16 = Recipe(
    epochs=6, batch_size=64, optimizer="adam", learning_rate=2e-4, weight_decay=0.0, schedule="one-cycle", warmup=0.2,
    label_smoothing=0.1, augment=("symmetries", "shift"), views=3, frozen_until="block3_pool",
)  # fmt: skip
VGG16_HEAD = head_first(VGG16, "block5_pool", head_epochs=10, head_rate=3e-3)[0]
SEARCHED = {
    "learning_rate": Range(0.002, 0.04, logarithmic=True),
    "weight_decay": Range(0.01, 0.5, logarithmic=True),
    "label_smoothing": Range(0.0, 0.2),
    "warmup": Range(0.05, 0.5),
}
SETS = {"real": "eurosat", "synthetic": "synthetic-land-cover"}
# The published lists of names of EuroSAT. Generated tiles and a user's own have no places: both splits are drawn.
SPLITS = {
    "eurosat": {"random": {"split_files": "eurosat-random"}, "spatial": {"split_files": "eurosat-spatial"}},
    None: {"random": {"seed": 0}, "spatial": {"seed": 1}},
}
SAVED_AS = {"random": "eurosat_best", "spatial": "eurosat_spatial"}
RESULTS = pathlib.Path("results", "open-project")
CHOOSING = ("search", "preparation", "steps")  # these know training and validation tiles alone
PARTS = ("exploration", "search", "preparation", "steps", "random", "spatial", "vgg16", "analysis")
AS_THEY_ARE = "as they are"
CORRUPTED = ("noise", "blur", "JPEG")  # of validation tiles, by which the changes in training are compared too
VIEWS = (1, 8)  # of a tile, whose probabilities are averaged: as it is, and all symmetries of the square
LIMITS = (
    "For RGB tiles of 64x64 pixels at 10 m from Sentinel-2 over Europe, with little cloud; other sensors, scales, "
    "regions and seasons were not tested.",
    "Every tile gets one of the ten classes, whatever it shows.",
)
SPLIT_LIMITS = {
    "random": "Under a random split neighbouring tiles fall into training and test, so its accuracy says nothing of a "
    "region that was never seen.",
    "spatial": "The spatial split's test tiles lie in another part of Europe than its training tiles, but the recipe "
    "was chosen on the random split's training and validation tiles, most of the former among them.",
}


@dataclasses.dataclass(frozen=True)
class Profile:
    """How large the task is.

    Attributes:
        changes: fields of LAND_COVER that are changed, in all its trainings.
        network: options of `land_cover_cnn`.
        seeds: of the final networks, by part.
        compared_seeds: of every variation in preparation and steps.
        train_images: training tiles of these; None for all.
        val_images: validation tiles of these and of the search; None for all.
        preparation_epochs, steps_epochs: of these.
        precision: of these and of the search.
        trials: of the search.
        rungs: of the search: (training tiles, epochs) of each training of a trial.
        vgg16, vgg16_options: where VGG16, or what stands in for it, is built, and its arguments.
        vgg16_changes, vgg16_head_changes: fields of its two recipes that are changed.
        corrupted_images: tiles on which robustness is measured.
        extent: how much of the final network Task 3's tools look into; None for the attributions alone.
        few: only some of the variations.
    """

    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    network: Mapping[str, object] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {"random": (0, 1, 2), "spatial": (0,), "vgg16": (0,)}
    )
    compared_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    train_images: int | None = 4_000
    val_images: int | None = 2_000
    preparation_epochs: int = 8
    steps_epochs: int = 10
    precision: str = "float32"
    trials: int = 14
    rungs: tuple[tuple[int, int], ...] = ((2_000, 3), (6_000, 6))
    vgg16: str = "tfproject.models.backbones:pretrained_cnn"
    vgg16_options: Mapping[str, object] = dataclasses.field(
        default_factory=lambda: {"name": "VGG16", "head": (256,), "dropout": 0.3}
    )
    vgg16_changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    vgg16_head_changes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    corrupted_images: int = 1_000
    extent: Extent | None = None
    few: bool = False


PROFILES = {
    "quick": Profile(
        changes={"epochs": 4, "batch_size": 32, "precision": "float32", "jit_compile": False},
        network={"widths": (16, 16, 32, 32)}, seeds={"random": (0, 1), "spatial": (0,), "vgg16": (0,)},
        compared_seeds=(0, 1), train_images=100, val_images=50, preparation_epochs=1, steps_epochs=1,
        precision="float32", trials=2, rungs=((64, 1),), vgg16="tfproject.models.transferred:small_vgg",
        vgg16_options={"width": 0.125, "depth": 1, "head": (16,)},
        vgg16_changes={"epochs": 2, "batch_size": 32, "learning_rate": 1e-3, "precision": "float32",
                       "jit_compile": False},
        vgg16_head_changes={"epochs": 1, "batch_size": 32, "precision": "float32", "jit_compile": False},
        corrupted_images=60, few=True,
    ),
    "cpu": Profile(
        extent=Extent(
            images=2_000, layers=4, maximised=8, steps=128, activity_images=1_000, projector_images=1_000, attributed=2,
            checked=48, smoothgrad_samples=10, channels=16, draws=1, levels=3, silenced=24, silenced_images=300,
        ),
    ),
    "full": Profile(
        seeds={"random": (0, 1, 2), "spatial": (0, 1, 2), "vgg16": (0, 1, 2)}, train_images=None, val_images=None,
        preparation_epochs=20, steps_epochs=20, precision="mixed_float16", trials=60,
        rungs=((4_000, 5), (18_000, 15)), vgg16_changes={"epochs": 10, "frozen_until": "block2_pool"},
        corrupted_images=4_050, extent=Extent(),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked, and where it is kept.

    runs/             a directory for each training; those of preparation and steps by their content
    search/           the search's journal
    parts/            what each finished part came to
    figures/  *.csv   what belongs to it

    Attributes:
        data: the image set's name or folder.
        size: a Profile.
        directory: pathlib.Path.
        options: further arguments of `tfproject.data.load`, as (name, value) pairs.
        progress: tell how far it is.
    """

    data: str
    size: Profile
    directory: pathlib.Path
    options: tuple = ()
    progress: bool = True

    def tiles(self, kind):
        """The ImageSet in the split "random" or "spatial"."""
        return load_tiles(self.data, kind, self.options)

    @property
    def choices(self):
        """The random split's training and validation tiles, by which all is chosen; there is no test in it."""
        return load_choices(self.data, self.options)

    def recipe(self, **changes):
        return dataclasses.replace(LAND_COVER, **(changes | dict(self.size.changes)))

    def run(self, name):
        """A final network's Run."""
        return Run(self.directory / "runs" / name)

    def names(self, part):
        """The names of a part's runs, those of final networks alone."""
        kinds = [f"vgg16-{kind}" for kind in SAVED_AS] if part == "vgg16" else [part]
        return [f"{kind}-seed{seed}" for kind in kinds for seed in self.size.seeds.get(part, ())]

    def question(self, part):
        """A SHA-256 (hex) of what a part's answer depends on: of another question's answer nothing is taken."""
        size = dataclasses.asdict(self.size)
        asked = {"data": self.data, "tiles": self.choices.fingerprint, "options": self.options,
                 "recipe": LAND_COVER.to_json()}  # fmt: skip
        if part == "vgg16":
            asked["vgg16"] = [VGG16_HEAD.to_json(), VGG16.to_json()]
        else:
            size = {name: value for name, value in size.items() if not name.startswith("vgg16")}
        if part not in CHOOSING:
            del size["precision"]
        if part != "analysis":
            del size["extent"]
        asked["profile"] = size
        if part == "analysis":
            names = self.names("random") + self.names("spatial") + self.names("vgg16")
            asked["runs"] = [name for name in names if self.scored(name)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def scored(self, name):
        """Whether a final network is trained and scored."""
        run = self.run(name)
        return "test" in run.metrics and (run.directory / "predictions.npz").exists()

    def finding(self, part):
        """What a finished part came to, a dict; None while it is not finished."""
        path = self.directory / "parts" / f"{part}.json"
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return found["found"] if found["question"] == self.question(part) else None

    def keep(self, part, found):
        """Write down what a part came to: with that it is finished."""
        (self.directory / "parts").mkdir(exist_ok=True)
        content = {"question": self.question(part), "found": found}
        write_atomically(self.directory / "parts" / f"{part}.json", json.dumps(content, indent=1) + "\n")


@functools.lru_cache(maxsize=2)
def load_tiles(data, kind, options=()):
    """The image set in one of the task's splits.

    Args:
        data: a name or folder, as `tfproject.data.load` takes it.
        kind: "random" or "spatial".
        options: further arguments, as (name, value) pairs.
    """
    from tfproject import data as image_sets

    return image_sets.load(data, **SPLITS.get(data, SPLITS[None])[kind], **dict(options))


@functools.lru_cache(maxsize=1)
def load_choices(data, options=()):
    """The random split without its test tiles: what is chosen by this set cannot have looked at them."""
    tiles = load_tiles(data, "random", options)
    return dataclasses.replace(tiles, splits={name: tiles.splits[name] for name in ("train", "val")})


def run_task(
    data, profile, directory, *, only=None, precision=None, reuse=None, data_dir=None, on_bad_image="list",
    progress=True,
):  # fmt: skip
    """Do what is missing of the parts, and tell of all that is finished on one page.

    Begun before in the same directory, the task goes on where it stopped.

    Args:
        data: "real" (EuroSAT RGB), "synthetic", or a set's name or folder as `tfproject.data.load` takes it.
        profile: a name from PROFILES.
        directory: where runs, tables, figures and page go.
        only: names from PARTS to do; None for all.
        precision: of search, preparation and steps; None for that of the runs to reuse, or else the profile's.
        reuse: a repository in which `publish` left runs; these are not run again.
        data_dir, on_bad_image: see `tfproject.data.load`.
        progress: tell how far it is.

    Returns:
        The page's pathlib.Path, with metrics.json beside it.

    Raises:
        UserError: if there is no such part, the tiles or VGG16's weights are not there, or the directory holds runs
            with another recipe.
    """
    from tfproject.experiments.runner import set_up_tensorflow
    from tfproject.tasks import task5_page

    unknown = set(only or ()) - set(PARTS)
    if unknown:
        raise UserError(f"Task 5 has no part '{min(unknown)}'; choose from {', '.join(PARTS)}.")
    set_up_tensorflow()
    options = (("data_dir", None if data_dir is None else str(data_dir)), ("on_bad_image", on_bad_image))
    directory, size = pathlib.Path(directory).absolute(), PROFILES[profile]
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    if reuse:
        precision = precision or usual_precision(_published_runs(pathlib.Path(reuse)))
    size = dataclasses.replace(size, precision=precision or size.precision)
    task = Task(str(SETS.get(data, data)), size, directory, options, progress)
    if reuse:
        _reuse(task, pathlib.Path(reuse))
    for part in PARTS:
        if (only is None or part in only) and task.finding(part) is None:
            task.keep(part, DO[part](task))
    return task5_page.write(task)


def _explore(task):
    from tfproject.tasks import task5_analysis

    return task5_analysis.explore(task)


def _analyse(task):
    from tfproject.tasks import task5_analysis

    return task5_analysis.analyse(task)


def _search(task):
    """Recipes with other learning rates and the like, on a part of the training tiles, scored on validation."""
    import keras

    from tfproject import models, training
    from tfproject.experiments.analysis import to_csv
    from tfproject.experiments.search import search
    from tfproject.training.fitting import Diverged

    size = task.size
    network = functools.partial(models.land_cover_cnn, **size.network)
    base = _searched_recipe(task)

    def score(settings, rung, directory):
        train_images, epochs = size.rungs[rung]
        recipe = dataclasses.replace(base, **settings, epochs=epochs)
        images = Trial(Variation("", recipe, train_images=train_images, val_images=size.val_images), 0)
        try:
            run = training.fit(network, images.images(task.choices), recipe, directory, progress=False)
        except Diverged:
            return None
        finally:
            keras.utils.clear_session()
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        run.model_path.unlink(missing_ok=True)
        return run.metrics["training"]["kept"]["val_accuracy"]

    found = search(
        SEARCHED, score, task.directory / "search", trials=size.trials, rungs=len(size.rungs),
        first={name: float(getattr(base, name)) for name in SEARCHED}, question=_searched(task),
        progress=task.progress,
    )  # fmt: skip
    write_atomically(task.directory / "search.csv", to_csv(found.rows))
    return {**dataclasses.asdict(found), "in_use": {name: getattr(base, name) for name in SEARCHED},
            "tiles_and_epochs": size.rungs, "figures": [], "files": ["search.csv"]}  # fmt: skip


def _searched_recipe(task):
    return dataclasses.replace(task.recipe(), precision=task.size.precision, jit_compile=False)


def _searched(task):
    """What the search's scores depend on, JSON values."""
    size = task.size
    return {"recipe": _searched_recipe(task).to_json(), "network": json.loads(json.dumps(dict(size.network))),
            "rungs": [list(rung) for rung in size.rungs], "data": task.choices.fingerprint}  # fmt: skip


def _study(task):
    """Preparation and steps: they know training and validation tiles alone."""
    return Study(
        task.directory, (*preparation(task), steps(task)), images="tfproject.tasks.task5_eurosat:load_choices",
        image_options={"data": task.data, "options": task.options},
    )  # fmt: skip


def preparation(task):
    """The experiments that back how tiles are prepared.

    Returns:
        A tuple of Experiments.
    """
    size = task.size
    recipe = dataclasses.replace(
        task.recipe(), epochs=size.preparation_epochs, precision=size.precision, jit_compile=False
    )
    base = Variation(
        "as used", recipe, network="tfproject.models.prepared:prepared_cnn", options=size.network,
        train_images=size.train_images, val_images=size.val_images,
    )  # fmt: skip

    def prepared(name, **options):
        return dataclasses.replace(base, name=name, options={**size.network, **options})

    def augmented(name, *augment):
        return dataclasses.replace(base, name=name, recipe=dataclasses.replace(recipe, augment=augment))

    normalisations = [dataclasses.replace(base, name="standardised"), prepared("none", normalisation="none")]
    augmentations = [augmented("none"), augmented("eight symmetries, shift and JPEG", *recipe.augment)]
    if not size.few:
        normalisations.append(prepared("0..1", normalisation="0..1"))
        augmentations[1:1] = [
            augmented("left-right flips", "flip"), augmented("eight symmetries", "symmetries"),
            augmented("eight symmetries and shift", "symmetries", "shift"),
        ]  # fmt: skip
        augmentations.append(augmented("the same and colour", *recipe.augment, "colour"))
    side = task.choices.image_shape[0]
    sizes = (dataclasses.replace(base, name=f"{side} pixels"), prepared(f"{side // 2} pixels", shrink=2))
    seeds = {"seeds": size.compared_seeds, "figures": ("accuracy",)}
    return (
        Experiment("normalisation", "What should pixel values be brought to?", tuple(normalisations), "standardised",
                   **seeds),
        Experiment("image-size", "Are smaller tiles enough?", sizes, sizes[0].name, **seeds),
        Experiment("augmentation", "Which changes of the training tiles help?", tuple(augmentations), "none", **seeds),
    )  # fmt: skip


def steps(task):
    """The model improved in steps, each with all that came before it.

    Returns:
        An Experiment whose variations are in the steps' order.
    """
    size = task.size
    plain = Recipe(
        epochs=size.steps_epochs, batch_size=task.recipe().batch_size, optimizer="adam", learning_rate=1e-3,
        weight_decay=0.0, schedule="constant", precision=size.precision, jit_compile=False,
    )  # fmt: skip
    final = dataclasses.replace(
        task.recipe(), epochs=size.steps_epochs, precision=size.precision, jit_compile=False
    )
    images = {"train_images": size.train_images, "val_images": size.val_images}
    residual = {"network": "tfproject.models:land_cover_cnn", "options": size.network}
    course = {"width": 0.25} if size.few else {}
    uncompressed = dataclasses.replace(final, augment=("symmetries", "shift"))
    unsmoothed = dataclasses.replace(uncompressed, label_smoothing=0.0)
    unaugmented = dataclasses.replace(unsmoothed, augment=())
    steps = (
        Variation("plain CNN", plain, options={"batch_norm": False, **course}, **images),
        Variation("+ BatchNorm", plain, options=course, **images),
        Variation("+ residual network", plain, **residual, **images),
        Variation("+ Muon, its rate and decay, one-cycle", unaugmented, **residual, **images),
        Variation("+ symmetries and shift", unsmoothed, **residual, **images),
        Variation("+ label smoothing", uncompressed, **residual, **images),
        Variation("+ JPEG", final, **residual, **images),
    )
    if size.few:
        steps = (steps[0], steps[-1])
    return Experiment("steps", "What does each step add?", steps, steps[0].name, seeds=size.compared_seeds)


def _run_experiments(task, experiments):
    """Train and measure what is missing of them, on training and validation tiles, and analyse them.

    Returns:
        A dict from each experiment's name to its analysis (`tfproject.experiments.analysis`), and the figures' and
        tables' files.
    """
    from tfproject.experiments import analysis, page, runner
    from tfproject.report import figures

    study, names = _study(task), [experiment.name for experiment in experiments]
    while missing := study.missing(names):
        with runner.Progress(study, missing, task.progress) as bar:
            runner.run_trials(study, missing, bar)
    found, drawn, files = {}, [], []
    for experiment in experiments:
        found[experiment.name] = analysed = analysis.analyse(study, experiment)
        for ending, rows in (("", analysed["rows"]), ("-trials", analysed["trials"])):
            files.append(f"{experiment.name}{ending}.csv")
            write_atomically(task.directory / files[-1], analysis.to_csv(rows))
        for name in experiment.figures:
            draw, caption = page.FIGURES[name]
            drawn.append((f"figures/{experiment.name}-{name}.png", f"{experiment.name}: {caption}"))
            figures.save(draw(study, experiment, analysed), task.directory / drawn[-1][0])
    return {"experiments": found, "figures": drawn, "files": files,
            "runs": sorted({trial["run"] for each in found.values() for trial in each["trials"]})}  # fmt: skip


def _prepare(task):
    """The experiments, and what their changes of the training tiles do to accuracy on tiles of lower quality."""
    from tfproject.experiments.analysis import to_csv

    *_, augmentation = experiments = preparation(task)
    found = _run_experiments(task, experiments)
    study, count = _study(task), task.size.corrupted_images
    accuracies = {
        variation.name: [_corrupted_validation(study, Trial(variation, seed), count) for seed in augmentation.seeds]
        for variation in augmentation.variations
    }
    trials = found["experiments"][augmentation.name]["trials"]
    clean = {
        name: [trial["val_accuracy"] for trial in trials if trial["variation"] == name] for name in accuracies
    }
    rows = [{"corruption": AS_THEY_ARE} | row for row in gains(clean)] + [
        {"corruption": kind} | row
        for kind in CORRUPTED
        for row in gains({name: [each and each[kind] for each in seeds] for name, seeds in accuracies.items()})
    ]
    write_atomically(task.directory / "augmentation-robustness.csv", to_csv(rows))
    return found | {"robustness": rows, "files": [*found["files"], "augmentation-robustness.csv"]}


def _improve(task):
    """The steps, and as the last one several views of each validation tile."""
    experiment = steps(task)
    found = _run_experiments(task, [experiment])
    study, last = _study(task), experiment.variations[-1]
    accuracies = {
        row["variation"]: [t["val_accuracy"] for t in found["experiments"]["steps"]["trials"]
                           if t["variation"] == row["variation"]]
        for row in found["experiments"]["steps"]["rows"]
    }  # fmt: skip
    one, many = (
        [_views_of_validation(study, Trial(last, seed), views) for seed in experiment.seeds] for views in VIEWS
    )
    from tfproject.experiments.analysis import to_csv

    # A training's own validation is in its own precision, and these two are in float32.
    rows = [*gains(accuracies), gains({"": one, f"+ {VIEWS[-1]} views of a tile": many})[1]]
    correct_p_values(rows)  # all of them together
    write_atomically(task.directory / "step-gains.csv", to_csv(rows))
    return found | {"gains": rows, "files": [*found["files"], "step-gains.csv"]}


def gains(accuracies):
    """What each step adds to the one before, paired by seed.

    Args:
        accuracies: a dict from the steps' names in order to the accuracies, one per seed; None where one diverged.

    Returns:
        A list of dicts: step, accuracy (mean), spread, low, high; gain, gain_low, gain_high, p and p_corrected (Holm),
        None for the first step and beside one that diverged.
    """
    rows, before = [], None
    for name, values in accuracies.items():
        whole = None not in values
        found = summarise(values if whole else [])
        row = {"step": name, "accuracy": found.mean, "spread": found.spread, "low": found.low, "high": found.high}
        gain = compare(values, before) if whole and before else None
        row |= {"gain": gain and gain.mean, "gain_low": gain and gain.low, "gain_high": gain and gain.high,
                "p": gain and gain.p, "p_corrected": None}  # fmt: skip
        rows.append(row)
        before = values if whole else None
    correct_p_values(rows)
    return rows


def _views_of_validation(study, trial, views):
    """The accuracy of a finished trial on validation with so many views; None if it diverged."""
    from tfproject import evaluation

    def accuracy(model, images):
        return evaluation.evaluate(model, images.val, images.class_names, views=views).accuracy

    return _measured(study, trial, f"validation_{views}_views", accuracy)


def _corrupted_validation(study, trial, count):
    """The accuracy of a finished trial on validation tiles made worse in some way, by its name; None if it diverged.

    It is the mean over the severities of `tfproject.evaluation.robustness`.
    """
    import numpy as np

    from tfproject.evaluation.prediction import predictor
    from tfproject.evaluation.robustness import robustness

    def accuracies(model, images):
        val = images.val.take(np.linspace(0, len(images.val) - 1, min(count, len(images.val))).round().astype(int))
        predict = predictor(model, val.image_shape[:2], min(256, len(val)))
        rows = robustness(predict, val.images, val.labels, CORRUPTED, batch_size=min(256, len(val)))
        return {
            corruption: float(np.mean([row["accuracy"] for row in rows if row["corruption"] == corruption]))
            for corruption in CORRUPTED
        }

    return _measured(study, trial, f"corrupted_{count}_validation", accuracies)


def _measured(study, trial, key, measure):
    """What a finished trial's model and images give; None if it diverged. Kept in its run's metrics."""
    from tfproject.experiments import runner

    run = study.run_of(trial)
    if "diverged" in run.metrics["outcome"]:
        return None
    if key not in run.metrics:
        if not run.model_path.exists():  # of published results only the numbers are kept
            runner.train_again(study, trial)
        run.record(**{key: measure(run.model, trial.images(study.image_set))})
    return run.metrics[key]


def _final(kind):
    def do(task):
        from tfproject import models

        network = functools.partial(models.land_cover_cnn, **task.size.network)
        runs = [
            _train_and_score(task, f"{kind}-seed{seed}", network, task.tiles(kind), task.recipe(seed=seed), VIEWS)
            for seed in task.size.seeds[kind]
        ]
        summary = _summary(runs, task.tiles(kind), VIEWS)
        return summary | _drawn(task, runs[0], task.tiles(kind), kind, summary["views"])

    return do


def _vgg16(task):
    """VGG16 fine-tuned on both splits; its frozen part runs once on each view of a tile, for both."""
    size, found = task.size, {"figures": [], "files": [], "runs": []}
    network = functools.partial(pkgutil.resolve_name(size.vgg16), **size.vgg16_options)
    features = task.directory / "features"
    for kind in SAVED_AS:
        runs = []
        for seed in size.seeds["vgg16"]:
            (first, last), tiles = _asked(task, f"vgg16-{kind}", seed)
            runs.append(_train_and_score(
                task, f"vgg16-{kind}-seed{seed}", network, tiles, last, (1,), earlier=(first,), features_dir=features
            ))  # fmt: skip
        drawn = _drawn(task, runs[0], task.tiles(kind), f"vgg16-{kind}")
        found[kind] = _summary(runs, tiles, (1,), (first,))
        found |= {key: found[key] + drawn[key] for key in drawn}
        found["runs"] += found[kind]["runs"]
    shutil.rmtree(features, ignore_errors=True)  # gigabytes, which nothing else needs
    return found


def _asked(task, kind, seed):
    """(the Recipes of its stages, its tiles) of a final network: "random", "spatial", or the same after "vgg16-"."""
    if not kind.startswith("vgg16-"):
        return (task.recipe(seed=seed),), task.tiles(kind)
    stages = ((VGG16_HEAD, task.size.vgg16_head_changes), (VGG16, task.size.vgg16_changes))
    recipes = tuple(dataclasses.replace(recipe, seed=seed, **changes) for recipe, changes in stages)
    return recipes, task.tiles(kind.removeprefix("vgg16-"))


def _train_and_score(task, name, network, tiles, recipe, views, earlier=(), **options):
    """A finished run with its scores on validation and then on test, its predictions and its model card."""
    import numpy as np

    from tfproject import evaluation
    from tfproject.report import model_card
    from tfproject.training.stages import fit_stages, stages_of

    run = task.run(name)
    if task.scored(name) and _answers(run, (*earlier, recipe), tiles):
        return run
    run = fit_stages(network, tiles, (*earlier, recipe), run.directory, progress=task.progress, **options)
    found, measured = {}, {}
    seconds = sum(stage.metrics["training"]["seconds"] for stage in stages_of(run.directory))
    # The test tiles are looked at here and nowhere before.
    for split_name in ("validation", "test"):
        split = tiles.val if split_name == "validation" else tiles.test
        for count in views:
            key = split_name if count == 1 else f"{split_name}_{count}_views"
            found[key] = predictions(run.model, split, count)
            measured[key] = evaluation.scores(found[key], split.labels, tiles.class_names, split.names).to_json()
    path = run.directory / "predictions.npz"
    content = io.BytesIO()
    np.savez_compressed(content, **found)
    write_atomically(path, content.getvalue())
    run.record(**measured, earlier=[r.to_json() for r in earlier], seconds_of_all_stages=round(seconds, 1))
    limits = (*LIMITS, SPLIT_LIMITS["spatial" if "spatial" in name else "random"])
    model_card.save(run, tiles, {key: int(key.split("_")[1]) if "_" in key else 1 for key in measured}, limits)
    shutil.rmtree(run.directory / "checkpoints", ignore_errors=True)
    return run


def _answers(run, recipes, tiles):
    """Whether a scored run was made by these Recipes, one for each of its stages, of these tiles."""
    *earlier, last = recipes
    return run.answers(last, tiles.fingerprint) and run.metrics["earlier"] == [r.to_json() for r in earlier]


def predictions(model, split, views, batch_size=256):
    """A model's probabilities of a split's images, float32 (n, c)."""
    import numpy as np

    from tfproject.evaluation.prediction import predictor

    batch_size = min(batch_size, len(split))
    predict = predictor(model, split.image_shape[:2], batch_size, views)
    return np.concatenate([predict(images) for images, _ in split.batches(batch_size)]).astype(np.float32)


def _summary(runs, tiles, views, earlier=()):
    """What the runs of a network came to, over their seeds; how many views are taken is decided on validation.

    Args:
        runs: finished Runs.
        tiles: the ImageSet of their split.
        views: how many views of a tile were scored.
        earlier: Recipes of the stages before the last.
    """
    from tfproject.tasks.task5_analysis import run_predictions, with_intervals

    measured = [run.metrics for run in runs]

    def of(split, count):
        key = split if count == 1 else f"{split}_{count}_views"
        labels = (tiles.val if split == "validation" else tiles.test).labels
        values = [m[key]["accuracy"] for m in measured]
        scores = [with_intervals(run_predictions(run, split, count), labels) for run in runs]
        return {
            "accuracies": values,
            **{f"{name}{part}": [score[f"{name}{part}"] for score in scores]
               for name in ("macro_f1", "kappa") for part in ("", "_interval")},
            "intervals": [m[key]["accuracy_interval"] for m in measured],
            "calibration_error": [m[key]["calibration_error"] for m in measured],
            "accuracy": dataclasses.asdict(summarise(values)),
        }  # fmt: skip

    validation = {str(count): of("validation", count) for count in views}
    chosen = max(views, key=lambda count: (validation[str(count)]["accuracy"]["mean"], -count))
    return {
        "runs": [run.directory.name for run in runs],
        "recipe": runs[0].recipe.to_json(),
        "earlier": [recipe.to_json() for recipe in earlier],
        "split": runs[0].read("recipe.json")["data"]["split"],
        "environments": [run.read("environment.json") for run in runs],
        "parameters": measured[0]["training"]["parameters"],
        "images": measured[0]["training"]["images"],
        "test_images": measured[0]["test"]["count"],
        "epochs": measured[0]["training"]["epochs"],
        "seconds": [m["seconds_of_all_stages"] for m in measured],
        "peak_memory_mb": max(m["training"]["peak_memory_mb"] for m in measured),
        "views": chosen,
        "validation": validation,
        "test": {str(count): of("test", count) for count in views},
    }


def _drawn(task, run, tiles, name, views=1):
    """Figures of a run: its curves, its confusions in counts and rates, its worst errors, with so many views."""
    from tfproject.report import figures

    test = run.metrics["test" if views == 1 else f"test_{views}_views"]
    taken = "one view" if views == 1 else f"{views} views averaged"
    stages = 1 + len(run.metrics["earlier"])
    shown = {
        "curves": (figures.training_curves(run.history), "Loss and accuracy after each epoch (of the last stage)."
                   if stages > 1 else "Loss and accuracy after each epoch."),
        "confusion": (
            figures.confusion_matrix(test["confusion"], tiles.class_names),
            f"Test tiles by true class (rows) and predicted class (columns), {taken}.",
        ),
        "confusion-rates": (
            figures.confusion_matrix(test["confusion"], tiles.class_names, normalise=True),
            "The same in percent of each true class.",
        ),
        "per-class": (figures.per_class_scores(test), f"Precision, recall and F1 of each class on test, {taken}."),
        "top-losses": (
            figures.top_losses(tiles.test.images, test["top_losses"]),
            f"The test tiles it is most wrong about, {taken}.",
        ),
    }  # fmt: skip
    drawn = []
    for kind, (figure, caption) in shown.items():
        drawn.append((f"figures/{name}-{kind}.png", f"{run.directory.name}: {caption}"))
        figures.save(figure, task.directory / drawn[-1][0])
    return {"figures": drawn, "files": []}


DO = {
    "exploration": _explore, "search": _search, "preparation": _prepare, "steps": _improve,
    "random": _final("random"), "spatial": _final("spatial"), "vgg16": _vgg16, "analysis": _analyse,
}  # fmt: skip


def publish(directory, root="."):
    """Copy what is finished into a repository, and tell its README.

    Of finished parts the numbers, figures and tables go to results/open-project, and of the random and the spatial
    part the first seed's model with its card to saved_models. What other parts had there before stays. The
    records of single runs that are finished are copied too, so that `reuse` finds them.

    Args:
        directory: the task's directory, after `run_task`.
        root: the repository.

    Returns:
        The results folder, a pathlib.Path.
    """
    from tfproject.report import model_card, readme
    from tfproject.tasks import task5_page

    readme.check(root)
    directory, goal = pathlib.Path(directory), pathlib.Path(root) / RESULTS
    written = directory / "metrics.json"
    new = json.loads(written.read_text()) if written.exists() else {"parts": {}}
    if not new["parts"]:
        raise UserError(f"{directory} holds no finished part of Task 5; run `tfproject task5` first.")
    goal.mkdir(parents=True, exist_ok=True)
    for part, found in new["parts"].items():
        copy(directory, goal, [directory / file for file, _ in found["figures"]])
        copy(directory, goal, [directory / file for file in found["files"]])
        first = Run(directory / "runs" / found["runs"][0]) if part in SAVED_AS else None
        if first and first.finished:  # of one that was reused there may be no more than its numbers
            model_card.publish(
                first, pathlib.Path(root, "saved_models"), SAVED_AS[part],
                limits=[*LIMITS, SPLIT_LIMITS[part], *task5_page.limits_found(part, new["parts"])],
                abstain_below=task5_page.abstain_below(part, new["parts"]),
            )  # fmt: skip
    if "random" in new["parts"]:
        first = directory / "runs" / new["parts"]["random"]["runs"][0]
        copy(first, goal, [first / "environment.json"])
    for run in map(Run, sorted(path.parent for path in directory.glob("runs/*/metrics.json"))):
        if {"outcome", "test"} & run.metrics.keys():
            copy(directory, goal, record(run.directory, "predictions.npz"))
    journal = [directory / "search" / name for name in ("question.json", "journal.log")]
    copy(directory, goal, [path for path in journal if path.exists()])
    old = json.loads((goal / "metrics.json").read_text()) if (goal / "metrics.json").exists() else {}
    merged = old | new | {key: old.get(key, {}) | new[key] for key in ("parts", "questions")}
    write_atomically(goal / "metrics.json", json.dumps(merged, indent=1) + "\n")
    copy(directory, goal, [directory / "report.html"])
    readme.update(root)
    return goal


def _published_runs(root):
    return sorted(path.parent for path in (root / RESULTS).glob("runs/*/metrics.json"))


def _reuse(task, root):
    """Copy what was published and the task asks for and has not itself: runs, the search's journal, finished parts."""
    results, directory = root / RESULTS, task.directory
    final = {name for part in (*SAVED_AS, "vgg16") for name in task.names(part)}
    for run in _published_runs(root):
        kind, _, seed = run.name.rpartition("-seed")
        # Of preparation and steps the name says all that a run depends on.
        answers = run.name not in final or _answers(Run(run), *_asked(task, kind, int(seed)))
        if answers and not (directory / "runs" / run.name).exists():
            copy(results, directory, record(run, "predictions.npz"))
            saved = root / "saved_models" / f"{SAVED_AS.get(kind)}.keras"
            card = saved.with_suffix(".json")
            if seed == "0" and saved.exists() and json.loads(card.read_text())["recipe"] == Run(run).recipe.to_json():
                copy(saved.parent, directory / "runs" / run.name, [saved], "model.keras")
                copy(saved.parent, directory / "runs" / run.name, [card], "model.json")
    question = results / "search" / "question.json"
    if question.exists() and not (directory / "search").exists():
        if json.loads(question.read_text())["scored"] == _searched(task):
            copy(results, directory, results.glob("search/*"))
    published = json.loads((results / "metrics.json").read_text()) if (results / "metrics.json").exists() else {}
    for part, question in published.get("questions", {}).items():
        if task.finding(part) is None and task.question(part) == question:
            found = published["parts"][part]
            copy(results, directory, [results / file for file in (*dict(found["figures"]), *found["files"])])
            task.keep(part, found)
