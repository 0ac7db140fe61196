"""Task 1: the course's custom CNN and a strong one on CIFAR-10, and what each layer of a CNN costs."""

import csv
import dataclasses
import io
import json
import pathlib

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.tasks.publishing import copy
from tfproject.training.recipe import Recipe
from tfproject.training.run import RECORD, Run

SETS = {"real": "cifar10", "synthetic": "synthetic-objects"}
CUSTOM = Recipe(
    epochs=30, batch_size=128, optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-3,
    schedule="one-cycle", warmup=0.2, label_smoothing=0.1, augment=("flip", "shift"),
)  # fmt: skip
VIEWS = {"custom_cnn": 1, "whitened_cnn": 6}  # of a test image, whose probabilities are averaged
LIMITS = (
    "For photos of 32x32 pixels that show one of ten kinds of thing, as CIFAR-10 has them; larger photos are resized, "
    "and other kinds of picture were not tested.",
    "Every image gets one of the ten classes, whatever it shows.",
)
RESULTS = pathlib.Path("results", "task1-custom-cnn")
SAVED_AS = {"custom_cnn": "cifar10_custom_cnn", "whitened_cnn": "cifar10_best"}
PARTS = (*VIEWS, "costs")


@dataclasses.dataclass(frozen=True)
class Profile:
    """How large the task is.

    Attributes:
        seeds: of the runs of each network.
        changes: fields of the recipes that are changed.
        widths: filters of the strong network's groups.
        cost_batch: batch size of the cost tables.
        growth: see `axes` of `tfproject.cost.scaling`; None for its own.
    """

    seeds: dict = dataclasses.field(default_factory=lambda: {"whitened_cnn": (0, 1, 2), "custom_cnn": (0, 1)})
    changes: dict = dataclasses.field(default_factory=dict)
    widths: tuple[int, ...] = (64, 256, 256)
    cost_batch: int = 128
    growth: dict | None = None


PROFILES = {
    "quick": Profile(
        seeds={"whitened_cnn": (0,), "custom_cnn": (0,)},
        changes={"epochs": 3, "batch_size": 64, "precision": "float32", "jit_compile": False},
        widths=(16, 32, 32), cost_batch=16, growth={"batch_size": (8, 16)},
    ),
    "cpu": Profile(),
}  # fmt: skip


def run_task(data, profile, directory, *, only=None, reuse=None, data_dir=None, on_bad_image="list"):
    """Train what is missing of the networks, test them, study what their layers cost, and describe all that.

    The networks train on training and validation images together: what their recipes leave to choose was chosen with
    the validation images apart, before.

    Args:
        data: "real" (CIFAR-10), "synthetic", or a set's name or folder as `tfproject.data.load` takes it.
        profile: a name from PROFILES.
        directory: where runs, tables, figures and page go; begun before, the task goes on where it stopped.
        only: "custom_cnn" or "whitened_cnn": train that network and no more; "costs": train nothing, study what layers
            cost and describe it beside the runs that are finished.
        reuse: a repository in which `publish` left runs; these are not run again.
        data_dir, on_bad_image: see `tfproject.data.load`.

    Returns:
        The page's pathlib.Path, with metrics.json beside it; the directory if only a network was trained.

    Raises:
        UserError: if the images cannot be loaded or do not suit the networks.
    """
    from tfproject import data as image_sets

    directory, size = pathlib.Path(directory), PROFILES[profile]
    images = image_sets.load(SETS.get(data, data), data_dir=data_dir, on_bad_image=on_bad_image)
    images = images.with_validation_in_training()
    if reuse:
        _reuse(pathlib.Path(reuse), directory, size, images)
    runs = {}
    for name, seed in ((name, seed) for name, seeds in size.seeds.items() for seed in seeds):
        place = directory / f"{name}-seed{seed}"
        if only in (None, name) or only == "costs" and "test" in Run(place).metrics:
            runs.setdefault(name, []).append(_train_and_test(name, seed, images, size, place))
    if only in VIEWS:
        return directory
    costs = _study_costs(images, size, directory)
    metrics = {"data": _origin(images), "networks": {name: _summary(name, own) for name, own in runs.items()}} | costs
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return _write_page(directory, images, runs, metrics, size.seeds)


