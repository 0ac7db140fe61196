"""What Task 4's numbers say, in sentences made from them and from nothing else."""

from tfproject.statistics import Difference, compare, holm
from tfproject.tasks import task4_transfer as task

SIGNIFICANCE = 0.05
MEASURES = {"distinct": "accuracy", "balanced_accuracy": "balanced accuracy"}
ON_TEST = (
    "Compared on the same test photos, those without duplicates in training, and paired by seed; 'shown' is said where "
    "p, corrected by Holm's method for the comparisons of one measure, is below 0.05."
)


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


def sizes(metrics):
    """Who sees photos of how many pixels, in a sentence.

    Args:
        metrics: what metrics.json holds.
    """
    pixels = metrics["pixels"]
    return (
        f"The custom CNN sees the photos at {pixels['small']} pixels a side, as its CIFAR-10 weights do, VGG16 in "
        f"parts 3 and 4 at {pixels['large']}, and VGG16 where cuts and recipes are compared at {pixels['middle']}."
    )


def explanation(metrics):
    """Why the parts come in the order in which they do, a sentence for each step, made from the numbers.

    Each compares two ways, paired by seed, on test photos without duplicates in training.

    Args:
        metrics: what metrics.json holds.
    """
    found = {row["variation"]: row["distinct"] for row in _ways(metrics)}
    for one, other, words in _steps(metrics):
        if found.get(one, {}).get("mean") is None or found.get(other, {}).get("mean") is None:
            continue
        gap = compare(found[one]["values"], found[other]["values"])
        said = f"{_called(one, metrics)} against {_called(other, metrics)}: {_points(gap)}"
        shown = gap.mean != 0 if gap.low is None else gap.low > 0 or gap.high < 0
        yield f"{said}: {words[1 if gap.mean > 0 else -1]}." if shown else f"{said}: no difference is shown."


def _steps(metrics):
    """(a way, the way it is compared with, what it means where it is above and where it is below)."""
    sized = _sized_words(metrics)
    return (
        (task.SOFTMAX, task.SCRATCH, _of_frozen_features(metrics)),
        (task.CONTINUED, task.SCRATCH, {
            1: "the same weights are a good place to start from, once they may change" + _still_learning(metrics, "; "),
            -1: "where CIFAR-10 left the weights is a worse start than a random one, at this rate and in these epochs",
        }),
        (task.FLOOR, task.SVM, {
            1: "the same classifier on other features: VGG16 learnt its own from a thousand classes of large photos, "
               f"the custom CNN from ten classes of small ones{sized}",
            -1: f"the same classifier on other features, and VGG16's suit these photos less{sized}",
        }),
        (task.FINE_TUNED, task.CONTINUED, {
            1: f"a larger network with ImageNet's features does better than the custom CNN with CIFAR-10's{sized}",
            -1: f"a larger network with ImageNet's features does worse than the custom CNN with CIFAR-10's{sized}",
        }),
        *_steps_of_size(metrics),
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
    )  # fmt: skip


def _steps_of_size(metrics):
    """What image size alone makes of VGG16: the parts' recipe is that of one of the cuts, where photos are smaller."""
    pixels = metrics.get("pixels", {"large": 0, "middle": 0})
    if pixels["large"] == pixels["middle"]:
        return
    large, middle, small = (pixels[name] for name in ("large", "middle", "small"))
    alike = _cut_of_the_parts()
    alone = "the same recipe and seeds, so that this is of image size alone"
    yield task.FINE_TUNED, alike, dict.fromkeys((1, -1), alone)
    for cut in dict.fromkeys((alike, _best_cut(metrics))):
        yield cut, task.CONTINUED, {
            1: f"VGG16 is above the custom CNN at {middle} pixels a side already",
            -1: f"shown photos of {middle} pixels a side instead of {large}, VGG16 is below the custom CNN, which sees "
                f"{small}",
        }  # fmt: skip


def _cut_of_the_parts():
    return f"frozen to {task.TUNED.frozen_until}"


def _best_cut(metrics):
    return metrics["experiments"].get("cuts", {}).get("chosen")


def _called(name, metrics):
    if name.startswith("frozen to "):
        best = ", the best cut on validation," if name == _best_cut(metrics) else ""
        return f"VGG16 at {metrics['pixels']['middle']} pixels a side, {name}{best}"
    if name == task.FINE_TUNED and "pixels" in metrics:
        return f"{name[2:]} (at {metrics['pixels']['large']})"
    return name[2:]


