"""What units stand for, in numbers and in a word: classes, groups of classes, colours, edges, textures.

The rules that decide the word are the constants below. A unit for which none holds is "mixed".
"""

import functools

import numpy as np
from scipy import stats

from tfproject.errors import UserError
from tfproject.interpret.activations import activation_behaviour
from tfproject.interpret.filters import colour_kernels, output_directions
from tfproject.interpret.receptive_fields import receptive_field
from tfproject.interpret.samples import resized
from tfproject.statistics import summarise, wilson

KINDS = ("class", "group", "colour", "colour edge", "edge", "brightness", "texture", "mixed", "silent")
SIGNIFICANCE = 0.05  # of p-values, corrected for the number of the layer's units
CLASS_PURITY = 0.5  # at least this share of the images that excite a unit most are of one class
GROUP_PURITY = 0.8  # or of one group of classes
COLOUR_DISTANCE = 1.5  # from the mean of random crops, in standard deviations of a random crop
TEXTURE_FILL = 0.5  # of the greatest activation: the mean over the map's places of a unit that answers everywhere
FEWEST_PLACES = 16  # of a map on which "everywhere" is more than a few places
UNIFORM_SHARE = 0.5  # of a kernel's energy in its mean, above which it has no edge worth the name
ONE_SIDED = 0.5  # the sum of a kernel to that of its absolute values, above which it prefers one side to its opposite
CHANCE = 0.1  # share of random kernels that would be called an edge, and of those that would be called coloured
FEWEST_PIXELS = {"orientation": 3, "frequency": 5}  # a kernel's shorter side, below which these cannot be told

LEAST_SPREAD = 1e-3  # of colours, in steps of 255
RANDOM_CROPS = 500
DRAWS = 10_000  # of random images, for the purity by chance
RANDOM_KERNELS = 1000

# From R, G, B to red against green, yellow against blue, and luminance: orthonormal, so that energies add up.
OPPONENT = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]]) / np.sqrt([[2], [6], [3]])
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")  # every 60 degrees


