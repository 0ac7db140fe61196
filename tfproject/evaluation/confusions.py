"""Which classes are hard and taken for which, what the confused images have in common, and which labels look wrong."""

import numpy as np

from tfproject.errors import UserError
from tfproject.statistics import correct_p_values, share, wilson

SIGNIFICANCE = 0.05
FEWEST = 10  # confused images: with fewer only the largest differences show
# Of Cliff's delta, after Romano et al. 2006.
EFFECTS = ((0.147, "negligibly"), (0.33, "slightly"), (0.474, "clearly"), (1.01, "much"))


def hardest_classes(probabilities, labels, class_names):
    """The classes by how often their images are taken for others, the hardest first.

    Args:
        probabilities: float (n, c).
        labels: int (n,).
        class_names: c names.

    Returns:
        A list of dicts, for each class with images: class, count, errors, recall with low and high (Wilson),
        taken_for, the other classes that its images were taken for {name: images}, the most frequent first.
    """
    table = _table(probabilities, labels, class_names)
    rows = []
    for label, name in enumerate(class_names):
        count, right = int(table[label].sum()), int(table[label, label])
        if not count:
            continue
        low, high = wilson(right, count)
        others = sorted((-int(n), i) for i, n in enumerate(table[label]) if n and i != label)
        rows.append(
            {
                "class": name,
                "count": count,
                "errors": count - right,
                "recall": right / count,
                "low": float(low),
                "high": float(high),
                "taken_for": {class_names[i]: -n for n, i in others},
            }
        )
    return sorted(rows, key=lambda row: row["recall"])


def confused_pairs(probabilities, labels, class_names):
    """The pairs of classes that are confused, the most errors first.

    Args:
        probabilities: float (n, c).
        labels: int (n,).
        class_names: c names.

    Returns:
        A list of dicts: first and second (names, in the classes' order), first_as_second and second_as_first, each
        {hits, count, share, low, high} of the images of the class taken for the other; errors (both ways), rate (of the
        images of both), low, high (Wilson); share_of_errors (of all errors).
    """
    table = _table(probabilities, labels, class_names)
    all_errors = table.sum() - table.trace()
    rows = []
    for a in range(len(class_names)):
        for b in range(a + 1, len(class_names)):
            errors, count = int(table[a, b] + table[b, a]), int(table[[a, b]].sum())
            if not errors:
                continue
            low, high = wilson(errors, count)
            rows.append(
                {
                    "first": class_names[a],
                    "second": class_names[b],
                    "first_as_second": share(table[a, b], table[a].sum()),
                    "second_as_first": share(table[b, a], table[b].sum()),
                    "errors": errors,
                    "rate": errors / count,
                    "low": float(low),
                    "high": float(high),
                    "share_of_errors": float(errors / all_errors),
                }
            )
    return sorted(rows, key=lambda row: (-row["errors"], -row["rate"]))


def what_distinguishes(statistics, probabilities, labels, true, predicted):
    """In what the images of a class that were taken for another differ from those that were not.

    Each statistic of the confused images is compared with that of the rightly classified images of the same class:
    the effect is Cliff's delta, the probability that a confused image has more of it than a right one, less that of the
    contrary; p is of the Mann-Whitney test, corrected by Holm's method for the number of statistics.

    Args:
        statistics: a dict from a statistic's name to float (n,), such as `tfproject.exploration.image_statistics`
            gives.
        probabilities: float (n, c).
        labels: int (n,).
        true, predicted: indices of the class and of the one that it is taken for.

    Returns:
        A list of dicts, the largest effect first: statistic, confused and right (how many images), confused_median,
        right_median, other_median (of the rightly classified images of the other class), effect (-1..1), p,
        p_corrected, and towards: whether the confused median lies nearer to the other class's than the right one does.
        Empty where no image is confused or right.

    Reference:
        Cliff 1993, Dominance statistics: ordinal analyses to answer ordinal questions; Mann & Whitney 1947.
    """
    from scipy.stats import mannwhitneyu

    labels, answers = np.asarray(labels), np.asarray(probabilities).argmax(axis=1)
    confused = (labels == true) & (answers == predicted)
    right, other = ((labels == label) & (answers == label) for label in (true, predicted))
    if not confused.any() or not right.any():
        return []
    rows = []
    for name, values in statistics.items():
        values = np.asarray(values, np.float64)
        test = mannwhitneyu(values[confused], values[right])
        medians = [float(np.median(values[of])) if of.any() else None for of in (confused, right, other)]
        rows.append(
            {
                "statistic": name,
                "confused": int(confused.sum()),
                "right": int(right.sum()),
                "confused_median": medians[0],
                "right_median": medians[1],
                "other_median": medians[2],
                "effect": float(2 * test.statistic / (confused.sum() * right.sum()) - 1),
                "p": float(test.pvalue),
                "towards": medians[2] is not None and abs(medians[0] - medians[2]) < abs(medians[1] - medians[2]),
            }
        )
    correct_p_values(rows)
    return sorted(rows, key=lambda row: -abs(row["effect"]))


