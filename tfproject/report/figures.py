"""Figures from plain arrays and dicts: each function returns a matplotlib Figure and leaves no state behind."""

import base64
import io

import numpy as np
from PIL import Image

from tfproject.files import write_atomically
from tfproject.report import style
from tfproject.report.style import styled

JPEG_QUALITY, MUCH_SMALLER = 85, 0.7  # of a figure that shows photographs; the share of the PNG's bytes it may have
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test", "all": "all"}


@styled
def sample_sheet(images, labels, class_names, per_class=8):
    """The first images of every class, a row per class.

    Args:
        images: uint8, shape (n, h, w, 3).
        labels: int, shape (n,).
        class_names: c names.
        per_class: images a row; a class with fewer leaves the rest of its row white.
    """
    height, width = images.shape[1:3]
    gap = max(1, round(width / 16))
    sheet = np.full((len(class_names) * (height + gap) - gap, per_class * (width + gap) - gap, 3), 255, np.uint8)
    for row in range(len(class_names)):
        for column, i in enumerate(np.flatnonzero(np.asarray(labels) == row)[:per_class]):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = images[i]

    margin = 1.7  # inches for the class names
    size = (style.WIDTH, (style.WIDTH - margin) * sheet.shape[0] / sheet.shape[1] + 0.15)
    figure, axes = _figure(size)
    axes.set_anchor("E")  # what is left over is the names'
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_yticks([row * (height + gap) + height / 2 for row in range(len(class_names))], _short(class_names))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def class_counts(counts, class_names):
    """Images per class and split, as bars one behind the other with the sum at the end.

    Args:
        counts: a dict from split name to c counts.
        class_names: c names.
    """
    figure, axes = _figure((style.WIDTH, 0.9 + 0.27 * len(class_names)))
    places = np.arange(len(class_names))
    start = np.zeros(len(class_names))
    for i, (split, values) in enumerate(counts.items()):
        colour = style.SPLIT_COLOURS.get(split, style.PALETTE[(3 + i) % len(style.PALETTE)])
        label = f"{SPLIT_NAMES.get(split, split)} ({int(np.sum(values)):,})"
        axes.barh(places, values, left=start, height=0.72, color=colour, edgecolor="white", linewidth=0.6, label=label)
        start = start + np.asarray(values)
    for place, total in zip(places, start):
        axes.annotate(f"{int(total):,}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, _short(class_names))
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.set_xlim(0, max(1, start.max()) * 1.08)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=max(1, len(counts)))
    return figure


@styled
def training_curves(history):
    """Loss and accuracy per epoch, in training and validation.

    Args:
        history: a dict of lists with a value per epoch: `loss`, `accuracy` and, where there is validation, `val_loss`
            and `val_accuracy`; None or NaN where an epoch has no value.
    """
    figure, panels = _figure((style.WIDTH, 2.9), columns=2)
    for axes, key, title in zip(panels, ("loss", "accuracy"), ("Loss", "Accuracy")):
        longest = 1
        for prefix, split, line in (("", "train", "--"), ("val_", "val", "-")):
            values = np.array(history.get(prefix + key, ()), dtype=float)
            epochs = np.arange(1, len(values) + 1)
            known = np.isfinite(values)
            if not known.any():
                continue
            longest = max(longest, len(values))
            axes.plot(
                epochs[known],
                values[known],
                line,
                color=style.SPLIT_COLOURS[split],
                marker="." if known.sum() < 15 else None,
                label=SPLIT_NAMES[split],
            )
            if (prefix, key) == ("val_", "accuracy"):
                best = int(np.nanargmax(values))
                axes.plot(epochs[best], values[best], "o", color=style.INK, markersize=4)
                title = f"Accuracy, at best {values[best]:.2%} in epoch {epochs[best]}"
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid()
        if key == "accuracy":
            axes.yaxis.set_major_formatter(_percent())
        if axes.lines:
            axes.legend()
    return figure


