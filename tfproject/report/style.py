"""One look for all figures: type, lines and colours that survive print and colour blindness."""

import colorsys
import functools

# Petroff 2021, Accessible color sequences for data visualization (https://arxiv.org/abs/2107.02270): ten colours chosen
# to stay apart under the common kinds of colour blindness and in lightness.
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
SPLIT_COLOURS = {"train": PALETTE[0], "val": PALETTE[1], "test": PALETTE[2], "all": PALETTE[8]}
INK, GREY, PALE = "#222222", "#717581", "#e4e6ea"
SEQUENTIAL = "Blues"

WIDTH = 7.2  # inches: the text width of an A4 page
DPI = 120

# Everything that a user's matplotlibrc could change is set, the font to the one that comes with matplotlib, so that
# the same data give the same bytes.
RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def styled(function):
    """The function, run under this style whatever style is set outside."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(RC)
            return function(*args, **kwargs)

    return run


def class_colours(class_names):
    """A colour per class that depends on its place among the class names alone.

    Args:
        class_names: c names.

    Returns:
        A dict from class name to a colour "#rrggbb": the palette, then the palette lighter, and beyond twenty classes
        hues far apart in three lightnesses, none near white, which is no data on a map.
    """
    return {name: _colour(i) for i, name in enumerate(class_names)}


def _colour(i):
    turn, place = divmod(i, len(PALETTE))
    if turn < 2:
        channels = (int(PALETTE[place][j : j + 2], 16) for j in (1, 3, 5))
        channels = (channel + (255 - channel) * 0.45 * turn for channel in channels)
    else:
        golden = 0.618034  # of the circle: hues so far apart that they come near each other only after many
        channels = (255 * channel for channel in colorsys.hls_to_rgb(i * golden % 1, (0.35, 0.5, 0.65)[i % 3], 0.6))
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)
