"""Task 5's page: what each finished part came to, in words made from its numbers."""

import dataclasses
import json
import pathlib

from tfproject.files import write_atomically
from tfproject.statistics import holm
from tfproject.wording import between, percent, points

HEADINGS = {
    "exploration": "Data exploration",
    "search": "Hyper-parameters by search",
    "preparation": "Preparation: what was decided, and what it is worth",
    "steps": "The model, improved in steps",
    "random": "The final network on the random split",
    "spatial": "The final network on the spatial split",
    "vgg16": "VGG16 fine-tuned for comparison",
    "analysis": "What the final network does on tiles it has not seen",
}


def write(task):
    """Write metrics.json and report.html from what is finished.

    Args:
        task: the Task.

    Returns:
        The page's pathlib.Path.
    """
    from tfproject.report import page
    from tfproject.tasks.task5_eurosat import PARTS

    parts = {part: found for part in PARTS if (found := task.finding(part)) is not None}
    tiles = task.tiles("random")
    metrics = {
        "data": {
            "name": tiles.name, "description": tiles.origin.description, "licence": tiles.origin.licence,
            "synthetic": tiles.origin.synthetic, "sha256": tiles.fingerprint, "split": tiles.split_method,
            "images": {name: len(split) for name, split in tiles.splits.items()},
        },
        "parts": parts,
        "questions": {part: task.question(part) for part in parts},
    }  # fmt: skip
    if "random" in parts:
        first = task.run(parts["random"]["runs"][0]).metrics
        metrics |= {"training": first["training"], "validation": first["validation"], "test": first["test"]}
    write_atomically(task.directory / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    sections = [_summary(metrics)]
    for part, heading in HEADINGS.items():
        if part not in parts:
            sections.append(page.Section(heading, text=(f"The part '{part}' is missing: it is not finished yet.",)))
            continue
        # That of the drop stands with its numbers.
        figures = [figure for figure in parts[part]["figures"] if DROP_FIGURE not in figure[0]]
        own = list(SECTIONS[part](parts[part], heading))
        sections += _illustrated(task, own, parts[part] | {"figures": figures})
        if part == "spatial":
            sections.append(_random_to_spatial(parts, task))
    sections += [_conclusions(parts, task.data == "eurosat"), _limits(parts), _extensions(parts)]
    goal = task.directory / "report.html"
    page.write(goal, "Task 5: land use and land cover from EuroSAT", sections)
    return goal


DROP_FIGURE = "analysis-random-to-spatial"
FOR_COMPARISON = (
    "For comparison, as published: 97.23 % is the best from scratch on RGB that we found, 98.57 % Helber et al.'s "
    "ResNet-50 pretrained on ImageNet with 80 % of the data, 96.6 % a Keras DenseNet121 on the random split's very "
    "lists. On 12 or 13 bands linear probes of frozen foundation models reach 98.33 % (DOFA Large, 337 million "
    "parameters) and 99.02 % (OlmoEarth Large, 668 million), and 33 hand-made features of 13 bands 96.04 % (other "
    "splits)."
)
# A saved model abstains from what it is not sure of where this share of its answers is right then, and this share of
# the images or more still gets one, both on validation.
ANSWERED_RIGHT, ANSWERED = 0.99, 0.9
# By the beginning of their files' names; what stands nowhere goes to the part's last section, as do its tables.
FIGURES = {
    "Clusters and outliers": ("analysis-clusters", "analysis-outliers"),
    "Normalisation": ("normalisation-",),
    "Augmentation": ("augmentation-",),
    "Image size": ("image-size-",),
    "Calibration, and when it may abstain": ("analysis-reliability", "analysis-coverage"),
    "The hardest classes, and why": ("analysis-hardest", "analysis-pair", "analysis-distinguishing"),
    "Doubtful labels": ("analysis-label-noise",),
    "Bias": ("analysis-rates", "analysis-groups"),
    "Robustness": ("analysis-robustness", "analysis-corruptions"),
}


def _illustrated(task, sections, found):
    """A part's sections with its figures, and links to its tables."""
    left = [(pathlib.PurePath(file).name, (task.directory / file).read_bytes(), text)
            for file, text in found["figures"]]  # fmt: skip
    illustrated = []
    for section in sections:
        last = section is sections[-1]
        own = [each for each in left if last or each[0].startswith(FIGURES.get(section.heading, ("/",)))]
        left = [each for each in left if each not in own]
        links = tuple((file, file) for file in found["files"]) if last else ()
        pictures = tuple((png, text) for _, png, text in own)
        illustrated.append(dataclasses.replace(section, figures=pictures, links=links))
    return illustrated


def reading(parts):
    """The accuracies of the final networks and of VGG16 on both splits, in a sentence each, always together.

    Args:
        parts: what metrics.json has under "parts".

    Returns:
        A list of sentences.
    """
    told = []
    for name, found in (("The network from scratch", parts), ("VGG16 fine-tuned", parts.get("vgg16", {}))):
        both = []
        for kind in ("random", "spatial"):
            if kind in found:
                both.append(f"{_accuracy(found[kind])} on the {kind} split's {found[kind]['test_images']:,} test tiles")
            else:
                both.append(f"a missing result on the {kind} split")
        if any(kind in found for kind in ("random", "spatial")):
            told.append(f"{name}: {', and '.join(both)}.")
    return told


def _accuracy(found):
    views, count = found["views"], found["test"][str(found["views"])]["accuracy"]["count"]
    test = found["test"][str(views)]
    taken = "one view" if views == 1 else f"{views} views averaged"
    if count == 1:
        low, high = test["intervals"][0]
        return f"{test['accuracy']['mean']:.2%} (95 % interval {low:.2%} to {high:.2%}; a single run, {taken})"
    found = test["accuracy"]
    return (
        f"{found['mean']:.2%} (mean of {count} seeds, standard deviation {100 * found['spread']:.2f} points, 95 % "
        f"interval of the mean {found['low']:.2%} to {found['high']:.2%}; {taken})"
    )


def _summary(metrics):
    from tfproject.report import page

    data, parts = metrics["data"], metrics["parts"]
    missing = [part for part in HEADINGS if part not in parts]
    text = [
        f"Data: {data['description']}. Licence: {data['licence']}. "
        + ", ".join(f"{count:,} {name}" for name, count in data["images"].items())
        + " tiles in the random split. Everything was chosen on the random split's training and validation tiles; its "
        "test tiles were looked at for the final scores and the analysis alone." + _seen_in_choosing(parts),
        *reading(parts),
        *vgg16_words(parts),
    ]
    if data["synthetic"]:
        text.append("These are generated images: the numbers say nothing about the real world.")
    if missing:
        text.append(f"Missing: {', '.join(missing)}.")
    return page.Section("Result", text=tuple(text))


def _exploration(found, heading):
    from tfproject.report import page

    audit, floor = found["audit"], found["colour_floor"]
    low, high = floor["accuracy_interval"]
    hardest = min(floor["per_class"], key=lambda row: row["recall"])
    easiest = max(floor["per_class"], key=lambda row: row["recall"])
    slopes = found["spectral_slopes"]
    steep, flat = min(slopes, key=slopes.get), max(slopes, key=slopes.get)
    ratio = audit["imbalance_ratio"]
    yield page.Section(
        heading,
        text=(
            f"{audit['images']:,} tiles in {len(audit['totals'])} classes"
            + ("" if ratio is None else f", the largest class {ratio:.2f} times the smallest")
            + f"; {audit['exact_duplicates']} groups of identical tiles, {audit['near_duplicates']} pairs of near "
            f"duplicates, {audit['near_duplicates_across_splits']} of these across splits; {audit['bad_image_count']} "
            "files that cannot be read.",
            f"A linear model on the tiles' colour statistics alone gets {floor['accuracy']:.2%} of {floor['count']:,} "
            f"validation tiles right (95 % interval {low:.2%} to {high:.2%}): the floor that a network must beat. It "
            f"is best at {easiest['class']} ({easiest['recall']:.1%} found) and worst at {hardest['class']} "
            f"({hardest['recall']:.1%}). {_overlaps(floor)}",
            f"The power of {steep} falls most steeply with the frequency (exponent {slopes[steep]:.2f}), that of "
            f"{flat} least ({slopes[flat]:.2f}).",
        ),
        listing=found["audit_text"],
    )


def _overlaps(floor):
    names = [row["class"] for row in floor["per_class"]]
    pairs = [
        (count / max(1, sum(row)), names[true], names[said])
        for true, row in enumerate(floor["confusion"]) for said, count in enumerate(row) if true != said and count
    ]  # fmt: skip
    worst = [f"{true} taken for {said} ({share:.0%})" for share, true, said in sorted(pairs, reverse=True)[:3]]
    return f"In colour the classes overlap most here: {', '.join(worst)}." if worst else "No class overlaps in colour."


def _search(found, heading):
    from tfproject.report import page

    rows = found["rows"]
    states = {state: sum(row["state"] == state for row in rows) for state in ("finished", "pruned", "diverged")}
    in_use = rows[0]["score"]
    best = max((row for row in rows if row["state"] == "finished"), key=lambda row: row["score"], default=None)
    rungs = ", then ".join(f"{images:,} tiles for {epochs} epochs" for images, epochs in found["tiles_and_epochs"])
    text = [
        f"{len(rows)} settings, the first the recipe in use and the others by Optuna's TPE sampler (at random until it "
        f"has seen some), each trained on {rungs}, and scored on validation: {states['finished']} finished, "
        f"{states['pruned']} were stopped early as worse than the median, {states['diverged']} diverged. The score of "
        "one that was stopped early is that of its shorter training, and no short training foretells a long one "
        "surely: what was stopped is not shown to be worse."
    ]
    if best is not None and in_use is not None:
        settings = ", ".join(f"{name} {_shown(value)}" for name, value in found["best"].items())
        text.append(
            f"The winner, with {best['score']:.2%}, has {settings}; the recipe in use came to {in_use:.2%} in its last "
            f"training ({rows[0]['state']}). Each is a single run, so differences of a point may be chance. The winner "
            "does not change the recipe: that is code, changed by hand."
        )
    text.append(
        "The values in use are older than this search: the optimizer and its rate, and JPEG compression in training, "
        "come from short single runs of which no record was kept. The search's settings are single runs too, which "
        "cannot show any of them to be better than those."
    )
    if found["importances"]:
        shares = sorted(found["importances"].items(), key=lambda pair: -pair[1])
        text.append(
            "Relative importance by the search's own model: "
            + ", ".join(f"{name} {share:.0%}" for name, share in shares)
            + f". They sum to 100 % whatever they are; with {states['finished']} finished trials they are a hint only."
        )
    head = tuple(rows[0])
    yield page.Section(heading, text=tuple(text), table=(head, *(tuple(_shown(row[k]) for k in head) for row in rows)))


def _preparation(found, heading):
    from tfproject.data.augmentation import QUALITY
    from tfproject.evaluation.robustness import SEVERITIES
    from tfproject.report import page
    from tfproject.tasks.task5_eurosat import LAND_COVER

    runs = len(found["runs"])
    yield page.Section(
        heading,
        text=(
            f"{runs} trainings on a part of the training tiles, from several seeds each, scored on validation; "
            "intervals are 95 % t-intervals over the seeds, each for itself, of differences paired by seed; 'shown' is "
            "said where p, corrected by Holm's method, is below 0.05 too. "
            "In use are: pixel values brought to about mean 0, tiles at their full size, and in training the "
            f"changes {', '.join(LAND_COVER.augment)}; below stands for which of these a gain is shown; where "
            "none is, what is usual was kept (BatchNorm after the first layer makes up for most scalings). The eight "
            "symmetries leave a view from above a view from above; a left-right flip alone is what photographs allow.",
        ),
    )
    for name, analysis in found["experiments"].items():
        yield page.Section(
            name.replace("-", " ").capitalize(),
            text=(analysis["question"], *analysis["reading"]), table=_accuracies(analysis["rows"]),
        )  # fmt: skip
    rows, within = found["robustness"], sum(quality >= QUALITY[0] for quality in SEVERITIES["JPEG"])
    shown = [row for row in rows if row["p_corrected"] is not None and row["p_corrected"] < 0.05]
    words = [f"{row['step']}, {row['corruption']} ({points(row['gain'], '+')} points)" for row in shown]
    yield page.Section(
        "The same changes step by step, on tiles as they are and of lower quality",
        text=(
            "Accuracy on validation tiles as they are, and with noise, blur or JPEG compression, mean of five "
            f"severities, of which {within} of JPEG lie within the qualities that training has. What users bring has "
            "other processing behind it than the training tiles, so that accuracy on tiles as they are does not decide "
            "alone, and JPEG stays for these. The gain is over the row above, paired by seed. Shown to differ from the "
            "row above: " + ("; ".join(words) or "none") + ".",
        ),
        table=(
            ("tiles with", *_GAINS),
            *((row["corruption"], *cells) for row, cells in zip(rows, _gain_rows(rows))),
        ),
    )  # fmt: skip


_GAINS = ("step", "accuracy", "std. dev.", "95 % interval", "gain, points", "95 % interval", "corrected p")


def _gain_rows(rows):
    """What `gains` gives, as cells of a table."""
    for row in rows:
        yield (
            row["step"], percent(row["accuracy"]), points(row["spread"]),
            between(row["low"], row["high"], percent), points(row["gain"], "+"),
            between(row["gain_low"], row["gain_high"], lambda v: points(v, "+")),
            "" if row["p_corrected"] is None else f"{row['p_corrected']:.2g}",
        )  # fmt: skip


def _accuracies(rows):
    head = ("variation", "accuracy", "std. dev.", "95 % interval", "difference", "95 % interval", "corrected p")
    return (head, *(
        (
            row["variation"], percent(row["val_accuracy"]), points(row["val_accuracy_spread"]),
            between(row["val_accuracy_low"], row["val_accuracy_high"], percent), points(row["difference"], "+"),
            between(row["difference_low"], row["difference_high"], lambda v: points(v, "+")),
            "" if row["p_corrected"] is None else f"{row['p_corrected']:.2g}",
        )
        for row in rows
    ))  # fmt: skip


def _steps(found, heading):
    from tfproject.report import page

    rows = found["gains"]
    known = [row for row in rows if row["gain"] is not None]
    text = [
        "Each step has all that came before it. Trained on a part of the training tiles for few epochs, scored on "
        "validation; the gain is over the step before, paired by seed."
    ]
    if known and None not in (rows[0]["accuracy"], rows[-1]["accuracy"]):
        most = max(known, key=lambda row: row["gain"])
        sure = [row for row in known if row["p_corrected"] is not None and row["p_corrected"] < 0.05]
        gained = [row["step"] for row in sure if row["gain"] > 0]
        lost = [row["step"] for row in sure if row["gain"] < 0]
        left = [row["step"] for row in known if row not in sure]
        text.append(
            f"From {rows[0]['accuracy']:.2%} to {rows[-1]['accuracy']:.2%}; the largest gain is of "
            f"'{most['step']}', {points(most['gain'], '+')} points. Shown to gain (corrected p below 0.05): "
            f"{', '.join(gained) or 'none'}" + (f"; shown to lose: {', '.join(lost)}" if lost else "")
            + (f"; not shown to do either: {', '.join(left)}" if left else "") + "."
        )  # fmt: skip
        text += _unbacked(rows)
        text.append("JPEG compression in training is there for tiles of lower quality, not for these: its worth stands "
                    "with the preparation. The views are averaged in float32, and compared with one view in that.")
    yield page.Section(heading, text=tuple(text), table=(_GAINS, *_gain_rows(rows)))


def _unbacked(rows):
    """A sentence about the choice of the network, if its step is not shown to gain."""
    for row in rows:
        if row["step"] == "+ residual network" and row["gain_low"] is not None and row["gain_low"] <= 0:
            interval = between(row["gain_low"], row["gain_high"], _signed)
            yield (
                f"That of the residual network is {points(row['gain'], '+')} points ({interval}): this measurement "
                "does not back its choice."
            )


def _final(found, heading):
    from tfproject.report import page

    yield page.Section(
        heading,
        text=(
            f"{_accuracy(found)}, {found['parameters']:,} parameters, {found['epochs']} epochs over "
            f"{found['images']:,} training tiles, at most {max(found['seconds']) / 60:.0f} minutes a run. Split: "
            f"{found['split']}. How many views of a tile are averaged was decided on validation.",
        ),
        table=_runs(found),
    )


def _runs(found):
    head = ("run", "split", "views", "accuracy", "95 % interval", "kappa", "95 % interval", "macro F1",
            "95 % interval", "calibration error", "minutes")  # fmt: skip
    rows = []
    for i, run in enumerate(found["runs"]):
        for split in ("validation", "test"):
            for views, own in found[split].items():
                rows.append((
                    run, split, views, percent(own["accuracies"][i]), between(*own["intervals"][i], percent),
                    "" if own["kappa"][i] is None else _four(own["kappa"][i]),
                    between(*own["kappa_interval"][i], _four), _four(own["macro_f1"][i]),
                    between(*own["macro_f1_interval"][i], _four),
                    f"{own['calibration_error'][i]:.4f}", f"{found['seconds'][i] / 60:.0f}",
                ))  # fmt: skip
    return (head, *rows)


def _vgg16(found, heading):
    from tfproject.report import page
    from tfproject.tasks.task5_eurosat import VGG16

    text = [
        f"On the {kind} split: {_accuracy(found[kind])}; {found[kind]['parameters']:,} parameters; the new layers "
        f"alone for {sum(recipe['epochs'] for recipe in found[kind]['earlier'])} epochs, then what comes after "
        f"{found[kind]['recipe'].get('frozen_until')} for {found[kind]['epochs']}, at most "
        f"{max(found[kind]['seconds']) / 60:.0f} minutes of training{minutes_lack(found[kind])}."
        for kind in ("random", "spatial")
    ]
    table = _runs(found["random"]) + _runs(found["spatial"])[1:]
    text.append("What comes out of the frozen part was computed once for each view of a tile, for both splits.")
    if found["random"]["recipe"]["learning_rate"] == VGG16.learning_rate:
        text.append("VGG16's rate comes from short single runs of which no record was kept; it was not searched for.")
    yield page.Section(heading, text=tuple(text), table=table)


def minutes_lack(found):
    """What the minutes of a final network leave out, as the end of a sentence; "" for those that leave out nothing.

    Args:
        found: what its runs came to.
    """
    frozen = any(recipe.get("frozen_until") for recipe in (found["recipe"], *found["earlier"]))
    return ", without the passes through its frozen layers" if frozen else ""


def _random_to_spatial(parts, task):
    from tfproject.report import page

    heading = "From the random to the spatial split, class by class"
    drop = parts.get("analysis", {}).get("drop")
    if drop is None:
        return page.Section(heading, text=("Missing: it is told when the part 'analysis' is done after 'spatial'.",))
    classes = [row for row in drop["classes"] if row["drop"] is not None]
    worst = max(classes, key=lambda row: row["drop"])
    apart = [row["class"] for row in classes if row["random_recall"]["low"] > row["spatial_recall"]["high"]]
    both = {kind: f"{own['share']:.2%} ({between(own['low'], own['high'], percent)})"
            for kind, own in drop["accuracy"].items()}  # fmt: skip
    text = [
        f"The first run of each, {_views(drop['views'])}: {both['random']} on the random split and {both['spatial']} "
        "on the spatial one, whose test tiles lie in another part of Europe than its training tiles: a difference of "
        f"{_difference(drop['difference'])}. The two tests have other shares of each class, which the mean of the "
        f"classes' drops does not feel: {points(drop['mean_recall_drop'])} points. Trained on were "
        f"{drop['training_tiles']['random']:,} and {drop['training_tiles']['spatial']:,} tiles."
        if task.data == "eurosat"
        else f"The first run of each: {both['random']} and {both['spatial']}. These tiles have no places: the "
        "'spatial' split is another random one.",
        *_same_tiles_words(drop, task.data == "eurosat"),
        f"The largest drop is that of {worst['class']}: {points(worst['drop'])} points. The intervals of the two "
        f"recalls are apart for: {', '.join(apart) or 'no class'}.",
    ]
    if grown := [row for row in drop["grown"] if row["growth"] > 0][:3]:
        text.append("The confusions that grow most: " + "; ".join(
            f"{row['true']} taken for {row['said']}, from {row['random']['share']:.1%} to {row['spatial']['share']:.1%}"
            for row in grown) + ".")  # fmt: skip
    text += parts["analysis"].get("spatial", {}).get("distinguishing", [])
    if drop["shift_correlation"]:
        correlation, p = drop["shift_correlation"]
        text.append(
            "The colour shift is how far the colour of a class's test tiles lies from that of its training tiles, in "
            "standard deviations between tiles, in the channel where it is farthest. Its rank correlation with the "
            f"drop is {correlation:+.2f} over {len(classes)} classes (p {p:.2g})"
            + (
                ", which goes with the explanation that other colours make the errors."
                if p < 0.05 and correlation > 0
                else f": {len(classes)} classes are too few to tell whether other colours make the errors."
            )
        )
    head = ("class", "recall, random", "recall, spatial", "drop, points", "colour shift, random", "spatial")
    table = [
        (row["class"], _share(row["random_recall"]), _share(row["spatial_recall"]), points(row["drop"], "+"),
         _shown(row["random_shift"]), _shown(row["spatial_shift"]))
        for row in drop["classes"]
    ]  # fmt: skip
    figures = tuple(
        ((task.directory / file).read_bytes(), caption)
        for file, caption in parts["analysis"]["figures"] if DROP_FIGURE in file
    )  # fmt: skip
    return page.Section(heading, text=tuple(text), table=(head, *table), figures=figures)


def _same_tiles_words(drop, places):
    """What the two networks do on the tiles that both tests have, which are equally hard for both."""
    found, made = drop.get("same_tiles"), ""
    if not found:
        return
    if places and found["difference"]["low"] > 0:
        made = ": it is not harder test tiles; the training tiles lie elsewhere"
        if (fewer := 1 - drop["training_tiles"]["spatial"] / drop["training_tiles"]["random"]) > 0:
            made += f" and are {fewer:.0%} fewer"
    rows = sorted((row for row in found["classes"] if row["count"]), key=lambda row: row["spatial"] - row["random"])
    yield (
        f"On the {found['random']['count']:,} tiles that are in both tests the random split's network gets "
        f"{found['random']['share']:.2%} right and the spatial one's {found['spatial']['share']:.2%}, a difference of "
        f"{_difference(found['difference'])}, paired{made}. Most lose "
        + "; ".join(f"{row['class']}, {row['random']} and {row['spatial']} of {row['count']} right" for row in rows[:3])
        + "."
    )


def _views(count):
    return "one view" if count == 1 else f"{count} views averaged"


def _difference(found):
    return f"{points(found['difference'])} points (95 % interval {between(found['low'], found['high'], points)})"


def _seen_in_choosing(parts):
    """What part of the spatial split's test tiles the recipe was chosen by, in a sentence; "" if not known."""
    seen = parts.get("analysis", {}).get("drop", {}).get("seen_in_choosing")
    if seen is None or not seen["hits"]:
        return ""
    return (
        f" {seen['hits']:,} of the spatial split's {seen['count']:,} test tiles are among those that the recipe was "
        "chosen by; its network's weights have not seen them."
    )


def _analysis(found, heading):
    from tfproject.report import page

    views = _views(found["views"])
    head = ("run", "accuracy", "95 % interval", "kappa", "95 % interval", "macro F1", "95 % interval")
    table = []
    for run, test in zip(found["runs"], found["tests"]):
        row = [run]
        for key, show in (("accuracy", percent), ("kappa", _four), ("macro_f1", _four)):
            row += [show(test[key]) if test[key] is not None else "", between(*test[f"{key}_interval"], show)]
        table.append(tuple(row))
    yield page.Section(heading, text=(
        f"Of the random split, {views}; the interval of the accuracy is Wilson's, those of kappa and macro F1 come "
        "from a bootstrap over the test tiles. What follows is of the first run on the random split, with the same "
        "views; robustness and the maps of attribution are of one view.",), table=(head, *table))  # fmt: skip
    words = (*_calibration_words(found), *_spatial_calibration_words(found))
    yield page.Section("Calibration, and when it may abstain", text=words)
    yield page.Section("The hardest classes, and why", text=tuple(_confusion_words(found)))
    yield page.Section("Doubtful labels", text=(_noise_words(found["label_noise"]),))
    yield page.Section("Bias", text=tuple(_bias_words(found)))
    yield page.Section("Robustness", text=tuple(_robustness_words(found)))
    embedding = found["embedding"]
    yield page.Section(
        "Clusters and outliers",
        text=(
            "Clusters of what the last layer is given fall together with the classes by an adjusted Rand index of "
            f"{embedding['untrained']['adjusted_rand']:.2f} in the untrained network and of "
            f"{embedding['trained']['adjusted_rand']:.2f} in the trained one. The outliers are the training tiles "
            "farthest from their own class there, by how much the distances in that class vary.",
        ),
    )
    yield page.Section("Interpretability", text=tuple(_attribution_words(found["attribution"])))


def _attribution_words(found):
    yield from found["story"]
    if verdicts := found.get("verdicts"):
        alike = {said: [method for method in verdicts if verdicts[method] == said] for said in verdicts.values()}
        trusted = [method for method in found["methods"] if verdicts.get(method) == "passes"]
        yield (
            f"Whether such maps are true was checked on {found['checked_images']} validation images (do they change "
            "with the weights, do the pixels that they name count): "
            + "; ".join(f"{' and '.join(methods)} ({said})" for said, methods in alike.items())
            + (f". Of the maps below those of {' and '.join(trusted)} pass all of these checks; the others"
               if trusted else ". None of the maps below passes all of these checks; they")
            + " are shown because they are the usual ones."
        )
    yield (
        "The maps are those for the class that the network says, at the surest right tile of each class and at "
        "the surest errors; 'label doubted' stands where the networks doubt the label itself."
    )


def _calibration_words(found):
    scaled, curve = found["calibration"], found["risk_coverage"]
    before, after = (scaled[kind]["calibration_error"] for kind in ("before", "after"))
    sure = "less sure than" if scaled["temperature"] < 0.995 else "more sure than"
    sure = "about as sure as" if 0.995 <= scaled["temperature"] < 1.005 else sure
    _, low, high = scaled["change"]["calibration_error"]
    yield (
        f"With {_views(found['views'])} the temperature fitted on validation is {scaled['temperature']:.2f}: the "
        f"network is {sure} it is right. The calibration error on test is {before:.4f} before and {after:.4f} after "
        f"(95 % interval of the change {low:+.4f} to {high:+.4f})."
    )
    least = [row for row in scaled["after"]["reliability"][:-1] if row["count"]]
    count = sum(row["count"] for row in least)
    if count:
        said, right = (sum(row[key] * row["count"] for row in least) / count for key in ("confidence", "accuracy"))
        yield (
            f"That is a mean over all tiles, most of which it is sure of. Of the {count:,} below a scaled confidence "
            f"of {least[-1]['high']:.2f} it says {said:.1%} on average and is right for {right:.1%}."
        )
    for row in found["abstention"]:
        yield _abstention_words(row, found["views"])
    yield from _one_view_words(found, "random")
    yield (
        f"The mean share of errors over all coverages (AURC) is {curve['aurc']:.5f}; {curve['best_aurc']:.5f} would be "
        "the least with so many errors."
    )


def _one_view_words(found, kind):
    """The same with one view, if that is not told already: a model's card and the tool go by it."""
    one = found.get("one_view", {}).get(kind)
    if one and found["views"] != 1:
        scaled, row = one["calibration"], _advised(one)
        yield (
            "With one view, as the tool takes it unless told otherwise, the temperature is "
            f"{scaled['temperature']:.2f} and the calibration error on test {scaled['before']:.4f} before and "
            f"{scaled['after']:.4f} after. {_abstention_words(row, 1)}"
        )


def _advised(sureness):
    """The row of the abstention table whose threshold is written into a model's card."""
    return next(row for row in sureness["abstention"] if row["wanted"] == ANSWERED_RIGHT)


def _abstention_words(row, views):
    if row["threshold"] is None:
        return f"No threshold gives {row['wanted']:.1%} on validation with {_views(views)}."
    right = row["test"]["accuracy"]
    reached = "" if right["share"] is None or right["share"] >= row["wanted"] else ", fewer than wanted"
    return (
        f"To be right in {row['wanted']:.1%} of the answers, chosen on validation with {_views(views)}, it answers "
        f"from a confidence before scaling of {row['threshold']:.3f}: on test {_share(row['test']['coverage'])} of the "
        f"tiles, of which {_share(right)} are right{reached}."
    )


def _spatial_calibration_words(found):
    """The same of the spatial split's network, whose validation tiles lie elsewhere than its test tiles."""
    if "spatial" not in found:
        return
    scaled = found["spatial"]["calibration"]
    yield (
        f"In a region never seen, with {_views(found['views'])}: the spatial split's network has a temperature of "
        f"{scaled['temperature']:.2f} on its validation tiles, and a calibration error on test of "
        f"{scaled['before']:.4f} before and {scaled['after']:.4f} after.{_too_sure_words(scaled)}"
    )
    yield from (_abstention_words(row, found["views"]) for row in found["spatial"]["abstention"])
    yield from _one_view_words(found, "spatial")


def _too_sure_words(scaled):
    """How sure a network is on its test before and after scaling, and how often it is right."""
    if "confidence" not in scaled:  # as it was kept before
        return ""
    before, after = (scaled["confidence"][kind] for kind in ("before", "after"))
    right, turned = scaled["right"], ""
    if before < right["low"] and right["high"] < after:
        turned = ": not sure enough without, too sure with it"
    return (
        f" On test it says {before:.1%} on average without that temperature and {after:.1%} with it, and is right for "
        f"{_share(right)}{turned}."
    )


def _confusion_words(found):
    hardest = [row for row in found["hardest"] if row["errors"]][:3]
    yield "Hardest: " + ("; ".join(
        f"{row['class']}, {row['errors']} of {row['count']} wrong (recall {row['recall']:.1%}, "
        f"{between(row['low'], row['high'], percent)}), taken for "
        + ", ".join(f"{name} ({count})" for name, count in list(row["taken_for"].items())[:2])
        for row in hardest) or "no class has an error") + "."  # fmt: skip
    pairs = [pair for pair in found["pairs"] if pair["errors"]][:3]
    if pairs:
        yield "The most confused pairs: " + "; ".join(
            f"{pair['first']} and {pair['second']} ({pair['errors']} errors, {pair['share_of_errors']:.0%} of all)"
            for pair in pairs) + "."  # fmt: skip
    yield from found["distinguishing"]


def _noise_words(noise):
    by = "one network"
    if noise["models"] > 1:
        by = f"at least half of {noise['models']} networks, which differ by their seed alone,"
    share = noise["share"]
    return (
        f"{share['hits']} of {share['count']:,} test tiles ({share['share']:.2%}, "
        f"{between(share['low'], share['high'], percent)}) are candidates for a wrong label: {by} that were not "
        "trained on them say confidently and alike that they are of another class. Whether they are wrong, only a look "
        "at them can tell; scores are given with all tiles."
    )


def _bias_words(found):
    rates = found["rates"]
    biased = [row for row in rates["classes"] if row["p_corrected"] < 0.05]
    yield (
        f"Whether the classes are predicted as often as they are true, all together: p {rates['p']:.2g} (Stuart and "
        "Maxwell). Shown to differ: "
        + ("; ".join(f"{row['class']} by {points(row['difference'], '+')} points" for row in biased) or "no class")
        + "."
    )
    for name, each in found["groups"].items():
        groups = [row for row in each["groups"] if row["count"]]
        lowest = min(groups, key=lambda row: row["accuracy"])
        within = each["within_classes"]
        tested = "" if not within or not within["degrees"] else f", within classes p {within['p_corrected']:.2g}"
        if "class" in name and not tested:
            tested = "; size cannot be told from what the classes are"
        yield (
            f"By {name}: lowest for {lowest['group']} with {lowest['accuracy']:.2%} "
            f"({between(lowest['low'], lowest['high'], percent)}) of {lowest['count']:,}; p of any difference "
            f"{each['p_corrected']:.2g}{tested}, corrected for the number of groupings."
        )


def _robustness_words(found):
    from tfproject.data.augmentation import QUALITY
    from tfproject.tasks.task5_eurosat import LAND_COVER

    rows = found["robustness"]
    strongest = [row for row in rows if row["severity"] == 5]
    worst, best = (f(strongest, key=lambda row: row["accuracy"]) for f in (min, max))
    mild = sorted((row for row in rows if row["severity"] == 1), key=lambda row: row["accuracy"])
    slight = [
        f"{row['corruption']} ({row['accuracy']:.1%})"
        for row, p in zip(mild, holm([r["p"] for r in mild])) if p < 0.05 and row["drop"] > 0
    ]  # fmt: skip
    close = [row for row in strongest if row["low"] <= worst["high"] and row is not worst]
    yield (
        f"Of {rows[0]['count']:,} test tiles, {rows[0]['accuracy']:.2%} right as they are; at the highest severity it "
        f"loses most by {' and '.join(row['corruption'] for row in (worst, *close))} ({worst['accuracy']:.2%}) and "
        f"least by {best['corruption']} ({best['accuracy']:.2%}). Already the lowest severity is shown to cost "
        f"accuracy by: {', '.join(slight) or 'nothing'} (McNemar's test, corrected for {len(mild)} kinds). How strong "
        "the severities of one kind are beside those of another is a matter of choice."
    )
    yield "The strengths: " + "; ".join(f"{kind}: {meaning}" for kind, meaning in found["corruptions"].items()) + "."
    if "jpeg" in LAND_COVER.augment:
        yield (
            f"JPEG compression of qualities {QUALITY[0]} to {QUALITY[1]} was part of the training, so that only what "
            "is below is new to the network."
        )


def vgg16_words(parts):
    """The network from scratch against VGG16 on the same tiles, a sentence for each split that has both."""
    both = parts.get("analysis", {}).get("vgg16", {})
    for kind, found in both.items():
        above = "not shown to differ from that of VGG16"
        if found["p"] < 0.05:
            above = f"shown to be {'above' if found['difference'] > 0 else 'below'} that of VGG16"
        yield (
            f"On the {kind} split, one view and one run each, the run from scratch is {above} "
            f"({points(found['difference'], '+')} points, {between(found['low'], found['high'], _signed)}), with "
            f"{parts[kind]['parameters']:,} parameters against {parts['vgg16'][kind]['parameters']:,}."
        )
    if len(both) == 2 and "ours" in both["spatial"]:
        ours, its = (both["random"][name]["share"] - both["spatial"][name]["share"] for name in ("ours", "vgg16"))
        yield (
            f"From the random to the spatial split the run from scratch falls by {points(ours)} points and that of "
            f"VGG16 by {points(its)}."
        )


def _conclusions(parts, eurosat):
    from tfproject.report import page

    text = reading(parts)
    if eurosat and text:
        text.append(FOR_COMPARISON)
    drop = parts.get("analysis", {}).get("drop")
    if drop and eurosat:
        text.append(spatial_words(drop))
    text += vgg16_words(parts)
    if {"random", "exploration"} <= parts.keys():
        own = parts["random"]["validation"][str(parts["random"]["views"])]["accuracy"]["mean"]
        text.append(f"A linear model on the tiles' colour statistics gets "
                    f"{parts['exploration']['colour_floor']['accuracy']:.1%} of the validation tiles right, the "
                    f"network {own:.2%} of them.")  # fmt: skip
    if "steps" in parts and (known := [row for row in parts["steps"]["gains"] if row["gain"] is not None]):
        most = max(known, key=lambda row: row["gain"])
        interval = between(most["gain_low"], most["gain_high"], _signed)
        text.append(f"Of the steps, '{most['step']}' adds most: {points(most['gain'], '+')} points ({interval}), in a "
                    "short training on a part of the tiles."
                    if most["gain"] > 0 else "None of the steps adds to the accuracy.")  # fmt: skip
    return page.Section("Conclusions", text=tuple(text) or ("Missing: no part that it could follow from is finished.",))


def spatial_words(drop):
    """What the step from the random to the spatial split costs, in a sentence.

    Args:
        drop: what the part analysis has under "drop".
    """
    found = drop["difference"]
    words = f"{_difference(found)}, one run each, {_views(drop['views'])}"
    if found["low"] <= 0 <= found["high"]:
        return f"That a region never seen costs accuracy is not shown: {words}."
    if found["difference"] < 0:
        return f"On the spatial split the network does better: {words}."
    if same := drop.get("same_tiles"):
        words += f"; on the {same['random']['count']:,} tiles in both tests {_difference(same['difference'])}"
    return f"Not to have seen the test's region costs accuracy: {words}."


def _limits(parts):
    from tfproject.report import page
    from tfproject.tasks.task5_eurosat import LIMITS, SPLIT_LIMITS

    text = [*LIMITS, *(sentence for kind, sentence in SPLIT_LIMITS.items() if kind in parts)]
    if "spatial" in parts and parts["spatial"]["validation"]["1"]["accuracy"]["count"] == 1:
        text.append("The spatial split was trained on from one seed: its interval is that of the test tiles alone.")
    if "spatial" in parts:
        text.append("The spatial split cuts Europe by longitude once: it is one other region, and another may be "
                    "harder or easier. Tiles of one place and day resemble each other, so that intervals which take "
                    "tiles as independent are too narrow. The interval over seeds leaves out which tiles are "
                    "tested.")  # fmt: skip
    if "preparation" in parts or "steps" in parts:
        text.append("Ablations and steps were trained on a part of the tiles for few epochs; with all tiles and more "
                    "epochs the differences may be smaller, and need not have the same order.")  # fmt: skip
    text += _where_it_looks(parts.get("analysis", {}))
    if "analysis" in parts and parts["analysis"]["label_noise"]["share"]["hits"]:
        share = parts["analysis"]["label_noise"]["share"]
        text.append(f"{share['hits']} test tiles ({between(share['low'], share['high'], percent)}) are candidates "
                    "for a wrong label; differences so small between very good networks say little.")  # fmt: skip
    return page.Section("Limits", text=tuple(text))


def _where_it_looks(analysis):
    """Whether any maps may be believed; nothing where none were checked."""
    if verdicts := analysis.get("attribution", {}).get("verdicts"):
        passed = [method for method, verdict in verdicts.items() if verdict == "passes"]
        yield (
            "Where within a tile the network looks is shown, as far as the checks go, by the maps of "
            f"{' and '.join(passed)} alone." if passed else
            "Where within a tile the network looks is not shown by any of the "
            f"{len(verdicts)} methods that draw maps of it: none passes all checks."
        )  # fmt: skip


def limits_found(kind, parts):
    """What the analysis found out of the network of a split, "random" or "spatial", for those who use its model."""
    found = parts.get("analysis")
    if not found:
        return
    if drop := found.get("drop"):
        worst = min((row for row in drop["classes"] if row["spatial_recall"]["count"]),
                    key=lambda row: row["spatial_recall"]["share"])  # fmt: skip
        random, spatial = (f"{drop['accuracy'][kind]['share']:.1%}" for kind in ("random", "spatial"))
        which = "a network of the same recipe" if kind == "random" else "the spatial split's network"
        yield (
            f"In a part of Europe that its training had not, {which} gets {spatial} right instead of the {random} "
            f"under a random split, and of {worst['class']}, its worst class, {worst['spatial_recall']['share']:.1%} "
            f"(one run each, {_views(drop['views'])})."
        )
    if one := found.get("one_view", {}).get(kind):
        scaled, row = one["calibration"], _advised(one)
        sure = "less" if scaled["temperature"] < 1 else "more"
        yield (
            f"With one view, the {kind} split's network is {sure} sure than it is right on validation: its "
            f"probabilities are those of a temperature of 1, and {scaled['temperature']:.2f} fits there."
            f"{_too_sure_words(scaled)}"
        )
        if row["threshold"] is not None:
            answered, right = (_share(row["test"][name]) for name in ("coverage", "accuracy"))
            begin = "Unless told otherwise, the {} split's network abstains below a probability of"
            if abstain_below(kind, parts) is None:
                begin = "The {} split's network does not abstain unless told to. It could below a probability of"
            yield (
                f"{begin.format(kind)} {row['threshold']:.3f}, chosen on validation with one view for "
                f"{row['wanted']:.0%} of its answers to be right: of its test tiles it answers {answered} then, and of "
                f"these answers {right} are right."
            )
    if kind == "random":
        mild = sorted((row for row in found["robustness"] if row["severity"] == 1), key=lambda row: row["accuracy"])
        yield (
            "Of test tiles made worse, at the lowest strength tried and with one view, the random split's network gets "
            "right: "
        ) + "; ".join(
            f"{row['accuracy']:.1%} under {name} ({found['corruptions'][name]}: {row['strength']:g})"
            for row in mild[:3] for name in (row["corruption"],)
        ) + "."  # fmt: skip
        yield from _where_it_looks(found)


def abstain_below(kind, parts):
    """The probability below which the model of a split, "random" or "spatial", shall abstain; None if it shall not."""
    one = parts.get("analysis", {}).get("one_view", {}).get(kind)
    row = _advised(one) if one else {"threshold": None}
    few = row["threshold"] is not None and row["validation"]["coverage"]["share"] < ANSWERED
    return None if few else row["threshold"]


def _extensions(parts):
    from tfproject.report import page

    text = ["The other ten bands of Sentinel-2, above all the infrared ones, which part water, crops and woods."]
    if "analysis" in parts:
        pairs = [pair for pair in parts["analysis"]["pairs"] if pair["errors"]]
        if pairs:
            text.append(f"Tiles of several seasons or a wider view for {pairs[0]['first']} and {pairs[0]['second']}, "
                        f"which make {pairs[0]['share_of_errors']:.0%} of the errors.")  # fmt: skip
        strongest = [row for row in parts["analysis"]["robustness"] if row["severity"] == 5]
        worst = min(strongest, key=lambda row: row["accuracy"])
        text.append(f"Training against {worst['corruption']}, which costs most ({worst['accuracy']:.1%} is left).")
    if "spatial" in parts:
        text.append("Training tiles from more regions against the drop from region to region; colour changes in "
                    "training are untested there.")  # fmt: skip
    return page.Section("Extensions", text=tuple(text))


SECTIONS = {
    "exploration": _exploration, "search": _search, "preparation": _preparation, "steps": _steps, "random": _final,
    "spatial": _final, "vgg16": _vgg16, "analysis": _analysis,
}  # fmt: skip


def _signed(value):
    return points(value, "+")


def _four(value):
    return f"{value:.4f}"


def _share(found):
    if found["share"] is None:
        return "none"
    return f"{found['share']:.2%} ({between(found['low'], found['high'], percent)})"


def _shown(value):
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
