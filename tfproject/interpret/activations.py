"""What units say of images: feature maps, and over many images how many units are silent, saturated or sparse."""

import dataclasses

import numpy as np
from keras import ops

from tfproject.errors import UserError
from tfproject.interpret.attribution import default_batch_size
from tfproject.interpret.network import NORMALIZATIONS, producer

NEAR_BOUND = 0.05  # of the range of a bounded activation function: where its slope is nearly gone
SATURATED_SHARE = 0.95  # of a unit's outputs that must lie there
CONSTANT = 1e-6  # the spread, relative to the largest output, below which a unit says one thing of every image


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The most active maps of some images in one layer.

    Attributes:
        layer: the layer's name.
        units: int (n, count), the units of each image's maps, the one with the highest mean first.
        maps: float32 (n, count, h, w), their outputs.
        low, high: the lowest and highest output of all the layer's units on these images: one scale for the layer.
    """

    layer: str
    units: np.ndarray
    maps: np.ndarray
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class LayerActivity:
    """What a layer's units said of many images; every array has one number per unit.

    Attributes:
        layer, kind: the layer's name, "convolution" or "dense".
        activation: what the activation function does, see `activity`.
        images: how many were looked at.
        lowest, highest: the extreme outputs.
        mean, spread: mean and standard deviation of the outputs over all images and places.
        sparsity: share of the outputs that are zero or negative.
        saturation: share of the outputs near a bound of the activation function; zeros where it has none.
        dead, saturated, always_on: bool, as `activity` defines them.
    """

    layer: str
    kind: str
    activation: str
    images: int
    lowest: np.ndarray
    highest: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    sparsity: np.ndarray
    saturation: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    always_on: np.ndarray

    def row(self):
        """The layer in numbers: a dict with counts of units, shares, and mean and spread over all units."""
        units = len(self.dead)
        mean = float(self.mean.mean())
        return {
            "layer": self.layer,
            "kind": self.kind,
            "activation": self.activation,
            "images": self.images,
            "units": units,
            "dead": int(self.dead.sum()),
            "dead_share": float(self.dead.mean()),
            "saturated": int(self.saturated.sum()),
            "saturated_share": float(self.saturated.mean()),
            "always_on": int(self.always_on.sum()),
            "sparsity": float(self.sparsity.mean()),
            "mean": mean,
            "spread": float(np.sqrt(np.mean(self.spread**2 + (self.mean - mean) ** 2))),
        }

    def unit_rows(self):
        """A list of dicts, one per unit, with its numbers."""
        columns = (
            "lowest", "highest", "mean", "spread", "sparsity", "saturation", "dead", "saturated", "always_on",
        )  # fmt: skip
        return [
            {"layer": self.layer, "unit": unit, **{column: getattr(self, column)[unit].item() for column in columns}}
            for unit in range(len(self.dead))
        ]


def feature_maps(network, images, layer_names=None, count=8, batch_size=8):
    """The most active feature maps of each image, in every convolution.

    Args:
        network: a `tfproject.interpret.Network`.
        images: uint8 or float (n, h, w, 3) of the network's size; a few.
        layer_names: which convolutions; None for all.
        count: maps kept of an image and layer; None for all, in the order of the units.
        batch_size: images a step.

    Returns:
        A list of FeatureMaps, one per layer.

    Raises:
        UserError: if there is no convolution, a layer is none, or the images are of another size.
    """
    unit_layers = network.convolutions if layer_names is None else [network[name] for name in layer_names]
    dense = [unit_layer.name for unit_layer in unit_layers if unit_layer.kind == "dense"]
    if dense or not unit_layers:
        found = f"{', '.join(dense)} is dense" if dense else "The network has no convolution"
        raise UserError(f"{found}, and only convolutions have feature maps; look at activity instead.")
    network.check_images(images)
    run = network.function([unit_layer.output for unit_layer in unit_layers], batch_size)
    kept = {unit_layer.name: [] for unit_layer in unit_layers}
    bounds = {unit_layer.name: [np.inf, -np.inf] for unit_layer in unit_layers}
    for start in range(0, len(images), batch_size):
        for unit_layer, outputs in zip(unit_layers, run(images[start : start + batch_size])):
            low, high = bounds[unit_layer.name]
            bounds[unit_layer.name] = [min(low, float(outputs.min())), max(high, float(outputs.max()))]
            if count is None:
                units = np.tile(np.arange(unit_layer.units), (len(outputs), 1))
            else:
                units = np.argsort(-outputs.mean(axis=(1, 2)), axis=1, kind="stable")[:, :count]
            maps = np.take_along_axis(outputs.transpose(0, 3, 1, 2), units[:, :, None, None], axis=1)
            kept[unit_layer.name].append((units, maps))
    return [
        FeatureMaps(name, *(np.concatenate(parts) for parts in zip(*batches)), *bounds[name])
        for name, batches in kept.items()
    ]


def activity(network, split, layer_names=None, batch_size=None):
    """What every unit says of all images of a split: silent, saturated and sparse units, mean and spread.

    The statistics of each image are made in the compiled network, so that no feature map leaves it. An output is what
    the activation function gives, at one place of the map for a convolution.

    How the activation function behaves is tried, not looked up, by giving it large and small numbers:

    - it *rectifies* where it gives 0 for 0 and less for a number below 0 than half of what it gives for the same above:
      ReLU, LeakyReLU, ELU, GELU, SiLU and the like;
    - it is *bounded* where large numbers all give the same: above (sigmoid, tanh, ReLU6), and below unless that is the
      silence of one that rectifies (sigmoid, tanh; not ReLU, ELU).

    A unit is **dead** when it is constant over all images and places (any activation function), or, where the function
    rectifies, never above 0: a LeakyReLU that only ever shows its negative slope is as dead as a ReLU at 0. It is
    **saturated** when it is not dead and at least 95 % of its outputs lie within 5 % of the function's range of a
    bound; functions without a bound have no saturated units. It is **always on** when it is neither, the function
    rectifies and the output is above 0 for every image and place: then it is only a linear unit.

    Args:
        network: a `tfproject.interpret.Network`.
        split: a Split with images of the network's size, uint8 (n, h, w, 3).
        layer_names: which layers; None for all convolutions and dense layers.
        batch_size: images a step; if None 128, or fewer where they are large.

    Returns:
        A list of LayerActivity, in the order of the layers.

    Raises:
        UserError: if there is no image, no such layer, or the images are of another size.
    """
    batch_size = batch_size or min(128, 4 * default_batch_size(network.image_shape))
    unit_layers = network.unit_layers if layer_names is None else [network[name] for name in layer_names]
    images = split.images
    network.check_images(images)
    if not len(images):
        raise UserError("There is no image to look at; give at least one.")
    if not unit_layers:
        return []
    behaviours = [activation_behaviour(unit_layer) for unit_layer in unit_layers]
    run = network.function(
        [tensor for layer, behaviour in zip(unit_layers, behaviours) for tensor in _statistics(layer, behaviour)],
        batch_size,
    )
    sums = [_Sums(unit_layer.units) for unit_layer in unit_layers]
    for start in range(0, len(images), batch_size):
        values = iter(run(images[start : start + batch_size]))
        for of_layer in sums:
            of_layer.add(*(next(values) for _ in range(6)))
    return [
        _activity(unit_layer, behaviour, of_layer, len(images))
        for unit_layer, behaviour, of_layer in zip(unit_layers, behaviours, sums)
    ]


@dataclasses.dataclass(frozen=True)
class _Behaviour:
    name: str
    rectifies: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def margin(self):
        """How near a bound an output counts as saturated."""
        known = [bound for bound in (self.low, self.high) if bound is not None]
        return NEAR_BOUND * (self.high - self.low if len(known) == 2 else max(map(abs, known), default=0))


class _Sums:
    """Statistics of images, added up batch by batch; each image has as many places as any other."""

    def __init__(self, units):
        self.count = 0
        self.lowest, self.highest = np.full(units, np.inf, np.float32), np.full(units, -np.inf, np.float32)
        self.mean, self.square = np.zeros(units), np.zeros(units)
        self.sparsity, self.saturation = np.zeros(units), np.zeros(units)

    def add(self, lowest, highest, mean, variance, sparsity, saturation):
        """Add the statistics (n, units) of n images."""
        self.count += len(mean)
        self.lowest = np.minimum(self.lowest, lowest.min(axis=0))
        self.highest = np.maximum(self.highest, highest.max(axis=0))
        self.mean += mean.sum(axis=0, dtype=np.float64)
        self.square += (variance.astype(np.float64) + mean.astype(np.float64) ** 2).sum(axis=0)
        self.sparsity += sparsity.sum(axis=0, dtype=np.float64)
        self.saturation += saturation.sum(axis=0, dtype=np.float64)


def _activity(unit_layer, behaviour, sums, image_count):
    mean = sums.mean / sums.count
    lowest, highest = sums.lowest, sums.highest
    constant = highest - lowest <= CONSTANT * np.maximum(np.abs(highest), np.abs(lowest))
    dead = constant | (behaviour.rectifies & (highest <= 0))
    saturation = sums.saturation / sums.count
    saturated = ~dead & (saturation >= SATURATED_SHARE)
    return LayerActivity(
        layer=unit_layer.name,
        kind=unit_layer.kind,
        activation=behaviour.name,
        images=image_count,
        lowest=lowest,
        highest=highest,
        mean=mean,
        spread=np.sqrt(np.maximum(0, sums.square / sums.count - mean**2)),
        sparsity=sums.sparsity / sums.count,
        saturation=saturation,
        dead=dead,
        saturated=saturated,
        always_on=behaviour.rectifies & ~dead & ~saturated & (lowest > 0),
    )


def _statistics(unit_layer, behaviour):
    """Six KerasTensors (None, units): lowest, highest, mean, variance, shares at or below 0 and near a bound."""
    x = unit_layer.output
    if unit_layer.kind == "dense":
        x = ops.expand_dims(x, axis=1)
    places = tuple(range(1, len(x.shape) - 1))

    def share(condition):
        return ops.mean(ops.cast(condition, "float32"), axis=places)

    near = ops.zeros_like(x, dtype="bool")
    if behaviour.low is not None:
        near = ops.logical_or(near, x <= behaviour.low + behaviour.margin)
    if behaviour.high is not None:
        near = ops.logical_or(near, x >= behaviour.high - behaviour.margin)
    extremes = ops.min(x, axis=places), ops.max(x, axis=places)
    return [*extremes, ops.mean(x, axis=places), ops.var(x, axis=places), share(x <= 0), share(near)]


def activation_behaviour(unit_layer):
    """What the function that gives the layer's output does with numbers of any size."""
    if unit_layer.output is unit_layer.raw:
        return _Behaviour("linear")
    node = producer(unit_layer.output)
    operation = node.operation
    if isinstance(operation, NORMALIZATIONS):
        return _Behaviour("linear")
    name = getattr(getattr(operation, "activation", None), "__name__", type(operation).__name__).lower()
    if "softmax" in name:  # the only one whose output at a unit depends on the others
        return _Behaviour(name, low=0.0, high=1.0)
    shape = (1, *node.input_tensors[0].shape[1:])

    def at(value):
        return float(ops.convert_to_numpy(operation(ops.full(shape, value, dtype="float32"))).mean())

    def bound(sign):
        value = at(sign * 1e4)
        return value if np.isfinite(value) and np.isclose(value, at(sign * 1e3), atol=1e-3) else None

    low, high = bound(-1), bound(1)
    rectifies = abs(at(0.0)) < 1e-6 and abs(at(-10.0)) < 0.5 * abs(at(10.0))
    return _Behaviour(name, rectifies, None if rectifies else low, high)
