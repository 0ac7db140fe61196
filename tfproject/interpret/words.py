"""What the tables of units show, in sentences that say no more than the intervals do.

The functions take rows as `semantics`, `silencing`, `similarity` and `faithfulness` make them, or the same read from a
file.
"""

import collections
import math

from scipy import stats

from tfproject.interpret.faithfulness import KINDS, shown
from tfproject.interpret.semantics import CHANCE, CLASS_PURITY, SIGNIFICANCE
from tfproject.wording import joined

NAMED = 3  # units, sets or hues that are named one by one
_LOOKS_FOR = {"edge": "edges", "colour edge": "edges between colours", "colour": "a colour",
              "brightness": "brightness", "mixed": "none of these"}  # fmt: skip
_STANDS_FOR = {"class": "a class", "group": "a group of classes", "texture": "a texture"} | _LOOKS_FOR


def describe_network(unit_rows, layer_rows, growth, silenced=(), sets=(), shared=(), control=(), untrained=()):
    """The paragraphs about one network, by what they are about.

    Args:
        unit_rows: of all layers, as `semantics.unit_rows` makes them.
        layer_rows: as `semantics.layer_rows` makes them of these.
        growth: as `semantics.growth` makes it of these.
        silenced: rows of `Silencing.rows`, of any layers.
        sets: rows of `silencing.set_rows`.
        shared: rows of `LayerSimilarity.row` for two seeds.
        control: the same for two untrained networks.
        untrained: the layer rows of the same network before its training.

    Returns:
        A dict from "filters", "semantics", "silencing" and "similarity" to a list of texts; none about what no rows are
        given for.
    """
    texts = {
        "filters": [first_layer(unit_rows)],
        "semantics": [depth(layer_rows, growth, untrained), selective_units(unit_rows)],
        "silencing": [silenced_units(silenced), silenced_sets(sets)],
        "similarity": [shared_units(shared, control)],
    }
    told = {about: [text for text in own if text] for about, own in texts.items()}
    return {about: own for about, own in told.items() if own}


def first_layer(rows):
    """What the first layer's filters look for by their kernels.

    Args:
        rows: unit rows; those without numbers of a kernel are not looked at.

    Returns:
        A few sentences; "" without any such rows.
    """
    rows = [row for row in rows if row["kernel_kind"] is not None]
    if not rows:
        return ""
    text = f"By their kernels, of the {len(rows)} filters of {rows[0]['layer']}, {_kinds(rows, 'look', _LOOKS_FOR)}."
    told = [row for row in rows if row["grating_share"] is not None]
    edges = [row for row in told if "edge" in row["kernel_kind"]]
    if told:
        p = stats.binomtest(len(edges), len(told), CHANCE, alternative="greater").pvalue
        text += (
            f" Of random kernels of that size up to {_percent(CHANCE)} would pass for edges; the {len(edges)} here are "
            f"{'more' if p < SIGNIFICANCE else 'not shown to be more'} than that (p = {p:.2g})."
        )
    frequencies = [row["frequency"] for row in edges if row["frequency"] is not None]
    if frequencies:
        text += f" The edges have {min(frequencies):.2g} to {max(frequencies):.2g} cycles per pixel."
    elif edges:
        text += " The kernels are too small to tell an edge's frequency."
    elif not told:
        text += " The kernels are too small to tell an orientation."
    hues = collections.Counter(row["opponents"] for row in rows if "colour" in row["kind"]).most_common(NAMED)
    if hues and hues[0][1] > 1:
        text += f" The colours are most often {joined([f'{name} ({count})' for name, count in hues])}."
    return text


