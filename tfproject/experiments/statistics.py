"""Mean, spread, interval and paired test of a few seeds' results."""

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
