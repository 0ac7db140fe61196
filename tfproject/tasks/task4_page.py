"""Task 4's tables, figures, metrics.json and page."""

import json

import numpy as np

from tfproject.experiments.analysis import to_csv
from tfproject.experiments.experiment import Trial
from tfproject.experiments.transfer import history_of, probabilities
from tfproject.files import write_atomically
from tfproject.statistics import compare
from tfproject.tasks import task4_transfer as task
from tfproject.training.stages import stages_of

ATTRIBUTED = 8  # photos in the Grad-CAM sheet
LOOKS = "Does it look at the building?"
SUMMARISED = (
    "test", "distinct", "balanced_accuracy", "known_accuracy", "known_accuracy_among_known", "auroc_least_sure",
    "auroc_own",
)  # fmt: skip


def write(study, size, analyses):
    """Write tables, figures, metrics.json and report.html into the study's directory.

    Args:
        study: the TransferStudy.
        size: the Profile.
        analyses: a dict from the name of a finished experiment to its analysis (`tfproject.experiments.analysis`).

    Returns:
        The page's pathlib.Path.
    """
    from tfproject.report import page

    (study.directory / "figures").mkdir(exist_ok=True)
    experiments = {experiment.name: experiment for experiment in study.experiments if experiment.name in analyses}
    found = {name: task.summaries(study, experiment) for name, experiment in experiments.items()}
    photos = _photos(study, experiments["parts"])
    content = {"data": photos, "test": found, "trained": _trained(study, analyses), "experiments": analyses}
    content["sides"] = (
        f"The custom CNN sees the photos at {size.small} pixels a side, as its CIFAR-10 weights do, VGG16 in parts 3 "
        f"and 4 at {size.large}, and VGG16 where cuts and recipes are compared at {size.middle}: accuracies of "
        "different sizes are not to be compared."
    )
    why = page.Section(
        "Why they come in this order",
        text=(content["sides"], *explanation(content), "Differences are paired by seed, intervals 95 % t-intervals "
              "over the seeds: which photos are tested is chance that they do not show. Between two SVMs there is no "
              "chance of the seed."),
    )  # fmt: skip
    sections = [_result(study, experiments, found, photos), why, _data(study, experiments["parts"], photos)]
    sections.append(page.Section("Where it was trained", table=_trained_table(content["trained"])))
    sections += [_compared(study, experiments[name], analyses[name], found[name]) for name in experiments]
    if "learning-curves" in experiments:
        sections.insert(2, _learning_curves(study, found["learning-curves"], photos, experiments["parts"]))
    sections += _each_part(study, experiments["parts"])
    sections += _attribution(study, experiments["parts"])
    for name in experiments:
        write_atomically(study.directory / f"{name}.csv", to_csv(analyses[name]["rows"]))
        write_atomically(study.directory / f"{name}-trials.csv", to_csv(analyses[name]["trials"]))
        write_atomically(study.directory / f"{name}-test.csv", to_csv([_flat(row) for row in found[name]]))
    write_atomically(study.directory / "metrics.json", json.dumps(content, indent=1) + "\n")
    goal = study.directory / "report.html"
    page.write(goal, "Task 4: transfer learning on buildings", sections)
    return goal


def reading(metrics):
    """What the parts came to, in a sentence each.

    Args:
        metrics: what metrics.json holds.
    """
    for row in metrics["test"]["parts"]:
        found = row["distinct"]
        if found["mean"] is None:
            yield f"{row['variation']}: training diverged."
            continue
        spread = f", standard deviation {100 * found['spread']:.2f} points" if found["spread"] else ""
        yield (
            f"{row['variation']}: {found['mean']:.2%} of {row['scored_distinct']:,} test photos without duplicates in "
            f"training right (mean of {found['count']} seeds{spread})."
        )