@styled
def confusion_matrix(counts, class_names, normalise=False):
    """How often each class was taken for each, rows the true classes.

    Args:
        counts: c x c counts, rows the true classes, columns the predicted ones.
        class_names: c names.
        normalise: percent of the row instead of counts.
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    counts = np.asarray(counts)
    shown = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalise else counts
    side = max(3.6, 1.9 + 0.48 * len(class_names))
    figure, axes = _figure((side + 0.3, side))
    names = _short(class_names)
    display = ConfusionMatrixDisplay(shown, display_labels=names).plot(
        ax=axes,
        cmap=style.SEQUENTIAL,
        colorbar=False,
        values_format=".1f" if normalise else "d",
        text_kw={"fontsize": 8},
    )
    for text, count in zip(display.text_.flat, counts.flat):
        text.set_visible(count > 0)  # a sea of zeros hides the mistakes
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted", ylabel="true (each row: 100 %)" if normalise else "true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    right = counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{right:.2%} of {counts.sum():,} images right")
    return figure


@styled
def reliability_diagram(scores):
    """Accuracy against confidence, and how many images have which confidence.

    Args:
        scores: what `Scores.to_json` gives.

    Reference:
        Guo et al. 2017, On calibration of modern neural networks (https://arxiv.org/abs/1706.04599).
    """
    bins = [b for b in scores["reliability"] if b["count"]]
    middles = [(b["low"] + b["high"]) / 2 for b in bins]
    width = 0.94 * (bins[0]["high"] - bins[0]["low"])
    figure, (axes, below) = _figure((4.4, 5.0), rows=2, sharex=True, height_ratios=(3, 1))
    axes.bar(middles, [b["accuracy"] for b in bins], width, color=style.PALETTE[0], label="accuracy")
    axes.plot(
        [b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", color=style.INK, markersize=3.5,
        label="at the mean confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color=style.GREY, linewidth=1, label="perfect calibration")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.set_title(f"Expected calibration error {scores['calibration_error']:.2%}")
    axes.legend(loc="upper left")
    below.bar(middles, [b["count"] for b in bins], width, color=style.GREY)
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.set(xlabel="confidence", ylabel="images")
    for panel in (axes, below):
        panel.grid(axis="y")
        panel.xaxis.set_major_formatter(_percent())
    axes.yaxis.set_major_formatter(_percent())
    return figure


@styled
def per_class_scores(scores):
    """Precision, recall and F1 of each class, as points on a line.

    Args:
        scores: what `Scores.to_json` gives.
    """
    rows = scores["per_class"]
    figure, axes = _figure((style.WIDTH, 1.0 + 0.27 * len(rows)))
    places = np.arange(len(rows))
    kinds = (("precision", ">", style.PALETTE[0]), ("recall", "<", style.PALETTE[6]), ("f1", "|", style.INK))
    values = {kind: np.array([row[kind] for row in rows]) for kind, _, _ in kinds}
    axes.hlines(places, values["precision"], values["recall"], color=style.GREY, linewidth=1)
    for kind, marker, colour in kinds:
        label = {"f1": "F1"}.get(kind, kind)
        axes.plot(values[kind], places, marker, color=colour, markersize=9 if marker == "|" else 6, label=label)
    names = _short(row["class"] for row in rows)
    axes.set_yticks(places, [f"{name} ({row['support']:,})" for name, row in zip(names, rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    low = min(v.min() for v in values.values())
    axes.set_xlim(right=1 + 0.03 * (1.01 - low))
    axes.xaxis.set_major_formatter(_percent())
    axes.grid()
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@styled
def top_losses(images, rows):
    """The images that the model was most wrong about: the true class above, what it was taken for below.

    Args:
        images: uint8, shape (n, h, w, 3), all that were scored.
        rows: {index, true, predicted, probability, loss} of those to show, as `Scores.top_losses` has them.
    """
    captions = []
    for row in rows:
        (predicted,) = _short([row["predicted"]], width=21)
        captions.append((row["true"], f"as {predicted}\n{row['probability']:.1%}, loss {row['loss']:.2f}"))
    return captioned_sheet(images, [row["index"] for row in rows], captions)


@styled
def captioned_sheet(images, indices, captions, columns=5):
    """Images with a line above and two below each.

    Args:
        images: uint8 (n, h, w, 3).
        indices: which to show.
        captions: for each (above, below), the second of at most two lines.
        columns: images side by side.
    """
    lines = max(1, -(-len(indices) // columns))
    height, width = images.shape[1:3]
    # In inches: the tiles stand on a regular grid, whatever the length of the text above and below them.
    tile_width, gap, above, below = 1.32, 0.12, 0.22, 0.38
    tile_height = min(2 * tile_width, tile_width * height / width)
    line = above + tile_height + below
    figure, panels = _figure((columns * (tile_width + gap), lines * line), lines, columns, squeeze=False)
    figure.set_layout_engine("none")
    for i, axes in enumerate(panels.flat):
        x, y = (i % columns) * (tile_width + gap) + gap / 2, (lines - 1 - i // columns) * line + below
        box = (x / figure.get_figwidth(), y / figure.get_figheight())
        axes.set_position((*box, tile_width / figure.get_figwidth(), tile_height / figure.get_figheight()))
        axes.set_axis_off()
    for axes, i, (title, text) in zip(panels.flat, indices, captions):
        axes.imshow(images[i], interpolation="antialiased")
        axes.set_title(_short([title], 21)[0], fontsize=7, loc="center", pad=3)
        axes.text(0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


@styled
def to_png_bytes(figure):
    """The figure as a PNG file's bytes, 120 dots per inch; the same bytes for the same figure."""
    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=style.DPI)
    # Without the channel of opacity, a tenth of the bytes, nor the name of what has drawn it.
    Image.open(drawn).convert("RGB").save(png, "PNG", dpi=(style.DPI, style.DPI))
    return png.getvalue()


def compact(png):
    """A figure's PNG as it is, or where it shows photographs, and is much smaller so, as JPEG.

    Args:
        png: a PNG file's bytes.

    Returns:
        (the file's bytes, "png" or "jpeg").
    """
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    jpeg = buffer.getvalue()
    return (jpeg, "jpeg") if len(jpeg) < MUCH_SMALLER * len(png) else (png, "png")


def address(png):
    """A figure's address that holds the figure itself, `compact`."""
    picture, form = compact(png)
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"


def save(figure, path):
    """Write the figure as PNG, whole or not at all.

    Returns:
        The file's bytes.

    Raises:
        UserError: if the file cannot be written.
    """
    png = to_png_bytes(figure)
    write_atomically(path, png)
    return png


def _figure(size, rows=1, columns=1, **options):
    # Not through pyplot, which keeps every figure until it is closed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def _percent():
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1)


def _short(names, width=24):
    """Names that fit; two dollars in one begin no mathematics."""
    return [(name if len(name) <= width else name[: width - 1] + "…").replace("$", r"\$") for name in names]
