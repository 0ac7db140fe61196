"""Two sentences about an experiment, made from its table, that say no more than the intervals show."""

SIGNIFICANCE = 0.05


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


def _shown(row):
    if row["p_corrected"] is None or row["p_corrected"] >= SIGNIFICANCE:
        return False
    return row["difference_low"] > 0 or row["difference_high"] < 0


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
            + _joined([f"'{row['variation']}' with {row['diverged']} of {row['seeds']} seeds" for row in diverged])
        )
    if not parts:
        return "No difference to the baseline is left open."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _are(rows):
    return "is" if len(rows) == 1 else "are"


def _listed(rows):
    return _joined([f"'{row['variation']}' ({_difference(row)})" for row in rows])


def _difference(row):
    if row.get("difference") is None:
        return "no comparison"
    points = f"{100 * row['difference']:+.1f} points"
    if row["difference_low"] is None:
        return points
    return f"{points}, {100 * row['difference_low']:+.1f} to {100 * row['difference_high']:+.1f}"


def _interval(low, high):
    return "" if low is None else f" (95 % interval {low:.1%} to {high:.1%})"


def _joined(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