def depth(layer_rows, growth, untrained=()):
    """How class selectivity changes with depth.

    Args:
        layer_rows: as `semantics.layer_rows` makes them.
        growth: as `semantics.growth` makes it of these.
        untrained: the layer rows of the same network before its training.

    Returns:
        A few sentences; "" without a layer before the classes.
    """
    hidden = [row for row in layer_rows if not row["logits"]]
    if not hidden:
        return ""
    first, last = hidden[0], hidden[-1]
    text = f"In {first['layer']}, {_selective(first)} class-selective"
    text += f", in {last['layer']}, the last layer before the classes, {_selective(last)}. " if last != first else ". "
    change = _change(growth)
    text += f"{change[0].upper()}{change[1:]}."
    before = next((row for row in untrained if row["layer"] == last["layer"]), None)
    if before is not None:
        more = last["class_selective_share_low"] > before["class_selective_share_high"]
        text += (
            f" With random weights throughout {_selective(before)} so in {last['layer']}; the trained weights are "
            f"{'shown' if more else 'not shown'} to make more of them class-selective."
        )
        if None not in (before["selectivity"], last["selectivity"]):
            text += f" The mean selectivity index is {before['selectivity']:.2f} there with random weights, "
            text += f"{last['selectivity']:.2f} with the trained ones."
    return text


def depth_in_short(layer_rows, growth):
    """How class selectivity changes with depth, for a conclusion.

    Args:
        layer_rows, growth: as `depth` takes them.

    Returns:
        One sentence; "" without a layer before the classes.
    """
    hidden = [row for row in layer_rows if not row["logits"]]
    if not hidden:
        return ""
    first, last = hidden[0], hidden[-1]
    text = f"In {first['layer']} {_percent(first['class_selective_share'])} of the units are class-selective"
    if last != first:
        text += f", in {last['layer']}, the last layer before the classes, {_percent(last['class_selective_share'])}"
    return f"{text}; {_change(growth)}."


def _change(growth):
    rho, p = growth["selectivity"], growth["selectivity_p"]
    if rho is None:
        return "there are too few layers to tell whether selectivity grows with depth"
    change = ("grows" if rho > 0 else "falls") if p < SIGNIFICANCE else "is not shown to grow or fall"
    return (
        f"over the {growth['layers']} layers before the classes the mean selectivity index {change} with depth "
        f"(Spearman's correlation {rho:.2f}, p = {p:.2g})"
    )


def layer(row):
    """What the units of one layer stand for.

    Args:
        row: a row of `semantics.layer_rows`.

    Returns:
        One or two sentences.
    """
    kinds = [{"kind": kind} for kind in (*_STANDS_FOR, "silent") for _ in range(row[kind])]
    text = f"Of the {_units(row['units'])} of {row['layer']}, {_kinds(kinds, 'stand', _STANDS_FOR)}."
    if row["purity"] is None:
        return text
    more = row["purity_low"] is not None and row["purity_low"] > row["purity_by_chance"]
    return (
        f"{text} On average {_percent(row['purity'])}{_interval(row, 'purity')} of the images that excite a unit most "
        f"are of one class, {'more' if more else 'not shown to be more'} than the {_percent(row['purity_by_chance'])} "
        "of random images."
    )


def selective_units(rows):
    """The most class-selective units before the classes, by name.

    Args:
        rows: unit rows.

    Returns:
        A sentence; "" without rows.
    """
    rows = [row for row in rows if not row["logits"]]
    if not rows:
        return ""
    found = sorted((row for row in rows if row["class_selective"]), key=lambda row: -row["selectivity"])
    what = f"class-selective ({_percent(CLASS_PURITY)} or more of the images that excite it most are of one class)"
    if not found:
        return f"No unit of {len(rows):,} before the classes is shown to be {what}."
    named = [
        f"unit {row['unit']} of {row['layer']} ({row['purity_class']}, {selectivity_in_words(row)}, purity "
        f"{_percent(row['purity'])})"
        for row in found[:NAMED]
    ]
    most = "the most selective are" if len(named) > 1 else "it is"
    return f"Of {_units(len(rows))} before the classes, {len(found):,} {_are(found)} {what}; {most} {joined(named)}."


def selectivity_in_words(row):
    """The selectivity index of a unit row, and for which class it is where that is not the one of its top images."""
    other = "" if row["preferred"] == row["purity_class"] else f" for {row['preferred']}"
    return f"selectivity {row['selectivity']:.2f}{other}"


