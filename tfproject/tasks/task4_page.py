"""Task 4's tables, figures, metrics.json and page."""

import dataclasses
import json

import numpy as np

from tfproject.experiments.analysis import to_csv
from tfproject.experiments.experiment import Trial
from tfproject.experiments.transfer import history_of, probabilities
from tfproject.files import write_atomically
from tfproject.tasks import task4_transfer as task
from tfproject.tasks.task4_reading import MEASURES, differs_in, explanation, limits, on_test, reading, sizes
from tfproject.training.stages import stages_of

ATTRIBUTED = 8  # photos in the Grad-CAM sheet
POOLED = 16  # pixels a side of what a place of VGG16's last convolution stands for: four poolings are before it
UNTESTED = "another city's class"
LOOKS = "Does it look at the building?"
LOOKS_WORDS = (
    "To be judged by eye: nothing here measures where the building is, and {photos} photos are too few for a rule. A "
    "map is bright on sky, trees or cars where these speak for the class: that may be right for the wrong reason. Each "
    "has {side} x {side} cells, smoothed to the photo's size, so that its edges tell nothing, and goes from 0 at its "
    "own least to 1 at its own most important place, so that brightness is not to be compared from map to map: one "
    "without much evidence is as bright as another. Task 3 tests how far such maps can be believed, which not "
    "every method passes on every network; on this one it was not tested, so that a map is a hint and no proof."
)
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
    analyses = {
        name: _with_epochs(study, experiments[name], on_test(analysis, found[name]))
        for name, analysis in analyses.items()
    }  # fmt: skip
    content = {
        "data": photos, "pixels": {name: getattr(size, name) for name in ("small", "middle", "large")}, "test": found,
        "trained": _trained(study, analyses), "experiments": analyses,
    }  # fmt: skip
    compared = {name: _compared(study, experiments[name], analyses[name], found[name]) for name in experiments}
    sections = [_result(study, experiments, found, photos), _why(content)]
    sections += [compared.pop(name) for name in ("learning-curves",) if name in compared]
    sections += [page.Section("Limits", text=tuple(limits(content))), _data(study, experiments["parts"], photos)]
    sections.append(page.Section("Where it was trained", table=_trained_table(content["trained"])))
    sections += compared.values()
    sections += _each_part(study, experiments["parts"])
    sections += _attribution(study, size, experiments["parts"])
    for name in experiments:
        write_atomically(study.directory / f"{name}.csv", to_csv(analyses[name]["rows"]))
        write_atomically(study.directory / f"{name}-trials.csv", to_csv(analyses[name]["trials"]))
        write_atomically(study.directory / f"{name}-test.csv", to_csv([_flat(row) for row in found[name]]))
    write_atomically(study.directory / "metrics.json", json.dumps(content, indent=1) + "\n")
    goal = study.directory / "report.html"
    page.write(goal, "Task 4: transfer learning on buildings", sections)
    return goal


def _why(content):
    from tfproject.report import page

    return page.Section(
        "Why they come in this order",
        text=(sizes(content), *explanation(content), "Differences are paired by seed, intervals 95 % t-intervals over "
              "the seeds: which photos are tested is chance that they do not show. Here a difference counts as shown "
              "where its interval does not hold 0, each for itself; in the tables below p is corrected for the number "
              "of comparisons as well. Between two SVMs there is no chance of the seed."),
    )  # fmt: skip