def explanation(metrics):
    """Why the parts come in the order in which they do, a sentence for each step, made from the numbers.

    Each compares two parts, paired by seed, on test photos without duplicates in training.

    Args:
        metrics: what metrics.json holds.
    """
    found = {row["variation"]: row["distinct"] for row in metrics["test"]["parts"]}
    trained = {row["variation"]: row.get("train_accuracy") for row in metrics["experiments"]["parts"]["rows"]}
    for one, other, words in (
        (task.SOFTMAX, task.SCRATCH, _of_frozen_features(trained.get(task.SOFTMAX))),
        (task.CONTINUED, task.SCRATCH, {
            1: "the same weights are a good place to start from, once they may change",
            -1: "where CIFAR-10 left the weights is a worse start than a random one, at this rate and in these epochs",
        }),
        (task.FLOOR, task.SVM, {
            1: "the same classifier on other features: VGG16 learnt its own from a thousand classes of large photos, "
               "the custom CNN from ten classes of small ones, and VGG16 is shown larger images here too",
            -1: "the same classifier on other features, and VGG16's suit these photos less",
        }),
        (task.FINE_TUNED, task.FLOOR, {
            1: "new layers and an adapted last block do better than a linear SVM on the features as ImageNet left "
               "them; which of the two makes the difference is not told apart here",
            -1: "training new layers and the last block on so few photos does worse than a linear SVM on what was "
                "there",
        }),
        (task.WITH_CITY, task.FINE_TUNED, {
            1: "photos of another city, with classes of its own, teach what the two have in common",
            -1: "another city's photos and classes take room from those that are tested",
        }),
    ):  # fmt: skip
        if found.get(one, {}).get("mean") is None or found.get(other, {}).get("mean") is None:
            continue
        gap = compare(found[one]["values"], found[other]["values"])
        between = "" if gap.low is None else f" ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
        said = f"{one[2:]} against {other[2:]}: {100 * gap.mean:+.1f} points{between}"
        shown = gap.mean != 0 if gap.low is None else gap.low > 0 or gap.high < 0
        yield f"{said}: {words[1 if gap.mean > 0 else -1]}." if shown else f"{said}: no difference is shown."


def _of_frozen_features(train_accuracy):
    return {
        1: "so few photos do not teach features as good as CIFAR-10's",
        -1: "these features suit the photos less: even of the training photos, as augmentation changes them, a linear "
            f"layer on them gets only {train_accuracy:.0%} right in the last epoch"
            if train_accuracy is not None and train_accuracy < 0.75 else "features of other photos suit these less",
    }  # fmt: skip


def _drawn(study, name, figure, caption):
    from tfproject.report import figures

    return figures.save(figure, study.directory / "figures" / f"{name}.png"), caption


def _photos(study, experiment):
    """The photos and what is wrong with them, a dict for metrics.json."""
    from tfproject.data import buildings

    images, all_images = (
        study.images_of(Trial(experiment.variations[i], experiment.seeds[0])) for i in (0, -1)
    )  # the last part has the other city's, too
    options = study.image_options
    pairs = buildings.duplicates(options["name"], options["data_dir"], options["on_bad_image"])
    counts = {
        name: np.bincount(split.labels, minlength=len(images.class_names)).tolist()
        for name, split in images.splits.items() if name != "distinct"
    }  # fmt: skip
    totals = np.sum(list(counts.values()), axis=0)
    scored = images.splits.get("test", images.val)
    return {
        "name": images.name, "description": images.origin.description, "synthetic": images.origin.synthetic,
        "split": images.split_method, "class_names": list(images.class_names), "counts": counts,
        "imbalance_ratio": float(totals.max() / max(1, totals.min())),
        "most_frequent": float(np.bincount(scored.labels).max() / len(scored)),
        "bad_images": [{"name": bad.name, "reason": bad.reason} for bad in all_images.bad_images],
        "with_duplicates": len(pairs),
        "left_out_of_test": sorted(set(scored.names) - set(images.splits["distinct"].names)),
        "identical_across_splits": len(_without_distinct(images).overlaps()),
    }  # fmt: skip


