"""What each task's artefacts say, as sections of the final report: nothing in them that no file says."""

import dataclasses
import json
import pathlib

from tfproject.experiments.reading import read_contrasts
from tfproject.report.report_parts import (
    INTERVALS,
    Comparison,
    Measured,
    Section,
    Table,
    accuracy_of,
    as_summary,
    card_limits,
    cells,
    confusion_picture,
    curves_picture,
    data_of_runs,
    data_words,
    differences_shown,
    epochs_of_stages,
    highest,
    in_views,
    is_synthetic,
    joined,
    over_seeds,
    points,
    published_picture,
    read,
    resampled,
    seeds_in_words,
    share_of,
    sources,
    synthetic_limit,
    told,
    trained_on,
    trainings,
    upper,
    variations_table,
    views_of,
)
from tfproject.tasks.task2_experiments import PUBLISHED

# The course project's accuracies on test, where the artefacts do not carry them: single runs, no intervals given.
COURSE_CIFAR10 = PUBLISHED["BatchNorm"]
COURSE_EUROSAT = {"own CNN": 0.680, "VGG16": 0.890}
FOLDERS = {
    "task1": "task1-custom-cnn", "task2": "task2-experiments", "task3": "task3-visualizations",
    "task4": "task4-losses", "task5": "open-project",
}  # fmt: skip
GAP = "accuracy on training images less that on validation"
# Of transfer learning, where the frozen part has run before.
RUNNING_GAP = (
    "accuracy in the last epoch's training, its photos changed by augmentation and units dropped, less that on "
    "validation, so that it may be below 0; of SVMs accuracy on training photos less that on validation"
)
NETWORKS = {"custom_cnn": "the course's custom CNN", "whitened_cnn": "a strong small CNN"}


def sections(results):
    """The five tasks as they stand.

    Args:
        results: the folder that the tasks publish to.

    Returns:
        A list of five Sections; one of a task without results says so by `missing`.
    """
    results = pathlib.Path(results)
    return [make(results / FOLDERS[name]) for name, make in SECTIONS.items()]