def _sized_words(metrics):
    pixels = metrics.get("pixels", {"large": 0, "small": 0})
    if pixels["large"] == pixels["small"]:
        return ""
    return (
        f"; VGG16 is shown larger images here too ({pixels['large']} pixels a side, not {pixels['small']}): features "
        "and image size together, not told apart"
    )


def _of_frozen_features(metrics):
    trained = {row["variation"]: row.get("train_accuracy") for row in metrics["experiments"]["parts"]["rows"]}
    softmax, svm = trained.get(task.SOFTMAX), trained.get(task.SVM)
    less = "these features suit the photos less"
    if softmax is not None and softmax < 0.75:
        less += (
            f": even of the training photos, as augmentation changes them, a new output layer gets only {softmax:.1%} "
            "right in the last epoch"
        )
        if svm is not None:
            less += f", and a linear SVM on the same features {svm:.1%} of the training photos as they are"
    return {1: "so few photos do not teach features as good as CIFAR-10's", -1: less}


def _still_learning(metrics, start=""):
    """That training from scratch ended too soon, if it did: its last epoch was its best one with every seed."""
    rows = {row["variation"]: row for row in metrics["experiments"]["parts"]["rows"]}
    ours, other = rows.get(task.SCRATCH, {}), rows.get(task.CONTINUED, {})
    trained = [row.get("train_accuracy") for row in (ours, other)]
    if None in trained or trained[0] >= trained[1] or ours.get("best_at_end") != ours["seeds"]:
        return ""
    return (
        f"{start}from scratch it was still learning when it stopped: {trained[0]:.1%} of the training photos right in "
        f"the last of {ours['epochs']:g} epochs against {trained[1]:.1%} from CIFAR-10 weights, and the last epoch the "
        f"best on validation with all {ours['seeds']} seeds, so that more epochs might narrow the difference"
    )


def limits(metrics):
    """What the numbers do not say, in a sentence each.

    Args:
        metrics: what metrics.json holds.
    """
    scored = [part["scored_distinct"] for part in metrics["test"]["parts"] if part["scored_distinct"]]
    if scored:
        yield f"There are {min(scored):,} test photos without duplicates in training; one is {1 / min(scored):.2%}."
    yield from of_size(metrics)
    if words := _still_learning(metrics):
        yield f"{words[0].upper()}{words[1:]}."


def of_size(metrics):
    """A sentence: what VGG16 gets by one recipe from photos of two sizes; none where that was not measured.

    Args:
        metrics: what metrics.json holds.
    """
    found = {row["variation"]: row["distinct"]["mean"] for row in _ways(metrics)}
    small, large = found.get(_cut_of_the_parts()), found.get(task.FINE_TUNED)
    if list(_steps_of_size(metrics)) and None not in (small, large):
        pixels = metrics["pixels"]
        yield (
            "VGG16's lead over the custom CNN is of features, network and image size together: by the same recipe it "
            f"gets {large:.1%} at {pixels['large']} pixels a side and {small:.1%} at {pixels['middle']}, and the "
            f"custom CNN sees {pixels['small']}."
        )


def _ways(metrics):
    return [row for name in ("parts", "cuts") for row in metrics["test"].get(name, ())]


def on_test(analysis, rows):
    """The analysis with differences on test photos where those on validation do not answer the question.

    Of the experiment balance each variation is compared with its own without balance; of the learning curves each
    method with the first one from as many photos, as VGG16 with few of them is validated on other photos.

    Args:
        analysis: of an experiment, as `tfproject.experiments.analysis.analyse` makes it.
        rows: of the same experiment, as `tfproject.tasks.task4_transfer.summaries` gives them.

    Returns:
        The analysis, as it is for other experiments; for these two without the differences on validation, and with
        another reading. Each row has `against`, the variation that it is compared with or None, and for each measure m
        of MEASURES m_difference, m_low, m_high, m_p and m_p_corrected.
    """
    if analysis["name"] not in AGAINST:
        return analysis
    found = {row["variation"]: row for row in rows}
    against = {name: AGAINST[analysis["name"]](row, rows) for name, row in found.items()}
    columns = {name: {"against": other} for name, other in against.items()}
    for measure in MEASURES:
        gaps = {name: _gap(found[name], found.get(other), measure) for name, other in against.items()}
        for (name, gap), corrected in zip(gaps.items(), holm([gap.p for gap in gaps.values()])):
            columns[name] |= {
                f"{measure}_difference": gap.mean, f"{measure}_low": gap.low, f"{measure}_high": gap.high,
                f"{measure}_p": gap.p, f"{measure}_p_corrected": corrected,
            }  # fmt: skip
    on_validation = dict.fromkeys(("difference", "difference_low", "difference_high", "p", "p_corrected"))
    compared = [row | on_validation | columns[row["variation"]] for row in analysis["rows"]]
    words = {"balance": _of_balance, "learning-curves": _of_curves}[analysis["name"]]
    return analysis | {"rows": compared, "reading": [*words(compared, found), ON_TEST]}