def _network(name, images, size):
    """A function (image_shape, class_count) to the network, untrained."""
    from tfproject import models
    from tfproject.models import whitened

    return models.custom_cnn if name == "custom_cnn" else whitened.whitened_for(images.train.images, size.widths)


def _train_and_test(name, seed, images, size, directory):
    """A finished run of the network, with its test scores and its model card."""
    from tfproject import evaluation, training
    from tfproject.report import model_card

    network, recipe = _network(name, images, size), _recipe(name, seed, size)
    views = {"test": 1, f"test_{VIEWS[name]}_views": VIEWS[name]} if VIEWS[name] > 1 else {"test": 1}
    run = Run(directory)
    if not views.keys() <= run.metrics.keys() or not run.answers(recipe, images.fingerprint):
        run = training.fit(network, images, recipe, directory)  # which refuses a run of another recipe or other images
        # The test images are looked at here and nowhere before.
        run.record(**{
            key: evaluation.evaluate(run.model, images.test, images.class_names, views=count).to_json()
            for key, count in views.items()
        })  # fmt: skip
        model_card.save(run, images, views, LIMITS if images.name == SETS["real"] else model_card.limits(images))
    return run


def _recipe(name, seed, size):
    from tfproject.models import whitened

    recipe = {"custom_cnn": CUSTOM, "whitened_cnn": whitened.RECIPE}[name]
    return dataclasses.replace(recipe, seed=seed, **size.changes)


def _origin(images):
    return {
        "name": images.name, "description": images.origin.description, "synthetic": images.origin.synthetic,
        "split": images.split_method, "sha256": images.fingerprint,
        "images": {name: len(split) for name, split in images.splits.items()},
    }  # fmt: skip


def _summary(name, runs):
    """What the runs of a network came to, over their seeds."""
    from tfproject.statistics import summarise

    key = f"test_{VIEWS[name]}_views" if VIEWS[name] > 1 else "test"
    accuracies = [run.metrics[key]["accuracy"] for run in runs]
    trainings = [run.metrics["training"] for run in runs]
    return {
        "runs": [run.directory.name for run in runs],
        "recipe": runs[0].recipe.to_json(),
        "environments": [run.read("environment.json") for run in runs],
        "parameters": trainings[0]["parameters"],
        "trainable_parameters": sum(int(v.value.numpy().size) for v in runs[0].model.trainable_variables),
        "views": VIEWS[name],
        "test_accuracies": accuracies,
        "test_accuracy": dataclasses.asdict(summarise(accuracies)),
        "test_accuracies_one_view": [run.metrics["test"]["accuracy"] for run in runs],
        "test_intervals": [run.metrics[key]["accuracy_interval"] for run in runs],
        "seconds": [training["seconds"] for training in trainings],
        "peak_memory_mb": max(training["peak_memory_mb"] for training in trainings),
    }