def _task1(folder):
    from tfproject.statistics import summarise

    section = Section(
        "task1", "Custom CNNs on CIFAR-10, and what each layer costs",
        "How well can a small convolutional network classify CIFAR-10 from scratch, and where do its memory and "
        "arithmetic go?",
    )  # fmt: skip
    runs = {}
    for path in sorted(folder.glob("*-seed*/metrics.json")):
        measured = json.loads(path.read_text())
        if "test" in measured:
            runs.setdefault(path.parent.name.split("-seed")[0], []).append((path.parent, measured))
    if not runs:
        return section
    rows, text, pictures, comparisons, limits, conclusions = [], [], [], [], [], []
    whole = read(folder / "metrics.json") or {}
    for name in sorted(runs, key=lambda name: (name != "custom_cnn", name)):
        own, called = runs[name], NETWORKS.get(name, name)
        key, views = max(
            ((key, views_of(key)) for key in own[0][1] if key.startswith("test")), key=lambda pair: pair[1]
        )  # fmt: skip
        found = accuracy_of(summarise([m[key]["accuracy"] for _, m in own]), own[0][1][key]["accuracy_interval"])
        training = own[0][1]["training"]
        said = f"{upper(called)}, {training['parameters']:,} parameters, trained for {training['epochs']} epochs "
        said += f"on {training['images']:,} images, gets {told(found)} of the {own[0][1][key]['count']:,} test images "
        said += f"right, with {in_views(views)}."
        text.append(said)
        for folder_of, measured in own:
            scores = measured[key]
            rows.append((
                called, folder_of.name.split("-seed")[1], str(views),
                Measured(scores["accuracy"], *scores["accuracy_interval"]), *resampled(scores["confusion"]),
                f"{measured['training']['seconds'] / 60:.0f}",
            ))  # fmt: skip
        conclusions.append(f"On CIFAR-10 {called} gets {told(found)} of the test images right.")
        if name == "custom_cnn":
            comparisons.append(Comparison("Task 1", "the custom CNN, CIFAR-10", found, COURSE_CIFAR10))
        if len(own) < 3:
            limits.append(
                f"Task 1: {called} was trained from {seeds_in_words(len(own))}: how much a seed changes is not shown."
            )
        pictures += [
            curves_picture(own[0][0], f"{upper(called)}: "),
            confusion_picture(own[0][1][key], f"{upper(called)}: "),
        ]
    if missing := [called for name, called in NETWORKS.items() if name not in runs]:
        text.append(f"Missing: {joined(missing)}, which has no finished run yet.")
    for path in (folder / "cost").glob("custom_cnn-shares.png"):
        pictures.insert(0, published_picture(
            path, "The custom CNN: each layer's share of parameters, kept activations and arithmetic.",
            "Bars, a row for each layer of the custom CNN: its share of the parameters, of the activations that "
            "training keeps, and of the arithmetic.",
        ))  # fmt: skip
    reasons = whole.get("costs", {}).get("custom_cnn", {}).get("reasons", ())
    text += [reason for reason in reasons[:2]]
    tables = [Table(
        f"Each run on the test images with 95 % intervals: {INTERVALS}.",
        ("network", "seed", "views", "accuracy", "macro F1", "kappa", "minutes"),
        cells(rows),
    )]  # fmt: skip
    if memory := whole.get("memory"):
        tables.append(Table(
            "The custom CNN: peak memory of a training step, predicted from its layers and measured.",
            ("batch", "predicted, MB", "measured, MB", "difference"),
            cells(
                (row["batch_size"], f"{row['predicted_bytes'] / 1e6:.1f}", f"{row['measured_bytes'] / 1e6:.1f}",
                 f"{row['predicted_bytes'] / row['measured_bytes'] - 1:+.1%}")
                for row in memory
            ),
        ))  # fmt: skip
    if "costs" not in whole:
        text.append("Missing: what each layer costs, which has not been measured yet.")
    card = read(folder.parent.parent / "saved_models" / "cifar10_custom_cnn.json") or {}
    text += data_words(whole.get("data") or card.get("data"), data_of_runs(folder))
    return dataclasses.replace(
        section, text=tuple(text), tables=tuple(tables), pictures=tuple(filter(None, pictures)),
        comparisons=() if is_synthetic(whole) else tuple(comparisons), conclusions=tuple(conclusions),
        limits=(*limits, *synthetic_limit("Task 1", whole)),
        sources=sources(folder, "metrics.json", *(f"{run.name}/metrics.json" for o in runs.values() for run, _ in o)),
        trainings=trainings(folder),
    )  # fmt: skip