def unit_rows(network, samples, split, class_names, groups=None, seed=0):
    """What each unit of a layer stands for.

    A unit of the first convolution is named by its kernel, as that is all there is to it; any other by the images that
    excite it most: silent (the same for every image, or never above 0 behind an activation function that rectifies),
    class, group, colour, texture, mixed, the first of these that holds by the constants above. p-values are those of
    `purity` and `colour_distance`, corrected within the layer to a false discovery rate (Benjamini & Hochberg 1995).

    Args:
        network: a `tfproject.interpret.Network`.
        samples: the TopSamples of one of its layers. With k = 9 only plain preferences can be told from chance; 50 or
            more are better.
        split: the Split that they are from.
        class_names: names of the classes, by label.
        groups: a dict from a group's name to the names of its classes, {"animal": ("cat", ...), ...}; None for none.
        seed: of the random crops and of the purity by chance.

    Returns:
        A list of dicts, one for each unit, all with the same keys; None where there is nothing to say:
        layer, unit, logits (whether the layer gives the classes), kind (one of KINDS), meaning (in words),
        preferred, second, third (classes with the largest mean activation, the mean over all places),
        selectivity, selectivity_of_maximum (see `class_selectivity`; of the means over places, as published, and of the
        greatest activations, which large maps have for every class),
        purity, purity_class, purity_by_chance, purity_p, purity_p_corrected, class_selective (whether the purity is at
        least CLASS_PURITY and not chance), group, group_purity, group_purity_by_chance, group_p_corrected,
        colour, colour_distance, colour_p_corrected (of the top crops), fill (see `fill`), active_share, maximum,
        and for the first convolution the numbers of `filter_rows`.

    Raises:
        UserError: if there are fewer names than classes, or a group holds no class or one that there is not.
    """
    labels = np.asarray(split.labels)
    class_count = samples.class_means.shape[1]
    if len(class_names) < class_count:
        raise UserError(f"There are {len(class_names)} class names for {class_count} classes; give one for each.")
    members = _members(groups or {}, class_names)
    unit_layer = network[samples.name]
    silent = _silent(unit_layer, samples)

    selectivity, order = class_selectivity(samples.class_means_average, samples.minimum)
    of_maximum, _ = class_selectivity(samples.class_means, samples.minimum)
    excited = _excited(samples)
    of_class = purity(samples.indices, labels, seed, excited)
    of_group = purity(samples.indices, members[labels], seed, excited)
    distance, angle, distance_p = colour_distance(network, samples, split.images, seed)
    filled = fill(unit_layer, samples)
    found = _kernel_rows(network, samples.name)

    class_p, group_p, colour_p = (_corrected(p, silent) for p in (of_class["p"], of_group["p"], distance_p))
    rows = []
    for unit in range(len(samples.indices)):
        row = {"layer": samples.name, "unit": unit, "logits": unit_layer.output is network.logits}
        row |= dict.fromkeys(COLUMNS)
        row |= {"active_share": float(samples.active_share[unit]), "maximum": float(samples.maximum[unit])}
        if found is not None:
            row |= found[unit]
        if not silent[unit]:
            names = [class_names[c] for c in order[unit] if np.isfinite(samples.class_means[unit, c])][:3]
            row |= dict(zip(("preferred", "second", "third"), names))
            row |= {
                "selectivity": float(selectivity[unit]),
                "selectivity_of_maximum": float(of_maximum[unit]),
                "purity": float(of_class["share"][unit]),
                "purity_class": class_names[of_class["label"][unit]],
                "purity_by_chance": of_class["by_chance"],
                "purity_p": float(of_class["p"][unit]),
                "purity_p_corrected": float(class_p[unit]),
                "colour": hue_name(angle[unit]) if np.isfinite(angle[unit]) else None,
                "colour_distance": float(distance[unit]),
                "colour_p_corrected": float(colour_p[unit]),
                "fill": None if filled is None else float(filled[unit]),
            }
            if of_group["label"][unit] >= 0:
                row |= {
                    "group": tuple(groups)[of_group["label"][unit]],
                    "group_purity": float(of_group["share"][unit]),
                    "group_purity_by_chance": of_group["by_chance"],
                    "group_p_corrected": float(group_p[unit]),
                }
        row["class_selective"] = _holds(row, "purity", CLASS_PURITY, "purity_p_corrected")
        kind, meaning = ("silent", "silent") if silent[unit] else _meaning(row, of_kernel=found is not None)
        rows.append(row | {"kind": kind, "meaning": meaning})
    return rows


def class_selectivity(class_means, minimum):
    """How much more a unit is excited by one class than by the others: from 0 for none to 1 for one class only.

    (m - r) / (m + r), with m the mean activation of the preferred class and r the mean of the other classes' means.
    The published index is for activations of 0 and more. Where a unit goes below 0 (LeakyReLU, logits), activations
    are counted from its least one on, which leaves 0..1 and changes nothing for a ReLU.

    Args:
        class_means: float, shape (units, classes); NaN for a class without images, which does not count.
        minimum: float, shape (units,), the least activation over the images.

    Returns:
        (float64, shape (units,), the index, NaN where all activations are 0 or fewer than two classes have images;
        int, shape (units, classes), the classes from the most to the least preferred).

    Reference:
        Morcos et al. 2018, On the importance of single directions for generalization
        (https://arxiv.org/abs/1803.06959).
    """
    means = np.asarray(class_means, np.float64)
    known = np.isfinite(means)
    # The mean over places may lie below the least of the greatest activations.
    least = np.minimum(minimum, np.where(known, means, np.inf).min(axis=1, initial=np.inf))
    above = means - np.minimum(0, least)[:, None]
    order = np.argsort(np.where(known, -above, np.inf), axis=1, kind="stable")
    others = known.sum(axis=1) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        most = np.take_along_axis(above, order[:, :1], axis=1)[:, 0]
        rest = (np.where(known, above, 0).sum(axis=1) - most) / others
        return np.where(others > 0, (most - rest) / (most + rest), np.nan), order