def _with_epochs(study, experiment, analysis):
    """The analysis with the epochs of all stages ("40 + 6"), and with how many seeds the last one was the best."""
    stages = {v.name: [recipe.epochs for recipe in (*v.stages, v.recipe)] for v in experiment.variations if not v.svm}
    best_at_end = dict.fromkeys(stages, 0)
    for trial in analysis["trials"]:
        if not trial["diverged"] and trial["variation"] in stages:
            values = _run(study.directory / "runs" / trial["run"]).history["val_accuracy"]
            best_at_end[trial["variation"]] += int(np.argmax(values) == len(values) - 1)
    rows = [
        row | {"epochs_of_stages": " + ".join(map(str, stages.get(row["variation"], ()))) or None,
               "best_at_end": best_at_end.get(row["variation"])}
        for row in analysis["rows"]
    ]  # fmt: skip
    return analysis | {"rows": rows}


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
        "Means are over the seeds, intervals 95 % t-intervals over the seeds, and Wilson's of the photos where every "
        "seed gives the same, as an SVM does. Nothing was chosen by the test photos. "
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
        "none of them. An SVM has margins, whose softmax stands for probabilities."
    )
    return page.Section(
        "Result", text=tuple(text), table=(head, *cells),
        figures=(_drawn(study, "parts", transfer_figures.parts(rows),
                        "Accuracy of each part on test, with 95 % intervals."),),
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
    from tfproject.experiments.page import CORRECTED
    from tfproject.report import page

    of = {row["variation"]: row for row in analysis["rows"]}
    variations = {variation.name: variation for variation in experiment.variations}
    tested = all(variation.has_test for variation in experiment.variations)
    # Where there is no test, the photos that are scored are those of validation, with the network in float32.
    scored = ("test", "without duplicates") if tested else ("validation, scored", "the same without duplicates")
    on_validation = "against" not in analysis["rows"][0]
    compared = ("difference", "corrected p") if on_validation else _heads_on_test()
    head = ("variation", "training photos", "validation", *compared, *scored, "balanced", "AUROC, least sure",
            "differs in")  # fmt: skip
    cells = [
        (name, f"{row['train_images']:,}", _or_nothing(of[name]["val_accuracy"], ".2%"),
         *((_points(of[name]["difference"]), _or_nothing(of[name]["p_corrected"], ".2g")) if on_validation
           else _cells_on_test(of[name])),
         _percent(row["test"]), _percent(row["distinct"]), _percent(row["balanced_accuracy"]),
         _number(row["auroc_least_sure"]), differs_in(variations[name], variations[experiment.baseline]))
        for name, row in ((row["variation"], row) for row in rows)
    ]  # fmt: skip
    rule = CORRECTED if on_validation else None
    return page.Section(
        experiment.name.replace("-", " ").capitalize(),
        text=tuple(filter(None, (experiment.question, *analysis["reading"], rule, analysis["remark"]))),
        table=(head, *cells),
        figures=tuple(_of_experiment(study, experiment, analysis, rows)),
        links=tuple((f"{experiment.name}{end}.csv", text) for end, text in (
            ("", "All columns"), ("-test", "What is scored"), ("-trials", "Every trial"),
        )),
    )  # fmt: skip


def _heads_on_test():
    return [text for called in MEASURES.values() for text in (f"{called} on test, difference", "corrected p")]


def _cells_on_test(row):
    """The differences of a row that `on_test` compared."""
    return [
        text for measure in MEASURES
        for text in (_points(row[f"{measure}_difference"]), _or_nothing(row[f"{measure}_p_corrected"], ".2g"))
    ]  # fmt: skip


def _of_experiment(study, experiment, analysis, rows):
    """Figures of accuracies, and of loss and accuracy after each epoch."""
    from tfproject.report import experiment_figures, transfer_figures

    if experiment.name == "learning-curves":
        yield _learning_curves(study, experiment, rows)
    accuracy = experiment_figures.accuracy(analysis["rows"], analysis["trials"], analysis["baseline"])
    yield _drawn(
        study, f"{experiment.name}-accuracy", accuracy,
        "Accuracy of each variation: every seed, and the mean with its 95 % interval; the dotted line is the mean of "
        f"'{analysis['baseline']}' on validation. An interval that is wider than the picture runs out of it.",
    )  # fmt: skip
    histories = {}
    for trial in analysis["trials"]:
        run = study.directory / "runs" / trial["run"]
        if not trial["diverged"] and (run / "history.csv").exists():
            histories.setdefault(trial["variation"], []).append(history_of(_run(run)))
    if not histories or experiment.name == "learning-curves":  # two dozen, which nobody could tell apart
        return
    trained = [variation for variation in experiment.variations if variation.name in histories]
    ends = sorted({end for variation in trained for end in _stage_ends(variation)})
    colours = _colours([variation.name for variation in experiment.variations], study)
    yield _drawn(
        study, f"{experiment.name}-curves", transfer_figures.loss_and_accuracy(histories, colours, ends),
        "Loss and accuracy after each epoch, the mean of the seeds. "
        + " ".join(filter(None, (
            ends and "Stages follow one another; at a dotted line one begins.",
            _training_words(bool(ends)), *_loss_words(study, experiment, trained),
        ))),
    )  # fmt: skip


def _stage_ends(variation):
    """After how many epochs each stage but the last ends."""
    return np.cumsum([recipe.epochs for recipe in variation.stages]).tolist()


def _colours(names, study):
    """A colour for each variation; where some are the parts' own, these have the colours of the parts' figure."""
    from tfproject.report import style

    parts = [variation.name for variation in study.experiments[0].variations]
    return style.class_colours(list(dict.fromkeys((*parts, *names))) if set(parts) & set(names) else names)


def _training_words(has_stages):
    text = "In training they are the running means over the epoch, with dropout and of augmented photos"
    if not has_stages:
        return f"{text}."
    return f"{text}, but for the first stage, in which VGG16's new layers alone are trained, on photos as they are."


def _loss_words(study, experiment, variations):
    """What the losses cannot fall below, as label smoothing is in them, and that others are not to be compared."""
    floors = {}
    for variation in variations:
        classes = len(study.images_of(Trial(variation, experiment.seeds[0])).class_names)
        floor = f"{_least_loss(variation.recipe.label_smoothing, classes):.2f}"
        floors.setdefault(floor, []).append(f"'{variation.name}'")
    if len(floors) == 1:
        (floor,) = floors
        if float(floor):
            yield f"Label smoothing is in both losses, which so cannot fall below {floor}."
    else:
        listed = "; ".join(f"{floor} for {', '.join(names)}" for floor, names in floors.items())
        yield (
            "Label smoothing is in both losses, where there is any, so that they cannot fall below "
            f"{listed}: losses with different such floors are not to be compared."
        )


def _least_loss(smoothing, classes):
    """The entropy of smoothed labels, in nats."""
    labels = np.full(classes, smoothing / classes)
    labels[0] += 1 - smoothing
    return float(-np.sum(labels * np.log(np.where(labels > 0, labels, 1)))) + 0.0


def _learning_curves(study, experiment, rows):
    from tfproject.report import transfer_figures

    trial = Trial(experiment.variations[0], experiment.seeds[0])
    classes, curves = len(study.images_of(trial).class_names), {}
    for row in rows:
        found = row["balanced_accuracy"]
        if found["mean"] is not None:
            point = {"per_class": row["train_images"] / classes, "accuracies": found["values"]}
            curves.setdefault(row["group"], []).append(point | {key: found[key] for key in ("mean", "low", "high")})
    for points in curves.values():
        points.sort(key=lambda point: point["per_class"])
    of_parts = _colours(list(task.CURVES.values()), study)
    colours = {group: of_parts[task.CURVES[group]] for group in curves}
    figure = transfer_figures.learning_curves(curves, 1 / classes, colours)
    return _drawn(study, "learning-curves", figure, CURVES_CAPTION)


CURVES_CAPTION = (
    "Balanced accuracy, the mean recall of the classes, on test photos without duplicates in training by training "
    "photos a class: every seed, and the mean with its 95 % interval. All points but the last are of as many photos of "
    "each class, the last is of the classes as they are. Plain accuracy would rise with that mix alone, which the test "
    "has too; it is in learning-curves-test.csv."
)


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
            ends = [f"after epoch {end} a new stage begins" for end in _stage_ends(variation)]
            said = " ".join((_training_words(bool(ends)), *_loss_words(study, experiment, [variation])))
            drawn.append(_drawn(study, f"{name}-curves", curves,
                                f"{variation.name}: {', '.join(('loss and accuracy', *ends))}. {said}"))  # fmt: skip
        content = {key: value for key, value in run.metrics["test"].items() if key != "unknown"}
        scores = _of_tested_classes(evaluation.Scores.from_json(content))
        drawn.append(_drawn(
            study, f"{name}-confusion", _confusion(scores),
            f"{variation.name}: test photos by true class (rows) and predicted class (columns), in percent of the true "
            "class.",
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


def _of_tested_classes(scores):
    """The scores with the classes that have test photos, and in their confusions one more for all others together."""
    counts = np.array(scores.confusion)
    tested = counts.sum(axis=1) > 0
    if tested.all():
        return scores
    rows = [row for row in scores.per_class if row["support"]]
    confusion = np.zeros((len(rows) + 1, len(rows) + 1), int)
    confusion[:-1, :-1] = counts[np.ix_(tested, tested)]
    confusion[:-1, -1] = counts[np.ix_(tested, ~tested)].sum(axis=1)
    return dataclasses.replace(
        scores, per_class=rows, class_names=[*(row["class"] for row in rows), UNTESTED],
        macro_f1=float(np.mean([row["f1"] for row in rows])), confusion=confusion.tolist(),
    )  # fmt: skip


def _confusion(scores):
    from tfproject.report import figures

    figure = figures.confusion_matrix(scores.confusion, scores.class_names, normalise=True)
    if scores.class_names[-1] == UNTESTED:
        figure.axes[0].set_ylim(len(scores.class_names) - 1.5, -0.5)  # without its row, which is empty
    return figure


def _attribution(study, size, experiment):
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
    text = (LOOKS_WORDS.format(side=size.large // POOLED, photos=len(chosen)),)
    if not run.model_path.exists():  # of a run that was published there are no more than its numbers and this
        return [page.Section(LOOKS, text=text, figures=((drawing.read_bytes(), caption),))]
    (found,) = probabilities(trial, run, images, [chosen], study.features)
    said = found.argmax(axis=1)
    maps = attribute(run.model, chosen.images, said, methods=("gradcam", "gradcam++"))
    names = images.class_names
    titles = [
        f"{names[true]}" + ("" if true == guess else f"\nas {names[guess]}")
        for true, guess in zip(chosen.labels, said)
    ]  # fmt: skip
    figure = attribution_figures.attribution_sheet(chosen.images, maps, titles)
    return [page.Section(LOOKS, text=text, figures=(_drawn(study, "gradcam", figure, caption),))]


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