def _task2(folder):
    section = Section(
        "task2", "Experiments: augmentation, batch size, BatchNorm, overfit and its cures",
        "What does each choice in training the custom CNN change, beyond what a seed changes?",
    )  # fmt: skip
    metrics = read(folder / "metrics.json")
    if not metrics:
        return section
    text, tables, pictures, comparisons, conclusions = [], [], [], [], []
    for name, analysis in metrics["experiments"].items():
        called = name.replace("-", " ")
        # What is left open stands in the table.
        pairs = read_contrasts(analysis["contrasts"]) if analysis.get("contrasts") else None
        said = (f"The baseline is trained {trained_on(analysis)}.", analysis["reading"][0], pairs, analysis["remark"])
        text.append(f"{upper(called)}. {' '.join(filter(None, said))}")
        tables.append(variations_table(called, analysis, GAP))
        conclusions.append(f"{upper(called)}, {trained_on(analysis)}: {differences_shown(analysis)}")
        pictures.append(published_picture(
            folder / f"{name}-accuracy.png",
            f"{upper(called)}: accuracy on validation, every seed and the mean with its 95 % interval.",
            f"Dots with intervals, a row for each variation. {highest(analysis)}",
        ))  # fmt: skip
        for row in analysis["rows"]:
            if None not in (row["published_test_accuracy"], row["test_accuracy"]):
                ours = Measured(row["test_accuracy"], row["test_accuracy_low"], row["test_accuracy_high"],
                                f"t-interval over {seeds_in_words(row['seeds'])}")  # fmt: skip
                comparisons.append(Comparison(
                    "Task 2", f"the custom CNN, {row['variation']}", ours, row["published_test_accuracy"]
                ))  # fmt: skip
    seeds = {len(analysis["seeds"]) for analysis in metrics["experiments"].values()}
    limits = (
        [f"Task 2: every comparison has {seeds_in_words(min(seeds))}, so only large differences can be shown."]
        if seeds
        else []
    )
    text.append(
        "Means are over the seeds with 95 % t-intervals, each for itself; differences are to the experiment's "
        "baseline, paired by seed; 'shown' is said where p, corrected by Holm's method, is below 0.05 too."
    )
    text += data_words(metrics["data"])
    return dataclasses.replace(
        section, text=tuple(text), tables=tuple(tables), pictures=tuple(filter(None, pictures)),
        comparisons=() if is_synthetic(metrics) else tuple(comparisons), conclusions=tuple(conclusions),
        limits=(*limits, *synthetic_limit("Task 2", metrics)), sources=sources(folder, "metrics.json"),
        trainings=trainings(folder),
    )  # fmt: skip


def _task3(folder):
    section = Section(
        "task3", "What the networks have learnt",
        "What do the units of the custom CNN and of VGG16 stand for, and are maps of where a network looks true?",
    )  # fmt: skip
    metrics = read(folder / "metrics.json")
    if not metrics or not metrics["networks"]:
        return section
    text, rows, checks, pictures, conclusions = [], [], [], [], []
    for name, found in metrics["networks"].items():
        scores = found["scores"]
        said = f"{name} ({found['subtitle']}): {scores['parameters']:,} parameters, "
        said += f"{sum(scores['units'].values()):,} units in {len(scores['units'])} layers"
        if "accuracy" in scores:
            said += f"; {told(Measured(scores['accuracy'], *scores['accuracy_interval']))} of {scores['images']:,} "
            said += f"images of the split {scores['split']} right"
        text.append(f"{said}.")
        text += [f"{name}: {sentence}" for sentence in found["story"][:3]]
        conclusions += [f"{name}: {sentence}" for sentence in found["conclusions"]]
        activity, embedding = found.get("activations", {}), found.get("embedding", {}).get("layers", ())
        last = embedding[-1] if embedding else None
        rows.append((
            name, f"{scores['images']:,}", *(f"{activity[kind]:,}" if kind in activity else "" for kind in
                                              ("units", "dead", "saturated", "always_on")),
            share_of(round(last["accuracy"] * last["images"]), last["images"]) if last else "",
        ))  # fmt: skip
        for method, row in found.get("faithfulness", {}).get("methods", {}).items():
            checks.append((
                name, method, f"{row['sanity_correlation']:.2f}",
                *("{:.3f} ({:.3f}, {:.3f})".format(*(row[f"{kind}_{of}"] for of in ("auc", "control", "others")))
                  for kind in ("deletion", "insertion")),
                row["verdict"],
            ))  # fmt: skip
    for file, caption, alt in (
        ("kinds", "what the units of each layer stand for", "Stacked bars, one for each layer from the image to the "
         "classes: the shares of units that stand for a class, a group of classes, a colour, another thing or nothing"),
        ("attribution", "maps for the class that the network says, by each method", "A row for each image: the image, "
         "then the map of each attribution method laid over it, bright where the method sees most"),
        ("selectivity", "how selective for a class the units of each layer are", "The selectivity of every unit for "
         "a class, layer by layer, with each layer's median and quartiles"),
    ):  # fmt: skip
        for name in metrics["networks"]:
            pictures.append(
                published_picture(folder / name / "figures" / f"{file}.png", f"{name}: {caption}.", f"{name}. {alt}.")
            )
    tables = [Table(
        "Units, and how well the network's output tells the class by nearest neighbours.",
        ("network", "images", "units", "dead", "saturated", "always on", "class by neighbours (95 % interval)"),
        cells(rows),
    )]  # fmt: skip
    if checks:
        tables.append(Table(
            "Whether attribution maps are true: similarity after the weights are randomised (near 0 is good), and the "
            "class's probability while pixels are deleted (low is good) or inserted (high is good), beside the same "
            "by the map moved in its image, and by other images' maps.",
            ("network", "method", "after randomising", "deletion (moved, others')", "insertion (moved, others')",
             "verdict"),
            cells(checks),
        ))  # fmt: skip
    text += data_words(metrics["data"])
    checked = [
        f"{found['faithfulness']['images']} images of {name}"
        for name, found in metrics["networks"].items() if "faithfulness" in found
    ]  # fmt: skip
    limits = [f"Task 3: attribution maps were checked on {joined(checked)}."] if checked else []
    return dataclasses.replace(
        section, text=tuple(text), tables=tuple(tables), pictures=tuple(filter(None, pictures)),
        conclusions=tuple(conclusions), limits=(*limits, *synthetic_limit("Task 3", metrics)),
        sources=sources(folder, "metrics.json"), trainings=trainings(folder),
    )  # fmt: skip