def _excited(samples):
    """Which of its top images excite a unit at all: where few do, the rest are those that happen to come first."""
    return samples.values > samples.minimum[:, None]


def purity(indices, labels, seed=0, counted=None):
    """The share of the most frequent label among the images that excite each unit most, and whether it may be chance.

    By chance k images are drawn from all without putting back. p is the chance of as many of that label or more (the
    hypergeometric tail), times the number of labels, as any of them might have been the most frequent.

    Args:
        indices: int, shape (units, k), images.
        labels: int, shape (n,), of all images; -1 for images that belong to none and only fill places.
        seed: of the random draws behind the purity by chance.
        counted: bool, shape (units, k), which of the images count; None for all. k below is their number.

    Returns:
        A dict: share, float64 (units,); label, int (units,), the most frequent one, -1 where there is none;
        p, float64 (units,), not corrected for the number of units; by_chance, the mean share that random images give.
    """
    labels = np.asarray(labels)
    k, count = indices.shape[1], int(labels.max(initial=-1)) + 1
    totals = np.bincount(labels[labels >= 0], minlength=count)
    if not count:
        units = len(indices)
        return {"share": np.zeros(units), "label": np.full(units, -1), "p": np.ones(units), "by_chance": None}
    counted = np.ones(indices.shape, bool) if counted is None else counted
    found = ((labels[indices][:, :, None] == np.arange(count)) & counted[:, :, None]).sum(axis=1)
    label, most, of = found.argmax(axis=1), found.max(axis=1), counted.sum(axis=1)
    p = stats.hypergeom.sf(most - 1, len(labels), totals[label], of) * np.count_nonzero(totals)
    urn = np.append(totals, np.count_nonzero(labels < 0))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(urn, k, DRAWS, method="marginals")
    return {
        "share": most / np.maximum(1, of),
        "label": np.where(most > 0, label, -1),
        "p": np.minimum(1, p),
        "by_chance": float(drawn[:, :count].max(axis=1).mean() / k),
    }


def colour_distance(network, samples, images, seed=0):
    """How far the colour of what excites a unit most is from that of random crops of the same size and places.

    The colour of a crop is the mean of red against green and yellow against blue, without luminance, over the pixels
    that the unit sees. Random crops are from random images at places at which the layer's units have their maxima.

    Args:
        network: a `tfproject.interpret.Network`.
        samples: the TopSamples of one of its layers.
        images: uint8, shape (n, h, w, 3), those that the samples are from.
        seed: of the random crops.

    Returns:
        (float64 (units,), the distance of the mean of the k top crops that excite the unit at all from the mean of
        random crops, in standard deviations of a random crop (Mahalanobis); float64 (units,), the direction in degrees,
        as `hue` has it; float64 (units,), p of such a distance for k random crops, which is that of k times its square
        in a chi-squared distribution of two degrees of freedom). About 0, NaN and 1 for images without colours.
    """
    (units, k), excited = samples.indices.shape, _excited(samples)
    excited |= ~excited.any(axis=1, keepdims=True)  # of a silent unit any will do, as nothing is said of it
    if network.image_shape[-1] != 3:
        return np.zeros(units), np.full(units, np.nan), np.ones(units)
    field = receptive_field(network, samples.name)
    top = np.array([
        _chroma(network, images, indices[own], places[own], field).mean(axis=0)
        for indices, places, own in zip(samples.indices, samples.places, excited)
    ])  # fmt: skip
    random = np.random.default_rng(seed)
    places = samples.places.reshape(-1, 2)[random.integers(units * k, size=RANDOM_CROPS)]
    control = _chroma(network, images, random.integers(len(images), size=RANDOM_CROPS), places, field)
    shift = top - control.mean(axis=0)
    # A little is added so that grey images, whose colours differ by rounding, have none.
    squared = np.einsum("uc,cd,ud->u", shift, np.linalg.inv(np.cov(control.T) + LEAST_SPREAD**2 * np.eye(2)), shift)
    direction = np.where(np.hypot(*shift.T) > LEAST_SPREAD, hue(shift), np.nan)
    return np.sqrt(squared), direction, stats.chi2.sf(excited.sum(axis=1) * squared, 2)


