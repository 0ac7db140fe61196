"""The images that excite each unit most, and what each unit says of each class, in one pass over the images."""

import csv
import dataclasses
import io
import math

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.interpret.receptive_fields import receptive_field

MAP_BYTES = 2**29  # feature maps of a batch, where its size is not given: the memory's bound
LARGEST_BATCH = 64  # more images at once make it no faster
GREY = 127  # what is outside the image, or not seen by the unit


@dataclasses.dataclass(frozen=True, eq=False)
class TopSamples:
    """What a pass over n images says about the units of a layer.

    A unit's activation for an image is its greatest one over the places of the feature map; of a dense unit, its value.

    Attributes:
        name: the layer's.
        indices: int64, shape (units, k), images by their place in the split, the most exciting first; of equal ones the
            earlier first.
        values: float32, shape (units, k), the activations there.
        places: int32, shape (units, k, 2), row and column of the maximum in the feature map, the first one in reading
            order; -1 for dense units.
        class_means: float64, shape (units, classes), mean activation over each class's images; NaN without any.
        class_means_average: the same of the mean over all places instead of the greatest; for dense units equal.
        active_share: float64, shape (units,), share of images in which the activation is above 0.
        minimum: float32, shape (units,), least activation over the images.
    """

    name: str
    indices: np.ndarray
    values: np.ndarray
    places: np.ndarray
    class_means: np.ndarray
    class_means_average: np.ndarray
    active_share: np.ndarray
    minimum: np.ndarray

    @property
    def maximum(self):
        """float32, shape (units,), greatest activation over the images."""
        return self.values[:, 0]


def top_samples(network, split, k=9, layers=None, batch_size=None, class_count=None, progress=False):
    """For every unit, the k images that excite it most, and its mean activation in every class.

    The feature maps are reduced as they are computed, so that memory does not grow with the number of images. The
    result is that of a stable full sort, whatever the batch size.

    Args:
        network: a `tfproject.interpret.Network`.
        split: a `tfproject.data.image_set.Split`; images of another size than the network's are resized.
        k: images for each unit; all there are if there are fewer.
        layers: names of unit layers; all if None.
        batch_size: images a step; if None, up to 64 so that their feature maps take half a gigabyte.
        class_count: number of classes; if None, as many as the labels tell.
        progress: show a bar.

    Returns:
        A dict from each layer's name to its TopSamples, in the order of `layers`.

    Raises:
        UserError: if the split is empty or its images have other channels than the network's, k is not positive, or
            the network has no such layer.
    """
    chosen = network.unit_layers if layers is None else [network[name] for name in dict.fromkeys(layers)]
    _check(network, split, k)
    if not chosen:
        return {}
    k, class_count = min(k, len(split)), class_count or int(split.labels.max()) + 1
    if batch_size is None:
        bytes_for_image = 4 * sum(math.prod(unit_layer.output.shape[1:]) for unit_layer in chosen)
        batch_size = max(1, min(LARGEST_BATCH, MAP_BYTES // bytes_for_image))
    batch_size = min(batch_size, len(split))

    step = _step(network, chosen, batch_size, class_count)
    states = [_beginning(unit_layer.units, k, class_count) for unit_layer in chosen]
    for start in tqdm(range(0, len(split), batch_size), desc="top samples", unit="batch", disable=not progress):
        images, labels = split.images[start : start + batch_size], split.labels[start : start + batch_size]
        missing = batch_size - len(images)  # filled up, so that TensorFlow traces the network once
        images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=-1)
        states = step(images, labels, tf.constant(start, tf.int64), states)

    counts = np.bincount(split.labels, minlength=class_count)[:class_count]
    return {
        unit_layer.name: _finished(unit_layer.name, state, counts, len(split))
        for unit_layer, state in zip(chosen, states)
    }


def crops(network, samples, images, units=None):
    """What a layer's units saw in the images that excite them most.

    Args:
        network: a `tfproject.interpret.Network`.
        samples: the TopSamples of one of its layers.
        images: uint8, shape (n, h, w, 3), those of the split that the samples are from.
        units: the units' numbers; all if None.

    Returns:
        uint8, shape (units, k, height, width, 3): for convolutions the receptive field around the maximum, grey where
        it reaches over the image's border; of a field larger than the image the whole image, grey where the unit does
        not see it. For dense units the whole image. Pixels are those of the network's input size.
    """
    field = receptive_field(network, samples.name)
    image_height, image_width, channels = network.image_shape
    height, width = min(field.height, image_height), min(field.width, image_width)
    units = range(len(samples.indices)) if units is None else units
    result = np.full((len(units), samples.indices.shape[1], height, width, channels), GREY, np.uint8)
    for crops_of_unit, unit in zip(result, units):
        seen_images = resized(images[samples.indices[unit]], network.image_shape)
        for crop, image, place in zip(crops_of_unit, seen_images, samples.places[unit]):
            box_top, box_left, _, _ = field.box(*place)
            first_row = box_top if height < image_height else 0
            first_column = box_left if width < image_width else 0
            top, left, bottom, right = field.seen(*place)
            if top < bottom and left < right:
                shown = image[top:bottom, left:right]
                crop[top - first_row : bottom - first_row, left - first_column : right - first_column] = shown
    return result


def to_csv(path, network, samples, split, class_names=None):
    """Write a line for each unit and rank: the image, its label, the activation, its place, and the box that is seen.

    Row and column are the place in the feature map, empty for dense units; the box is what the unit sees of the image
    from there, in pixels of the network's input size, bottom and right exclusive.

    Args:
        path: where to.
        network: a `tfproject.interpret.Network`.
        samples: what `top_samples` gave: a dict from layer names to TopSamples.
        split: the split that they are from.
        class_names: names to write instead of the labels' numbers.

    Raises:
        UserError: if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("layer unit rank image label value row column top left bottom right".split())
    for name, found in samples.items():
        field = receptive_field(network, name)
        for (unit, rank), index in np.ndenumerate(found.indices):
            place, label = found.places[unit, rank], split.labels[index]
            writer.writerow([
                name, unit, rank + 1, split.names[index], class_names[label] if class_names else label,
                f"{found.values[unit, rank]:.6g}", *(place if place[0] >= 0 else ("", "")), *field.seen(*place),
            ])  # fmt: skip
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


def _check(network, split, k):
    if k < 1:
        raise UserError(f"k is {k}; give how many images to find for each unit, 1 or more.")
    if not len(split):
        raise UserError("The split holds no image; give one that does.")
    if split.image_shape[-1] != network.image_shape[-1]:
        raise UserError(
            f"The network takes images of {network.image_shape[-1]} channels and the images have "
            f"{split.image_shape[-1]}; give a network and images that belong together."
        )


def resized(images, image_shape):
    """The images, uint8 (n, h, w, c), in the network's size, as the network is shown them but rounded."""
    if images.shape[1:3] == image_shape[:2]:
        return images
    return np.rint(_fitted(images, image_shape)).clip(0, 255).astype(np.uint8)


def _fitted(images, image_shape):
    images = tf.cast(images, tf.float32)
    if images.shape[1:3] == image_shape[:2]:
        return images
    return tf.image.resize(images, image_shape[:2], antialias=True)


def _beginning(units, k, class_count):
    return {
        "values": tf.fill((units, k), -math.inf),
        "indices": tf.fill((units, k), tf.constant(-1, tf.int64)),
        "places": tf.fill((units, k, 2), -1),
        "sums": tf.zeros((units, class_count), tf.float64),
        "sums_average": tf.zeros((units, class_count), tf.float64),
        "active": tf.zeros(units, tf.int64),
        "minimum": tf.fill((units,), math.inf),
    }


def _step(network, unit_layers, batch_size, class_count):
    """The compiled function that takes the states of the layers over one more batch; labels of -1 are no images."""
    part = network.part([unit_layer.output for unit_layer in unit_layers])

    @tf.function(autograph=False)
    def step(images, labels, start, states):
        maps = tf.nest.flatten(part(_fitted(images, network.image_shape), training=False))
        is_image = labels >= 0
        classes = tf.one_hot(labels, class_count, dtype=tf.float64)
        indices = start + tf.range(batch_size, dtype=tf.int64)
        return [_merged(x, state, is_image, indices, classes) for x, state in zip(maps, states)]

    def call(images, labels, start, states):
        return step(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64), start, states)

    return call