def _task4(folder):
    from tfproject.experiments.page import CORRECTED
    from tfproject.statistics import wilson
    from tfproject.tasks.task4_page import CURVES_CAPTION
    from tfproject.tasks.task4_reading import explanation, limits, sizes
    from tfproject.tasks.task4_transfer import SVM

    section = Section(
        "task4", "Transfer learning on buildings",
        "How much does it help to start from what another training has learnt, when there are few photos?",
    )  # fmt: skip
    metrics = read(folder / "metrics.json")
    if not metrics:
        return section
    photos, parts = metrics["data"], metrics["test"]["parts"]
    published = {row["variation"]: row["published_test_accuracy"] for row in metrics["experiments"]["parts"]["rows"]}
    text, rows, comparisons, known = [], [], [], {}
    for part in parts:
        name, found = part["variation"], part["distinct"]
        if found["mean"] is None:
            text.append(f"'{name}' diverged with at least one seed, so no mean is given.")
            rows.append((name, f"{part['train_images']:,}", "diverged", "", ""))
            continue
        ours, all_photos = (
            accuracy_of(as_summary(part[key]), wilson(round(part[key]["mean"] * part[count]), part[count]))
            for key, count in (("distinct", "scored_distinct"), ("test", "scored"))
        )
        known[name] = ours
        rows.append((
            name, f"{part['train_images']:,}", ours, all_photos, over_seeds(part["auroc_least_sure"], ".2f")
        ))  # fmt: skip
        if published.get(name) is not None and name != SVM:  # which has the softmax's number
            comparisons.append(
                Comparison("Task 4", name[2:] if name[:2].strip().isdigit() else name, ours, published[name])
            )
    conclusions = []
    if known:
        best = max(known, key=lambda name: known[name].mean)
        first = parts[0]["variation"]
        sentence = "Of the parts, the highest accuracy on test photos without duplicates in training is that of "
        sentence += f"'{best}', {told(known[best])}."
        if first in known and best != first:
            sentence += f" From scratch ('{first}') it is {told(known[first])}."
        text.insert(0, sentence)
        explained = list(explanation(metrics))
        text += explained
        text.append(
            "Of two parts a difference counts as shown where its interval does not hold 0, each for itself; in the "
            f"experiments below {CORRECTED}" + (f" {sizes(metrics)}" if "pixels" in metrics else "")
        )
        conclusions += [f"On buildings, {sentence}" for sentence in explained]
    text.append(
        f"The set: {sum(map(sum, photos['counts'].values())):,} photos in {len(photos['class_names'])} classes, the "
        f"largest {photos['imbalance_ratio']:.1f} times the smallest; {photos['with_duplicates']} photos have a "
        f"duplicate or near duplicate, {len(photos['left_out_of_test'])} test photos are left out because training has "
        f"one, {len(photos['bad_images'])} files cannot be read. Always saying the most frequent class would be right "
        f"for {photos['most_frequent']:.1%}."
    )
    for name, analysis in metrics["experiments"].items():
        if name != "parts":
            base = None if _on_test(analysis) else f"The baseline is trained {trained_on(analysis)}."
            said = [base, *analysis["reading"], analysis["remark"]]
            text.append(f"{upper(name.replace('-', ' '))}. {' '.join(filter(None, said))}")
    text += data_words(photos)
    pictures = [
        published_picture(folder / "figures" / "parts.png",
                   "Accuracy of each part on test, with 95 % intervals, and the course project's.",
                   f"Dots with intervals, a row for each part: {'; '.join(f'{n} {m}' for n, m in known.items())}."),
        published_picture(folder / "figures" / "learning-curves.png",
                   CURVES_CAPTION, "A line for each way of training over the number of training photos a class."),
        published_picture(folder / "figures" / "gradcam.png", "What speaks for the predicted class, by Grad-CAM.",
                   "Test photos with heat maps of where the evidence for the predicted class lies."),
    ]  # fmt: skip
    tables = [Table(
        "Each part, mean over the seeds with the 95 % t-interval, or Wilson's of the photos where every seed gives the "
        "same; without duplicates of training photos unless said.",
        ("part", "training photos", "accuracy", "with duplicates", "AUROC of unknown"),
        cells(rows),
    )]  # fmt: skip
    for name, analysis in metrics["experiments"].items():
        if _on_test(analysis):
            tables.append(_table_on_test(analysis, metrics["test"][name]))
        elif name != "parts":
            tables.append(variations_table(name.replace("-", " "), analysis, RUNNING_GAP))
    return dataclasses.replace(
        section, text=tuple(text), tables=tuple(tables), pictures=tuple(filter(None, pictures)),
        comparisons=() if is_synthetic(metrics) else tuple(comparisons), conclusions=tuple(conclusions),
        limits=(*(f"Task 4: {limit}" for limit in limits(metrics)), *synthetic_limit("Task 4", metrics)),
        sources=sources(folder, "metrics.json"), trainings=trainings(folder),
    )  # fmt: skip


