"""Figures of a cost table."""

import itertools

import numpy as np

from tfproject.cost.table import FAMILIES, family
from tfproject.report import style
from tfproject.report.style import styled


@styled
def shares(table, most=24):
    """Each layer's share of the parameters, of what training keeps and of a training step's FLOPs, as bars.

    Args:
        table: a CostTable.
        most: show so many layers, those with the largest share of anything; the rest is one bar.

    Returns:
        A matplotlib Figure.
    """
    totals = table.totals
    fields = {"parameters": "parameters", "kept_bytes": "kept for backward", "step_flops": "FLOPs of a step"}
    values = np.array([[(getattr(row, f) or 0) / (totals[f] or 1) for f in fields] for row in table.rows])
    shown = np.sort(np.argsort(-values.max(axis=1), kind="stable")[:most])
    shown = shown[values[shown].max(axis=1) > 0]
    names = [_short(table.rows[i].name) for i in shown]
    colours = _colours(table.rows[i].type for i in shown)
    bars = values[shown]
    rest = values.sum(axis=0) - bars.sum(axis=0)
    if rest.max() > 0.0005:
        names, colours = [*names, f"{len(table.rows) - len(shown)} others"], [*colours, style.GREY]
        bars = np.vstack([bars, rest])
    figure, panels = _figure((style.WIDTH, 1.1 + 0.2 * len(names)), columns=3, sharey=True)
    for axes, title, column in zip(panels, fields.values(), bars.T, strict=True):
        axes.barh(np.arange(len(names)), column, height=0.75, color=colours)
        axes.set_title(title)
        axes.set_xlim(0, max(0.01, column.max()) * 1.18)
        axes.xaxis.set_major_formatter(_percent())
        axes.xaxis.set_major_locator(_few_ticks())
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(np.arange(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    _legend(figure, [table.rows[i].type for i in shown])
    return figure


@styled
def roofline(table):
    """Speed against arithmetic intensity of each measured layer, and the machine's roof.

    The roof is that of tensors too large for the cache and of one matrix product, and padding counts as arithmetic: a
    layer may lie above it.

    Args:
        table: a CostTable that was measured.

    Returns:
        A matplotlib Figure.

    Raises:
        UserError: if the table was not measured.

    Reference:
        Williams, Waterman and Patterson 2009, Roofline: an insightful visual performance model for multicore
        architectures.
    """
    from tfproject.errors import UserError

    if table.machine is None:
        raise UserError(f"The cost table of {table.model} has no times to draw; make it with measure=True.")
    machine = table.machine
    rows = [row for row in table.rows if row.gflops and row.intensity]
    figure, axes = _figure((style.WIDTH, 4.2))
    x = np.array([row.intensity for row in rows] + [machine.ridge])
    y = np.array([row.gflops for row in rows] + [machine.gflops])
    span = np.geomspace(x.min() / 2, x.max() * 2, 200)
    axes.plot(span, [machine.attainable(i) for i in span], color=style.INK)
    axes.axvline(machine.ridge, color=style.GREY, linestyle=":", linewidth=1)
    kinds = [family(row.type) for row in rows]
    for name, _ in FAMILIES:
        mine = [i for i, kind in enumerate(kinds) if kind == name]
        if mine:
            colour = _family_colour(name)
            axes.scatter(x[mine], y[mine], s=22, color=colour, edgecolor="white", linewidth=0.5, label=name, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="arithmetic intensity, FLOPs per byte", ylabel="GFLOP/s, forward")
    axes.set_ylim(bottom=y.min() / 2, top=machine.gflops * 2.5)
    axes.set_title(
        f"{machine.gflops:.0f} GFLOP/s and {machine.gigabytes_per_second:.0f} GB/s: the roof is arithmetic's from "
        f"{machine.ridge:.0f} FLOPs per byte on"
    )
    axes.grid()
    if rows:
        figure.legend(loc="outside lower left", ncols=6)
    named = _apart(sorted(rows, key=lambda row: -row.forward_ms), most=5)
    _label(axes, [(_short(row.name), row.intensity, row.gflops) for row in named], list(zip(x, y, strict=True)))
    return figure


def _label(axes, labels, points):
    """Name points, (name, x, y) each, with lines to where no name covers a point, the roof or another name."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # which lays the axes out
    free_of = axes.transData.transform([*points, *axes.lines[0].get_xydata()])
    pixels, named = axes.figure.dpi / 72, []
    for name, x, y in labels:
        line = {"arrowstyle": "-", "color": style.GREY, "lw": 0.6}
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=7, va="center", arrowprops=line)
        width, height = text.get_window_extent().size
        for distance, angle in itertools.product(range(10, 120, 5), range(-90, 270, 15)):
            offset = distance * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
            right = offset[0] > -0.1
            corner = axes.transData.transform((x, y)) + pixels * offset - (0 if right else width, height / 2)
            box = Bbox.from_bounds(*corner, width, height).padded(8)
            if axes.bbox.count_contains(box.corners()) == 4 and not (
                box.count_contains(free_of) or box.count_overlaps(named)
            ):
                break
        named.append(box)
        text.xyann = offset
        text.set_ha("left" if right else "right")


def _apart(rows, most):
    """The first rows whose names can stand beside each other."""
    chosen = []
    for row in rows:
        near = (c for c in chosen if abs(np.log10(c.gflops / row.gflops)) < 0.15)
        if len(chosen) < most and all(abs(np.log10(c.intensity / row.intensity)) > 0.8 for c in near):
            chosen.append(row)
    return chosen


def _figure(size, columns=1, **options):
    # Not through pyplot, which keeps every figure until it is closed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, **options)


def _family_colour(name):
    return {"other": style.GREY}.get(name) or style.PALETTE[[n for n, _ in FAMILIES].index(name)]


def _colours(kinds):
    return [_family_colour(family(kind)) for kind in kinds]


def _legend(figure, kinds):
    from matplotlib.patches import Patch

    there = {family(kind) for kind in kinds}
    patches = [Patch(color=_family_colour(name), label=name) for name, _ in FAMILIES if name in there]
    figure.legend(handles=patches, loc="outside lower left", ncols=6)


def _percent():
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, decimals=0)


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3)


def _short(name, width=26):
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