def _without_balance(row, rows):
    name = row["variation"].removesuffix(task.BALANCED)
    return None if name == row["variation"] else name


def _as_many_photos(row, rows):
    first = rows[0]["group"]
    return None if row["group"] == first else row["variation"].replace(row["group"], first)


AGAINST = {"balance": _without_balance, "learning-curves": _as_many_photos}


def _gap(row, other, measure):
    if other is None or None in (row[measure]["mean"], other[measure]["mean"]):
        return Difference(None)
    return compare(row[measure]["values"], other[measure]["values"])


def _of_balance(rows, found):
    for row in rows:
        if row["against"]:
            said = "; ".join(f"{called} {_told(row, measure)}" for measure, called in MEASURES.items())
            yield f"'{row['variation']}' against '{row['against']}': {said}."


def _of_curves(rows, found):
    groups = {}
    for row in rows:
        if row["against"]:
            group = found[row["variation"]]["group"]
            count = row["variation"].removeprefix(f"{group}, ")
            called = "all" if count == "all" else f"{count} a class"
            groups.setdefault(group, []).append(f"{_told(row, 'balanced_accuracy')} with {called}")
    first = next(iter(found.values()))["group"]
    for group, told in groups.items():
        yield f"{group} against {first} with as many photos, balanced accuracy: {', '.join(told)}."


def _told(row, measure):
    gap = Difference(*(row[f"{measure}_{part}"] for part in ("difference", "low", "high", "p")))
    if gap.mean is None:
        return "without comparison"
    corrected = row[f"{measure}_p_corrected"]
    return _points(gap, "; shown" if corrected is not None and corrected < SIGNIFICANCE else "; not shown")


def _points(gap, said=""):
    between = "" if gap.low is None else f" ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}{said})"
    return f"{100 * gap.mean:+.1f} points{between}"


NETWORKS = {
    "custom_cnn": "the custom CNN from scratch", "custom_cnn_from": "from CIFAR-10's weights",
    "pretrained_cnn": "VGG16 with ImageNet's weights", "small_vgg": "a small VGG",
}  # fmt: skip
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
AUGMENTED = {"flip": "mirrored", "alternating_flip": "mirrored in every other epoch", "shift": "shifted"}
CHANGED = {
    "network": lambda value: NETWORKS.get(value.rpartition(":")[2], value), "image_size": "{} pixels a side".format,
    "city": "photos of another city in training".format, "per_class": "{} training photos a class".format,
    "val_images": "{} validation photos".format, "balanced": "photos of rarer classes repeated".format,
    "classifier": "{}".format, "optimizer": lambda value: OPTIMIZERS.get(value, value),
    "batch_size": "batches of {}".format, "warmup": "{:.0%} of the steps to warm up".format,
    "weight_decay": lambda value: f"weight decay {value:g}" if value else "no weight decay",
    "label_smoothing": lambda value: f"label smoothing {value:g}" if value else "no label smoothing",
    "views": "{} views of each photo".format,
}  # fmt: skip
STAGE = {
    "epochs": "{} epochs".format, "frozen_until": "frozen to {}".format, "learning_rate": "a rate of {:g}".format,
    "augment": lambda value: f"photos {' and '.join(AUGMENTED.get(name, name) for name in value) or 'as they are'}",
}  # fmt: skip
OF_AN_SVM = ("network", "image_size", "city", "per_class", "classifier", "frozen_until")


def differs_in(variation, base):
    """In what a variation differs from the baseline, in words.

    Args:
        variation, base: TransferVariations.
    """
    changed = variation.changes(base)
    if variation.svm:
        changed = {name: value for name, value in changed.items() if name in OF_AN_SVM}
    words = [word(changed[name]) for name, word in CHANGED.items() if name in changed]
    if variation.stages or variation.recipe.layer_rates:
        words += [task.training_words(variation)] if changed else []
    else:
        words += [word(changed[name]) for name, word in STAGE.items() if name in changed]
    return ", ".join(words)
