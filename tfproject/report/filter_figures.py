"""Figures of what units look for and say: kernels, feature maps, t-SNE. Plain arrays in, a matplotlib Figure out."""

import textwrap

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure, _percent, _short
from tfproject.report.style import styled

MOST_TILES = 64  # on a sheet: more cannot be looked at
DIVERGING = "RdBu_r"  # red above 0, blue below, white at 0
TITLE_LINE, CAPTION_LINE, GAP = 0.2, 0.14, 0.1  # inches


@styled
def colour_kernels(images, layer, scale, channels):
    """The first layer's kernels, a square each with its unit's number; of many, 64 spread evenly.

    Args:
        images: uint8 (n, kh, kw, 3), 128 for a weight of 0.
        layer: the layer's name.
        scale: the weight that 1 and 255 stand for, as - and +.
        channels: what the three colours are, in words.
    """
    shown = _spread(len(images))
    title = (
        f"{layer}: {_of(len(shown), len(images))} kernels by {channels}. Grey is a weight of 0; black and full colour "
        f"are -{scale:.3g} and +{scale:.3g}"
    )
    return _tiles(images[shown], [f"{unit}" for unit in shown], title, columns=12)


@styled
def kernel_slices(mean, slices, units, channels, layer, scale):
    """Kernels of a deeper layer, a row each: the mean over all input channels, then single ones with their numbers.

    Args:
        mean: float (n, kh, kw).
        slices: float (n, c, kh, kw).
        units: n numbers.
        channels: int (n, c), the input channels of the slices.
        layer: the layer's name.
        scale: the weight at the ends of the colours, as - and +.
    """
    mean, slices, units = mean[:16], slices[:16], units[:16]
    # A mean of many weights is far smaller than they are, and gets a scale of its own.
    own = float(np.abs(mean).max()) or 1.0
    tiles = np.concatenate([mean[:, None] / own, slices / (scale or 1)], axis=1)
    captions = [
        caption
        for unit, row in zip(units, channels)
        for caption in (f"unit {unit}", *(f"input {channel}" for channel in row))
    ]
    title = (
        f"{layer}: kernels of {len(units)} units. First the mean over all inputs (white 0, red to +{own:.2g}, blue to "
        f"-{own:.2g}), then the inputs with the largest weights (to ±{scale:.2g})"
    )
    pictures = _coloured(tiles.reshape(-1, *tiles.shape[2:]), DIVERGING, -1, 1)
    return _tiles(pictures, captions, title, columns=tiles.shape[1])


