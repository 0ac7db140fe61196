"""The part of an image that a unit sees: its receptive field, followed through the network layer by layer."""

import dataclasses
import weakref

import keras
import numpy as np
from keras import layers

from tfproject.interpret.network import CONVOLUTIONS

POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
TRIALS = 6  # how often it is tried whether an operation works place by place
_FIELDS = weakref.WeakKeyDictionary()  # those of each network, by layer; worked out once


@dataclasses.dataclass(frozen=True, eq=False)
class ReceptiveField:
    """The boxes of pixels that the units of a layer see, one box for each place of its feature map.

    Pixels are those of the network's input. Where branches meet, or a kernel is dilated, the box is the smallest that
    holds all that is seen. A unit that has seen the whole image (a dense unit, or any after a global pooling) has the
    image as its box at every place.

    Attributes:
        height, width: of a box that no border cuts, in pixels; it may be larger than the image.
        stride: (down, right), pixels from a place's box to the next one's; 0 where every place sees the image.
        offset: (top, left) of the uncut box of place (0, 0); negative where there is padding.
        rows: int, shape (places down, 2): first pixel row seen and the one after the last, for each row of places.
        columns: int, shape (places right, 2): the same for the columns.
    """

    height: int
    width: int
    stride: tuple[int, int]
    offset: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    def box(self, row, column):
        """The box of a place as if the image went on for ever: (top, left, bottom, right), the last two exclusive."""
        top = self.offset[0] + self.stride[0] * row
        left = self.offset[1] + self.stride[1] * column
        return int(top), int(left), int(top) + self.height, int(left) + self.width

    def seen(self, row, column):
        """The box of a place with nothing but pixels of the image that reach it, as `box` gives it.

        It is what the border leaves of the uncut box; less, where a layer skipped pixels at the border. A place that
        sees padding alone has a box without pixels.
        """
        (top, bottom), (left, right) = self.rows[row], self.columns[column]
        return int(top), int(left), int(bottom), int(right)