def _on_test(analysis):
    """Whether the analysis has differences on test in place of those on validation."""
    return "against" in analysis["rows"][0]


def _table_on_test(analysis, found):
    from tfproject.tasks.task4_reading import MEASURES

    scored = {row["variation"]: row for row in found}
    rows = [
        (row["variation"], f"{scored[row['variation']]['train_images']:,}", *(
            text for measure in MEASURES for text in (
                over_seeds(scored[row["variation"]][measure], ".1%"),
                points(*(row[f"{measure}_{part}"] for part in ("difference", "low", "high"))),
            )
        ))
        for row in analysis["rows"]
    ]  # fmt: skip
    called = upper(analysis["name"].replace("-", " "))
    return Table(
        f"{called}: {analysis['question']} On test photos without duplicates in training, means with 95 % t-intervals; "
        "differences in points, to what the text says.",
        ("variation", "photos", *(text for called in MEASURES.values() for text in (called, "difference"))),
        cells(rows),
    )


def _task5(folder):
    from tfproject.tasks.task5_eurosat import PARTS

    section = Section(
        "task5", "Open project: land use and land cover from EuroSAT",
        "How well can satellite tiles be classified from scratch, and does that hold in a region never seen?",
    )  # fmt: skip
    metrics = read(folder / "metrics.json")
    if not metrics:
        return section
    from tfproject.tasks.task5_page import FOR_COMPARISON, minutes_lack

    parts, text, rows, comparisons, conclusions, limits, known = metrics["parts"], [], [], [], [], [], {}
    for name, found in _finals(parts):
        chosen = found["test"][str(found["views"])]
        ours = accuracy_of(as_summary(chosen["accuracy"]), chosen["intervals"][0])
        known[name] = ours
        text.append(
            f"{name}: {told(ours)} of {found['test_images']:,} test tiles right, with {in_views(found['views'])}; "
            f"{found['parameters']:,} parameters, {epochs_of_stages(found)} epochs, at most "
            f"{max(found['seconds']) / 60:.0f} minutes a run{minutes_lack(found)}."
        )
        for i, accuracy in enumerate(chosen["accuracies"]):
            rows.append((name, str(i + 1), str(found["views"]), Measured(accuracy, *chosen["intervals"][i]),
                         f"{found['seconds'][i] / 60:.0f}"))  # fmt: skip
        if len(chosen["accuracies"]) < 3:
            limits.append(f"Task 5: '{name}' was trained from {seeds_in_words(len(chosen['accuracies']))}.")
        conclusions.append(f"{name} gets {told(ours)} of the test tiles right.")
    if FROM_SCRATCH in known:
        comparisons.append(Comparison("Task 5", "own CNN, EuroSAT", known[FROM_SCRATCH], COURSE_EUROSAT["own CNN"]))
    if (vgg16 := "VGG16 fine-tuned, random split") in known:
        comparisons.append(Comparison("Task 5", "VGG16, EuroSAT", known[vgg16], COURSE_EUROSAT["VGG16"]))
    if known and not is_synthetic(metrics):
        text.append(FOR_COMPARISON)
    if (drop := parts.get("analysis", {}).get("drop")) and not is_synthetic(metrics):
        from tfproject.tasks.task5_page import spatial_words

        conclusions.append(spatial_words(drop))
    if missing := [part for part in PARTS if part not in parts]:
        text.append(f"Missing, as not finished yet: {joined(missing)}.")
    text += _task5_parts(parts)
    pictures = [confusion_picture(metrics["test"], "The first run on the random split: ")] if "test" in metrics else []
    shown = {pathlib.Path(file).name: (file, caption) for found in parts.values() for file, caption in found["figures"]}
    for name, alt in TASK5_PICTURES.items():
        if name in shown:
            file, caption = shown[name]
            pictures.append(published_picture(folder / file, caption, alt))
    tables = [Table(
        "Each run on the test tiles; the interval is Wilson's.",
        ("network and split", "run", "views", "accuracy (95 % interval)", "minutes"),
        cells(rows),
    )]  # fmt: skip
    if "steps" in parts:
        tables.append(Table(
            "The model improved in steps, each with all before it: accuracy on validation and the gain in points, "
            "paired by seed.",
            ("step", "accuracy (95 % interval)", "gain (95 % interval)"),
            cells(
                (row["step"],
                 "diverged" if row["accuracy"] is None else Measured(row["accuracy"], row["low"], row["high"]),
                 points(row["gain"], row["gain_low"], row["gain_high"]))
                for row in parts["steps"]["gains"]
            ),
        ))  # fmt: skip
    if "test" in metrics:
        tables.append(_per_class(metrics["test"]))
    for name in ("eurosat_best", "eurosat_spatial"):
        told_there = card_limits(folder.parent.parent / "saved_models" / f"{name}.json", "Task 5")
        limits += [limit for limit in told_there if limit not in limits]
    text += data_words(metrics.get("data"), data_of_runs(folder))
    return dataclasses.replace(
        section, text=tuple(text), tables=tuple(tables), pictures=tuple(filter(None, pictures)),
        comparisons=() if is_synthetic(metrics) else tuple(comparisons), conclusions=tuple(conclusions),
        limits=(*limits, *synthetic_limit("Task 5", metrics)),
        sources=sources(folder, "metrics.json"), trainings=trainings(folder),
    )  # fmt: skip