def _study_costs(images, size, directory):
    """Cost tables of both networks and of VGG16, how cost grows, and the memory of a training step: of any weights.

    Measured once and kept, as no two measurements agree to the last digit.
    """
    import keras

    from tfproject import cost
    from tfproject.cost.growth import course_cnn
    from tfproject.report import figures
    from tfproject.training.run import environment

    folder = directory / "cost"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "costs.json").exists():
        costs = json.loads((folder / "costs.json").read_text())
        if "measured_on" in costs:  # times say nothing without their machine
            return costs
    tables = {
        name: cost.study(
            _as_trained(_network(name, images, size)(images.image_shape, len(images.class_names))),
            size.cost_batch, measure=True,
        )
        for name in ("custom_cnn", "whitened_cnn")
    }  # fmt: skip
    tables["vgg16"] = cost.study(keras.applications.VGG16(weights=None), 1)
    growth = cost.scaling(lambda **sizes: _as_trained(course_cnn(**sizes)), size.growth, measure=True)
    reasons = {name: cost.explain(table, growth if name == "custom_cnn" else None) for name, table in tables.items()}
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", _to_csv(table))
        write_atomically(folder / f"{name}.json", json.dumps(table.to_json() | {"reasons": reasons[name]}, indent=1))
        write_atomically(folder / f"{name}.txt", table.to_text() + "\n")
        figures.save(cost.figures.shares(table), folder / f"{name}-shares.png")
        if table.machine:
            figures.save(cost.figures.roofline(table), folder / f"{name}-roofline.png")
    write_atomically(folder / "growth.json", json.dumps(growth.to_json(), indent=1))
    write_atomically(folder / "growth.txt", growth.to_text() + "\n")
    memory = [
        {"batch_size": point["value"], "predicted_bytes": point["training_memory"],
         "measured_bytes": point["measured_memory"], "steps_bytes": point["memory_steps"]}
        for point in growth.points["batch_size"] if "measured_memory" in point
    ]  # fmt: skip
    costs = {"costs": {name: {"totals": t.totals, "reasons": reasons[name]} for name, t in tables.items()},
             "memory": memory, "measured_on": environment()}  # fmt: skip
    write_atomically(folder / "costs.json", json.dumps(costs, indent=1) + "\n")
    return costs


def _as_trained(model):
    """The model with BatchNorm in one operation, as `fit` has it."""
    from tfproject.training import batch_norm

    batch_norm.fuse(model)
    return model


def _to_csv(table):
    """The cost table as CSV, a line for each layer: bytes, FLOPs, milliseconds."""
    rows = table.to_json()["rows"]
    for row in rows:
        row["output_shape"] = "x".join(map(str, row["output_shape"]))
        row |= {f"share_of_{field}": part for field, part in row.pop("share").items()}
        row["beyond_profiler"] = "; ".join(f"{rule} {flops}" for rule, flops in row["beyond_profiler"].items())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_page(directory, images, runs, metrics, seeds):
    from tfproject import evaluation
    from tfproject.report import figures, page

    (directory / "figures").mkdir(exist_ok=True)

    def drawn(name, figure, caption):
        return figures.save(figure, directory / "figures" / f"{name}.png"), caption

    synthetic = images.origin.synthetic
    sections = [
        page.Section(
            "Result",
            text=(
                f"Data: {images.origin.description}. Split: {images.split_method}.",
                *(reading(name, summary) for name, summary in metrics["networks"].items()),
                *_missing(runs, seeds),
                *(["These are generated images: the numbers say nothing about the real world."] if synthetic else []),
            ),
            table=(
                ("network", "parameters", "seed", "views", "test accuracy", "95 % interval", "one view", "minutes"),
                *(row for name, summary in metrics["networks"].items() for row in _result_rows(name, summary)),
            ),
        )
    ]
    for name, own in runs.items():
        run, summary = own[0], metrics["networks"][name]
        of_seed = f"seed {run.recipe.seed}"
        key = f"test_{summary['views']}_views" if summary["views"] > 1 else "test"
        scores = evaluation.Scores.from_json(run.metrics[key])
        lines = []
        run.model.summary(line_length=100, print_fn=lambda line, lines=lines, **_: lines.append(line))
        for_tensorboard = drawn(
            f"{name}-confusion", figures.confusion_matrix(scores.confusion, images.class_names),
            f"{name}, {of_seed}: test images by true class (rows) and predicted class (columns).",
        )  # fmt: skip
        run.log_figure("confusion_matrix", for_tensorboard[0])
        sections += [
            page.Section(
                f"{name}: training and test of {of_seed}",
                text=(f"What follows is of {of_seed} alone; the table above has every seed.",),
                figures=(
                    drawn(
                        f"{name}-curves", figures.training_curves(run.history),
                        f"{name}, {of_seed}: loss and accuracy.",
                    ),
                    for_tensorboard,
                ),
                listing=evaluation.summary_text(scores),
            ),
            page.Section(f"{name}: layers", listing="\n".join(lines)),
            page.Section(f"{name}: recipe of {of_seed}", table=(("field", "value"), *run.recipe.to_json().items())),
        ]
    goal = directory / "report.html"
    name = "CIFAR-10" if images.name == SETS["real"] else images.name
    title = f"Task 1: custom CNNs on {name}, and what each layer costs"
    page.write(goal, title, [*sections, *_cost_sections(directory / "cost", metrics)])
    return goal