def silenced_units(rows):
    """What silencing single units costs.

    A loss or gain counts as shown where its corrected p is below 0.05 and its 95 % interval does not hold zero.

    Args:
        rows: rows of `Silencing.rows`, of any layers.

    Returns:
        A few sentences; "" without rows.
    """
    if not rows:
        return ""
    shown = [row for row in rows if row["p_corrected"] < SIGNIFICANCE]
    lost = sorted((row for row in shown if row["drop_low"] > 0), key=lambda row: -row["drop"])
    won = sorted((row for row in shown if row["drop_high"] < 0), key=lambda row: row["drop"])
    text = f"Silenced one at a time, on {rows[0]['images']:,} images, "
    if lost:
        text += f"{len(lost):,} of {_units(len(rows))} {_are(lost)} shown to be worth accuracy, the most "
        text += f"{joined([_loss(row) for row in lost[:NAMED]])}."
    else:
        text += f"no unit of {len(rows):,} is shown to be worth accuracy; on so few images a loss of one unit alone is "
        text += f"shown from {_points(_least_shown(rows))} on."
    if won:
        named = [
            f"unit {row['unit']} of {row['layer']} ({_points(-row['drop'])}, "
            f"{_between(-row['drop_high'], -row['drop_low'])})"
            for row in won[:NAMED]
        ]
        text += f" Accuracy is gained by silencing {len(won):,} of them, the most {joined(named)}."
    left = len(rows) - len(lost) - len(won)
    return text + (f" For the other {left:,} it is left open." if 0 < left < len(rows) else "")


def _least_shown(rows):
    """The smallest loss of a lone unit whose p, corrected for the units of its layer, would be small enough."""
    layers = collections.Counter(row["layer"] for row in rows).values()
    # With so many images lost and none won McNemar's exact p is 2 / 2^lost, and the smallest of m is m times as large.
    lost = math.floor(math.log2(2 * min(layers) / SIGNIFICANCE)) + 1
    return lost / rows[0]["images"]


def silenced_sets(rows):
    """What silencing sets of units costs, against random sets of as many.

    Args:
        rows: rows of `silencing.set_rows`.

    Returns:
        A few sentences; "" without rows.
    """
    if not rows:
        return ""
    of_classes = [row for row in rows if row["class_drop"] is not None]
    texts = [_sets_in_words(of_classes, "class_", "the images of that class")] if of_classes else []
    return " ".join([*texts, _sets_in_words(rows, "", f"all {rows[0]['images']:,} images")])


def _sets_in_words(rows, prefix, images):
    def shown(row):
        excess = row[f"{prefix}excess_low"]
        return excess is not None and excess > 0 and row[f"{prefix}p_corrected"] < SIGNIFICANCE

    rows = sorted(rows, key=lambda row: -row[f"{prefix}drop"])
    more, others = [row for row in rows if shown(row)], [row for row in rows if not shown(row)]
    text = f"Without the units of {rows[0]['layer']} for a class, {images} lose more accuracy than without as many "
    text += f"random ones for {len(more) or 'none'} of {len(rows)} such sets{'' if more else ', as far as is shown'}"
    if named := more[:NAMED]:
        text += ": " if len(named) == len(more) else ", the most "
        text += joined([
            f"{row['set']} ({_units(row['units'])}: {_points(row[f'{prefix}drop'])}, "
            f"{_between(row[f'{prefix}drop_low'], row[f'{prefix}drop_high'])}; random ones "
            f"{_points(row[f'{prefix}control_drop'])})"
            for row in named
        ])  # fmt: skip
    left = f" It is left open for {joined([row['set'] for row in others])}." if more and others else ""
    return f"{text}.{left}"