def fill(unit_layer, samples):
    """How much of the map answers to the preferred class: 0 for a single spot, 1 for the same at every place.

    The mean over all places as a share of the greatest activation, both the mean over the images of the unit's
    preferred class. Where a unit goes below 0, both are counted from the least that the maximum of any image is, as in
    `class_selectivity`.

    Args:
        unit_layer: the UnitLayer.
        samples: its TopSamples.

    Returns:
        float64, shape (units,); None for dense layers and maps of fewer than FEWEST_PLACES places.
    """
    if unit_layer.kind == "dense" or np.prod(unit_layer.output.shape[1:3]) < FEWEST_PLACES:
        return None
    means = samples.class_means_average
    best = np.where(np.isfinite(means), means, -np.inf).argmax(axis=1)[:, None]
    most, average = (
        np.take_along_axis(means, best, axis=1)[:, 0] - np.minimum(0, samples.minimum)
        for means in (samples.class_means, samples.class_means_average)
    )
    return np.divide(average, most, out=np.zeros(len(most)), where=most > 0).clip(0, 1)


def filter_rows(weights):
    """What the filters of a layer that reads the image look for, by their kernels.

    - Colour: the share of a kernel's energy (the sum of its squares) in red against green and yellow against blue. It
      counts as coloured above what CHANCE of random kernels reach (the share of a random kernel of m pixels has the
      distribution Beta(m, m/2)).
    - Edge: the kernel's largest component that is a product of one colour and one pattern (the first of its singular
      value decomposition) is fitted with plane waves. It counts as an edge if the best explains more of the pattern's
      variance than in all but CHANCE of random kernels of that size, and its mean holds no more than UNIFORM_SHARE of
      its energy.
    - Brightness: hardly coloured (less than CHANCE of random kernels), no edge, and of one sign by ONE_SIDED.
    - What a kernel is too small to tell is None: of 2x2 no orientation, as any four numbers make a plane wave; below
      5x5 no frequency, as plane waves of many look the same in it. In 3x3 random kernels too are nearly plane waves,
      so one edge among many filters says little; CHANCE tells how many are to be expected.

    Args:
        weights: float, shape (units, kh, kw, 3), kernels for R, G, B, signed so that the unit is excited by what they
            are positive for.

    Returns:
        A list of dicts, one for each filter: colour_share; hue (degrees of the preferred colour: 0 red, 60 yellow, 120
        green, 180 cyan, 240 blue, 300 magenta) and opponents ("blue-yellow", the preferred one first; where the kernel
        prefers neither, in the order of the hues); uniform_share; grating_share (of the pattern's variance that the
        best plane wave explains) and grating_by_chance (the share that CHANCE of random kernels exceed); orientation
        (degrees of the edge, counter-clockwise from horizontal, in 0..180); frequency (cycles per pixel); kernel_kind
        ("colour", "colour edge", "edge", "brightness" or "mixed").
    """
    weights = np.asarray(weights, np.float64)
    units, height, width, _ = weights.shape
    pixels, side = height * width, min(height, width)
    low, high = stats.beta.ppf((CHANCE, 1 - CHANCE), pixels, pixels / 2)
    by_chance = _grating_by_chance(height, width) if side >= FEWEST_PIXELS["orientation"] else None
    rows = []
    for kernel in weights:
        row = dict.fromkeys(FILTER_COLUMNS)
        rows.append(row | {"kernel_kind": "mixed"})
        if not kernel.any():
            continue
        opponent = kernel.reshape(pixels, 3) @ OPPONENT.T
        row["colour_share"] = float(np.square(opponent[:, :2]).sum() / np.square(opponent).sum())
        row["hue"], row["opponents"] = _opponents(opponent[:, :2])
        pattern = np.linalg.svd(opponent, full_matrices=False)[0][:, 0]
        row["uniform_share"] = float(pixels * pattern.mean() ** 2)
        edge = False
        if by_chance is not None:
            share, orientation, frequency = best_grating(pattern.reshape(height, width))
            row |= {"grating_share": share, "grating_by_chance": by_chance}
            edge = share > by_chance and row["uniform_share"] <= UNIFORM_SHARE
            if edge:
                row["orientation"] = orientation
                row["frequency"] = frequency if side >= FEWEST_PIXELS["frequency"] else None
        coloured = bool(row["colour_share"] > high)
        if edge or coloured:
            row["kernel_kind"] = " ".join(["colour"] * coloured + ["edge"] * edge)
        elif _one_sided(pattern) > ONE_SIDED and row["colour_share"] < low:
            row["kernel_kind"] = "brightness"
        else:
            row["kernel_kind"] = "mixed"
        rows[-1] = row
    return rows


