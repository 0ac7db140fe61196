"""What a study leaves for its readers: tables, figures, metrics.json, one page, TensorBoard's HParams dashboard."""

import collections
import json

from tfproject.experiments.analysis import to_csv
from tfproject.experiments.reading import read_contrasts
from tfproject.files import write_atomically
from tfproject.training.run import Run
from tfproject.wording import between, percent, points

CORRECTED = (
    "p is corrected for the number of comparisons in the experiment by Holm's method, and 'shown' is said where it is "
    "below 0.05: an interval without 0 alone is not enough."
)
METRICS = ("val_accuracy", "train_accuracy", "gap")  # in the HParams dashboard


def write(study, results):
    """Write tables, figures, metrics.json and index.html into the study's directory.

    Args:
        study: a Study.
        results: a dict from the name of a finished experiment to its analysis (`tfproject.experiments.analysis`).

    Returns:
        The page's pathlib.Path.
    """
    from tfproject.report import figures, page

    content = {"data": _data(study), "experiments": results} | _runs(study, results)
    sections = [_summary(study, results, content)]
    for experiment in study.experiments:
        if experiment.name not in results:
            continue
        analysis = results[experiment.name]
        write_atomically(study.directory / f"{experiment.name}.csv", to_csv(analysis["rows"]))
        write_atomically(study.directory / f"{experiment.name}-trials.csv", to_csv(analysis["trials"]))
        told = [experiment.question, *analysis["reading"], analysis["remark"]]
        links = [(f"{experiment.name}.csv", "All columns"), (f"{experiment.name}-trials.csv", "Every trial")]
        if analysis["contrasts"]:
            write_atomically(study.directory / f"{experiment.name}-contrasts.csv", to_csv(analysis["contrasts"]))
            told.insert(-1, read_contrasts(analysis["contrasts"]))
            links.append((f"{experiment.name}-contrasts.csv", "Pairs that differ in one thing"))
        pngs = []
        for name in experiment.figures:
            draw, caption = FIGURES[name]
            png = figures.to_png_bytes(draw(study, experiment, analysis))
            write_atomically(study.directory / f"{experiment.name}-{name}.png", png)
            pngs.append((png, caption))
        sections.append(
            page.Section(
                experiment.name.replace("-", " ").capitalize(),
                text=tuple(filter(None, told)),
                table=_table(analysis["rows"]),
                figures=tuple(pngs),
                links=tuple(links),
            )
        )
    write_atomically(study.directory / "metrics.json", json.dumps(content, indent=1) + "\n")
    goal = study.directory / "index.html"
    page.write(goal, "Experiments", sections)
    return goal


def _data(study):
    images = study.image_set
    return {
        "name": images.name, "description": images.origin.description, "synthetic": images.origin.synthetic,
        "split": images.split_method, "sha256": images.fingerprint,
        "images": {name: len(split) for name, split in images.splits.items()},
    }  # fmt: skip


def _runs(study, results):
    """What the experiments were made from: each run's recipe, and the number of its environment among all of them."""
    names = {trial["run"] for analysis in results.values() for trial in analysis["trials"]}
    runs, environments = {}, []
    for name in sorted(names):
        run = Run(study.directory / "runs" / name)
        environment = {k: v for k, v in run.read("environment.json").items() if k not in ("data", "seed")}
        if environment not in environments:
            environments.append(environment)
        asked = run.read("recipe.json")
        runs[name] = {key: asked[key] for key in ("recipe", "network", "data")}
        runs[name]["environment"] = environments.index(environment)
    return {"runs": runs, "environments": environments}


def _where_trained(content):
    """A sentence: how many runs in which precision on which machine."""
    counts = collections.Counter()
    for run in content["runs"].values():
        where = content["environments"][run["environment"]]
        machine = ", ".join([where["processor"]["name"], f"{where['cores']} cores", *where["gpus"]])
        counts[f"in {run['recipe']['precision']} on {machine}"] += 1
    text = f"Trained {'; '.join(f'{how} ({count} runs)' for how, count in sorted(counts.items()))}."
    if any(run["recipe"]["precision"] != "float32" for run in content["runs"].values()):
        text += (
            " The network computes in that precision on validation; on training images, for the gap, and on test the "
            "same weights compute in float32."
        )
    return text