FROM_SCRATCH = "From scratch, random split"
TASK5_PICTURES = {
    "exploration-samples.png": "A row of training tiles for each class, as the satellite shows them in visible light.",
    "analysis-random-to-spatial.png": "Two points for each class: its recall on the random and on the spatial split.",
    "steps-accuracy.png": "Dots with intervals, a row for each step from the plain CNN to the final network.",
    "analysis-hardest.png": "Recall of each class with its interval, the hardest on top.",
    "analysis-reliability.png": "How often the network is right over how sure it is, before and after scaling.",
    "analysis-robustness.png": "Accuracy over the severity of each corruption of the tiles.",
    "analysis-attribution-classes.png": "A tile of each class with the maps of each attribution method for that class.",
}  # fmt: skip


def _finals(parts):
    """The final networks: (name, what their runs came to) of each."""
    for kind in ("random", "spatial"):
        if kind in parts:
            yield f"From scratch, {kind} split", parts[kind]
    for kind in ("random", "spatial"):
        if kind in parts.get("vgg16", {}):
            yield f"VGG16 fine-tuned, {kind} split", parts["vgg16"][kind]


def _task5_parts(parts):
    """A sentence or two about each of the parts around the final networks."""
    if "exploration" in parts:
        floor = parts["exploration"]["colour_floor"]
        yield (
            "A linear model on the tiles' colour statistics alone gets "
            f"{told(Measured(floor['accuracy'], *floor['accuracy_interval']))} of {floor['count']:,} validation tiles "
            "right: the floor that a network must beat."
        )
    for name, analysis in parts.get("preparation", {}).get("experiments", {}).items():
        yield f"{upper(name.replace('-', ' '))}. {' '.join(analysis['reading'])}"
    if "analysis" in parts:
        found = parts["analysis"]
        scaled, noise = found["calibration"], found["label_noise"]["share"]
        yield (
            f"The calibration error on the test tiles, with {in_views(found['views'])}, is "
            f"{scaled['before']['calibration_error']:.3f}, and "
            f"{scaled['after']['calibration_error']:.3f} with a temperature of {scaled['temperature']:.2f} fitted on "
            f"validation. {noise['hits']} of {noise['count']:,} test tiles are candidates for a wrong label "
            f"({noise['low']:.2%} to {noise['high']:.2%})."
        )
        strongest = [row for row in found["robustness"] if row["severity"] == 5]
        if strongest:
            worst = min(strongest, key=lambda row: row["accuracy"])
            yield (
                f"Of {worst['count']:,} test tiles made worse, {worst['corruption']} at its highest severity costs "
                f"most: {worst['accuracy']:.1%} are right."
            )


def _per_class(test):
    counts, rows = test["confusion"], []
    for i, name in enumerate(test["class_names"]):
        true, said = sum(counts[i]), sum(row[i] for row in counts)
        rows.append(
            (
                counts[i][i] / max(true, 1),
                (name, f"{true:,}", share_of(counts[i][i], true), share_of(counts[i][i], said)),
            )
        )
    macro_f1, kappa = resampled(counts)
    return Table(
        f"Each class of the first run on the random split, one view, the hardest first. Macro F1 {macro_f1}, kappa "
        f"{kappa}; {INTERVALS}.",
        ("class", "test tiles", "recall (95 % interval)", "precision (95 % interval)"),
        cells(row for _, row in sorted(rows, key=lambda pair: pair[0])),
    )  # fmt: skip


SECTIONS = {"task1": _task1, "task2": _task2, "task3": _task3, "task4": _task4, "task5": _task5}
