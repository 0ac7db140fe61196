"""How often two networks find the same units: units matched by what they say of the same images."""

import dataclasses

import keras
import numpy as np
from scipy import optimize

from tfproject.errors import UserError
from tfproject.interpret.attribution import default_batch_size
from tfproject.statistics import summarise, wilson

DRAWS = 5  # random orders of the images, for what is shared by chance
SAME = 0.5  # the correlation from which on two units count as the same


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """Units of one network and those of another that say most nearly the same, one to one.

    Attributes:
        units: int, shape (m, 2), the unit of either network, m the smaller of the numbers of units that vary; the
            largest correlation first.
        correlations: float64, shape (m,).
        null: float64, shape (draws, m), the same with the other network's images in a random order, each row sorted.
        units_of_each: how many units each of the networks has.
    """

    units: np.ndarray
    correlations: np.ndarray
    null: np.ndarray
    units_of_each: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerSimilarity:
    """How similar a layer of two networks is.

    Attributes:
        layer: its name in the first network.
        images: how many were shown.
        matching: Matching.
        cka: linear CKA of what all units say.
        null_cka: float64, shape (draws,), the same with the other network's images in a random order.
        alike: the mean correlation of the first network's units among themselves; None for fewer than two that vary.
    """

    layer: str
    images: int
    matching: Matching
    cka: float
    null_cka: np.ndarray
    alike: float | None

    def row(self, same=SAME):
        """The layer in numbers.

        Args:
            same: the correlation from which on two units count as the same.

        Returns:
            A dict: layer, images, units, other_units, varying (pairs that could be made, of units that do not say the
            same of every image), threshold; share, of the smaller layer's units that have a partner from the
            threshold on, with its 95 % Wilson interval (share_low, share_high); null_share and null_share_highest, mean
            and highest of the draws by chance; correlation, the mean over the pairs with its 95 % t-interval
            (correlation_low, correlation_high), null_correlation; cka, null_cka; alike. None where no unit varies.
        """
        matching, count = self.matching, min(self.matching.units_of_each)
        found = int((matching.correlations >= same).sum())
        low, high = wilson(found, count)
        null = (matching.null >= same).sum(axis=1) / count
        row = {
            "layer": self.layer, "images": self.images, "units": matching.units_of_each[0],
            "other_units": matching.units_of_each[1], "varying": len(matching.units), "threshold": same,
            "share": found / count, "share_low": float(low), "share_high": float(high),
            "null_share": float(null.mean()), "null_share_highest": float(null.max()),
            "correlation": None, "correlation_low": None, "correlation_high": None, "null_correlation": None,
            "cka": self.cka, "null_cka": float(self.null_cka.mean()), "alike": self.alike,
        }  # fmt: skip
        if len(matching.units):
            mean = summarise(matching.correlations)
            row |= {"correlation": mean.mean, "correlation_low": mean.low, "correlation_high": mean.high}
            row["null_correlation"] = float(matching.null.mean())
        return row


def compare_networks(network, other, images, layer_names=None, *, seed=0, batch_size=None):
    """How similar two networks' units are, layer by layer.

    A unit's summary of an image is its greatest output over all places; of a dense unit, its output. Two networks of
    different seeds have their units in another order, so each unit is matched with the one of the other network whose
    summaries correlate most with its own, one to one, the sum of the correlations as large as possible.

    Two controls: the other network's images in a random order, drawn here, for what matching so many units gives by
    chance; and two untrained networks, which the caller compares in the same way, for what the architecture and the
    images alone make similar.

    Args:
        network, other: two `tfproject.interpret.Network` whose layers have the same names.
        images: uint8 or float, shape (n, h, w, channels); more images than units, where there are enough.
        layer_names: which layers; all but those that give the classes if None.
        seed: of the random orders.
        batch_size: images a step; if None about half a million pixels a step. Memory depends on this, on one number
            for each image and unit of the layers chosen, and on the square of the largest layer's number of units.

    Returns:
        A list of LayerSimilarity, in the order of the layers.

    Raises:
        UserError: if there are fewer than three images, the networks take other images, or a layer is missing.

    Reference:
        Li et al. 2016, Convergent learning: do different neural networks learn the same representations?
        (https://arxiv.org/abs/1511.07543).
        Kornblith et al. 2019, Similarity of neural network representations revisited
        (https://arxiv.org/abs/1905.00414).
    """
    if layer_names is None:
        layer_names = [layer.name for layer in network.unit_layers if layer.output is not network.logits]
    ours, theirs = (summaries(each, images, layer_names, batch_size) for each in (network, other))
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(images)) for _ in range(DRAWS)]
    return [
        LayerSimilarity(
            name,
            len(images),
            match_units(x, y, orders),
            linear_cka(x, y),
            np.array([linear_cka(x, y[order]) for order in orders]),
            mean_correlation(x),
        )
        for name, x, y in ((name, ours[name], theirs[name]) for name in layer_names)
    ]