def _trained(study, analyses):
    """On which processors and in which precision the runs were trained, and how long in all: dicts for metrics.json.

    Seconds are those of the last stages' epochs; what ran once before them is not in them.
    """
    trials = {trial["run"]: trial for analysis in analyses.values() for trial in analysis["trials"]}
    found = {}
    for name, trial in sorted(trials.items()):
        whole = _run(study.directory / "runs" / name)
        # What diverged in an earlier stage has only that stage's record.
        stages = [stage for stage in stages_of(whole.directory) if (stage.directory / "environment.json").exists()]
        run = stages[-1] if stages else whole
        where, svm = run.read("environment.json"), "svm" in whole.metrics
        precision = "float32" if svm else run.read("recipe.json")["recipe"]["precision"]
        own = found.setdefault((where["processor"]["name"], where["cores"], precision), {"runs": 0, "seconds": 0.0})
        own["runs"] += 1
        own["seconds"] += trial["seconds"] or 0
    return [
        {"processor": processor, "cores": cores, "precision": precision, **own}
        for (processor, cores, precision), own in found.items()
    ]


def _trained_table(trained):
    head = ("processor", "cores", "precision", "runs", "minutes of the last stages' epochs")
    rows = [
        (row["processor"], row["cores"], row["precision"], row["runs"], f"{row['seconds'] / 60:.0f}") for row in trained
    ]
    return (head, *rows)


def _without_distinct(images):
    import dataclasses

    return dataclasses.replace(images, splits={k: v for k, v in images.splits.items() if k != "distinct"})


def _result(study, experiments, found, photos):
    from tfproject.report import page, transfer_figures

    rows = [
        {"part": row["variation"], "test": row["test"], "distinct": row["distinct"],
         "published": experiments["parts"].published.get(row["variation"])}
        for row in found["parts"]
    ]  # fmt: skip
    text = [
        f"Data: {photos['description']}. Split: {photos['split']}.",
        *reading({"test": found}),
        "Means are over the seeds, intervals 95 % t-intervals over the seeds. Nothing was chosen by the test photos. "
        "The course project's numbers are of another edition of the set: a guide, not a comparison like for like.",
    ]
    if photos["synthetic"]:
        text.append("These are generated images: the numbers say nothing about the real world.")
    head = ("part", "test", "without duplicates", "95 % interval", "balanced", "twelve buildings", "among the twelve",
            "AUROC, least sure", "AUROC, own", "course project")  # fmt: skip
    cells = [
        (row["variation"], _percent(row["test"]), _percent(row["distinct"]), _interval(row["distinct"]),
         _percent(row["balanced_accuracy"]), _percent(row["known_accuracy"]),
         _percent(row["known_accuracy_among_known"]), _number(row["auroc_least_sure"]), _number(row["auroc_own"]),
         "" if part["published"] is None else f"{part['published']:.1%}")
        for row, part in zip(found["parts"], rows)
    ]  # fmt: skip
    text.append(
        "Unknown photos show none of the twelve buildings. Of the photos of these, 'twelve buildings' is the share "
        "said right, and 'among the twelve' the same where unknown cannot be said. The AUROC is how well unknown "
        "photos are told from known ones: by 1 minus the largest probability of the twelve, and by the probability of "
        "none of them. An SVM has margins, whose softmax stands for probabilities; it comes out the same from every "
        "seed, so its interval says nothing of chance."
    )
    return page.Section(
        "Result", text=tuple(text), table=(head, *cells),
        figures=(_drawn(study, "parts", transfer_figures.parts(rows), "Accuracy of each part on test."),),
    )  # fmt: skip


def _data(study, experiment, photos):
    from tfproject.report import figures, page

    left_out, bad = photos["left_out_of_test"], photos["bad_images"]
    text = [
        f"The largest class has {photos['imbalance_ratio']:.1f} times as many photos as the smallest; always saying "
        f"the most frequent class would be right for {photos['most_frequent']:.1%} of the test photos.",
        f"{photos['with_duplicates']} photos have a duplicate or near duplicate; {photos['identical_across_splits']} "
        f"are identical to one of another split. {len(left_out)} test photos that training has a duplicate or near "
        f"duplicate of are left out where it says so{': ' if left_out else ''}{', '.join(left_out[:20])}"
        f"{' ...' if len(left_out) > 20 else ''}.",
        f"{len(bad)} files cannot be read, of all cities.",
    ]
    text += [f"{image['name']}: {image['reason']}" for image in bad[:10]]
    figure = figures.class_counts(photos["counts"], photos["class_names"])
    return page.Section(
        "The photos", text=tuple(text), figures=(_drawn(study, "photos", figure, "Photos of each class and split."),)
    )