def _merged(x, state, is_image, indices, classes):
    """A layer's state after the batch with these activations, (b, h, w, units) or (b, units)."""
    row_maxima = tf.reduce_max(x, axis=2) if len(x.shape) == 4 else None
    values = x if row_maxima is None else tf.reduce_max(row_maxima, axis=1)
    averages = x if row_maxima is None else tf.reduce_mean(x, axis=(1, 2))

    # Of equal values top_k takes the first, and those found before stand before those of this batch.
    k = state["values"].shape[1]
    candidates = tf.where(is_image[:, None], values, -math.inf)
    best, chosen = tf.math.top_k(tf.concat([state["values"], tf.transpose(candidates)], axis=1), k)
    batch = tf.broadcast_to(indices, (x.shape[-1], x.shape[0]))
    return {
        "values": best,
        "indices": tf.gather(tf.concat([state["indices"], batch], axis=1), chosen, batch_dims=1),
        "places": state["places"] if row_maxima is None else _places(x, row_maxima, state["places"], chosen),
        "sums": state["sums"] + tf.matmul(tf.cast(values, tf.float64), classes, transpose_a=True),
        "sums_average": state["sums_average"] + tf.matmul(tf.cast(averages, tf.float64), classes, transpose_a=True),
        "active": state["active"] + tf.math.count_nonzero(candidates > 0, axis=0),
        "minimum": tf.minimum(state["minimum"], tf.reduce_min(tf.where(is_image[:, None], values, math.inf), axis=0)),
    }


def _places(x, row_maxima, places, chosen):
    """Row and column of the maxima of the chosen, (units, k, 2): k of those before and then the batch's.

    An argmax over all maps would take as long as the network; few of a batch's images are ever chosen.
    """
    k = chosen.shape[1]
    new = tf.where(chosen >= k)
    unit, image = tf.cast(new[:, 0], tf.int32), tf.gather_nd(chosen, new) - k
    rows = tf.gather_nd(tf.transpose(row_maxima, (0, 2, 1)), tf.stack([image, unit], axis=1))
    row = tf.argmax(rows, axis=1, output_type=tf.int32)
    numbers = (image[:, None], row[:, None], tf.range(x.shape[2]), unit[:, None])
    along_row = tf.stack([tf.broadcast_to(n, (tf.size(row), x.shape[2])) for n in numbers], axis=2)
    column = tf.argmax(tf.gather_nd(x, along_row), axis=1, output_type=tf.int32)
    kept = tf.gather(places, tf.minimum(chosen, k - 1), batch_dims=1)
    return tf.tensor_scatter_nd_update(kept, new, tf.stack([row, column], axis=1))


def _finished(name, state, counts, image_count):
    values = {key: value.numpy() for key, value in state.items()}
    with np.errstate(invalid="ignore"):  # a class without images has no mean
        means, means_average = values["sums"] / counts, values["sums_average"] / counts
    return TopSamples(
        name=name,
        indices=values["indices"],
        values=values["values"],
        places=values["places"],
        class_means=means,
        class_means_average=means_average,
        active_share=values["active"] / image_count,
        minimum=values["minimum"],
    )