def shared_units(rows, control=()):
    """How often two seeds' networks find the same units.

    Args:
        rows: rows of `LayerSimilarity.row` for two trained networks.
        control: the same for two untrained ones.

    Returns:
        A few sentences; "" without rows.
    """
    if not rows:
        return ""
    first, last = rows[0], rows[-1]
    text = (
        f"In {first['layer']}, {_percent(first['share'])}{_interval(first, 'share')} of the units have a partner in "
        f"the other seed's network that says the same of images (correlation {first['threshold']:g} or more)"
    )
    if last != first:
        text += f", in {last['layer']} {_percent(last['share'])}{_interval(last, 'share')}"
        text += ", fewer" if last["share_high"] < first["share_low"] else ""
        text += ", more" if last["share_low"] > first["share_high"] else ""
    above = [row for row in rows if row["share_low"] > row["null_share_highest"]]
    text += f". It is more than by chance in {_layers(above, rows)}."
    before = {row["layer"]: row for row in control}
    pairs = [(row, before[row["layer"]]) for row in rows if row["layer"] in before]
    if not pairs:
        return text
    above = [row for row, own in pairs if row["share_low"] > own["share_high"]]
    below = [(row, own) for row, own in pairs if row["share_high"] < own["share_low"]]
    text += f" It is more than two untrained networks share in {_layers(above, rows)}"
    text += f", and less in {_layers([row for row, _ in below], rows)}."
    for row, own in below[:1]:
        if None not in (row["alike"], own["alike"]):
            text += (
                f" In {row['layer']} the units of an untrained network correlate with each other by {own['alike']:.2f} "
                f"on the mean, so that each easily finds a partner; those of the trained one by {row['alike']:.2f}."
            )
    trained, untrained = ([each[place]["cka"] for each in pairs] for place in (0, 1))
    return text + (
        f" Linear CKA, of all units of a layer together, is {min(trained):.2f} to {max(trained):.2f}, and between the "
        f"untrained networks {min(untrained):.2f} to {max(untrained):.2f}."
    )


def attribution_methods(rows, image_count):
    """Which attribution methods pass their checks.

    Args:
        rows: of `faithfulness.table`, or the same read from a CSV file.
        image_count: images that they were checked on.

    Returns:
        One sentence or two; "" without rows.
    """
    if not rows:
        return ""
    passed = [row["method"] for row in rows if row["verdict"] == "passes"]
    text = (
        f"Of {len(rows)} attribution methods, checked on {image_count:,} images, "
        f"{joined(passed) if passed else 'none'} {'are' if len(passed) > 1 else 'is'} shown to depend on the weights "
        "and to name pixels that count for more than those of moved maps and of other images' maps."
    )
    central = [
        row["method"] for row in rows
        if any(shown(row, f"{kind}_gain") > 0 >= shown(row, f"{kind}_gain_over_others") for kind in KINDS)
    ]  # fmt: skip
    if central:
        text += (
            f" By deletion or insertion {joined(central)} {'is' if len(central) == 1 else 'are'} shown to be better "
            "than moved maps and not than other images' maps: there a map may know no more than where subjects lie."
        )
    return text


def _kinds(rows, verb, names):
    """How many rows are of each kind: "5 look for edges, 3 for a colour and 1 is silent"."""
    counts = collections.Counter(row["kind"] for row in rows)
    parts = [f"{counts[kind]:,} for {name}" for kind, name in names.items() if counts[kind]]
    if parts:
        count, rest = parts[0].split(" ", 1)
        parts[0] = f"{count} {verb}{'s' if count == '1' else ''} {rest}"
    if counts["silent"]:
        parts.append(f"{counts['silent']:,} {'is' if counts['silent'] == 1 else 'are'} silent")
    return joined(parts)


def _selective(row):
    verb = "is" if row["class_selective"] == 1 else "are"
    share = _percent(row["class_selective_share"])
    return (
        f"{row['class_selective']:,} of {_units(row['units'])} ({share}, 95 % interval "
        f"{_percent(row['class_selective_share_low'])} to {_percent(row['class_selective_share_high'])}) {verb}"
    )


def _loss(row):
    text = (
        f"unit {row['unit']} of {row['layer']} ({_points(row['drop'])}, {_between(row['drop_low'], row['drop_high'])}"
    )
    if row.get("class_drop") is not None and row["class_drop_low"] > 0:
        text += f"; on its preferred class {row['preferred']} {_points(row['class_drop'])}"
    return f"{text})"


def _layers(found, rows):
    if len(found) == len(rows):
        return f"all {len(rows)} layers" if len(rows) > 1 else "this layer"
    count = f"{len(found)} of {len(rows)} layers" if found else f"none of {len(rows)} layers"
    return f"{count}: {joined([row['layer'] for row in found])}" if found else count


def _are(rows):
    return "is" if len(rows) == 1 else "are"


def _units(count):
    return f"{count:,} {'unit' if count == 1 else 'units'}"


def _percent(share):
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def _points(share):
    return f"{100 * share:.1f} points"


def _between(low, high):
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _interval(row, name):
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low is None else f" (95 % interval {_percent(low)} to {_percent(high)})"
