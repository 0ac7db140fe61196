"""Figures of what an image set holds: plain rows and arrays in, a matplotlib Figure out."""

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure, _percent, _short, captioned_sheet, confusion_matrix
from tfproject.report.style import styled

CHANNEL_COLOURS = {"red": "#bd1f01", "green": "#4a9a3f", "blue": "#3f90da"}
CHANNEL_MARKERS = {"red": "s", "green": "o", "blue": "D"}
COLUMNS = 5  # panels side by side


@styled
def channel_statistics(rows):
    """Mean of each channel by class, with the spread between images (thick) and of all pixels (thin).

    Args:
        rows: what `tfproject.exploration.channel_statistics` gives: class, channel, images, mean, spread, between.
    """
    names = list(dict.fromkeys(row["class"] for row in rows))
    figure, axes = _figure((style.WIDTH, 1.1 + 0.42 * len(names)))
    aside = {"red": -0.22, "green": 0.0, "blue": 0.22}
    for channel, colour in CHANNEL_COLOURS.items():
        own = [row for row in rows if row["channel"] == channel]
        places = np.array([names.index(row["class"]) + aside[channel] for row in own])
        mean, spread, between = (np.array([row[key] for row in own]) for key in ("mean", "spread", "between"))
        axes.hlines(places, mean - spread, mean + spread, color=colour, linewidth=0.9)
        axes.hlines(places, mean - between, mean + between, color=colour, linewidth=3.2, alpha=0.75)
        axes.plot(
            mean, places, CHANNEL_MARKERS[channel], color=colour, markersize=4.5, markeredgecolor="white",
            markeredgewidth=0.6, label=channel,
        )  # fmt: skip
    axes.plot([], [], color=style.GREY, linewidth=3.2, label="± spread between images' means")
    axes.plot([], [], color=style.GREY, linewidth=0.9, label="± spread of all pixels")
    _name_classes(axes, names)
    axes.set_xlabel("channel value, 0 to 255")
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=5, columnspacing=1.2, handlelength=1.4)
    return figure


@styled
def colour_histograms(histograms, class_names):
    """The histogram of each channel, a panel per class.

    Args:
        histograms: float (c, 3, bins), shares; red, green, blue.
        class_names: c names.
    """
    histograms = np.asarray(histograms)
    bins = histograms.shape[-1]
    edges = np.linspace(0, 256, bins + 1)
    figure, panels = _class_panels(len(class_names), 1.45, sharex=True, sharey=True)
    # A peak of saturated pixels would press all others to the ground; how high it is stands beside it.
    top = 1.1 * np.quantile(histograms.max(axis=-1), 0.9) if histograms.any() else 1
    for axes, name, own in zip(panels, _short(class_names, 17), histograms):
        for (_, colour), values, line in zip(CHANNEL_COLOURS.items(), own, ("-", "--", ":")):
            axes.stairs(values, edges, color=colour, linewidth=1.3, linestyle=line)
        cut = [f"{channel} {values.max():.0%}" for channel, values in zip(CHANNEL_COLOURS, own) if values.max() > top]
        told = "\n".join(["peaks:", *cut]) if cut else ""
        axes.text(0.98, 0.97, told, transform=axes.transAxes, ha="right", va="top", fontsize=7)
        axes.set_title(name, fontsize=7.5, loc="center")
        axes.set(xlim=(0, 256), ylim=(0, top), xticks=(0, 128, 255))
        axes.yaxis.set_major_formatter(_percent())
        axes.tick_params(labelsize=7)
        axes.grid(axis="y")
    figure.supxlabel("channel value", fontsize=9)
    figure.supylabel(f"share of pixels in a bin of {256 // bins}", fontsize=9)
    for (channel, colour), line in zip(CHANNEL_COLOURS.items(), ("-", "--", ":")):
        panels[0].plot([], [], color=colour, linestyle=line, label=channel)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@styled
