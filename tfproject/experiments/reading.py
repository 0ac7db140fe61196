"""Two sentences about an experiment, made from its table, that say no more than the intervals show."""

from tfproject.wording import joined

SIGNIFICANCE = 0.05
UNLEARNT = 0.1  # of accuracy on the training images


def read(analysis):
    """What an experiment shows, and what it leaves open.

    A difference counts as shown where its corrected p is below 0.05 and its 95 % interval does not hold zero.

    Args:
        analysis: {baseline, chosen, rows} as `tfproject.experiments.analysis.analyse` makes them; no more is read.

    Returns:
        Two sentences.
    """
    rows = {row["variation"]: row for row in analysis["rows"]}
    others = [row for row in rows.values() if row["variation"] != analysis["baseline"]]
    above = [row for row in others if _shown(row) and row["difference"] > 0]
    below = [row for row in others if _shown(row) and row["difference"] < 0]
    return _first(analysis, rows, above, below), _second(others, above + below)


def unlearnt(analysis):
    """A caution about variations with which training came less far than with the baseline, or None.

    Args:
        analysis: as for `read`.

    Returns:
        A sentence that names those that are not shown to be better and whose accuracy on the training images is more
        than UNLEARNT below the baseline's.
    """
    rows = {row["variation"]: row for row in analysis["rows"]}
    base = rows[analysis["baseline"]]["train_accuracy"]
    behind = [
        row for row in rows.values()
        if None not in (base, row["train_accuracy"]) and row["train_accuracy"] < base - UNLEARNT
        and not (_shown(row) and row["difference"] > 0)
    ]  # fmt: skip
    if not behind:
        return None
    listed = joined([f"'{row['variation']}' ({row['train_accuracy']:.0%})" for row in behind])
    return (
        f"Fewer of the training images than with '{analysis['baseline']}' ({base:.0%}) are learnt with {listed}: what "
        "more training would bring there, this does not show."
    )


def _shown(row):
    if row["p_corrected"] is None or row["p_corrected"] >= SIGNIFICANCE:
        return False
    return row["difference_low"] > 0 or row["difference_high"] < 0


def read_contrasts(rows):
    """What the further pairs of an experiment show and leave open.

    Args:
        rows: `contrasts` as `tfproject.experiments.analysis.analyse` makes them, at least one.

    Returns:
        A sentence.
    """
    compared = [row for row in rows if row["difference"] is not None]
    parts = []
    for verdict, is_shown in (("shown", True), ("left open", False)):
        own = [row for row in compared if _shown(row) == is_shown]
        if own:
            told = [f"'{row['variation']}' against '{row['against']}' ({_difference(row)})" for row in own]
            parts.append(f"{verdict}: {joined(told)}")
    return f"Of pairs that differ in one thing {'; '.join(parts) or 'none has a mean on both sides'}."


def _first(analysis, rows, above, below):
    if analysis["chosen"] is None:
        return "Every variation diverged with at least one seed, so no mean is given."
    best, baseline = rows[analysis["chosen"]], analysis["baseline"]
    start = (
        f"The highest mean accuracy on validation is that of '{best['variation']}', {best['val_accuracy']:.1%}"
        f"{_interval(best['val_accuracy_low'], best['val_accuracy_high'])} over {best['seeds']} seeds"
    )
    parts = []
    if above:
        parts.append(f"above the baseline '{baseline}' {_are(above)} shown {_listed(above)}")
    if below:
        what = "it" if above else f"the baseline '{baseline}'"
        parts.append(f"below {what} {_are(below)} shown {_listed(below)}")
    if not parts:
        return f"{start}; no variation is shown to differ from the baseline '{baseline}'."
    return f"{start}; {' and '.join(parts)}."


def _second(others, shown):
    diverged = [row for row in others if row["diverged"]]
    open_ = [row for row in others if row not in shown and not row["diverged"]]
    parts = []
    if open_:
        parts.append(f"these seeds leave open whether there is a difference for {_listed(open_)}")
    if diverged:
        parts.append(
            "training diverged for "
            + joined([f"'{row['variation']}' with {row['diverged']} of {row['seeds']} seeds" for row in diverged])
        )
    if not parts:
        return "No difference to the baseline is left open."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _are(rows):
    return "is" if len(rows) == 1 else "are"


def _listed(rows):
    return joined([f"'{row['variation']}' ({_difference(row)})" for row in rows])


def _difference(row):
    if row.get("difference") is None:
        return "no comparison"
    points = f"{100 * row['difference']:+.1f} points"
    if row["difference_low"] is None:
        return points
    return f"{points}, {100 * row['difference_low']:+.1f} to {100 * row['difference_high']:+.1f}"


def _interval(low, high):
    return "" if low is None else f" (95 % interval {low:.1%} to {high:.1%})"
