"""Figures of what units stand for and are worth: plain rows and arrays in, a matplotlib Figure out."""

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure, _percent, _short
from tfproject.report.style import styled

KIND_COLOURS = {
    "class": style.PALETTE[0], "group": style.PALETTE[9], "colour": style.PALETTE[1], "colour edge": style.PALETTE[6],
    "edge": style.PALETTE[2], "brightness": style.PALETTE[7], "texture": style.PALETTE[4], "mixed": style.PALE,
    "silent": style.GREY,
}  # fmt: skip
SIGNIFICANCE = 0.05  # of the corrected p below which a loss is shown
NAMED = 2  # units of a layer that are named in a figure
PANELS = 4  # side by side


@styled
def selectivity_by_depth(unit_rows, layer_rows):
    """The class selectivity of each layer's units, and the share of them that are class-selective.

    Args:
        unit_rows: dicts with layer and selectivity (None for silent units).
        layer_rows: dicts with layer, units, class_selective_share and its interval (_low, _high), in order.
    """
    figure, (left, right) = _figure(
        (style.WIDTH, 1.1 + 0.27 * len(layer_rows)), columns=2, sharey=True, gridspec_kw={"width_ratios": (2, 1)}
    )
    random = np.random.default_rng(0)
    for place, layer in enumerate(layer_rows):
        found = [row["selectivity"] for row in unit_rows if row["layer"] == layer["layer"]]
        found = np.array([value for value in found if value is not None])
        if len(found):
            aside = place + random.uniform(-0.28, 0.28, len(found))
            left.plot(found, aside, ".", color=style.PALETTE[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
            low, middle, high = np.percentile(found, (25, 50, 75))
            left.barh(place, high - low, 0.62, low, color="none", edgecolor=style.INK, linewidth=0.8)
            left.vlines(middle, place - 0.31, place + 0.31, color=style.INK, linewidth=1.4)
        low, high = layer["class_selective_share_low"], layer["class_selective_share_high"]
        right.hlines(place, low, high, color=style.PALETTE[0], linewidth=2)
        right.plot(layer["class_selective_share"], place, "D", color=style.PALETTE[0], markersize=4.5)
    _name_layers(left, layer_rows)
    right.tick_params(axis="y", length=0)
    right.spines["left"].set_visible(False)
    right.grid(axis="x")
    left.set(xlim=(0, 1.02), title="Class selectivity of each unit", xlabel="index; box: quartiles and median")
    highest = max((layer["class_selective_share_high"] for layer in layer_rows), default=1)
    right.set(xlim=(0, min(1, 1.1 * highest)), title="Class-selective units", xlabel="share, 95 % interval")
    right.xaxis.set_major_formatter(_percent())
    return figure


@styled
def kinds_by_layer(layer_rows):
    """What the units of each layer stand for, as shares of the layer.

    Args:
        layer_rows: dicts with layer, units and the number of units of each kind, in order.
    """
    figure, axes = _figure((style.WIDTH, 1.2 + 0.29 * len(layer_rows)))
    places, start = np.arange(len(layer_rows)), np.zeros(len(layer_rows))
    for kind, colour in KIND_COLOURS.items():
        counts = np.array([row[kind] for row in layer_rows])
        if not counts.any():
            continue
        shares = counts / [row["units"] for row in layer_rows]
        axes.barh(places, shares, 0.72, start, color=colour, edgecolor="white", linewidth=0.6, label=kind)
        for place, count, share, at in zip(places, counts, shares, start):
            if share > 0.04:
                axes.text(at + share / 2, place, f"{count}", ha="center", va="center", fontsize=7, color=_ink(colour))
        start = start + shares
    _name_layers(axes, layer_rows)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(_percent())
    axes.set_xlabel("share of the layer's units; in the bars, how many")
    figure.legend(loc="outside upper left", ncols=len(KIND_COLOURS), columnspacing=1, handlelength=1.2)
    return figure


@styled
def silencing_drops(rows):
    """The accuracy that silencing each unit costs, layer by layer, with the most important units named.

    Where the loss or gain is shown the unit has a colour, and the two that cost most are named at the right.

    Args:
        rows: dicts with layer, unit, drop, drop_low, drop_high, p_corrected and, where it is known, preferred.
    """
    layers = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    figure, axes = _figure((style.WIDTH, 1.0 + 0.36 * len(layers)))
    random = np.random.default_rng(0)
    for place, of_layer in enumerate(layers.values()):
        aside = place + random.uniform(-0.2, 0.2, len(of_layer))
        shown = np.array([
            row["p_corrected"] < SIGNIFICANCE and (row["drop_low"] > 0 or row["drop_high"] < 0) for row in of_layer
        ])  # fmt: skip
        drops = 100 * np.array([row["drop"] for row in of_layer])
        for chosen, colour in ((~shown, style.PALETTE[3]), (shown, style.PALETTE[2])):
            axes.plot(drops[chosen], aside[chosen], ".", color=colour, markersize=5, alpha=0.8, markeredgewidth=0)
        most = [i for i in np.argsort(-drops, kind="stable") if shown[i] and drops[i] > 0][:NAMED]
        named = [(of_layer[i]["unit"], of_layer[i].get("preferred")) for i in most]
        text = ", ".join(f"{unit} {_short([name], 12)[0]}" if name else f"{unit}" for unit, name in named)
        axes.text(1.01, place, text, va="center", fontsize=7, transform=axes.get_yaxis_transform())
    axes.axvline(0, color=style.INK, linewidth=0.8)
    _name_layers(axes, [{"layer": name, "units": len(of_layer)} for name, of_layer in layers.items()])
    axes.set_xlabel("accuracy lost by silencing the unit, percentage points")
    for colour, label in ((style.PALETTE[2], "shown; at the right the two highest, with the class that they prefer"),
                          (style.PALETTE[3], "left open")):  # fmt: skip
        axes.plot([], [], ".", color=colour, markersize=8, label=label)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def class_preferences(class_means, selectivity, class_names, layer):
    """What each unit of a layer says of each class, the units sorted by the class that they prefer.

    The strip at the left and the numbers beside it are the guide: how many units prefer each class. Within a class the
    most selective units are on top.

    Args:
        class_means: float (units, c), the mean activations; NaN for a class without images.
        selectivity: float (units,); units with NaN, the silent ones, are left out.
        class_names: c names.
        layer: the layer's name.
    """
    means, selectivity = np.asarray(class_means, np.float64), np.asarray(selectivity, np.float64)
    speaking = np.flatnonzero(np.isfinite(selectivity))
    means = means[speaking]
    best = np.where(np.isfinite(means), means, -np.inf).argmax(axis=1)
    order = np.lexsort((-selectivity[speaking], best))
    means, best = means[order], best[order]
    low, high = (reduce(means, axis=1)[:, None] if len(means) else 0 for reduce in (np.nanmin, np.nanmax))
    shares = (means - low) / np.where(high > low, high - low, 1)

    figure, (strip, axes) = _figure((style.WIDTH, 5.2), columns=2, sharey=True, gridspec_kw={"width_ratios": (1, 28)})
    names = _short(class_names, 16)
    colours = list(style.class_colours(class_names).values())
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    extent = (0, 1, len(best), 0)
    strip.imshow(rgb[best][:, None].reshape(len(best), 1, 3), aspect="auto", interpolation="nearest", extent=extent)
    ticks, labels, last = [], [], -np.inf
    for label in range(len(class_names)):
        own = np.flatnonzero(best == label)
        if not len(own):
            continue
        axes.axhline(own[0], color="white", linewidth=1.2)
        middle = own.mean() + 0.5
        # Names of small classes would stand on each other.
        last = max(middle, last + len(best) / 30)
        ticks.append(last)
        labels.append(f"{names[label]} ({len(own)})")
    strip.set_yticks(ticks, labels)
    strip.set(xticks=[], ylim=(max(len(best), *(np.array(ticks) + 0.5), 1), 0), ylabel="units by preferred class")
    shown = axes.imshow(
        shares, cmap=style.SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
        extent=(-0.5, len(class_names) - 0.5, len(best), 0),
    )  # fmt: skip
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(class_names)), names, **slanted)
    axes.set_xlabel("class of the image")
    for each in (strip, axes):
        each.tick_params(axis="both", length=0)
        each.spines[:].set_visible(False)
    left_out = len(selectivity) - len(best)
    title = f"{layer}: {len(best):,} unit{'s' * (len(best) != 1)}" + f", {left_out:,} silent left out" * (left_out > 0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
    bar = figure.colorbar(shown, ax=axes, ticks=(0, 0.5, 1), fraction=0.03, pad=0.02)
    bar.set_label("mean activation, from the unit's lowest class to its highest", fontsize=8)
    bar.outline.set_visible(False)
    return figure


@styled
def matched_correlations(layers, threshold=0.5):
    """How well each unit's partner in another network agrees with it, a panel for each layer.

    Args:
        layers: dicts with layer, correlations (m, of the pairs, largest first), null (draws, m, the same by chance) and
            control (correlations of two untrained networks, or None).
        threshold: the correlation from which on units count as the same.
    """
    columns = max(1, min(PANELS, len(layers)))
    lines = max(1, -(-len(layers) // columns))
    figure, panels = _figure(
        (style.WIDTH, 0.7 + 1.9 * lines), lines, columns, sharex=True, sharey=True, squeeze=False
    )  # fmt: skip
    lowest = min((np.min(row["null"], initial=0) for row in layers), default=0)
    for axes in panels.flat[len(layers) :]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, len(layers) - columns) : len(layers)]:
        axes.tick_params(labelbottom=True)
    for axes, row, name in zip(panels.flat, layers, _short([row["layer"] for row in layers], 16)):
        curves = (
            ("two seeds", row["correlations"], style.PALETTE[0], "-"),
            ("two untrained networks", row["control"], style.PALETTE[6], "--"),
            ("by chance", np.mean(row["null"], axis=0), style.GREY, ":"),
        )
        for label, values, colour, line in curves:
            if values is not None and len(values):
                shares = (np.arange(len(values)) + 0.5) / len(values)
                axes.plot(shares, values, line, color=colour, label=label, marker="." if len(values) < 12 else None)
        axes.axhline(threshold, color=style.INK, linewidth=0.8)
        found = np.mean(np.asarray(row["correlations"]) >= threshold) if len(row["correlations"]) else 0
        axes.set_title(f"{name}\n{found:.0%} the same", fontsize=8)
        axes.set(xlim=(0, 1), ylim=(min(0, lowest), 1.02), xticks=(0, 0.5, 1))
        axes.xaxis.set_major_formatter(_percent())
        axes.tick_params(labelsize=7)
        axes.grid()
    figure.supxlabel(f"pairs of units, the most alike first; they count as the same from the line on ({threshold:g})",
                     fontsize=8)  # fmt: skip
    figure.supylabel("correlation over images", fontsize=8)
    once = {h.get_label(): h for axes in panels.flat for h in axes.get_legend_handles_labels()[0]}
    figure.legend(once.values(), once.keys(), loc="outside upper left", ncols=3)
    return figure


def _name_layers(axes, rows):
    names = _short([row["layer"] for row in rows], 22)
    axes.set_yticks(range(len(rows)), [f"{name} ({row['units']:,})" for name, row in zip(names, rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _ink(colour):
    """Black or white, whichever is read more easily on this colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return style.INK if 0.3 * red + 0.6 * green + 0.1 * blue > 130 else "white"