def summaries(network, images, layer_names, batch_size=None):
    """What units say of each image: the greatest output over all places.

    Args:
        network: a `tfproject.interpret.Network`.
        images: uint8 or float, shape (n, h, w, channels).
        layer_names: which layers.
        batch_size: images a step; if None about half a million pixels a step.

    Returns:
        A dict from layer name to float32 (n, units).

    Raises:
        UserError: as `compare_networks`.
    """
    if len(images) < 3:
        raise UserError(f"{len(images)} images are too few to correlate what units say of them; give at least three.")
    unit_layers = [network[name] for name in layer_names]
    if not unit_layers:
        return {}
    greatest = [
        keras.ops.max(layer.output, axis=(1, 2)) if layer.kind == "convolution" else layer.output
        for layer in unit_layers
    ]
    values = network.values(greatest, images, batch_size or default_batch_size(network.image_shape))
    return {layer.name: rows for layer, rows in zip(unit_layers, values)}


def match_units(x, y, orders=()):
    """Match the columns of two tables by correlation, one to one, with the largest sum of correlations.

    Args:
        x, y: float, shapes (n, p) and (n, q), what units say of the same n images.
        orders: random orders of the images, for the null: y is matched anew in each.

    Returns:
        Matching. Columns that do not vary have no correlation and are left out.
    """
    x_varying, y_varying = (np.flatnonzero(np.ptp(table, axis=0) > 0) for table in (x, y))
    x_standard, y_standard = _standardised(x[:, x_varying]), _standardised(y[:, y_varying])
    rows, columns, correlations = _assigned(x_standard, y_standard)
    order = np.argsort(-correlations, kind="stable")
    null = [np.sort(_assigned(x_standard, y_standard[images])[2])[::-1] for images in orders]
    return Matching(
        np.stack([x_varying[rows[order]], y_varying[columns[order]]], axis=1),
        correlations[order],
        np.array(null).reshape(len(null), len(order)),
        (x.shape[1], y.shape[1]),
    )


def mean_correlation(x):
    """The mean correlation of each two columns of a table.

    Args:
        x: float, shape (n, p).

    Returns:
        A number in -1..1; None for fewer than two columns that vary.
    """
    standard = _standardised(x[:, np.ptp(x, axis=0) > 0])
    count = standard.shape[1]
    # The square of the sum of all columns holds each pair twice, and each column with itself.
    return float((np.square(standard.sum(axis=1)).sum() - count) / (count * (count - 1))) if count > 1 else None


def linear_cka(x, y):
    """Linear centred kernel alignment: 0 for nothing in common, 1 for the same up to rotation and scale.

    With few images it is above 0 for tables that have nothing in common; tables of random order tell how much.

    Args:
        x, y: float, shapes (n, p) and (n, q).

    Returns:
        A number in 0..1; NaN where one of them does not vary.

    Reference:
        Kornblith et al. 2019, Similarity of neural network representations revisited
        (https://arxiv.org/abs/1905.00414).
    """
    x, y = (np.asarray(table, np.float64) - table.mean(axis=0, dtype=np.float64) for table in (x, y))
    own = _norm_of_product(x, x) * _norm_of_product(y, y)
    return float(_norm_of_product(x, y) ** 2 / own) if own else float("nan")


def _norm_of_product(x, y):
    """The Frobenius norm of x' y."""
    return np.linalg.norm(x.T @ y)


def _standardised(table):
    """Each column with mean 0 and length 1, so that a product of two is their correlation."""
    table = table - table.mean(axis=0, dtype=np.float64)
    return table / np.linalg.norm(table, axis=0)


def _assigned(x, y):
    """The pairs of columns and their correlations."""
    correlations = x.T @ y
    rows, columns = optimize.linear_sum_assignment(correlations, maximize=True)
    return rows, columns, correlations[rows, columns]