def describe_confusion(rows, true, predicted, words=None, most=3):
    """What `what_distinguishes` found, as a sentence or two.

    Args:
        rows: its rows.
        true, predicted: names of the class and of the one that it is taken for.
        words: a dict from a statistic's name to how an image with more and with less of it is called ("brighter",
            "darker"), as `tfproject.exploration.WORDS` has them; None for "higher in" and "lower in".
        most: how many statistics are named at most.

    Returns:
        A string.
    """
    if not rows:
        return f"No image of {true} is taken for {predicted}, or none is right."
    count = rows[0]["confused"]
    what = f"the {count} images" if count > 1 else "the one image"
    shown = [row for row in rows if row["p_corrected"] < SIGNIFICANCE][:most]
    if not shown and count < FEWEST:
        return f"What sets {what} of {true} taken for {predicted} apart cannot be told from so few."
    if not shown:
        return f"In none of {len(rows)} statistics do {what} of {true} taken for {predicted} differ demonstrably."
    parts = []
    for row in shown:
        degree = next(word for limit, word in EFFECTS if abs(row["effect"]) < limit)
        name = row["statistic"]
        more, less = (words or {}).get(name, (f"higher in {name}", f"lower in {name}"))
        kind = more if row["effect"] > 0 else less
        towards = f", nearer to {predicted} ({row['other_median']:.3g})" if row["towards"] else ""
        parts.append(
            f"{degree} {kind} (median {row['confused_median']:.3g} against {row['right_median']:.3g}{towards}; "
            f"Cliff's delta {row['effect']:+.2f}, corrected p {_p_text(row['p_corrected'])})"
        )
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"{what[0].upper()}{what[1:]} of {true} taken for {predicted} are {listed} than those that are right."


def label_noise(probabilities, labels, class_names):
    """Images whose label is probably wrong: several models say confidently that they are of another class.

    Confident learning: a model says confidently that an image is of a class when it gives the class at least the
    probability that it gives, in the mean, to that class for the images labelled with it. Where several classes are so,
    the most probable counts. An image is a candidate when at least half of the models confidently say one
    other class than its label. Models that were trained on the images remember their labels: give probabilities for
    images that the models have not seen.

    Args:
        probabilities: float (m, n, c), of m models.
        labels: int (n,).
        class_names: c names.

    Returns:
        A dict: models, images; thresholds, m lists of c probabilities (None for a class without images); candidates, a
        list of dicts, the most suspicious first (by models, then by margin): rank from 1, index, given and suggested
        (names), models (how many agree), probability_given and probability_suggested (means over the models) and margin
        (the second less the first); share, the candidates by the images {hits, count, share, low, high}.

    Raises:
        UserError: if the shapes do not match.

    Reference:
        Northcutt, Jiang & Chuang 2021, Confident learning: estimating uncertainty in dataset labels
        (https://arxiv.org/abs/1911.00068).
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if probabilities.ndim != 3 or probabilities.shape[1:] != (len(labels), len(class_names)):
        raise UserError(
            f"There are probabilities of shape {probabilities.shape} for {len(labels)} images of {len(class_names)} "
            "classes; give them as (models, images, classes)."
        )
    models, count, class_count = probabilities.shape
    thresholds = np.full((models, class_count), np.inf)
    for label in np.unique(labels):
        thresholds[:, label] = probabilities[:, labels == label, label].mean(axis=1)
    # 1e-9: the mean of equal probabilities may be a rounding above them.
    confident = probabilities >= thresholds[:, None] - 1e-9
    said = np.where(confident, probabilities, -1).argmax(axis=2)
    votes = np.zeros((count, class_count), np.int64)
    for model in range(models):
        sure = confident[model].any(axis=1)
        votes[np.flatnonzero(sure), said[model, sure]] += 1
    mean = probabilities.mean(axis=0)
    images = np.arange(count)
    votes[images, labels] = 0
    suggested = (votes + mean / 2).argmax(axis=1)  # of equally many votes the more probable
    agreeing = votes[images, suggested]
    margin = mean[images, suggested] - mean[images, labels]
    chosen = np.flatnonzero((2 * agreeing >= models) & (agreeing > 0))
    chosen = chosen[np.lexsort((-margin[chosen], -agreeing[chosen]))]
    return {
        "models": models,
        "images": count,
        "thresholds": [[float(t) if np.isfinite(t) else None for t in row] for row in thresholds],
        "candidates": [
            {
                "rank": rank,
                "index": int(i),
                "given": class_names[labels[i]],
                "suggested": class_names[suggested[i]],
                "models": int(agreeing[i]),
                "probability_given": float(mean[i, labels[i]]),
                "probability_suggested": float(mean[i, suggested[i]]),
                "margin": float(margin[i]),
            }
            for rank, i in enumerate(chosen, start=1)
        ],
        "share": share(len(chosen), count),
    }


def _table(probabilities, labels, class_names):
    if not len(labels):
        raise UserError("There is no image to score; choose a split that holds some.")
    table = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(table, (np.asarray(labels), np.asarray(probabilities).argmax(axis=1)), 1)
    return table


def _p_text(p):
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