def reading(name, summary):
    """What the runs of a network came to, in a sentence.

    Args:
        name: the network's.
        summary: what metrics.json says of it.
    """
    found = summary["test_accuracy"]
    views = f"{summary['views']} views of each image averaged" if summary["views"] > 1 else "one view of each image"
    minutes = max(summary["seconds"]) / 60
    if found["count"] == 1:
        low, high = summary["test_intervals"][0]
        return (
            f"{name}: {found['mean']:.2%} of the test images right (95 % interval {low:.2%} to {high:.2%}), {views}, a "
            f"single run of {minutes:.0f} minutes."
        )
    return (
        f"{name}: {found['mean']:.2%} of the test images right on average over {found['count']} seeds (standard "
        f"deviation {100 * found['spread']:.2f} points, 95 % interval of the mean {found['low']:.2%} to "
        f"{found['high']:.2%}), {views}, at most {minutes:.0f} minutes a run."
    )


def _missing(runs, seeds):
    """A sentence for each network of which planned seeds have not been run."""
    for name, planned in seeds.items():
        done = {run.recipe.seed for run in runs.get(name, ())}
        if missing := [str(seed) for seed in planned if seed not in done]:
            yield f"{name}: planned and not run yet: seed{'s' * (len(missing) > 1)} {', '.join(missing)}."


def _result_rows(name, summary):
    for i, accuracy in enumerate(summary["test_accuracies"]):
        low, high = summary["test_intervals"][i]
        yield (
            name, f"{summary['parameters']:,}", summary["environments"][i]["seed"], summary["views"],
            f"{accuracy:.2%}", f"{low:.2%} to {high:.2%}", f"{summary['test_accuracies_one_view'][i]:.2%}",
            f"{summary['seconds'][i] / 60:.0f}",
        )  # fmt: skip


def _cost_sections(folder, metrics):
    from tfproject.report import page

    machine = metrics["measured_on"]
    versions = ", ".join(f"{package} {machine['packages'][package]}" for package in ("tensorflow", "keras"))
    sections = [
        page.Section(
            "What the layers cost: where it was measured",
            text=(
                f"The times below were measured on {machine['processor']['name']}, {machine['cores']} cores, "
                f"{machine['threads']} threads, with {versions}; they do not compare with times of other machines.",
            ),
        )
    ]
    for name, found in metrics["costs"].items():
        pictures = [(f"{name}-shares.png", f"{name}: each layer's share of parameters, kept activations and FLOPs.")]
        if (folder / f"{name}-roofline.png").exists():
            pictures.append((
                f"{name}-roofline.png",
                f"{name}: speed of each layer and the machine's roofline. A layer may lie above it: what it reads may "
                "still lie in the processor's cache, and a convolution's multiply-adds that meet padding are counted, "
                "but need no computing.",
            ))  # fmt: skip
        table = json.loads((folder / f"{name}.json").read_text())
        counted = (
            f"Counted for a batch of {table['batch_size']} in float32 with the state of {table['optimizer']}; "
            "trainings in another precision, with another batch or optimiser cost otherwise."
        )
        if "machine" in table:
            counted += (
                " Arithmetic and memory are those of Keras' own BatchNorm, in separate operations; timed is a training "
                "step with BatchNorm in one operation, as the trainings above have it."
            )
        sections.append(
            page.Section(
                f"{name}: what each layer costs, and why",
                text=(counted, *found["reasons"]),
                figures=tuple(((folder / file).read_bytes(), caption) for file, caption in pictures),
                listing=(folder / f"{name}.txt").read_text(),
            )
        )
    sections.append(
        page.Section("custom_cnn: how the cost grows, measured", listing=(folder / "growth.txt").read_text())
    )
    if metrics["memory"]:
        sections.append(_memory_section(metrics["memory"]))
    return sections


