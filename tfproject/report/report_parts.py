"""What sections of the final report are made of: measured accuracies, tables, figures, and the words for them."""

import csv
import dataclasses
import json

from tfproject.report import figures

INTERVALS = "of shares Wilson's, of macro F1 and kappa by a bootstrap over the test images"
SYNTHETIC = "Generated images: the numbers say nothing about the real world."
SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Measured:
    """An accuracy with its uncertainty: the 95 % interval, and in words what it is an interval of."""

    mean: float
    low: float | None = None
    high: float | None = None
    basis: str = ""

    def __str__(self):
        return f"{self.mean:.1%} {self.between}".strip()

    @property
    def between(self):
        return "(no interval: a single run)" if self.low is None else f"({self.low:.1%} to {self.high:.1%})"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours beside the course project's."""

    task: str
    what: str
    ours: Measured
    theirs: float


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells, text, under a head."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: PNG bytes, what it is, and what there is to be seen for those who do not see it."""

    png: bytes
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Training:
    """A run that a section is made from: where, seed, seconds and environment."""

    name: str
    seed: int
    seconds: float
    environment: dict


@dataclasses.dataclass(frozen=True)
class Section:
    """A task.

    Attributes:
        name: "task1" and so on.
        heading: its title.
        question: what is asked.
        text: paragraphs; without any the task has no results.
        tables, pictures: what stands in it, the most important first.
        comparisons: with the course project.
        conclusions: sentences for the end.
        limits: sentences for the end.
        sources: paths below the results folder of the files that the numbers are from.
        trainings: the runs.
        left_out: what is said of pictures that are not shown.
    """

    name: str
    heading: str
    question: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    conclusions: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    trainings: tuple[Training, ...] = ()
    left_out: str = ""

    @property
    def missing(self):
        return not self.text


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def sources(folder, *files):
    return tuple(f"{folder.name}/{file}" for file in files if (folder / file).exists())


def trainings(folder):
    """The runs whose records were published: those in folders of their own, or the folder itself if it is one."""
    found = []
    paths = sorted(path for path in folder.glob("**/environment.json") if path.parent != folder)
    for path in paths or sorted(folder.glob("environment.json")):
        run = path.parent
        measured = read(run / "metrics.json") or {}
        if run.name.startswith("stage-") or not {"training", "svm", "outcome"} & measured.keys():
            continue
        stages = [measured, *(read(stage) for stage in sorted(run.glob("stage-*/metrics.json")))]
        seconds = sum(stage.get("training", {}).get("seconds", 0) for stage in stages)  # an SVM is solved in no time
        seconds = measured.get("seconds_of_all_stages", seconds)  # where the earlier stages' records are not published
        environment = json.loads(path.read_text())
        found.append(Training(run.relative_to(folder.parent).as_posix(), environment["seed"], seconds, environment))
    return tuple(found)


def data_of_runs(folder):
    """The image set and split that the runs were trained on, by their environments; None if there are none."""
    for training in trainings(folder):
        return training.environment["data"]


def data_words(data, of_runs=None):
    if data:
        text = f"Data: {data['description'].rstrip('.')}. Split: {data['split'].rstrip('.')}."
        return [text, *([SYNTHETIC] if data["synthetic"] else [])]
    if of_runs:
        synthetic = [SYNTHETIC] if of_runs["name"].startswith("synthetic") else []
        return [f"Data: {of_runs['name']}. Split: {of_runs['split']}.", *synthetic]
    return []


def is_synthetic(metrics):
    """Whether the images were generated: their numbers are compared with nothing."""
    return bool(metrics.get("data", {}).get("synthetic"))


def synthetic_limit(task, metrics):
    return (f"{task}: {SYNTHETIC}",) if is_synthetic(metrics) else ()


def card_limits(path, task):
    card = read(path)
    return [f"{task}: {limit}" for limit in card["limits"]] if card else []


def views_of(key):
    return int(key.split("_")[1]) if "_" in key else 1


def in_views(count):
    return "one view of each" if count == 1 else f"{count} views of each averaged"


def as_summary(found):
    from tfproject.statistics import Summary

    return Summary(*(found[field.name] for field in dataclasses.fields(Summary)))


def accuracy_of(summary, interval=None):
    """A Summary over seeds as Measured; where no seed differs the interval is that of the test images, if given."""
    if summary.count > 1 and (summary.spread or interval is None):
        return Measured(summary.mean, summary.low, summary.high, f"t-interval over {seeds_in_words(summary.count)}")
    if interval is None:
        return Measured(summary.mean)
    runs = "a single run" if summary.count == 1 else "the same for every seed"
    return Measured(summary.mean, *interval, f"{runs}; Wilson's interval of the test images")


def told(found):
    if found.low is None:
        return str(found)
    basis = f"; {found.basis}" if found.basis else ""
    return f"{found.mean:.2%} (95 % interval {found.low:.2%} to {found.high:.2%}{basis})"


def over_seeds(found, form):
    """A mean with its t-interval."""
    if found["mean"] is None:
        return ""
    between = "" if found["low"] is None else f" ({found['low']:{form}} to {found['high']:{form}})"
    return f"{found['mean']:{form}}{' (the same for every seed)' if found['spread'] == 0 else between}"


