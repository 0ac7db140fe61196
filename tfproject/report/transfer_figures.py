"""Figures of transfer learning: plain lists and dicts in, a matplotlib Figure out."""

import numpy as np

from tfproject.report import style
from tfproject.report.experiment_figures import finish_accuracy_rows
from tfproject.report.figures import _figure, _percent
from tfproject.report.style import styled

LARGEST_RANGE = 8  # of losses, the largest over the smallest, that a linear axis still shows


@styled
def learning_curves(curves, chance, colours):
    """Balanced accuracy on test against photos per class: the mean of the seeds, its 95 % interval, and every seed.

    Args:
        curves: a dict from method to points {per_class, accuracies, mean, low, high}, the fewest photos first;
            per_class is the mean number of training photos a class, low and high None where there is no interval.
        chance: the accuracy of always saying the same class.
        colours: a dict from method to colour.
    """
    figure, axes = _figure((style.WIDTH, 3.6))
    places = sorted({round(point["per_class"], 1) for points in curves.values() for point in points})
    for number, (method, points) in enumerate(curves.items()):
        shift = 1 + 0.025 * (number - (len(curves) - 1) / 2)  # so that intervals do not hide each other
        colour, x = colours[method], [point["per_class"] * shift for point in points]
        axes.plot(x, [point["mean"] for point in points], "o-", color=colour, markersize=4, label=method)
        for place, point in zip(x, points):
            axes.plot([place] * len(point["accuracies"]), point["accuracies"], ".", color=colour, markersize=3)
            if point["low"] is not None:
                axes.vlines(place, max(0, point["low"]), min(1, point["high"]), color=colour, linewidth=1.2)
    axes.axhline(chance, color=style.GREY, linewidth=1, linestyle=":", label="always the same class")
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_xlabel("training photos a class (the last: all, on average)")
    axes.set(ylabel="balanced accuracy on test", ylim=(0, 1))
    axes.yaxis.set_major_formatter(_percent())
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def parts(rows):
    """Accuracy of each part, with and without the photos that training has a duplicate of.

    Args:
        rows: dicts with part, test and distinct (each {mean, low, high}; low and high None where there is no interval)
            and published (None where there is none).
    """
    figure, axes = _figure((style.WIDTH, 1.3 + 0.42 * len(rows)))
    kinds = (
        ("test", -0.12, style.SPLIT_COLOURS["test"], "D", "all test photos, mean and 95 % interval"),
        ("distinct", 0.12, style.PALETTE[0], "o", "without duplicates of training photos"),
    )
    for place, row in enumerate(rows):
        for kind, offset, colour, marker, label in kinds:
            found = row[kind]
            if found["mean"] is None:
                continue
            if found["low"] is not None:
                axes.hlines(place + offset, max(0, found["low"]), min(1, found["high"]), color=colour, linewidth=2)
            axes.plot(found["mean"], place + offset, marker, color=colour, markersize=5, label=label)
        if row["published"] is not None:
            axes.plot(row["published"], place, "x", color=style.INK, label="the course project (another edition)")
    axes.set_yticks(range(len(rows)), [row["part"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    finish_accuracy_rows(figure, axes)
    return figure


@styled
def loss_and_accuracy(histories, colours, stage_ends=()):
    """Loss and accuracy after each epoch, on validation and (dashed) in training: the mean of the seeds.

    Args:
        histories: a dict from variation to a list of histories, one per seed; each a dict with the lists `loss`,
            `accuracy`, `val_loss` and `val_accuracy`, a value per epoch.
        colours: a dict from variation to colour.
        stage_ends: after how many epochs a stage of some variation ends; a line is drawn there.
    """
    from matplotlib.ticker import LogLocator

    figure, panels = _figure((style.WIDTH, 3.1 + 0.12 * len(histories)), columns=2)
    for axes, column, title in zip(panels, ("loss", "accuracy"), ("Loss", "Accuracy")):
        for name, of_seeds in histories.items():
            length = min(len(history["loss"]) for history in of_seeds)
            epochs = np.arange(1, length + 1)
            for prefix, line, label in (("", "--", None), ("val_", "-", name)):
                values = np.array([history[prefix + column][:length] for history in of_seeds], dtype=float)
                marker = "." if prefix and length < 4 else None
                axes.plot(epochs, values.mean(axis=0), line, color=colours[name], label=label, marker=marker,
                          linewidth=1.6 if prefix else 1)  # fmt: skip
        for end in stage_ends:
            axes.axvline(end + 0.5, color=style.GREY, linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel="epoch (dashed: training)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid()
    if _range(histories) > LARGEST_RANGE:
        panels[0].set_yscale("log", subs=())
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")
    panels[1].yaxis.set_major_formatter(_percent())
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _range(histories):
    values = [history[column] for each in histories.values() for history in each for column in ("loss", "val_loss")]
    values = np.concatenate(values)
    return values.max() / max(values.min(), 1e-9)