def _compared(study, experiment, analysis, rows):
    """An experiment's table, readings, accuracies and curves."""
    from tfproject.report import experiment_figures, page, style, transfer_figures

    histories = {}
    for trial in analysis["trials"]:
        run = study.directory / "runs" / trial["run"]
        if not trial["diverged"] and (run / "history.csv").exists():
            histories.setdefault(trial["variation"], []).append(history_of(_run(run)))
    shown = experiment_figures.accuracy(analysis["rows"], analysis["trials"], analysis["baseline"])
    drawn = [_drawn(study, f"{experiment.name}-accuracy", shown,
                    "Accuracy of each variation: every seed, and the mean with its 95 % interval.")]  # fmt: skip
    if histories and experiment.name != "learning-curves":  # two dozen, which nobody could tell apart
        colours = style.class_colours([row["variation"] for row in rows])
        drawn.append(_drawn(
            study, f"{experiment.name}-curves", transfer_figures.loss_and_accuracy(histories, colours),
            "Loss and accuracy after each epoch, all stages one after the other: the mean of the seeds. In training "
            "they are the running means over the epoch, of augmented photos and with dropout.",
        ))  # fmt: skip
    of = {row["variation"]: row for row in analysis["rows"]}
    tested = all(variation.has_test for variation in experiment.variations)
    # Where there is no test, the photos that are scored are those of validation, with the network in float32.
    scored = ("test", "without duplicates") if tested else ("validation, scored", "the same without duplicates")
    head = ("variation", "training photos", "validation", "difference", "corrected p", *scored, "balanced",
            "AUROC, least sure", "differs in")  # fmt: skip
    cells = [
        (row["variation"], f"{row['train_images']:,}", _or_nothing(of[row["variation"]]["val_accuracy"], ".2%"),
         _points(of[row["variation"]]["difference"]), _or_nothing(of[row["variation"]]["p_corrected"], ".2g"),
         _percent(row["test"]), _percent(row["distinct"]), _percent(row["balanced_accuracy"]),
         _number(row["auroc_least_sure"]), of[row["variation"]]["changes"])
        for row in rows
    ]  # fmt: skip
    return page.Section(
        experiment.name.replace("-", " ").capitalize(),
        text=tuple(filter(None, (experiment.question, *analysis["reading"], analysis["remark"]))),
        table=(head, *cells),
        figures=tuple(drawn),
        links=tuple((f"{experiment.name}{end}.csv", text) for end, text in (
            ("", "All columns"), ("-test", "What is scored"), ("-trials", "Every trial"),
        )),
    )  # fmt: skip


def _learning_curves(study, rows, photos, parts):
    from tfproject.report import page, style, transfer_figures

    classes, curves = len(photos["class_names"]), {}
    for row in rows:
        found = row["distinct"]
        if found["mean"] is not None:
            point = {"per_class": row["train_images"] / classes, "accuracies": found["values"]}
            curves.setdefault(row["group"], []).append(point | {key: found[key] for key in ("mean", "low", "high")})
    for points in curves.values():
        points.sort(key=lambda point: point["per_class"])
    of_parts = style.class_colours([variation.name for variation in parts.variations])  # as in their own figure
    colours = {group: of_parts[task.CURVES[group]] for group in curves}
    figure = transfer_figures.learning_curves(curves, photos["most_frequent"], colours)
    return page.Section(
        "How many photos each way needs",
        figures=(_drawn(study, "learning-curves", figure,
                        "Accuracy on test photos without duplicates in training, by training photos a class: every "
                        "seed, and the mean with its 95 % interval. All points but the last are of as many photos of "
                        "each class, the last is of the classes as they are, which are those of the test: part of its "
                        "rise is the mix of classes, and `learning-curves-test.csv` has the balanced accuracy."),),
    )  # fmt: skip