def mean_images(images, class_names):
    """The mean image of each class as it is, and below it with its contrast stretched to show what little form it has.

    Args:
        images: float (c, h, w, 3) in 0..255; NaN for a class without images.
        class_names: c names.
    """
    lines = -(-len(class_names) // COLUMNS)
    figure, panels = _figure((style.WIDTH, 3.35 * lines), 2 * lines, COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for i, (name, image) in enumerate(zip(_short(class_names, 20), images)):
        line, column = divmod(i, COLUMNS)
        if not np.isfinite(image).all():
            continue
        form = image - image.mean(axis=(0, 1))
        stretched = 127.5 + form / max(np.abs(form).max(), 1e-9) * 127.5
        for axes, shown in zip(panels[2 * line : 2 * line + 2, column], (image, stretched)):
            axes.imshow(np.clip(np.rint(shown), 0, 255).astype(np.uint8), interpolation="nearest")
        panels[2 * line, column].set_title(name, fontsize=8, loc="center")
        text = f"deviations, at most {np.abs(form).max():.1f}"
        panels[2 * line + 1, column].set_title(text, fontsize=7, loc="center", weight="normal")
    return figure


@styled
def mean_spectra(spectra, class_names):
    """The mean log power spectrum of each class, the frequency 0 in the middle; all panels on one scale.

    Args:
        spectra: float (c, h, w), log10 of the power; NaN for a class without images.
        class_names: c names.
    """
    spectra = np.asarray(spectra)
    figure, panels = _class_panels(len(class_names), 1.35, sharex=True, sharey=True)
    low, high = np.nanquantile(spectra, (0.01, 0.999))
    shown = None
    for axes, name, spectrum in zip(panels, _short(class_names, 15), spectra):
        axes.set_title(name, fontsize=7.5, loc="center")
        axes.tick_params(labelsize=7)
        axes.set(xticks=(-0.5, 0, 0.5), yticks=(-0.5, 0, 0.5))
        if np.isfinite(spectrum).all():
            shown = axes.imshow(
                spectrum, extent=(-0.5, 0.5, 0.5, -0.5), cmap="viridis", vmin=low, vmax=high, interpolation="nearest"
            )
    figure.supxlabel("horizontal frequency, cycles per pixel", fontsize=9)
    figure.supylabel("vertical frequency", fontsize=9)
    if shown is not None:
        figure.colorbar(shown, ax=list(panels), label="log10 power", shrink=0.8)
    return figure


@styled
def radial_profiles(frequencies, profiles, class_names):
    """The power of each class by frequency, all directions together.

    Args:
        frequencies: float (k,) in cycles per pixel.
        profiles: float (c, k), log10 of the power.
        class_names: c names.
    """
    figure, axes = _figure((style.WIDTH, 3.6))
    colours = style.class_colours(class_names)
    for i, (name, profile) in enumerate(zip(class_names, np.asarray(profiles))):
        axes.plot(frequencies, profile, color=colours[name], linestyle=("-", "--")[i % 2], label=_short([name])[0])
    axes.set_xscale("log")
    ticks = [f for f in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2) if f >= min(frequencies) * 0.99]
    axes.set_xticks(ticks, [f"1/{round(1 / f)}" for f in ticks])
    axes.minorticks_off()
    axes.set(xlabel="frequency, cycles per pixel", ylabel="log10 power")
    axes.grid()
    figure.legend(loc="outside right upper")
    return figure


@styled
def colour_confusion(confusion, class_names):
    """How a linear model on colours alone confuses the classes, in percent of each true class.

    Args:
        confusion: c x c counts, rows the true classes.
        class_names: c names.
    """
    confusion = np.asarray(confusion)
    figure = confusion_matrix(confusion, class_names, normalise=True)
    right = confusion.trace() / max(confusion.sum(), 1)
    figure.axes[0].set_title(f"From colours alone {right:.1%} of {confusion.sum():,} are right")
    return figure


@styled
def class_accuracies(accuracies, class_names, intervals=None):
    """The accuracy of each class under several models, as points on a line: a floor beside what is to beat it.

    Args:
        accuracies: a dict from a model's name to c accuracies in 0..1, NaN or None where there is none.
        class_names: c names.
        intervals: a dict from a model's name to c pairs (low, high), drawn as lines through the points; None for none.
    """
    figure, axes = _figure((style.WIDTH, 1.0 + 0.29 * len(class_names)))
    places = np.arange(len(class_names))
    values = np.array([np.array(row, dtype=float) for row in accuracies.values()])
    if intervals is None:
        axes.hlines(places, np.fmin.reduce(values), np.fmax.reduce(values), color=style.GREY, linewidth=1)
    for i, (name, row, marker, colour) in enumerate(zip(accuracies, values, "osD^v<>", style.PALETTE)):
        beside = places
        if intervals is not None:  # lines would cover each other
            beside = places + 0.22 * (i - (len(values) - 1) / 2)
            axes.hlines(beside, *np.array(intervals[name], dtype=float).T, color=colour, linewidth=2)
        axes.plot(row, beside, marker, color=colour, markersize=6, label=name)
    _name_classes(axes, class_names)
    axes.xaxis.set_major_formatter(_percent())
    axes.set_xlabel("images of the class that are right" + (", 95 % interval" if intervals else ""))
    axes.grid()
    figure.legend(loc="outside upper left", ncols=4)
    return figure


@styled
def outlier_sheet(images, rows):
    """The images farthest from their own class in a network's features.

    Args:
        images: uint8 (n, h, w, 3), all that were compared.
        rows: those to show: index, class, ratio, neighbours, as `tfproject.exploration.outliers` gives them.
    """
    captions = []
    for row in rows:
        name, count = next(iter(row["neighbours"].items()), ("none", 0))
        captions.append(
            (row["class"], f"{row['ratio']:.1f} × as far; {count} of {sum(row['neighbours'].values())} near\n"
             f"are {_short([name], 21)[0]}")
        )  # fmt: skip
    return captioned_sheet(images, [row["index"] for row in rows], captions)


@styled
def cluster_tables(tables, class_names):
    """Which classes fall into which clusters, a panel per network.

    Args:
        tables: a dict from a title to what `tfproject.exploration.clusters` gives.
        class_names: c names.
    """
    side = 0.9 + 0.26 * len(class_names)
    figure, panels = _figure((style.WIDTH, side + 0.6), columns=len(tables), squeeze=False, sharey=True)
    for axes, (title, found) in zip(panels[0], tables.items()):
        table = np.asarray(found["table"])
        shares = table / np.maximum(1, table.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(shares):
            if value >= 0.05:
                ink = "white" if value > 0.55 else style.INK
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_title(
            f"{title}\nadjusted Rand {found['adjusted_rand']:.2f}, NMI "
            f"{found['normalised_mutual_information']:.2f}", fontsize=9,
        )  # fmt: skip
        axes.set_yticks(range(len(class_names)), _short(class_names))
        axes.set_xticks(range(len(class_names)), range(1, len(class_names) + 1))
        axes.set_xlabel("cluster; percent of the class")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _name_classes(axes, names, width=24):
    axes.set_yticks(np.arange(len(names)), _short(names, width))
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _class_panels(count, height, **options):
    lines = max(1, -(-count // COLUMNS))
    columns = min(count, COLUMNS)
    figure, panels = _figure((style.WIDTH, 0.7 + height * lines), lines, columns, squeeze=False, **options)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, panels.flatten()[:count]
