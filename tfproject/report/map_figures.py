"""Figures of land-cover maps."""

import matplotlib.colors
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure

from tfproject.report.style import GREY, WIDTH, class_colours, styled


@styled
def land_cover_map(classes, class_names, shares, title):
    """A map with a legend that gives each class its share.

    Args:
        classes: uint8 (h, w); 0 is no data, i is the i-th class from 1.
        class_names: c names.
        shares: c numbers in 0..1.
        title: of the figure.

    Returns:
        A matplotlib Figure.
    """
    matplotlib.rcParams["text.parse_math"] = False  # names may hold dollars; the style is put back afterwards
    colours = class_colours(class_names)
    table = np.array([matplotlib.colors.to_rgb(c) for c in ("white", *colours.values())])
    height, width = classes.shape
    figure = Figure(figsize=(WIDTH, min(2 * WIDTH, max(2.6, 0.72 * WIDTH * height / width + 0.4))))
    axes = figure.subplots()
    axes.imshow(table[classes], interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
    patches = [
        matplotlib.patches.Patch(facecolor=colours[name], label=f"{name}  {share:.1%}")
        for name, share in zip(class_names, shares)
    ]
    if (classes == 0).any():
        patches.append(matplotlib.patches.Patch(facecolor="white", edgecolor=GREY, label="no data"))
    figure.legend(handles=patches, loc="outside right upper")
    return figure