@dataclasses.dataclass(frozen=True, eq=False)
class _Axis:
    """What the places along one axis of a tensor see of that axis of the image.

    first and last say it exactly for each place, last < first where nothing is seen; place i in an endless image sees
    `size` pixels from `start + stride * i` on.
    """

    first: np.ndarray
    last: np.ndarray
    stride: int
    start: int
    size: int
    pixels: int

    @classmethod
    def of_image(cls, pixels):
        return cls(np.arange(pixels), np.arange(pixels), 1, 0, 1, pixels)

    def whole(self, places):
        """That of places that see everything."""
        return _Axis(np.zeros(places, int), np.full(places, self.pixels - 1), 0, 0, self.pixels, self.pixels)

    def windows(self, kernel, stride, dilation, padding):
        """That of a convolution or pooling over this axis; padding as Keras names it."""
        span, places = (kernel - 1) * dilation + 1, len(self.first)
        if padding == "same":
            count = -(-places // stride)
            return self._reading(count, max((count - 1) * stride + span - places, 0) // 2, kernel, stride, dilation)
        return self._reading((places - span) // stride + 1, 0, kernel, stride, dilation)

    def shifted(self, before, after):
        """That of places added before and after (padding) or, where negative, taken away (cropping)."""
        return self._reading(len(self.first) + before + after, before)

    def _reading(self, count, before, kernel=1, stride=1, dilation=1):
        """That of `count` places that read `kernel` of these each, the first one from `before` places outside on."""
        places = np.arange(count)[:, None] * stride - before + np.arange(kernel) * dilation
        inside = (places >= 0) & (places < len(self.first))
        places = places.clip(0, len(self.first) - 1)
        return _Axis(
            np.where(inside, self.first[places], self.pixels).min(axis=1),
            np.where(inside, self.last[places], -1).max(axis=1),
            self.stride * stride,
            self.start - self.stride * before,
            self.size + self.stride * (kernel - 1) * dilation,
            self.pixels,
        )

    def together(self, other):
        """That of places that see what these see and what those of another branch see."""
        first, last = np.minimum(self.first, other.first), np.maximum(self.last, other.last)
        if self.stride != other.stride or len(self.first) != len(other.first):  # the branches' boxes drift apart
            return dataclasses.replace(self.whole(len(first)), first=first, last=last)
        start = min(self.start, other.start)
        size = max(self.start + self.size, other.start + other.size) - start
        return _Axis(first, last, self.stride, start, size, self.pixels)


def receptive_field(network, name):
    """The receptive field of a layer's units.

    Convolutions, poolings, padding and cropping are followed by their sizes, and whatever else proves to work place by
    place when tried on random numbers. Behind anything other (global pooling, flattening, attention, resizing) a unit
    is taken to see the whole image.

    Args:
        network: a `tfproject.interpret.Network`.
        name: of one of its unit layers.

    Returns:
        ReceptiveField.

    Raises:
        UserError: if the network has no such layer.

    Reference: A. Araujo, W. Norris, J. Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks",
        Distill, doi:10.23915/distill.00021.
    """
    unit_layer = network[name]
    if network not in _FIELDS:
        axes = _axes(network)
        _FIELDS[network] = {u.name: _field(*axes[id(u.output)]) for u in network.unit_layers}
    return _FIELDS[network][unit_layer.name]


def _field(down, right):
    return ReceptiveField(
        height=down.size,
        width=right.size,
        stride=(down.stride, right.stride),
        offset=(down.start, right.start),
        rows=np.stack([down.first, down.last + 1], axis=1),
        columns=np.stack([right.first, right.last + 1], axis=1),
    )


def _axes(network):
    """(down, right) of every tensor of the network, by the tensor's id."""
    (image,) = network.model.inputs
    of_image = [_Axis.of_image(pixels) for pixels in network.image_shape[:2]]
    found = {id(image): of_image}
    nodes = network.model._nodes_by_depth
    for node in (node for depth in sorted(nodes, reverse=True) for node in nodes[depth] if not node.is_input):
        axes = _step(node, [found[id(x)] for x in node.input_tensors])
        for y in node.outputs:
            places = y.shape[1:3] if len(y.shape) == 4 else (1, 1)
            found[id(y)] = axes or [axis.whole(count) for axis, count in zip(of_image, places)]
    return found


def _step(node, inputs):
    """(down, right) after a node, from those of its inputs; None where a place may see more than is followed here."""
    operation = node.operation
    (down, right), *others = inputs
    if any(len(x.shape) != 4 for x in (*node.input_tensors, *node.outputs)):
        return None
    if getattr(operation, "data_format", None) == "channels_first":
        return None
    if isinstance(operation, (*CONVOLUTIONS, *POOLINGS)):
        kernel = operation.pool_size if isinstance(operation, POOLINGS) else operation.kernel_size
        dilation = getattr(operation, "dilation_rate", (1, 1))
        return [
            axis.windows(*window, operation.padding)
            for axis, *window in zip((down, right), kernel, operation.strides, dilation)
        ]
    if isinstance(operation, layers.ZeroPadding2D):
        return [axis.shifted(*amounts) for axis, amounts in zip((down, right), operation.padding)]
    if isinstance(operation, layers.Cropping2D):
        return [axis.shifted(-before, -after) for axis, (before, after) in zip((down, right), operation.cropping)]
    if not _works_place_by_place(node):
        return None
    for other_down, other_right in others:
        down, right = down.together(other_down), right.together(other_right)
    return [down, right]


def _works_place_by_place(node):
    """Whether a place of the output changes with the same place of the inputs alone (or with an input of one place).

    Tried, as the kinds that do are many (activations, normalisations over channels, sums, changes of the channels'
    order) and some only with the right options.
    """
    places = node.outputs[0].shape[1:3]
    if any(tensor.shape[1:3] not in (places, (1, 1)) for tensor in (*node.input_tensors, *node.outputs)):
        return False

    def outputs(values):
        tensors = {id(x): keras.ops.convert_to_tensor(v, "float32") for x, v in zip(node.input_tensors, values)}
        args, kwargs = node.arguments.fill_in(tensors)
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(node.operation(*args, **kwargs))]

    random = np.random.default_rng(0)
    values = [random.normal(size=(1, *x.shape[1:])) for x in node.input_tensors]
    before = outputs(values)
    for _ in range(TRIALS):
        changed = random.random((1, *places, 1)) < 0.5
        # Far from the old values, so that a mean or maximum over places moves by more than rounding.
        others = [np.where(changed, random.normal(3, 3, v.shape), v) if v.shape[1:3] == places else v for v in values]
        for old, new in zip(before, outputs(others)):
            if not np.allclose(np.where(changed, 0, old), np.where(changed, 0, new), 1e-4, 1e-6, equal_nan=True):
                return False
    return True