def _trained_on(study, results):
    """How many images and epochs the baselines have, in a sentence."""
    bases = [
        next(variation for variation in experiment.variations if variation.name == experiment.baseline)
        for experiment in study.experiments if experiment.name in results
    ]  # fmt: skip
    train = {variation.train_images or len(study.image_set.train) for variation in bases}
    val = {variation.val_images or len(study.image_set.val) for variation in bases}
    epochs = {variation.recipe.epochs for variation in bases}
    return (
        f"The baselines train on {_listed(train)} images for {_listed(epochs)} epochs and are scored on "
        f"{_listed(val)}; what differs from that stands in the tables."
    )


def _listed(numbers):
    return " or ".join(f"{number:,}" for number in sorted(numbers))


def _summary(study, results, content):
    from tfproject.report import page

    images = study.image_set
    unfinished = [e.name for e in study.experiments if e.name not in results]
    trials = {trial["run"]: trial for analysis in results.values() for trial in analysis["trials"]}
    seconds = sum(trial["seconds"] or 0 for trial in trials.values())
    text = [
        f"{len(results)} experiments on {images.name} from {len(trials)} runs, {seconds / 3600:.1f} hours of training "
        "and validation. Every variation is trained from each seed; the seed decides the initial weights, the order of "
        "the images, augmentation, and which training images are drawn where not all are used.",
        "Accuracies are on validation unless said otherwise. Intervals are 95 % t-intervals over the seeds, each for "
        "itself. Differences are to the experiment's baseline, paired by seed, and tested with a paired t-test. "
        f"{CORRECTED} The gap is accuracy on the training images, as they are and in inference mode, minus accuracy on "
        "validation; the loss is that of training, on validation, with label smoothing where there is that. With so "
        "few seeds only large differences can be shown. Seconds and images/s depend on what else the machine did.",
        "Test images were looked at once, at the end, for what was chosen on validation, for each experiment's "
        "baseline, and where there is a published result.",
        f"Data: {images.origin.description.rstrip('.')}. Split: {images.split_method}. {_trained_on(study, results)}",
    ]
    if content["runs"]:
        text.append(_where_trained(content))
    if images.origin.synthetic:
        text.append("These are generated images: the numbers say nothing about the real world.")
    if unfinished:
        text.append(f"Not finished yet, and so not shown: {', '.join(unfinished)}.")
    return page.Section("Study", text=tuple(text))


def _table(rows):
    columns = [
        ("variation", lambda r: r["variation"]),
        ("differs in", lambda r: r["changes"]),
        ("accuracy", _accuracy_cell),
        ("std. dev.", lambda r: points(r["val_accuracy_spread"])),
        ("95 % interval", lambda r: between(r["val_accuracy_low"], r["val_accuracy_high"], percent)),
        ("difference", lambda r: points(r["difference"], "+")),
        ("95 % interval", lambda r: between(r["difference_low"], r["difference_high"], lambda v: points(v, "+"))),
        ("corrected p", lambda r: "" if r["p_corrected"] is None else f"{r['p_corrected']:.2g}"),
        ("training", lambda r: percent(r["train_accuracy"])),
        ("gap", lambda r: points(r["gap"])),
        ("loss", lambda r: "" if r["val_loss"] is None else f"{r['val_loss']:.3f}"),
        ("test", lambda r: percent(r["test_accuracy"])),
        ("published", lambda r: percent(r["published_test_accuracy"])),
        ("noise scale", lambda r: "" if r["noise_scale"] is None else f"{r['noise_scale']:,.0f}"),
        ("epochs", lambda r: "" if r["epochs"] is None else f"{r['epochs']:g}"),
        ("steps", lambda r: "" if r["steps"] is None else f"{r['steps']:,}"),
        ("seconds", lambda r: "" if r["seconds"] is None else f"{r['seconds']:.0f}"),
        ("images/s", lambda r: "" if r["images_per_second"] is None else f"{r['images_per_second']:.0f}"),
    ]
    cells = [(head, [show(row) for row in rows]) for head, show in columns]
    cells = [(head, column) for head, column in cells if any(column)]
    return (tuple(head for head, _ in cells), *zip(*(column for _, column in cells)))


def _accuracy_cell(row):
    return f"{row['diverged']} of {row['seeds']} diverged" if row["diverged"] else percent(row["val_accuracy"])


def _histories(study, analysis):
    """The histories of each variation's seeds; without those that diverged, which have none to the end and are told."""
    histories = {}
    for row in analysis["rows"]:
        whole = [t for t in analysis["trials"] if t["variation"] == row["variation"] and not t["diverged"]]
        name = row["variation"] + (f" ({len(whole)} of {row['seeds']} seeds)" if row["diverged"] else "")
        if whole:
            histories[name] = [Run(study.directory / "runs" / trial["run"]).history for trial in whole]
    return histories


