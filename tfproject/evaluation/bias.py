"""Bias of a classifier: which classes it names too often or too seldom, and for which images it is less often right."""

import numpy as np

from tfproject.errors import UserError
from tfproject.statistics import correct_p_values, paired_difference, wilson

FEWEST_EXPECTED = 5  # errors and right answers expected of each group, for the chi-squared distribution (Cochran 1954)
PERMUTATIONS = 9999


def class_rates(probabilities, labels, class_names):
    """How often each class is predicted, against how often it is true.

    Both rates are of the same images, so each class's difference is a paired one: false alarms against misses, with
    McNemar's exact test and Agresti & Min's interval. Whether there is any difference in all classes together is
    the test of Stuart and Maxwell.

    Args:
        probabilities: float (n, c).
        labels: int (n,).
        class_names: c names.

    Returns:
        A dict: count, n; statistic, degrees and p of the Stuart-Maxwell test (p is 1 where no image is wrong); classes,
        a list of dicts with class, true_rate, predicted_rate, predicted_low, predicted_high (Wilson), mean_probability,
        false_alarms, misses, difference (predicted - true) with low and high, p, and p_corrected (Holm, for c classes).

    Raises:
        UserError: if there is no image.

    Reference:
        McNemar 1947; Stuart 1955, A test for homogeneity of the marginal distributions in a two-way classification;
        Maxwell 1970, Comparing the classification of subjects by two independent judges.
    """
    from scipy.stats import chi2

    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    count, class_count = len(labels), len(class_names)
    if not count:
        raise UserError("There is no image to score; choose a split that holds some.")
    table = np.zeros((class_count, class_count), np.int64)
    np.add.at(table, (labels, probabilities.argmax(axis=1)), 1)
    true, predicted, right = table.sum(axis=1), table.sum(axis=0), table.diagonal()
    low, high = wilson(predicted, count)
    rows = []
    for i, name in enumerate(class_names):
        alarms, misses = int(predicted[i] - right[i]), int(true[i] - right[i])
        rows.append(
            {
                "class": name,
                "true_rate": float(true[i] / count),
                "predicted_rate": float(predicted[i] / count),
                "predicted_low": float(low[i]),
                "predicted_high": float(high[i]),
                "mean_probability": float(probabilities[:, i].mean()),
                "false_alarms": alarms,
                "misses": misses,
                **paired_difference(alarms, misses, count),
            }
        )
    correct_p_values(rows)
    covariance = np.diag(true + predicted - 2 * right) - (table + table.T) * (1 - np.eye(class_count))
    statistic, degrees = _quadratic(predicted - true, covariance)
    p = float(chi2.sf(statistic, degrees)) if degrees else 1.0
    return {"count": count, "statistic": statistic, "degrees": degrees, "p": p, "classes": rows}


def accuracy_by_group(correct, groups, names, labels=None, seed=0):
    """The accuracy of groups of images, and whether the groups differ.

    The first test asks whether the groups' accuracies differ at all (chi-squared; its p by permutation where a group is
    too small for the chi-squared distribution). Groups may differ only because they hold other classes: hazy tiles may
    be towns. With labels, a second test compares groups within each class, and `expected` is the accuracy
    that a group would have if each of its classes were right as often as everywhere.

    Args:
        correct: bool (n,), whether each image is classified right.
        groups: int (n,), indices into `names`; images with a negative one are left out.
        names: g names.
        labels: int (n,), the classes; None for no comparison within classes.
        seed: of the permutations.

    Returns:
        A dict: groups, a list of dicts with group, count, hits, accuracy, low, high (Wilson) and expected (None
        without labels); groups without images are left out; statistic, degrees, p and method ("chi-squared" or
        "permutation"); within_classes, {statistic, degrees, p} or None. p is 1 where there is nothing to compare.

    Reference:
        Cochran 1954, Some methods for strengthening the common chi-squared tests; Landis, Heyman & Koch 1978, Average
        partial association in three-way contingency tables, for the test within classes.
    """
    from scipy.stats import chi2

    groups = np.asarray(groups)
    kept = groups >= 0
    correct, groups = np.asarray(correct, bool)[kept], groups[kept]
    present, groups = np.unique(groups, return_inverse=True)
    counts = np.bincount(groups, minlength=len(present))
    hits = np.bincount(groups, correct, minlength=len(present)).astype(np.int64)
    low, high = wilson(hits, counts)
    expected, within = [None] * len(present), None
    if labels is not None:
        labels = np.asarray(labels)[kept]
        shares = np.bincount(labels, correct) / np.maximum(1, np.bincount(labels))
        expected = (np.bincount(groups, shares[labels], minlength=len(present)) / counts).tolist()
        within = _within_strata(correct, groups, labels, len(present))
    statistic, degrees, p, method = _difference(correct, groups, counts, hits, seed)
    return {
        "groups": [
            {
                "group": names[present[i]],
                "count": int(counts[i]),
                "hits": int(hits[i]),
                "accuracy": float(hits[i] / counts[i]),
                "low": float(low[i]),
                "high": float(high[i]),
                "expected": expected[i],
            }
            for i in range(len(present))
        ],
        "statistic": statistic,
        "degrees": degrees,
        "p": p,
        "method": method,
        "within_classes": within
        and {
            "statistic": within[0],
            "degrees": within[1],
            "p": float(chi2.sf(*within)) if within[1] else 1.0,
        },
    }


