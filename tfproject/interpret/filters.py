"""What filters look for: their kernels as images, and the images that excite them most."""

import dataclasses
import itertools

import keras
import numpy as np
from keras import layers, ops

from tfproject.errors import UserError
from tfproject.interpret.network import producer

NOISE_IMAGES = 8
START_SPREAD = 0.1  # of what is optimised at the start: six steps of 255 about grey
JITTER = 4  # pixels by which the image is moved at each step of gradient ascent, at most, round its borders
ROTATION = 1.0  # degrees by which it is turned, at most, at each step of the first half
SCALING = (0.98, 1.02)  # the lowest and highest factor by which it is scaled then
TOTAL_VARIATION = 0.02  # weight of the mean absolute difference of neighbouring pixels
NORM = 0.03  # weight of the root mean square distance from grey


@dataclasses.dataclass(frozen=True, eq=False)
class ColourKernels:
    """The first layer's kernels as images.

    Attributes:
        layer: the layer's name.
        images: uint8 (units, kh, kw, 3): 128 for a weight of 0, 1 and 255 for -scale and +scale, one scale for all.
        weights: float32 (units, kh, kw, 3), what is shown: the weights by the channels named below.
        scale: the largest absolute weight.
        channels: "the image's R, G, B"; or "the layer's own three input channels" where what comes before the layer is
            more than arithmetic on each pixel.
    """

    layer: str
    images: np.ndarray
    weights: np.ndarray
    scale: float
    channels: str


@dataclasses.dataclass(frozen=True, eq=False)
class KernelSlices:
    """Some kernels of a layer, each as a few grey images.

    Attributes:
        layer: the layer's name.
        units: int (n,), the filters shown.
        channels: int (n, c), the input channels shown of each, those with the largest weights (L2) first.
        mean: float32 (n, kh, kw), each kernel's mean over all its input channels: its answer to grey.
        slices: float32 (n, c, kh, kw), the weights of these channels.
        scale: the largest absolute weight of the whole layer.
    """

    layer: str
    units: np.ndarray
    channels: np.ndarray
    mean: np.ndarray
    slices: np.ndarray
    scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class MaximisedActivations:
    """Images that excite units most, with the proof that they do.

    Attributes:
        layer: the layer's name.
        units: int (n,).
        images: uint8 (n, h, w, 3).
        reached: float32 (n,), the unit's output on its image, averaged over the map's places for a convolution.
        on_noise: float32 (n,), the same on images of uniform noise, their mean.
        steps: of gradient ascent.
    """

    layer: str
    units: np.ndarray
    images: np.ndarray
    reached: np.ndarray
    on_noise: np.ndarray
    steps: int

    def rows(self):
        """A list of dicts: layer, unit, reached, on_noise, steps."""
        return [
            {"layer": self.layer, "unit": int(unit), "reached": float(a), "on_noise": float(b), "steps": self.steps}
            for unit, a, b in zip(self.units, self.reached, self.on_noise)
        ]


def kernels(unit_layer):
    """A convolution's weights, a kernel per filter.

    Args:
        unit_layer: a UnitLayer of kind "convolution". A separable convolution's two kernels are multiplied into the one
            that they amount to.

    Returns:
        float32 (units, kh, kw, channels); the channels are those that a filter reads: one for a depthwise convolution,
        those of its group for one in groups.
    """
    weights = [np.asarray(weight) for weight in unit_layer.layer.get_weights()]
    if isinstance(unit_layer.layer, layers.SeparableConv2D):
        depthwise, pointwise = weights[:2]
        pointwise = pointwise.reshape(depthwise.shape[2], depthwise.shape[3], -1)
        return np.einsum("hwcm,cmu->uhwc", depthwise, pointwise)
    if isinstance(unit_layer.layer, layers.DepthwiseConv2D):
        height, width = weights[0].shape[:2]
        return weights[0].reshape(height, width, 1, -1).transpose(3, 0, 1, 2)
    return weights[0].transpose(3, 0, 1, 2)


