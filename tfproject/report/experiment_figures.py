"""Figures of experiments: plain lists and dicts in, a matplotlib Figure out."""

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure, _percent
from tfproject.report.style import styled


def _colours(names):
    return style.class_colours(list(names))


def _band(histories, column):
    """Mean, lowest and highest over the seeds, for the epochs that all of them have."""
    length = min(len(history[column]) for history in histories)
    values = np.array([history[column][:length] for history in histories], dtype=float)
    return values.mean(axis=0), values.min(axis=0), values.max(axis=0)


@styled
def curves(histories):
    """Accuracy in training and on validation after each epoch: mean of the seeds, with a band from lowest to highest.

    Args:
        histories: a dict from variation to a list of histories, one per seed; each a dict with the lists `accuracy` and
            `val_accuracy`, a value per epoch.
    """
    figure, panels = _figure((style.WIDTH, 3.2), columns=2, sharey=True)
    colours = _colours(histories)
    for axes, column, title in zip(panels, ("accuracy", "val_accuracy"), ("Training", "Validation")):
        for name, of_seeds in histories.items():
            mean, low, high = _band(of_seeds, column)
            epochs = np.arange(1, len(mean) + 1)
            marker = "." if len(mean) < 4 else None
            axes.plot(epochs, mean, color=colours[name], label=name, marker=marker)
            axes.fill_between(epochs, low, high, color=colours[name], alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.yaxis.set_major_formatter(_percent())
        axes.grid()
    panels[0].set_ylabel("accuracy")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def accuracy(rows, trials, baseline):
    """Accuracy on validation of each variation: the mean with its 95 % interval, and every seed.

    Args:
        rows: dicts with variation, seeds, diverged (how many of them), val_accuracy, val_accuracy_low,
            val_accuracy_high, and where there is one test_accuracy, test_accuracy_low, test_accuracy_high,
            published_test_accuracy; None where there is no value.
        trials: dicts with variation and val_accuracy. Of a variation with a seed that diverged none is drawn.
        baseline: the name of the variation whose mean gets a line across.
    """
    figure, axes = _figure((style.WIDTH, 1.3 + 0.32 * len(rows)))
    lost = {row["variation"] for row in rows if row["val_accuracy"] is None}
    known = [trial for trial in trials if trial["variation"] not in lost]
    for place, row in enumerate(rows):
        own = [trial["val_accuracy"] for trial in known if trial["variation"] == row["variation"]]
        axes.plot(
            own, [place] * len(own), "o", color=style.GREY, markersize=3, label="each seed" if place == 0 else None
        )
        for column, colour, offset, label in (
            ("val_accuracy", style.SPLIT_COLOURS["val"], 0, "validation, mean and 95 % interval"),
            ("test_accuracy", style.SPLIT_COLOURS["test"], 0.25, "test, mean and 95 % interval"),
        ):
            if row[column] is None:
                continue
            if row[f"{column}_low"] is not None:
                axes.hlines(place + offset, row[f"{column}_low"], row[f"{column}_high"], color=colour, linewidth=2)
            axes.plot(row[column], place + offset, "D", color=colour, markersize=5, label=label)
        if row["published_test_accuracy"] is not None:
            axes.plot(
                row["published_test_accuracy"], place + 0.25, "x", color=style.INK,
                label="published (test, best epoch by test)",
            )  # fmt: skip
        if row["variation"] == baseline and row["val_accuracy"] is not None:
            axes.axvline(row["val_accuracy"], color=style.GREY, linewidth=0.8, linestyle=":")
        if row["val_accuracy"] is None:
            told = f"{row['diverged']} of {row['seeds']} seeds diverged"
            axes.annotate(told, (0.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["variation"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    # A very wide interval of a few seeds would press everything else together; it runs out of the picture instead.
    means = [row[f"{kind}_accuracy"] for row in rows for kind in ("val", "test", "published_test")]
    means = [mean for mean in means if mean is not None] + [trial["val_accuracy"] for trial in known]
    if means:
        margin = max(0.02, 0.35 * (max(means) - min(means)))
        axes.set_xlim(max(0, min(means) - margin), min(1, max(means) + margin))
    finish_accuracy_rows(figure, axes)
    return figure


def finish_accuracy_rows(figure, axes):
    """What every figure of one accuracy a row has: the axis in percent, and each label once in the legend."""
    axes.set_xlabel("accuracy")
    axes.xaxis.set_major_formatter(_percent())
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=2)


@styled
def epochs_and_seconds(histories):
    """Accuracy on validation against epochs and against seconds, the mean of the seeds.

    Args:
        histories: a dict from variation to a list of histories, one per seed; each a dict with the lists `val_accuracy`
            and `seconds` (of each epoch), a value per epoch.
    """
    figure, panels = _figure((style.WIDTH, 3.2), columns=2, sharey=True)
    colours = _colours(histories)
    for name, of_seeds in histories.items():
        mean, low, high = _band(of_seeds, "val_accuracy")
        seconds = np.cumsum(_band(of_seeds, "seconds")[0])
        for axes, x in zip(panels, (np.arange(1, len(mean) + 1), seconds)):
            axes.plot(x, mean, color=colours[name], label=name, marker="." if len(mean) < 4 else None)
            axes.fill_between(x, low, high, color=colours[name], alpha=0.2, linewidth=0)
    for axes, label in zip(panels, ("epochs", "seconds of training and validation")):
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(_percent())
        axes.grid()
    panels[0].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    panels[0].set_ylabel("accuracy on validation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def lines(groups, x_label):
    """Accuracy on validation against a number that is varied, a line per group with 95 % intervals.

    Args:
        groups: a dict from group to a list of (x, mean, low, high), one per variation; mean None where it diverged, low
            and high None where there is no interval.
        x_label: what the number is; its axis is logarithmic.
    """
    figure, axes = _figure((style.WIDTH, 3.4))
    colours = _colours(groups)
    places = sorted({point[0] for points in groups.values() for point in points})
    for number, (name, points) in enumerate(groups.items()):
        shift = 1 + 0.02 * (number - (len(groups) - 1) / 2)  # so that intervals do not hide each other
        known = sorted(p for p in points if p[1] is not None)
        x = [p[0] * shift for p in known]
        axes.plot(x, [p[1] for p in known], marker="o", markersize=4, color=colours[name], label=name)
        axes.vlines(
            [p[0] * shift for p in known if p[2] is not None], [p[2] for p in known if p[2] is not None],
            [p[3] for p in known if p[2] is not None], color=colours[name], linewidth=1.2,
        )  # fmt: skip
        lost = [p[0] * shift for p in points if p[1] is None]
        axes.plot(lost, [0.02] * len(lost), "x", color=colours[name], transform=axes.get_xaxis_transform())
    means = [p[1] for points in groups.values() for p in points if p[1] is not None]
    if means:
        margin = max(0.02, 0.2 * (max(means) - min(means)))
        axes.set_ylim(max(0, min(means) - margin), min(1, max(means) + margin))
    axes.set_xscale("log")
    if places:
        axes.set_xlim(places[0] / 1.3, places[-1] * 1.3)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set(xlabel=x_label, ylabel="accuracy on validation")
    axes.yaxis.set_major_formatter(_percent())
    axes.grid()
    if groups:
        figure.legend(loc="outside lower center", ncols=3)
    return figure