@styled
def kernel_norms(rows):
    """The norms of the units' weights in each layer: every unit a point, a box from the first to the third quartile.

    Args:
        rows: dicts with layer, unit and l2, as `tfproject.interpret.filters.norm_rows` gives them.
    """
    of_layers = {}
    for row in rows:
        of_layers.setdefault(row["layer"], []).append(row["l2"])
    figure, axes = _figure((style.WIDTH, 0.9 + 0.27 * len(of_layers)))
    random = np.random.default_rng(0)
    for place, norms in enumerate(of_layers.values()):
        aside = place + random.uniform(-0.28, 0.28, len(norms))
        axes.plot(norms, aside, ".", color=style.PALETTE[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
        low, middle, high = np.percentile(norms, (25, 50, 75))
        axes.barh(place, high - low, 0.62, low, color="none", edgecolor=style.INK, linewidth=0.8)
        axes.vlines(middle, place - 0.31, place + 0.31, color=style.INK, linewidth=1.4)
    _name_rows(axes, [f"{name} ({len(norms):,})" for name, norms in zip(_short(of_layers), of_layers.values())])
    axes.set_xlim(left=0)
    axes.set_xlabel("L2 norm of a unit's weights")
    axes.set_title("Weights of the units of each layer (number of units)")
    return figure


@styled
def maximised_activations(images, names, reached, on_noise, layer, steps):
    """What units respond to most: the images, with what the unit says of them and of noise.

    Args:
        images: uint8 (n, h, w, 3).
        names: n texts: "unit 3", or the class that the unit gives.
        reached: n outputs on the images.
        on_noise: n outputs on noise.
        layer: the layer's name.
        steps: of gradient ascent.
    """
    shown = _spread(len(images))
    short = _short(names, 18)
    captions = [f"{short[i]}\n{reached[i]:.3g}, noise {on_noise[i]:.3g}" for i in shown]
    title = (
        f"{layer}: what {_of(len(shown), len(images))} units respond to most, {steps} steps from noise. Below: the "
        "unit's output, and on noise"
    )
    return _tiles(np.asarray(images)[shown], captions, title, columns=6)


@styled
def feature_map_sheet(image, layers):
    """An image's way through a network: of each layer its most active maps, on one scale for the layer.

    Args:
        image: uint8 (h, w, 3).
        layers: dicts with layer, units (k numbers), maps (float (k, h, w)), low and high (the ends of the scale).
    """
    shown = [layers[i] for i in _spread(len(layers), 16)]
    count = max((len(row["units"]) for row in shown), default=0)
    name_width, gap, top = 1.15, 0.06, 0.3
    tile = min(0.8, (style.WIDTH - name_width - gap) / (count + 1) - gap)
    pitch = tile + CAPTION_LINE + 0.06
    figure, axes = _inches((style.WIDTH, top + pitch * max(1, len(shown))))
    title = f"The image, and the most active maps (units) of {_of(len(shown), len(layers))} convolutions"
    axes.text(gap, 0.05, title, weight="bold", va="top", fontsize=9)
    _show(axes, image, gap, top, tile)
    for line, row in enumerate(shown):
        y = top + line * pitch
        label = f"{_short([row['layer']], 18)[0]}\n{row['low']:.2g} to {row['high']:.2g}"
        axes.text(tile + 3 * gap, y + tile / 2, label, va="center", fontsize=7)
        for column, (unit, values) in enumerate(zip(row["units"], row["maps"])):
            x = name_width + (1 + column) * (tile + gap)
            _show(axes, _coloured(values, "viridis", row["low"], row["high"]), x, y, tile)
            axes.text(x + tile / 2, y + tile + 0.02, f"{unit}", ha="center", va="top", fontsize=7)
    return figure


@styled
def dead_units(rows):
    """How many units of each layer are dead, saturated or always on, and how sparse the layer is.

    Args:
        rows: dicts with layer, units, images, dead, saturated, always_on (counts) and sparsity, as
            `LayerActivity.row` gives them.
    """
    figure, axes = _figure((style.WIDTH, 1.2 + 0.27 * len(rows)))
    places = np.arange(len(rows))
    start = np.zeros(len(rows))
    kinds = (
        ("dead", "dead", style.PALETTE[2]), ("saturated", "saturated", style.PALETTE[1]),
        ("always_on", "always on", style.PALETTE[0]),
    )  # fmt: skip
    for key, label, colour in kinds:
        shares = np.array([row[key] / row["units"] for row in rows])
        axes.barh(places, shares, 0.66, start, color=colour, label=f"{label} units")
        start = start + shares
    axes.plot(
        [row["sparsity"] for row in rows], places, "d", color=style.INK, markersize=4, label="outputs at or below 0"
    )
    for place, row in enumerate(rows):
        if row["dead"]:
            text = f"{row['dead']:,} dead"
            axes.text(1.02, place, text, va="center", fontsize=7)
    names = _short(row["layer"] for row in rows)
    _name_rows(axes, [f"{name} ({row['units']:,})" for name, row in zip(names, rows)])
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(_percent())
    axes.set_xlabel(f"share of the units, or of the outputs, on {rows[0]['images'] if rows else 0:,} images")
    figure.legend(loc="outside upper left", ncols=4)
    return figure


@styled
def embedding_scatter(points, labels, class_names, layer, perplexity, accuracy, trustworthiness, neighbours=10):
    """Images laid out by t-SNE, a point each in the colour of its class.

    Args:
        points: float (n, 2).
        labels: int (n,).
        class_names: c names.
        layer: the layer's name.
        perplexity: of t-SNE; None where the points are principal components.
        accuracy: share of the images whose neighbours here vote for their class.
        trustworthiness: of the layout.
        neighbours: how many, for both.
    """
    figure, axes = _figure((style.WIDTH, 5.6))
    colours = style.class_colours(class_names)
    names = _short(class_names, 18)
    size = float(np.clip(6000 / max(1, len(points)), 1.5, 25))
    # In a random order, so that the last class does not hide the others.
    order = np.random.default_rng(0).permutation(len(points))
    chosen = [colours[class_names[label]] for label in np.asarray(labels)[order]]
    axes.scatter(*np.asarray(points)[order].T, s=size, c=chosen, linewidths=0)
    for name, short in zip(class_names, names):
        axes.scatter([], [], s=22, color=colours[name], label=short)
    _bare(axes)
    axes.set_title(_embedding_title(layer, len(points), perplexity, accuracy, trustworthiness, neighbours))
    figure.legend(loc="outside right upper")
    return figure


@styled
def embedding_images(points, images, labels, class_names, layer, perplexity, cells=40):
    """Images laid out by t-SNE, shown themselves with a frame in the colour of their class.

    The plane is cut into cells; of the images that fall into one, that nearest to its middle is shown.

    Args:
        points: float (n, 2).
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        class_names: c names.
        layer: the layer's name.
        perplexity: of t-SNE; None where the points are principal components.
        cells: along the longer side.
    """
    from PIL import Image

    points = np.asarray(points, np.float64)
    side = 30  # pixels of a cell
    low = points.min(axis=0)
    step = float((points.max(axis=0) - low).max()) / cells or 1.0
    scaled = np.minimum((points - low) / step, cells - 1e-6)
    places = scaled.astype(int)
    far = np.linalg.norm(scaled - places - 0.5, axis=1)
    rows, columns = places[:, 1].max() + 1, places[:, 0].max() + 1
    canvas = np.full((rows * side, columns * side, 3), 255, np.uint8)
    colours = style.class_colours(class_names)
    shown = {}
    for i in np.argsort(-far, kind="stable"):  # the nearest comes last and stays
        shown[tuple(places[i])] = i
    for (column, row), i in shown.items():
        top, left = (rows - 1 - row) * side, column * side
        colour = colours[class_names[labels[i]]]
        canvas[top : top + side - 1, left : left + side - 1] = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        small = Image.fromarray(images[i]).resize((side - 5, side - 5), Image.Resampling.BILINEAR)
        canvas[top + 2 : top + side - 3, left + 2 : left + side - 3] = np.asarray(small)
    height = float(np.clip((style.WIDTH - 1.4) * rows / columns, 1.5, 9.5)) + 0.5
    figure, axes = _figure((style.WIDTH, height))
    axes.imshow(canvas, interpolation="antialiased")
    _bare(axes)
    for name, short in zip(class_names, _short(class_names, 18)):
        axes.scatter([], [], s=22, marker="s", color=colours[name], label=short)
    title = f"{layer}: {_method(perplexity)}, {_of(len(shown), len(points))} images"
    axes.set_title(textwrap.fill(title, 60))
    figure.legend(loc="outside right upper")
    return figure


@styled
def neighbourhood_curve(rows):
    """How well the classes lie apart from layer to layer, in the features and in their t-SNE.

    Args:
        rows: dicts with layer, width, neighbours, accuracy, embedding_accuracy, trustworthiness and largest_class, as
            `tfproject.interpret.embedding.neighbourhood_rows` gives them.
    """
    figure, axes = _figure((style.WIDTH, 3.3))
    places = np.arange(len(rows))
    lines = (
        ("accuracy", "o-", style.PALETTE[0], "class by the neighbours in the features"),
        ("embedding_accuracy", "s--", style.PALETTE[6], "class by the neighbours in the t-SNE"),
        ("trustworthiness", "^:", style.PALETTE[8], "trustworthiness of the t-SNE"),
    )
    for key, line, colour, label in lines:
        axes.plot(places, [row[key] for row in rows], line, color=colour, markersize=5, label=label)
    if rows:
        guess = rows[0]["largest_class"]
        axes.axhline(guess, color=style.GREY, linewidth=0.8, label="always the largest class")
        axes.set_title(f"Neighbourhoods of {rows[0]['neighbours']} images, {rows[0]['images']:,} images")
    names = [f"{name}\n({row['width']:,})" for name, row in zip(_short((row["layer"] for row in rows), 20), rows)]
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(rows) > 6 else {}
    axes.set_xticks(places, names, **slanted)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(_percent())
    axes.set(xlabel="layer (numbers per image)", ylabel="share")
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _tiles(pictures, captions, title, columns):
    """Square-celled pictures in rows over the figure's width, a caption below each."""
    columns = max(1, min(columns, len(pictures)))
    margin = 0.06
    tile = min(1.3, (style.WIDTH - 2 * margin + GAP) / columns - GAP)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    title = textwrap.wrap(title, 92)
    pitch = tile + CAPTION_LINE * lines + 0.08
    top = TITLE_LINE * len(title) + 0.1
    rows = -(-len(pictures) // columns)
    figure, axes = _inches((style.WIDTH, top + max(1, rows) * pitch))
    axes.text(margin, 0.04, "\n".join(title), weight="bold", fontsize=9, va="top")
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        x, y = margin + i % columns * (tile + GAP), top + i // columns * pitch
        _show(axes, picture, x, y, tile)
        axes.text(x + tile / 2, y + tile + 0.03, caption, ha="center", va="top", fontsize=7, linespacing=1.05)
    return figure


def _inches(size):
    """A figure and its only axes, whose coordinates are inches from the upper left corner."""
    figure, axes = _figure(size)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    return figure, axes


def _show(axes, picture, x, y, tile):
    """A picture in the square of side `tile` with its upper left corner at x, y, at its own proportions."""
    height, width = (tile * side / max(picture.shape[:2]) for side in picture.shape[:2])
    limits = axes.get_xlim(), axes.get_ylim()
    x, y = x + (tile - width) / 2, y + (tile - height) / 2
    small = max(picture.shape[:2]) < 40  # single pixels are to be seen
    axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="nearest" if small else "antialiased")
    axes.set(xlim=limits[0], ylim=limits[1], aspect="auto")


def _coloured(values, colours, low, high):
    """Numbers as RGB pictures, uint8 (..., 3)."""
    from matplotlib import colormaps

    share = np.clip((np.asarray(values, np.float64) - low) / ((high - low) or 1), 0, 1)
    return (colormaps[colours](share)[..., :3] * 255).round().astype(np.uint8)


def _spread(count, most=MOST_TILES):
    """The indices of those that are shown, evenly spread where there are too many."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _of(shown, count):
    return f"{count:,}" if shown == count else f"{shown:,} of {count:,}"


def _name_rows(axes, names):
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _bare(axes):
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal", adjustable="datalim")


def _method(perplexity):
    return "principal components" if perplexity is None else f"t-SNE, perplexity {perplexity:.3g}"


def _embedding_title(layer, count, perplexity, accuracy, trustworthiness, neighbours):
    title = f"{layer}: {_method(perplexity)}, {count:,} images; class by {neighbours} neighbours {accuracy:.1%}"
    return textwrap.fill(f"{title}, trustworthiness {trustworthiness:.3f}", 60)