def share_of(hits, count):
    from tfproject.statistics import share

    found = share(hits, count)
    return "none" if found["share"] is None else str(Measured(found["share"], found["low"], found["high"]))


def resampled(confusion):
    """Macro F1 and kappa with bootstrap intervals, as text; the images are resampled, from a fixed seed."""
    from tfproject.evaluation import bootstrap

    found = bootstrap(confusion)
    for name in ("macro_f1", "kappa"):
        low, high = found[f"{name}_interval"]
        yield f"{found[name]:.3f} ({low:.3f} to {high:.3f})"


def upper(text):
    return text[0].upper() + text[1:]


def seeds_in_words(count):
    return "a single seed" if count == 1 else f"{count} seeds"


def joined(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _or_nothing(value, form):
    return "" if value is None else f"{value:{form}}"


def cells(rows):
    return tuple(tuple(str(cell) for cell in row) for row in rows)


def points(mean, low, high, sign="+"):
    if mean is None:
        return ""
    points = f"{100 * mean:{sign}.1f}"
    return points if low is None else f"{points} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def variations_table(called, analysis, gap):
    """An experiment's table; `gap` says between which accuracies the gap is."""
    rows = []
    for row in analysis["rows"]:
        accuracy = (
            f"{row['diverged']} of {row['seeds']} diverged" if row["diverged"]
            else Measured(row["val_accuracy"], row["val_accuracy_low"], row["val_accuracy_high"])
        )  # fmt: skip
        rows.append((
            row["variation"], str(row["seeds"]), accuracy,
            points(row["difference"], row["difference_low"], row["difference_high"]),
            _or_nothing(row["p_corrected"], ".2g"), points(row["gap"], row["gap_low"], row["gap_high"], ""),
        ))  # fmt: skip
    return Table(
        f"{upper(called)}: {analysis['question']} Accuracy on validation, difference to "
        f"'{analysis['baseline']}', and gap in points: {gap}.",
        ("variation", "seeds", "accuracy (95 % interval)", "difference (95 % interval)", "corrected p", "gap"),
        cells(rows),
    )  # fmt: skip


def trained_on(analysis):
    """On how many images for how many epochs an experiment's baseline is trained."""
    base = next(row for row in analysis["rows"] if row["variation"] == analysis["baseline"])
    epochs = base.get("epochs_of_stages") or _or_nothing(base["epochs"], "g")  # None if a seed diverged
    return f"on {base['train_images']:,} images{epochs and f' for {epochs} epochs'}"


def epochs_of_stages(found):
    """The epochs of a network of Task 5, stage by stage: "10 + 6"."""
    return " + ".join(str(recipe["epochs"]) for recipe in (*found["earlier"], found["recipe"]))


def highest(analysis):
    known = [row for row in analysis["rows"] if row["val_accuracy"] is not None]
    if not known:
        return "Every variation diverged."
    best = max(known, key=lambda row: row["val_accuracy"])
    return f"The highest mean is that of {best['variation']}, {best['val_accuracy']:.1%}."


def differences_shown(analysis):
    """What is shown to differ from the baseline, in a sentence."""
    shown = [
        row for row in analysis["rows"]
        if row["p_corrected"] is not None and row["p_corrected"] < SIGNIFICANCE
        and (row["difference_low"] > 0 or row["difference_high"] < 0)
    ]  # fmt: skip
    if not shown:
        return f"no variation is shown to differ from '{analysis['baseline']}'."
    listed = [
        f"'{row['variation']}' by "
        f"{points(row['difference'], row['difference_low'], row['difference_high'])} points"
        for row in shown
    ]  # fmt: skip
    return f"shown to differ from '{analysis['baseline']}': {joined(listed)}."


def published_picture(path, caption, alt):
    return Picture(path.read_bytes(), caption, alt) if path.exists() else None


def curves_picture(run, start):
    path = run / "history.csv"
    if not path.exists():
        return None
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    history = {column: [float(row[column]) for row in rows] for column in rows[0]}
    png = figures.to_png_bytes(figures.training_curves(history))
    alt = (
        f"Two panels over {len(rows)} epochs: the loss in training goes from {history['loss'][0]:.2f} to "
        f"{history['loss'][-1]:.2f}, the accuracy from {history['accuracy'][0]:.1%} to {history['accuracy'][-1]:.1%}."
    )
    return Picture(png, f"{start}loss and accuracy after each epoch ({run.name}).", alt)


def confusion_picture(scores, start):
    names, counts = scores["class_names"], scores["confusion"]
    png = figures.to_png_bytes(figures.confusion_matrix(counts, names))
    wrong = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    alt = (
        f"{len(names)} by {len(names)} counts; {sum(row[i] for i, row in enumerate(counts)):,} of {scores['count']:,} "
    )
    alt += "on the diagonal, which are right."
    if wrong:
        count, true, said = max(wrong)
        alt += f" The most frequent error: {names[true]} taken for {names[said]}, {count} times."
    return Picture(png, f"{start}test images by true class (rows) and predicted class (columns).", alt)