def colour_kernels(network):
    """The first convolution's kernels as the image's colours.

    What comes before the layer may mix colours (VGG16 takes BGR) and scale them. Where it is a linear map of each
    pixel's three numbers, which is tried, the kernels are carried back through it to the image's own R, G, B.

    Args:
        network: a `tfproject.interpret.Network`.

    Returns:
        ColourKernels.

    Raises:
        UserError: if there is no convolution, or the first one does not read three channels.
    """
    if not network.convolutions:
        raise UserError("The network has no convolution, so there are no kernels to show; give one that has.")
    first = network.convolutions[0]
    incoming = producer(first.raw).input_tensors[0]
    if incoming.shape[-1] != 3:
        raise UserError(
            f"The first convolution {first.name} reads {incoming.shape[-1]} channels, and colours have three; look at "
            "its kernels with kernel_slices."
        )
    weights = _over_all_channels(kernels(first), 3)
    mixing = _colour_mixing(network, incoming)
    if mixing is not None:
        weights = weights @ mixing
    scale = float(np.abs(weights).max())
    images = np.round(128 + 127 * weights / (scale or 1)).astype(np.uint8)
    channels = "the layer's own three input channels" if mixing is None else "the image's R, G, B"
    return ColourKernels(first.name, images, weights.astype(np.float32), scale, channels)


def kernel_slices(unit_layer, units=None, channel_count=8):
    """Kernels of a deeper layer: the mean over the input channels, and the slices with the largest weights.

    Args:
        unit_layer: a UnitLayer of kind "convolution".
        units: which filters; None for the sixteen with the largest norm, largest first.
        channel_count: slices of each.

    Returns:
        KernelSlices.

    Raises:
        UserError: if the layer is not a convolution or has no such filter.
    """
    if unit_layer.kind != "convolution":
        raise UserError(f"{unit_layer.name} is a dense layer and has no kernels; give a convolution.")
    weights = kernels(unit_layer)
    norms = np.linalg.norm(weights.reshape(len(weights), -1), axis=1)
    units = np.argsort(-norms, kind="stable")[:16] if units is None else _checked_units(unit_layer, units)
    shown = weights[units].transpose(0, 3, 1, 2)
    strengths = np.linalg.norm(shown, axis=(2, 3))
    channels = np.argsort(-strengths, axis=1, kind="stable")[:, :channel_count]
    slices = np.take_along_axis(shown, channels[:, :, None, None], axis=1)
    return KernelSlices(unit_layer.name, units, channels, shown.mean(axis=1), slices, float(np.abs(weights).max()))


def norm_rows(network):
    """How large each unit's weights are, without its bias.

    Under weight decay unused ones shrink; before a BatchNorm the size alone says nothing of use, as it is divided out.

    Returns:
        A list of dicts, one per unit of every convolution and dense layer: layer, unit, l2 (the root of the sum of
        squares), l1 (the sum of absolute values), weights (how many), to_median (l2 over the layer's median).
    """
    rows = []
    for unit_layer in network.unit_layers:
        if unit_layer.kind == "convolution":
            weights = kernels(unit_layer).reshape(unit_layer.units, -1)
        else:
            weights = unit_layer.layer.get_weights()[0].T
        l2 = np.linalg.norm(weights.astype(np.float64), axis=1)
        median = np.median(l2)
        rows += [
            {
                "layer": unit_layer.name,
                "unit": unit,
                "l2": float(l2[unit]),
                "l1": float(np.abs(weights[unit]).sum()),
                "weights": weights.shape[1],
                "to_median": float(l2[unit] / median) if median else None,
            }
            for unit in range(unit_layer.units)
        ]
    return rows


