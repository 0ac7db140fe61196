"""Figures of attribution maps and of what the checks say of them: plain arrays in, a matplotlib Figure out."""

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure, _percent, _short
from tfproject.report.style import styled
from tfproject.statistics import summarise

HEAT = "inferno"  # even in lightness, and so readable without colour
OPACITY = 0.7  # of the heat over the grey image
METHOD_NAMES = {
    "gradients": "gradients", "smoothgrad": "SmoothGrad", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++",
    "scorecam": "Score-CAM", "layercam": "Layer-CAM",
}  # fmt: skip
PER_LINE = 6  # panels
LONGEST_TITLE = 22  # letters


@styled
def attribution_sheet(images, maps, titles=None):
    """Images in rows, the maps of each method over the image in grey in columns, one colour scale for all.

    Args:
        images: uint8, shape (n, h, w, 3).
        maps: a dict from method to maps in 0..1, shape (n, h, w).
        titles: n texts, such as the class that the maps are for.
    """
    count, columns = len(images), len(maps) + 1
    height, width = images.shape[1:3]
    titles = [_short(title.split("\n"), LONGEST_TITLE) for title in titles or ()]
    longest = max((len(line) for lines in titles for line in lines), default=0)
    margin, bar, above, gap = (0.2 + 0.06 * longest if titles else 0.05), 0.6, 0.25, 0.05  # inches
    tile = (style.WIDTH - margin - bar) / columns
    tile_height = tile * height / width
    figure, panels = _figure((style.WIDTH, above + count * tile_height + 0.05), count, columns, squeeze=False)
    figure.set_layout_engine("none")
    size = figure.get_size_inches()
    for row, line in enumerate(panels):
        grey = images[row].mean(axis=-1)
        for column, (axes, (method, found)) in enumerate(zip(line, [("image", None), *maps.items()])):
            left, bottom = margin + column * tile, size[1] - above - (row + 1) * tile_height
            axes.set_position([
                left / size[0], bottom / size[1], (tile - gap) / size[0], (tile_height - gap) / size[1]
            ])  # fmt: skip
            axes.set_axis_off()
            if found is None:
                axes.imshow(images[row], interpolation="antialiased")
            else:
                axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
                heat = axes.imshow(
                    found[row], cmap=HEAT, vmin=0, vmax=1, alpha=OPACITY, interpolation="antialiased"
                )  # fmt: skip
            if row == 0:
                axes.set_title(METHOD_NAMES.get(method, method), fontsize=7.5, loc="center", pad=3)
        if titles:
            place = ((margin - 0.08) / size[0], (size[1] - above - (row + 0.5) * tile_height) / size[1])
            figure.text(*place, "\n".join(titles[row]), ha="right", va="center", fontsize=7.5)
    if maps:
        shown = min(size[1] - above - 0.1, 2.5)  # inches: the bar's length
        scale = figure.add_axes([1 - (bar - 0.08) / size[0], 1 - (above + shown) / size[1], 0.1 / size[0],
                                 shown / size[1]])  # fmt: skip
        figure.colorbar(heat, cax=scale, ticks=[0, 0.5, 1])
        scale.tick_params(labelsize=7)
        scale.set_ylabel("importance", fontsize=7, labelpad=1)
    return figure


