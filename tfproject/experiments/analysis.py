"""From an experiment's finished trials to its table: means, intervals, comparisons with the baseline."""

import csv
import io

from tfproject.experiments.experiment import Trial
from tfproject.experiments.reading import read, unlearnt
from tfproject.statistics import compare, correct_p_values, summarise

TIMING = ("seconds", "images_per_second")  # the columns that depend on the machine and what else runs on it


def analyse(study, experiment):
    """Everything that tables, figures and page say about an experiment whose trials are all finished.

    Args:
        study: a Study.
        experiment: one of its experiments.

    Returns:
        A dict that goes to JSON: name, question, baseline, seeds; `chosen`, the variation with the highest mean
        accuracy on validation; `rows`, the table, a dict per variation; `contrasts`, a dict per pair; `trials`, a dict
        per trial with its run's directory and results; `reading`, two sentences; `remark`, a paragraph or None.
    """
    variations = study.variations(experiment)
    base = next(v for v in variations if v.name == experiment.baseline)
    trials = [_trial(study, v, seed) for v in variations for seed in experiment.seeds]
    results = {v.name: [t for t in trials if t["variation"] == v.name] for v in variations}
    rows = [_row(v, base, results) for v in variations]
    correct_p_values(rows)
    for row in rows:
        row["published_test_accuracy"] = experiment.published.get(row["variation"])
    analysis = {
        "name": experiment.name,
        "question": experiment.question,
        "baseline": experiment.baseline,
        "seeds": list(experiment.seeds),
        "chosen": chosen(study, experiment),
        "rows": [{column: row.get(column) for column in COLUMNS} for row in rows],
        "contrasts": _contrasts(experiment, results),
        "trials": trials,
    }
    analysis["reading"] = list(read(analysis))
    remarks = experiment.remark(analysis) if experiment.remark else None, unlearnt(analysis)
    analysis["remark"] = " ".join(filter(None, remarks)) or None
    return analysis


def _contrasts(experiment, results):
    """The experiment's further pairs: {variation, against, difference, its interval, p, p_corrected (over all pairs)}.

    Differences of accuracy on validation; None where a seed diverged.
    """
    rows = []
    for name, against in experiment.contrasts:
        pair = results[name], results[against]
        row = {"variation": name, "against": against, **dict.fromkeys(_DIFFERENCE)}
        if not any(trial["diverged"] for trials in pair for trial in trials):
            row |= _difference(*pair, "val_accuracy")
        rows.append(row)
    correct_p_values(rows)
    return rows


_DIFFERENCE = ("difference", "difference_low", "difference_high", "p")


def _difference(own, baseline, column):
    found = compare([trial[column] for trial in own], [trial[column] for trial in baseline])
    return dict(zip(_DIFFERENCE, (found.mean, found.low, found.high, found.p)))


def chosen(study, experiment):
    """The variation with the highest mean accuracy on validation, of those that no seed diverged with; None if none."""
    means = {}
    for variation in study.variations(experiment):
        outcomes = [study.outcome(Trial(variation, seed)) for seed in experiment.seeds]
        if not any("diverged" in outcome for outcome in outcomes):
            means[variation.name] = sum(outcome["val_accuracy"] for outcome in outcomes) / len(outcomes)
    return max(means, key=means.get) if means else None


def _trial(study, variation, seed):
    run = study.run_of(Trial(variation, seed))
    measured = run.metrics
    outcome, training = measured["outcome"], measured.get("training", {})
    rates = run.history["images_per_second"] if training else []
    return {
        "variation": variation.name,
        "seed": seed,
        "run": run.directory.name,
        "diverged": "diverged" in outcome,
        "val_accuracy": outcome.get("val_accuracy"),
        "val_loss": outcome.get("val_loss"),
        "train_accuracy": outcome.get("train_accuracy"),
        "gap": outcome.get("gap"),
        "test_accuracy": measured.get("test", {}).get("accuracy") if variation.has_test else None,
        "noise_scale": measured.get("noise_scale", {}).get("scale"),
        "parameters": training.get("parameters"),
        "train_images": training.get("images"),
        "epochs": training.get("epochs"),
        "kept_epoch": training.get("kept_epoch"),
        "seconds": training.get("seconds"),
        "images_per_second": _mean(rates),
    }


COLUMNS = (
    "variation", "changes", "seeds", "diverged", "val_accuracy", "val_accuracy_spread", "val_accuracy_low",
    "val_accuracy_high", *_DIFFERENCE, "p_corrected", "train_accuracy", "gap", "gap_low", "gap_high", "val_loss",
    "test_accuracy", "test_accuracy_spread", "test_accuracy_low", "test_accuracy_high", "published_test_accuracy",
    "noise_scale", "parameters", "train_images", "epochs", "steps", "kept_epoch", *TIMING,
)  # fmt: skip


def _row(variation, base, results):
    own, baseline = results[variation.name], results[base.name]
    changes = ", ".join(f"{name} {_shown(value)}" for name, value in variation.changes(base).items())
    diverged = sum(trial["diverged"] for trial in own)
    row = {"variation": variation.name, "changes": changes, "seeds": len(own), "diverged": diverged}
    known = [trial for trial in own if not trial["diverged"]]
    # With a seed that diverged there is no mean: that of the others would be one of the lucky.
    compared = own if not row["diverged"] else []
    for column in ("val_accuracy", "gap", "test_accuracy"):
        values = [trial[column] for trial in compared]
        summary = summarise([] if None in values else values)
        row[column] = summary.mean
        row |= {f"{column}_{part}": getattr(summary, part) for part in ("spread", "low", "high")}
    for column in ("train_accuracy", "val_loss", "epochs", "kept_epoch", "noise_scale"):
        row[column] = _mean([trial[column] for trial in compared])
    for column in TIMING:
        row[column] = _mean([trial[column] for trial in known])
    for column in ("parameters", "train_images"):
        row[column] = known[0][column] if known else None
    if row["epochs"] is not None:
        row["steps"] = round(row["epochs"] * (row["train_images"] // variation.recipe.batch_size))
    row["p"] = None
    if variation.name != base.name and compared and not any(t["diverged"] for t in baseline):
        row |= _difference(own, baseline, "val_accuracy")
    return row


def _mean(values):
    return sum(values) / len(values) if len(values) and None not in values else None


def _shown(value):
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_csv(rows):
    """A table as CSV text: accuracies and differences as fractions, an empty cell for what there is not.

    Args:
        rows: dicts with the same keys.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