def _each_part(study, experiment):
    """Curves, confusion matrix, scores and frozen layers of each part's first seed."""
    from tfproject import evaluation
    from tfproject.report import figures, page

    for number, variation in enumerate(experiment.variations, start=1):
        run = study.run_of(Trial(variation, experiment.seeds[0]))
        if "test" not in run.metrics:
            continue
        drawn, text, name = [], [], f"way{number}"
        if (run.directory / "history.csv").exists():
            curves = figures.training_curves(history_of(run))
            drawn.append(_drawn(study, f"{name}-curves", curves, f"{variation.name}: loss and accuracy."))
        content = {key: value for key, value in run.metrics["test"].items() if key != "unknown"}
        scores = evaluation.Scores.from_json(content)
        drawn.append(_drawn(
            study, f"{name}-confusion", figures.confusion_matrix(scores.confusion, scores.class_names),
            f"{variation.name}: test photos by true class (rows) and predicted class (columns).",
        ))  # fmt: skip
        if "svm" in run.metrics:
            svm = run.metrics["svm"]
            text.append(f"Linear SVM on {svm['features']} features, C {svm['C']:g}, chosen on validation.")
        if "frozen" in run.metrics:
            frozen = run.metrics["frozen"]
            text.append(
                f"Frozen: {frozen['parameters']:,} parameters of {', '.join(frozen['layers'])}; that they did not move "
                "was checked bit by bit."
            )
        yield page.Section(
            f"{variation.name}: seed {experiment.seeds[0]}",
            text=tuple(text), figures=tuple(drawn), listing=evaluation.summary_text(scores),
        )  # fmt: skip


def _attribution(study, experiment):
    """Where the fine-tuned network looks: Grad-CAM on the first test photo of some classes."""
    from tfproject.interpret import attribute
    from tfproject.report import attribution_figures, page

    variation = next(v for v in experiment.variations if v.name == task.FINE_TUNED)
    trial = Trial(variation, experiment.seeds[0])
    run = study.run_of(trial)
    drawing = study.directory / "figures" / "gradcam.png"
    if not run.model_path.exists() and not drawing.exists():  # diverged
        return []
    images = study.images_of(trial)
    test = images.splits["distinct"]
    # The first photo of each class; some classes, evenly spaced, so that unknown may be among them.
    first = [int(np.flatnonzero(test.labels == label)[0]) for label in np.unique(test.labels)]
    chosen = test.take([first[i] for i in np.unique(np.linspace(0, len(first) - 1, ATTRIBUTED).astype(int))])
    caption = (
        f"{variation.name}: what speaks for the predicted class in the first test photo of {len(chosen)} classes; a "
        "second line of a title is the class predicted where it is wrong."
    )
    if not run.model_path.exists():  # of a run that was published there are no more than its numbers and this
        return [page.Section(LOOKS, figures=((drawing.read_bytes(), caption),))]
    (found,) = probabilities(trial, run, images, [chosen], study.features)
    said = found.argmax(axis=1)
    maps = attribute(run.model, chosen.images, said, methods=("gradcam", "gradcam++"))
    names = images.class_names
    titles = [
        f"{names[true]}" + ("" if true == guess else f"\nas {names[guess]}")
        for true, guess in zip(chosen.labels, said)
    ]  # fmt: skip
    figure = attribution_figures.attribution_sheet(chosen.images, maps, titles)
    return [page.Section(LOOKS, figures=(_drawn(study, "gradcam", figure, caption),))]


def _run(directory):
    from tfproject.training.run import Run

    return Run(directory)


def _flat(row):
    """A row of `summaries` for CSV."""
    flat = {key: value for key, value in row.items() if key not in SUMMARISED}
    for name in SUMMARISED:
        flat[name] = row[name]["mean"]
        flat |= {f"{name}_{part}": row[name][part] for part in ("spread", "low", "high")}
    return flat


def _or_nothing(value, form):
    return "" if value is None else f"{value:{form}}"


def _percent(found):
    return _or_nothing(found["mean"], ".2%")


def _number(found):
    return _or_nothing(found["mean"], ".3f")


def _points(value):
    return "" if value is None else f"{100 * value:+.2f}"


def _interval(found):
    return "" if found["low"] is None else f"{found['low']:.2%} to {found['high']:.2%}"