@styled
def sanity_curves(randomised, layer_count, rank_correlation, ssim, threshold):
    """How similar the maps stay while the network's layers are randomised from the top down.

    Args:
        randomised: l numbers of randomised layers.
        layer_count: of layers with weights.
        rank_correlation, ssim: a dict from method to the similarity of the maps of each image, shape (l, n).
        threshold: the rank correlation below which a method passes when all layers are randomised.
    """
    figure, panels = _figure((style.WIDTH, 3.4), columns=2, sharey=True)
    colours = style.class_colours(list(rank_correlation))
    shares = np.array([0, *randomised]) / layer_count
    titles = ("Rank correlation (Spearman)", "Structural similarity (SSIM)")
    for axes, similarity, title in zip(panels, (rank_correlation, ssim), titles):
        for method, values in similarity.items():
            mean, low, high = (np.concatenate([[1.0], line]) for line in _mean_and_reach(np.asarray(values).T))
            axes.plot(
                shares, mean, color=colours[method], marker="o", markersize=3, label=METHOD_NAMES.get(method, method)
            )
            axes.fill_between(shares, low, high, color=colours[method], alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel=f"layers randomised, from the top ({layer_count} = 100%)")
        axes.xaxis.set_major_formatter(_percent())
        axes.grid()
    panels[0].axhline(threshold, color=style.INK, linewidth=1, linestyle="--")
    panels[0].annotate(
        f"passes below {threshold:g}", (1, threshold), (0, 3), textcoords="offset points", ha="right", fontsize=7.5
    )
    panels[0].set_ylabel("similarity to the trained network's maps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


@styled
def deletion_insertion_curves(
    shares, deletion, insertion, deletion_control, insertion_control, deletion_others, insertion_others
):
    """The probability of the class while pixels go or come, a column for each method, with its two controls.

    Args:
        shares: float (s,), shares of the pixels replaced.
        deletion, insertion: a dict from method to probabilities (n, s); small areas are good for deletion, large ones
            for insertion.
        deletion_control, insertion_control: the same with the maps moved.
        deletion_others, insertion_others: the same with other images' maps.
    """
    columns = max(1, min(PER_LINE, len(deletion)))
    lines = -(-len(deletion) // columns)
    figure, panels = _figure((style.WIDTH, 0.5 + 3.1 * lines), 2 * lines, columns, sharex=True, sharey=True,
                             squeeze=False)  # fmt: skip
    for axes in panels.flat:
        axes.set_axis_off()
    kinds = (
        ("deletion", deletion, deletion_control, deletion_others, style.PALETTE[2]),
        ("insertion", insertion, insertion_control, insertion_others, style.PALETTE[0]),
    )
    for i, method in enumerate(deletion):
        line, column = divmod(i, columns)
        for k, (kind, own, moved, others, colour) in enumerate(kinds):
            axes = panels[2 * line + k, column]
            axes.set_axis_on()
            areas = []
            for values, ink, dashes, label in (
                (moved[method], style.GREY, "-", "the map moved"),
                (others[method], style.INK, "--", "another image's map"),
                (own[method], colour, "-", kind),
            ):
                mean, low, high = _mean_and_reach(values)
                axes.plot(shares, mean, dashes, color=ink, label=label if i == 0 else None)
                axes.fill_between(shares, low, high, color=ink, alpha=0.15, linewidth=0)
                areas.append(np.trapezoid(mean, shares))
            name = f"{METHOD_NAMES.get(method, method)}\n" if k == 0 else ""
            axes.set_title(f"{name}{areas[2]:.3f}\n({areas[0]:.3f}, {areas[1]:.3f})", fontsize=7.5)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_formatter(_percent())
            axes.grid()
            if column == 0:
                axes.set_ylabel(f"{kind}:\nprobability", fontsize=8)
    figure.supxlabel("pixels replaced, the most important first; above each panel the area below its curve (with the "
                     "map moved,\nwith another image's)", fontsize=8)  # fmt: skip
    handles = [h for axes in panels[:2, 0] for h in axes.get_legend_handles_labels()[0]]
    once = {handle.get_label(): handle for handle in handles}
    figure.legend(once.values(), once.keys(), loc="outside upper left", ncols=4)
    return figure


def _mean_and_reach(values):
    """Mean of n curves (n, s), and the ends of its 95 % t-interval."""
    found = [summarise(column) for column in np.asarray(values, np.float64).T]
    ends = ((row.mean, row.mean, row.mean) if row.low is None else (row.mean, row.low, row.high) for row in found)
    return np.array(list(ends)).T