def quantile_groups(values, count=5):
    """Groups of about as many images each, by a measured value.

    Args:
        values: float (n,).
        count: groups; fewer where many values are equal.

    Returns:
        (int (n,) from 0, the lowest values, up; names, the ranges in words).
    """
    values = np.asarray(values, np.float64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)))
    groups = np.digitize(values, edges[1:-1], right=True)
    if len(edges) < 2:
        return groups, [f"{edges[0]:.3g}"]
    return groups, [f"{low:.3g} to {high:.3g}" for low, high in zip(edges[:-1], edges[1:])]


def class_size_groups(labels, class_sizes, class_names):
    """Groups of images by how many training images their class has.

    Args:
        labels: int (n,).
        class_sizes: c counts.
        class_names: c names; a group of one class alone is called by it too.

    Returns:
        (int (n,), names), the smallest size first.
    """
    sizes, group_of_class = np.unique(class_sizes, return_inverse=True)
    names = []
    for group, size in enumerate(sizes):
        own = [name for name, of_class in zip(class_names, group_of_class) if of_class == group]
        names.append(f"{size:,} in training ({own[0] if len(own) == 1 else f'{len(own)} classes'})")
    return group_of_class[np.asarray(labels)], names


def accuracy_by_groups(probabilities, labels, groupings, seed=0):
    """`accuracy_by_group` for several ways to group the images, with p-values corrected for their number.

    Args:
        probabilities: float (n, c).
        labels: int (n,).
        groupings: a dict from a grouping's name to (groups, names), as `quantile_groups` and `class_size_groups` give
            them; for places (groups, names) with a number for each image.
        seed: of the permutations.

    Returns:
        A dict from each name to what `accuracy_by_group` gives with labels, with p_corrected and, in within_classes,
        p_corrected too (Holm, each for the number of groupings).

    Raises:
        UserError: if there is no image.
    """
    if not len(labels):
        raise UserError("There is no image to score; choose a split that holds some.")
    correct = np.asarray(probabilities).argmax(axis=1) == np.asarray(labels)
    found = {
        name: accuracy_by_group(correct, groups, names, labels, seed) for name, (groups, names) in groupings.items()
    }
    for part in (lambda row: row, lambda row: row["within_classes"]):
        rows = [part(row) for row in found.values()]
        for row in rows:
            row["p_corrected"] = 1.0
        rows = [row for row in rows if row["degrees"]]  # what cannot differ is not tested
        correct_p_values(rows)
    return found


def _difference(correct, groups, counts, hits, seed):
    """Statistic, degrees, p and method of the chi-squared test of equal accuracies."""
    from scipy.stats import chi2

    degrees, total = len(counts) - 1, len(correct)
    overall = correct.mean() if total else 0
    if degrees < 1 or overall in (0, 1):
        return 0.0, max(0, degrees), 1.0, "chi-squared"
    scale = counts * overall * (1 - overall)

    def statistic(hits):
        return ((hits - counts * overall) ** 2 / scale).sum(axis=-1)

    found = float(statistic(hits))
    if counts.min() * min(overall, 1 - overall) >= FEWEST_EXPECTED:
        return found, degrees, float(chi2.sf(found, degrees)), "chi-squared"
    # Which images are right is put in a random order: how many fall into each group is a hypergeometric draw.
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, int(hits.sum()), PERMUTATIONS)
    as_large = int((statistic(drawn) >= found * (1 - 1e-9)).sum())
    return found, degrees, (1 + as_large) / (1 + PERMUTATIONS), "permutation"


def _within_strata(correct, groups, strata, group_count):
    """Statistic and degrees of the generalised Cochran-Mantel-Haenszel test of `correct` by group within strata."""
    distance, covariance = np.zeros(group_count), np.zeros((group_count, group_count))
    for stratum in np.unique(strata):
        own = strata == stratum
        total, right = own.sum(), correct[own].sum()
        if total < 2:
            continue
        counts = np.bincount(groups[own], minlength=group_count)
        distance += np.bincount(groups[own], correct[own], minlength=group_count) - counts * right / total
        spread = right * (total - right) / (total**2 * (total - 1))
        covariance += spread * (total * np.diag(counts) - np.outer(counts, counts))
    return _quadratic(distance, covariance)


def _quadratic(distance, covariance):
    """distance' covariance^-1 distance over the directions that vary, and how many these are."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    varying = values > 1e-9 * max(values.max(initial=0), 1e-9)
    along = vectors[:, varying].T @ distance
    return float((along**2 / values[varying]).sum()), int(varying.sum())