def maximise_activation(network, layer_name, units, steps=200, seed=0, batch_size=16, learning_rate=0.05):
    """What units respond to most: gradient ascent on images, with tf-keras-vis' ActivationMaximization.

    The image is the sigmoid of what is optimised, so that it stays within 0..255 and the norm draws to grey. What is
    maximised is the unit's weighted sum before its activation, which has a gradient where a ReLU is silent and a
    sigmoid saturated; upwards, or downwards where a normalisation turns the unit round. Places of a map above the sum
    of a grey image count in full, those below hardly (softplus): with a plain mean an edge filter's would cancel. The
    score is scaled so that each unit pulls at a pixel about as hard as a regulariser of weight 1, and the same weights
    suit every layer and network.

    Args:
        network: a `tfproject.interpret.Network` for images with three channels.
        layer_name: a convolution's or dense layer's name.
        units: which units.
        steps: of gradient ascent (Adam without momentum).
        seed: of the noise at the start and of what is done to the image at each step.
        batch_size: units that are worked on together; the bound of the memory.
        learning_rate: per step, of what the sigmoid is applied to.

    Returns:
        MaximisedActivations.

    Raises:
        UserError: if there is no such layer or unit, or the images do not have three channels.

    Reference:
        Erhan et al. 2009, Visualizing higher-layer features of a deep network; Olah, Mordvintsev & Schubert 2017,
        Feature visualization (https://doi.org/10.23915/distill.00007).
    """
    unit_layer = network[layer_name]
    units = _checked_units(unit_layer, units)
    height, width, channel_count = network.image_shape
    if channel_count != 3:
        raise UserError(f"The network takes {channel_count} channels, and a picture has three; give one for RGB.")
    random = np.random.default_rng(seed)
    raw = unit_layer.raw
    tensors = [_over_places(unit_layer.output), _over_places(raw), _over_places(ops.square(raw))]
    summary = network.function(tensors, max(batch_size, NOISE_IMAGES))
    on_noise = summary(random.integers(0, 256, (NOISE_IMAGES, height, width, 3)))[0].mean(axis=0)
    _, mean, square = (
        values.mean(axis=0) for values in summary(_as_pixels(_start(random, NOISE_IMAGES, network.image_shape)))
    )
    spread = np.sqrt(np.maximum(0, square - mean**2))
    spread = np.where(spread > 0, spread, 1)
    directions = output_directions(unit_layer)
    # In an image of small noise of spread s, a sum with a gradient of norm g has the spread s * g: this gives g without
    # a backward pass. Averaged over places that pull different ways it is smaller by the root of their number.
    places = np.prod(raw.shape[1:-1])
    pull = np.sqrt(places / (height * width * 3)) * START_SPREAD

    optimised = keras.Input(network.image_shape, name="optimised")
    model = keras.Model([optimised], network.part([raw])(255 * ops.sigmoid(optimised)))
    images, reached = [], []
    for start in range(0, len(units), batch_size):
        batch = units[start : start + batch_size]
        found = _ascend(
            model,
            _score(batch, mean[batch], directions[batch] * spread[batch], pull),
            _start(random, len(batch), network.image_shape),
            steps,
            _modifiers(random, min(JITTER, height - 1, width - 1), steps // 2),
            learning_rate,
        )
        pictures = _as_pixels(found)
        images.append(pictures)
        reached.append(summary(pictures)[0][np.arange(len(batch)), batch])
    return MaximisedActivations(
        layer_name, units, np.concatenate(images), np.concatenate(reached), on_noise[units], steps
    )


def _ascend(model, score, begin, steps, modifiers, learning_rate):
    """Where tf-keras-vis ends: float32 like `begin`."""
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D

    # A new optimiser each time: one used before cannot be used again. Without momentum, which would not move with the
    # image when it is jittered.
    optimizer = keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.99, epsilon=1e-12)
    found = ActivationMaximization(model)(
        score,
        seed_input=begin,
        input_range=None,
        input_modifiers=modifiers,
        regularizers=[TotalVariation2D(TOTAL_VARIATION), Norm(NORM, p=2)],
        steps=steps,
        optimizer=optimizer,
    )
    return np.asarray(found)


