"""A claim about speed: ours and theirs measured in turn, their ratio with its spread, and what it was to be."""

import statistics


def claim(what, against, unit, ours, theirs, *, target=None, rate=False, remark=""):
    """One row of the table.

    Args:
        what: what was measured.
        against: what it was compared with.
        unit: of the measurements, such as "s" or "images/s".
        ours, theirs: measurements, one a round, in the same order.
        target: how many times better ours was to be, or None.
        rate: whether more is better, as with images/s.
        remark: what a reader must know to understand the ratio.

    Returns:
        A dict: the medians, and of the rounds' ratios (above 1: ours is better) the median, lowest and highest.
    """
    ratios = [a / b if rate else b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "what": what, "against": against, "unit": unit, "ours": statistics.median(ours),
        "theirs": statistics.median(theirs), "rounds": len(ratios), "ratio": statistics.median(ratios),
        "lowest": min(ratios), "highest": max(ratios), "target": target, "remark": remark,
    }  # fmt: skip


def measure(what, unit, values, *, target=None, at_most=False, remark=""):
    """A row for what is compared with nothing but its target: a share, a time, an exponent.

    Args:
        what, unit, target, remark: as for `claim`.
        values: measurements, one a round.
        at_most: whether the target is not to be exceeded.
    """
    return {
        "what": what, "against": "", "unit": unit, "ours": statistics.median(values), "rounds": len(values),
        "lowest": min(values), "highest": max(values), "target": target, "at_most": at_most, "remark": remark,
    }  # fmt: skip


def difference_in_words(difference, unit="", digits=2):
    """A `tfproject.statistics` Difference, and whether it is one.

    Args:
        difference: of ours less theirs.
        unit: with a space before it, or "".
        digits: behind the point.
    """
    mean = f"on average {difference.mean:+.{digits}f}{unit}"
    if difference.low is None:
        return f"{mean}, too few different runs for an interval"
    differ = difference.low > 0 or difference.high < 0
    return (
        f"{mean}, 95 % t-interval {difference.low:+.{digits}f} to {difference.high:+.{digits}f}: "
        f"{'shown' if differ else 'not shown'} to differ"
    )


def met(row):
    """Whether a row is as it was to be; None where nothing was asked."""
    if row["target"] is None:
        return None
    if "ratio" in row:
        return row["ratio"] >= row["target"]
    return row["ours"] <= row["target"] if row["at_most"] else row["ours"] >= row["target"]