def _accuracy(study, experiment, analysis):
    from tfproject.report import experiment_figures

    return experiment_figures.accuracy(analysis["rows"], analysis["trials"], analysis["baseline"])


def _curves(study, experiment, analysis):
    from tfproject.report import experiment_figures

    return experiment_figures.curves(_histories(study, analysis))


def _epochs_and_seconds(study, experiment, analysis):
    from tfproject.report import experiment_figures

    return experiment_figures.epochs_and_seconds(_histories(study, analysis))


def _lines(field, label):
    def draw(study, experiment, analysis):
        from tfproject.report import experiment_figures

        rows = {row["variation"]: row for row in analysis["rows"]}
        groups = {}
        for variation in study.variations(experiment):
            row = rows[variation.name]
            x = getattr(variation.recipe, field, None) or row[field]
            if x is None:
                continue
            # A baseline that belongs to several groups names them all.
            for group in filter(None, variation.group.split("|")):
                point = (x, row["val_accuracy"], row["val_accuracy_low"], row["val_accuracy_high"])
                groups.setdefault(group, []).append(point)
        return experiment_figures.lines(groups, label)

    return draw


_BAND = (
    "the mean of the seeds with a band from the lowest to the highest, as far as all go; without those that diverged"
)
_INTERVALS = (
    "with 95 % intervals; a cross at the bottom where a seed diverged. An interval that is wider than the picture runs "
    "out of it"
)
FIGURES = {
    "accuracy": (
        _accuracy,
        "Accuracy of each variation: every seed, and the mean with its 95 % interval; the dotted line is the "
        "baseline's mean. An interval that is wider than the picture runs out of it. Where seeds diverged there is no "
        "mean, and the others are not drawn.",
    ),
    "curves": (
        _curves,
        f"Accuracy after each epoch, {_BAND}. In training it is the running mean over the epoch, of augmented images "
        "and with dropout where there are these.",
    ),
    "epochs-and-seconds": (_epochs_and_seconds, f"Accuracy on validation against epochs and against seconds, {_BAND}."),
    "learning-rate": (_lines("learning_rate", "learning rate"), f"Accuracy by learning rate, {_INTERVALS}."),
    "batch-size": (_lines("batch_size", "batch size"), f"Accuracy by batch size, {_INTERVALS}."),
    "train-images": (_lines("train_images", "training images"), f"Accuracy by training images, {_INTERVALS}."),
}


def log_hparams(run, trial, outcome):
    """Tell TensorBoard's HParams dashboard what a run was made of and what came out.

    Args:
        run: the trial's Run.
        trial: a Trial.
        outcome: {val_accuracy, train_accuracy, gap}.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api, api_pb2, summary

    with tf.summary.create_file_writer(str(run.directory / "tensorboard" / "hparams")).as_default():
        api.hparams(hparams_of(trial), trial_id=run.directory.name)
        for metric in METRICS:
            tf.summary.scalar(f"outcome/{metric}", outcome[metric], step=0)
        end = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
        tf.summary.experimental.write_raw_pb(end.SerializeToString(), step=0)


def log_hparams_config(study, results):
    """Tell the HParams dashboard which settings and results there are; anew when there are more experiments."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    values = {}
    for experiment in study.experiments:
        for trial in study.trials(experiment) if experiment.name in results else ():
            for name, value in hparams_of(trial).items():
                values.setdefault(name, set()).add(value)
    values = {name: sorted(values[name]) for name in sorted(values)}
    known = study.directory / "hparams.json"
    content = json.dumps(values)
    if not values or (known.exists() and known.read_text() == content):
        return
    for old in study.directory.glob("runs/events.out.tfevents.*"):
        old.unlink(missing_ok=True)
    with tf.summary.create_file_writer(str(study.directory / "runs")).as_default():
        api.hparams_config(
            hparams=[api.HParam(name, api.Discrete(found)) for name, found in values.items()],
            metrics=[api.Metric(f"outcome/{metric}", display_name=metric) for metric in METRICS],
        )
    write_atomically(known, content)


def hparams_of(trial):
    """A trial's settings by name, as numbers and strings."""
    settings = trial.variation.settings() | {"seed": trial.seed}
    plain = {}
    for name, value in settings.items():
        if isinstance(value, (list, tuple)):
            value = " ".join(map(str, value)) or "none"
        plain[name] = str(value or "all") if name in ("train_images", "val_images") else value
    return plain
