"""Figures of a network's units: what excites them, side by side."""

import textwrap

import numpy as np

from tfproject.report import style
from tfproject.report.figures import _figure
from tfproject.report.style import styled

SHARPEST = 64  # pixels: smaller crops are shown as blocks of so many, so that each of their pixels is a clear square
TEXT_SIZE, LINE = 7.5, 0.145  # points; inches from line to line


@styled
def top_samples_sheet(rows, title=""):
    """The crops that excite some units of a layer most, a row per unit, the most exciting at the left.

    Args:
        rows: (unit's number, crops, text) for each unit: crops uint8, shape (k, h, w, 3), as
            `tfproject.interpret.crops` gives them; a few words that stand at the right, "" for none. About a dozen
            units make a page.
        title: above the sheet.
    """
    left, right, above, gap = 0.55, 1.95, 0.32 if title else 0.05, 0.06  # inches: unit numbers, texts, title, crops
    count = max(len(crops) for _, crops, _ in rows)
    height, width = rows[0][1].shape[1:3]
    tile = min(1.1, (style.WIDTH - left - right) / count) - gap
    tile_height = tile * height / width
    total = above + len(rows) * (tile_height + gap)
    figure, panels = _figure((style.WIDTH, total), len(rows), count, squeeze=False)
    figure.set_layout_engine("none")
    if title:
        figure.text(left / style.WIDTH, 1 - 0.5 * above / total, title, va="center", weight="bold", size=10)
    for line, (unit, crops, text) in enumerate(rows):
        top = above + line * (tile_height + gap)
        middle = 1 - (top + tile_height / 2) / total
        figure.text((left - 0.1) / style.WIDTH, middle, f"{unit}", ha="right", va="center", size=8)
        x = left + count * (tile + gap) + 0.06
        figure.text(x / style.WIDTH, middle, _wrapped(text, tile_height + gap), va="center", size=TEXT_SIZE)
        for rank, axes in enumerate(panels[line]):
            x = left + rank * (tile + gap)
            bottom = 1 - (top + tile_height) / total
            axes.set_position((x / style.WIDTH, bottom, tile / style.WIDTH, tile_height / total))
            axes.set_axis_off()
            if rank < len(crops):
                axes.imshow(_enlarged(crops[rank]), interpolation="antialiased", aspect="auto")
    return figure


def _enlarged(crop):
    times = -(-SHARPEST // max(crop.shape[:2]))
    return np.kron(crop, np.ones((times, times, 1), np.uint8))


def _wrapped(text, height):
    """The text in lines that the margin holds, as many as the row has room for."""
    lines = [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, 29)]
    room = max(1, int(height / LINE))
    return "\n".join(lines if len(lines) <= room else [*lines[: room - 1], lines[room - 1][:28] + "…"])