def best_grating(pattern):
    """The plane wave that explains most of a pattern's variance.

    Args:
        pattern: float, shape (h, w).

    Returns:
        (the share explained, 0..1; the orientation of its stripes in degrees, counter-clockwise from horizontal, in
        0..180; its frequency in cycles per pixel). Zeros for a pattern without variance.
    """
    centred = pattern.ravel() - pattern.mean()
    energy = np.square(centred).sum()
    if energy <= 1e-12 * np.square(pattern).sum():
        return 0.0, 0.0, 0.0
    waves, angles, frequencies = _gratings(*pattern.shape)
    explained = np.square(waves @ centred).sum(axis=1) / energy
    best = explained.argmax()
    return float(min(1, explained[best])), float(angles[best]), float(frequencies[best])


def hue(chroma):
    """The direction of a colour: 0 red, 60 yellow, 120 green, 180 cyan, 240 blue, 300 magenta.

    Args:
        chroma: float, shape (..., 2), red against green and yellow against blue, as OPPONENT gives them.

    Returns:
        float64, shape (...), degrees in 0..360.
    """
    chroma = np.asarray(chroma, np.float64)
    return (np.degrees(np.arctan2(chroma[..., 1], chroma[..., 0])) - 30) % 360


def hue_name(degrees):
    """The name of the nearest of HUES."""
    return HUES[int((degrees + 30) // 60) % 6]


def layer_rows(rows):
    """The units of each layer in sum.

    Args:
        rows: what `unit_rows` gave, of one layer or of many one after the other, in the order of the network.

    Returns:
        A list of dicts, one for each layer: layer, depth (1 for the first), logits, units, speaking (those not silent);
        class_selective (units), class_selective_share of all units with its 95 % Wilson interval (_low, _high);
        selectivity, selectivity_of_maximum, purity, each the mean over the speaking units with its 95 %
        t-interval over units, None without any; purity_by_chance; and for each of KINDS the number of units.
    """
    layers = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    return [_layer_row(depth, of_layer) for depth, of_layer in enumerate(layers.values(), start=1)]


def selective_sets(rows):
    """The class-selective units of a layer by class, for `silence_sets`.

    Args:
        rows: what `unit_rows` gave.

    Returns:
        A dict from the class's name to the units' numbers, in the order of the units.
    """
    sets = {}
    for row in rows:
        if row["class_selective"]:
            sets.setdefault(row["purity_class"], []).append(row["unit"])
    return sets


def growth(rows):
    """Whether layers become more class-selective with depth: Spearman's correlation with the layer's number.

    The layers are what is counted, as the units of a layer depend on each other; the layer that gives the classes is
    left out, as it is selective by what it is trained for.

    Args:
        rows: what `layer_rows` gave.

    Returns:
        A dict: layers (how many), and for the measures "selectivity", "class_selective_share" and "purity" the
        correlation under this name and its two-sided p from permutations of the layers under the name + "_p"; None
        with fewer than three layers or all values equal.
    """
    rows = [row for row in rows if not row["logits"] and row["speaking"]]
    found = {"layers": len(rows)}
    for measure in ("selectivity", "class_selective_share", "purity"):
        found[measure], found[f"{measure}_p"] = _spearman([row[measure] for row in rows])
    return found


FILTER_COLUMNS = (
    "colour_share", "hue", "opponents", "uniform_share", "grating_share", "grating_by_chance", "orientation",
    "frequency", "kernel_kind",
)  # fmt: skip
COLUMNS = (
    "kind", "meaning", "preferred", "second", "third", "selectivity", "selectivity_of_maximum", "purity",
    "purity_class", "purity_by_chance", "purity_p", "purity_p_corrected", "class_selective", "group", "group_purity",
    "group_purity_by_chance", "group_p_corrected", "colour", "colour_distance", "colour_p_corrected", "fill",
    "active_share", "maximum", *FILTER_COLUMNS,
)  # fmt: skip


def _meaning(row, of_kernel):
    """The kind of a unit that is not silent, and its name in words."""
    if of_kernel:
        kind = row["kernel_kind"]
        words = ["edge"] if kind == "edge" else [f"{kind}: {row['opponents']}"] if "colour" in kind else [kind]
        if row["orientation"] is not None:
            words.append(f"{row['orientation']:.0f} degrees")
        text = " ".join(words) if kind == "edge" else ", ".join(words)
        text += f", {row['frequency']:.2g} cycles/pixel" if row["frequency"] is not None else ""
        # A kernel of one pure colour is no more coloured than random ones; the images that excite it are.
        shown = kind in ("mixed", "brightness") and _shows_colour(row)
        return ("colour", f"colour: {row['colour']}") if shown else (kind, text)
    if row["class_selective"]:
        return "class", f"class: {row['purity_class']}"
    if _holds(row, "group_purity", GROUP_PURITY, "group_p_corrected"):
        return "group", f"group: {row['group']}"
    if _shows_colour(row):
        return "colour", f"colour: {row['colour']}"
    if row["fill"] is not None and row["fill"] >= TEXTURE_FILL:
        return "texture", "texture"
    return "mixed", "mixed"


def _shows_colour(row):
    return _holds(row, "colour_distance", COLOUR_DISTANCE, "colour_p_corrected")


def _holds(row, measure, least, p):
    return row[measure] is not None and row[measure] >= least and row[p] < SIGNIFICANCE


def _members(groups, class_names):
    """The group's number of each class, -1 for none."""
    members = np.full(len(class_names), -1)
    for number, (group, names) in enumerate(groups.items()):
        unknown = [name for name in names if name not in class_names]
        if unknown or not len(names):
            raise UserError(
                f"The group '{group}' holds {', '.join(unknown) or 'no class'}; give names of classes, "
                f"of {', '.join(class_names)}."
            )
        members[[list(class_names).index(name) for name in names]] = number
    return members


def _silent(unit_layer, samples):
    constant = samples.maximum <= samples.minimum
    if unit_layer.output is unit_layer.raw or not activation_behaviour(unit_layer).rectifies:
        return constant
    return constant | (samples.active_share == 0)


def _corrected(p, silent):
    """The p-values of the units that speak, corrected for their number."""
    found = np.ones(len(p))
    if not silent.all():
        found[~silent] = stats.false_discovery_control(p[~silent])
    return found


def _kernel_rows(network, name):
    """The rows of `filter_rows` if this is the first convolution and it reads the image's colours, else None."""
    if not network.convolutions or network.convolutions[0].name != name or network.image_shape[-1] != 3:
        return None
    try:
        kernels = colour_kernels(network)
    except UserError:  # it does not read three channels
        return None
    if kernels.channels != "the image's R, G, B":
        return None
    # A normalisation behind the layer may turn a unit round, and with it what its kernel's signs mean.
    return filter_rows(kernels.weights * output_directions(network[name])[:, None, None, None])


def _chroma(network, images, indices, places, field):
    """The mean colours (k, 2) of what is seen at these places of these images; 0 of nothing."""
    found = np.zeros((len(indices), 2))
    for start in range(0, len(indices), 64):
        batch = slice(start, start + 64)
        shown = resized(images[indices[batch]], network.image_shape)
        for row, image, place in zip(found[batch], shown, places[batch]):
            top, left, bottom, right = field.seen(*place)
            if top < bottom and left < right:
                row[:] = OPPONENT[:2] @ image[top:bottom, left:right].mean(axis=(0, 1))
    return found


def _opponents(chroma):
    """The hue that a kernel (pixels, 2) varies along, and its two ends by name."""
    _, strengths, directions = np.linalg.svd(chroma, full_matrices=False)
    if strengths[0] == 0:
        return None, None
    along = chroma @ directions[0]
    prefers = _one_sided(along) > ONE_SIDED
    degrees = float(hue(directions[0] * (np.sign(along.sum()) if prefers else 1)))
    names = hue_name(degrees), hue_name(degrees + 180)
    return degrees, "-".join(names if prefers else sorted(names, key=HUES.index))


def _one_sided(values):
    return abs(values.sum()) / np.abs(values).sum()


@functools.lru_cache(maxsize=8)
def _gratings(height, width):
    """Plane waves: orthonormal sine and cosine of each (w, 2, pixels), their angles and their frequencies.

    None slower than half a period over the kernel's shorter side, as all of these look alike in it.
    """
    lowest = 0.5 / min(height, width)
    angles, frequencies = np.meshgrid(np.arange(0, 180, 3.0), np.linspace(lowest, 0.5, 25), indexing="ij")
    angles, frequencies = angles.ravel(), frequencies.ravel()
    y, x = np.meshgrid(-np.arange(height), np.arange(width), indexing="ij")  # y upwards
    x, y = x - x.mean(), y - y.mean()
    radians = np.radians(angles)[:, None]
    phase = 2 * np.pi * frequencies[:, None] * (y.ravel() * np.cos(radians) - x.ravel() * np.sin(radians))
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    waves -= waves.mean(axis=2, keepdims=True)
    _, strengths, directions = np.linalg.svd(waves, full_matrices=False)
    # At some frequencies the sine or the cosine is zero at every pixel, but for rounding.
    return directions * (strengths > 1e-6 * strengths[:, :1])[..., None], angles, frequencies


@functools.lru_cache(maxsize=8)
def _grating_by_chance(height, width):
    kernels = np.random.default_rng(0).normal(size=(RANDOM_KERNELS, height, width))
    return float(np.quantile([best_grating(kernel)[0] for kernel in kernels], 1 - CHANCE))


def _layer_row(depth, rows):
    speaking = [row for row in rows if row["kind"] != "silent"]
    selective = sum(row["class_selective"] for row in rows)
    low, high = wilson(selective, len(rows))
    result = {
        "layer": rows[0]["layer"], "depth": depth, "logits": rows[0]["logits"], "units": len(rows),
        "speaking": len(speaking), "class_selective": selective, "class_selective_share": selective / len(rows),
        "class_selective_share_low": float(low), "class_selective_share_high": float(high),
    }  # fmt: skip
    for measure in ("selectivity", "selectivity_of_maximum", "purity"):
        values = [row[measure] for row in speaking if row[measure] is not None and np.isfinite(row[measure])]
        found = summarise(values)
        result |= {
            name: getattr(found, part)
            for name, part in ((measure, "mean"), (f"{measure}_low", "low"), (f"{measure}_high", "high"))
        }
    result["purity_by_chance"] = speaking[0]["purity_by_chance"] if speaking else None
    return result | {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS}


def _spearman(values):
    """Spearman's correlation of values with their places, and its p by permutation."""
    if len(values) < 3 or None in values or np.ptp(values) == 0:
        return None, None
    ranks = stats.rankdata(values)
    depth = np.arange(len(values), dtype=float)

    def correlation(ranks, axis=-1):
        centred = ranks - ranks.mean(axis=axis, keepdims=True)
        return (centred * (depth - depth.mean())).sum(axis=axis)  # to a factor that permutations leave alone

    test = stats.permutation_test(
        (ranks,), correlation, permutation_type="pairings", vectorized=True, rng=np.random.default_rng(0)
    )
    return float(np.corrcoef(ranks, depth)[0, 1]), float(test.pvalue)