def _score(units, mean, scale, pull):
    """What tf-keras-vis maximises: of each image its own unit's sums, counted the more the further above the mean."""

    def score(sums):
        values = ops.stack([sums[i, ..., unit] for i, unit in enumerate(units)])
        values = ops.reshape(values, (len(units), -1))
        return pull * ops.mean(ops.softplus((values - mean[:, None]) / scale[:, None]), axis=1)

    return score


def _modifiers(random, jitter, turned_steps):
    """tf-keras-vis' jitter, rotation and scaling, drawn from this generator, which they have no seed for.

    Rotation and scaling blur what they move, so after `turned_steps` steps they end and the image becomes sharp.
    """
    from tf_keras_vis.activation_maximization.input_modifiers import Rotate2D, Scale

    def move(images):
        return np.roll(images, random.integers(-jitter, jitter + 1, 2), axis=(1, 2))

    def at_first(modifier):
        modifier.random_generator = random
        step = itertools.count()
        return lambda images: modifier(images) if next(step) < turned_steps else images

    return [move, at_first(Rotate2D(ROTATION)), at_first(Scale(*SCALING))]


def output_directions(unit_layer):
    """For each unit 1 where its output grows with its weighted sum, -1 where it falls (a normalisation may turn it)."""
    operations, tensor = [], unit_layer.output
    while tensor is not unit_layer.raw:
        node = producer(tensor)
        operations.append(node.operation)
        tensor = node.input_tensors[0]

    def after(value):
        x = ops.full((1, *unit_layer.raw.shape[1:]), value, dtype="float32")
        for operation in reversed(operations):
            x = operation(x)
        return ops.convert_to_numpy(x).reshape(-1, unit_layer.units).mean(axis=0)

    return np.where(after(1e4) < after(-1e4), -1, 1).astype(np.float32)


def _start(random, count, image_shape):
    return random.normal(0, START_SPREAD, (count, *image_shape)).astype(np.float32)


def _as_pixels(optimised):
    return np.round(255 / (1 + np.exp(-optimised))).astype(np.uint8)


def _over_places(output):
    return ops.mean(output, axis=(1, 2)) if len(output.shape) == 4 else output


def _over_all_channels(weights, channel_count):
    """Kernels (units, kh, kw, c) of a convolution in groups as kernels over all channels, 0 where they do not read."""
    units, height, width, read = weights.shape
    groups = channel_count // read
    found = np.zeros((units, height, width, channel_count), weights.dtype)
    for unit, kernel in enumerate(weights):
        first = unit // (units // groups) * read
        found[unit, :, :, first : first + read] = kernel
    return found


def _colour_mixing(network, incoming):
    """The matrix (3, 3) that takes an image's R, G, B to the three numbers of `incoming`; None if it is not of a kind.

    Found by single colours, and believed if it predicts `incoming` for noise.
    """
    values = network.function([incoming], 5)
    images = np.zeros((5, *network.image_shape), np.float32)
    if network.image_shape[-1] != 3:
        return None
    images[[1, 2, 3], ..., [0, 1, 2]] = 255
    images[4] = np.random.default_rng(0).integers(0, 256, network.image_shape)
    (found,) = values(images)
    if found.shape[1:] != network.image_shape:
        return None
    middle = found[:4, found.shape[1] // 2, found.shape[2] // 2].astype(np.float64)
    mixing = (middle[1:] - middle[0]).T / 255
    predicted = images[4] @ mixing.T + middle[0]
    if not np.allclose(found[4], predicted, rtol=1e-3, atol=1e-3 * np.abs(middle).max()):
        return None
    return mixing


def _checked_units(unit_layer, units):
    units = np.atleast_1d(np.asarray(units))
    if not len(units) or units.dtype.kind not in "iu" or units.min() < 0 or units.max() >= unit_layer.units:
        raise UserError(
            f"{units.tolist()} are not all units of {unit_layer.name}; give numbers from 0 to {unit_layer.units - 1}."
        )
    return units