def _memory_section(memory):
    from tfproject.cost.memory import ROUNDING
    from tfproject.cost.text import size
    from tfproject.report import page

    spread = max(max(row["steps_bytes"]) / min(row["steps_bytes"]) - 1 for row in memory)
    return page.Section(
        "custom_cnn: peak memory of a training step",
        text=(
            "Predicted from the layers, in float32 with Keras' own BatchNorm, and measured: the highest of a few steps "
            "in TensorFlow's allocator, in a process of its own. The table of growth above has the same numbers.",
            f"The steps of one process differ by up to {spread:.1%}. The prediction adds {ROUNDING:.0%} to activations "
            "and their gradients for memory blocks that are larger than asked for; that part was fitted to steps of "
            "this very network, so that how near the two come is partly by calibration.",
        ),
        table=(
            ("batch", "predicted", "measured", "lowest step", "difference"),
            *(
                (row["batch_size"], size(row["predicted_bytes"]), size(row["measured_bytes"]),
                 size(min(row["steps_bytes"])), f"{row['predicted_bytes'] / row['measured_bytes'] - 1:+.1%}")
                for row in memory
            ),
        ),
    )  # fmt: skip


def publish(directory, root="."):
    """Copy the models with their cards to saved_models/, the numbers and figures to results/, and tell the README.

    Of each network the first seed's model is kept. Finished runs are copied too where others are still missing.

    Args:
        directory: the task's directory, after `run_task`.
        root: the repository.

    Returns:
        The results folder, a pathlib.Path.
    """
    from tfproject.report import model_card, readme

    readme.check(root)
    directory, goal = pathlib.Path(directory), pathlib.Path(root) / RESULTS
    finished = [run for run in map(Run, sorted(directory.glob("*-seed*"))) if "test" in run.metrics]
    if not finished:
        raise UserError(f"{directory} holds no finished run of Task 1; run `tfproject task1` first.")
    for run in finished:
        name, seed = run.directory.name.split("-seed")
        if seed == "0":
            model_card.publish(run, pathlib.Path(root, "saved_models"), SAVED_AS[name])
        copy(directory, goal, [run.directory / file for file in RECORD])
    written = [directory / "metrics.json", directory / "report.html"]
    copy(directory, goal, [*filter(pathlib.Path.exists, written), *directory.glob("cost/*"),
                            *directory.glob("figures/*.png")])  # fmt: skip
    readme.update(root)
    return goal


def _reuse(root, directory, size, images):
    """Copy the published runs of today's recipes on these images that the directory has not begun itself."""
    for run in sorted((root / RESULTS).glob("*-seed*")):
        name, seed = run.name.split("-seed")
        answers = Run(run).answers(_recipe(name, int(seed), size), images.fingerprint)
        if answers and not (directory / run.name).exists():
            if seed == "0":
                for saved, own in (("keras", "model.keras"), ("json", "model.json")):
                    path = root / "saved_models" / f"{SAVED_AS[name]}.{saved}"
                    copy(path.parent, directory / run.name, [path], own)
            copy(run, directory / run.name, [run / file for file in RECORD])
