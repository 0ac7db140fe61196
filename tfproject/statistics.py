"""Intervals and tests: of a few seeds' results, of shares of images, and of many comparisons at once."""

import dataclasses

import numpy as np

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """n results: their mean, sample standard deviation, and the t-interval of the mean; None where n is too small."""

    count: int
    mean: float | None
    spread: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean difference to a baseline from the same seeds, its interval, and the paired t-test's two-sided p.

    Interval and p are None where the differences do not vary or are fewer than two: then the test says nothing.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def summarise(values):
    """Mean, spread and the 95 % t-interval of the mean.

    Args:
        values: n numbers.

    Returns:
        Summary.
    """
    from scipy import stats

    values = np.asarray(values, dtype=float)
    if not len(values):
        return Summary(0, None, None, None, None)
    mean = float(values.mean())
    if len(values) < 2:
        return Summary(1, mean, None, None, None)
    if np.ptp(values) <= 1e-12:  # equal but for rounding, which the mean of equal numbers has too
        return Summary(len(values), float(values[0]), 0.0, float(values[0]), float(values[0]))
    spread = float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread / len(values) ** 0.5
    return Summary(len(values), mean, spread, mean - reach, mean + reach)


def compare(values, baseline):
    """The paired comparison of a variation with the baseline.

    Args:
        values, baseline: n numbers each, of the same seeds in the same order.

    Returns:
        Difference, values - baseline.
    """
    from scipy import stats

    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    if not len(differences):
        return Difference(None)
    mean = float(differences.mean())
    # Differences that are the same but for rounding have a t statistic without meaning.
    if len(differences) < 2 or np.ptp(differences) <= 1e-12:
        return Difference(mean)
    test = stats.ttest_rel(values, baseline)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue))


def wilson(hits, counts):
    """The 95 % Wilson score interval of shares.

    Args:
        hits, counts: ints of one shape, hits <= counts.

    Returns:
        (low, high), float64 of that shape; 0 and 1 where the count is 0.

    Reference:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    from scipy.stats import norm

    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    z = norm.ppf((1 + CONFIDENCE) / 2)
    share = hits / np.maximum(counts, 1)
    middle = (hits + z**2 / 2) / (counts + z**2)
    reach = z / (counts + z**2) * np.sqrt(counts * share * (1 - share) + z**2 / 4)
    # At 0 and 1 the interval ends there, but for rounding.
    return np.where(hits == 0, 0.0, middle - reach), np.where(hits == counts, 1.0, middle + reach)


def share(hits, count):
    """A share with its interval: {hits, count, share, low, high}; the share None where the count is 0."""
    low, high = wilson(hits, count)
    value = float(hits / count) if count else None
    return {"hits": int(hits), "count": int(count), "share": value, "low": float(low), "high": float(high)}


def difference_of_shares(first, second):
    """The difference of two shares of different images, with its 95 % interval.

    Args:
        first, second: dicts as `share` gives them.

    Returns:
        A dict: difference (first - second), low, high; None where a share is.

    Reference:
        Newcombe 1998, Interval estimation for the difference between independent proportions, method 10.
    """
    if None in (first["share"], second["share"]):
        return {"difference": None, "low": None, "high": None}
    difference = first["share"] - second["share"]

    def reach(upper, lower):
        return float(np.hypot(upper["high"] - upper["share"], lower["share"] - lower["low"]))

    return {
        "difference": difference, "low": difference - reach(second, first), "high": difference + reach(first, second)
    }


def paired_difference(only_first, only_second, count):
    """The difference of two shares of the same images, with its interval and McNemar's exact test.

    Args:
        only_first, only_second: how many images count for the first share only, and for the second only; ints or, for
            several comparisons, int arrays of one shape.
        count: n, all images.

    Returns:
        A dict: difference (first - second), low, high (95 %, Agresti & Min) and p, two-sided; floats or float64 arrays.

    Reference:
        McNemar 1947, Note on the sampling error of the difference between correlated proportions; Agresti & Min 2005,
        Simple improved confidence intervals for comparing matched proportions (Statistics in Medicine 24).
    """
    from scipy.stats import binom, norm

    only_first, only_second = np.asarray(only_first), np.asarray(only_second)
    more, less, total = only_first + 0.5, only_second + 0.5, count + 2
    middle = (more - less) / total
    reach = norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(more + less - (more - less) ** 2 / total) / total
    found = {
        "difference": (only_first - only_second) / count,
        "low": np.maximum(-1, middle - reach),
        "high": np.minimum(1, middle + reach),
        "p": np.minimum(1, 2 * binom.cdf(np.minimum(only_first, only_second), only_first + only_second, 0.5)),
    }
    return {name: value if np.ndim(value) else float(value) for name, value in found.items()}


def holm(p_values):
    """p-values corrected for their number by Holm's step-down method, which bounds the chance of any false alarm.

    Args:
        p_values: m p-values; None where there is none, which does not count.

    Returns:
        A list of m corrected p-values, None where there was none.

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[i] = largest
    return corrected


def correct_p_values(rows):
    """Set `p_corrected` of rows, dicts with `p` (None where nothing was tested), by `holm` over all of them."""
    for row, corrected in zip(rows, holm([row["p"] for row in rows])):
        row["p_corrected"] = corrected
