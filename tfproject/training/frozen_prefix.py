"""The frozen part of a network runs once: what comes out of it is kept on disk, and training reads that."""

import dataclasses
import hashlib
import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfproject.data import augmentation, pipeline
from tfproject.errors import UserError
from tfproject.models import freezing
from tfproject.training.feature_store import NAME_BYTES, FeatureStore
from tfproject.training.run import held_when_free

BATCH = 16  # images through the frozen part at once
WRITTEN_TOGETHER = 1 << 24  # bytes of features; so much is lost at most when the process is killed
READ_TOGETHER = 1 << 26  # bytes of features in a batch for validation
MIXING = ("mixup", "cutmix")  # change an image by another one of its batch, which no fixed view of it can be


def split(model, until):
    """Cut a model in two that together do what it does, with its own layers and weights.

    Args:
        model: a functional or Sequential keras.Model with one input and one output.
        until: the name of the first part's last layer.

    Returns:
        Two keras.Models: from the model's input to the layer's output, and from there to the model's output.

    Raises:
        UserError: if there is no such layer, or part of what comes after it bypasses it.
    """
    cuts = freezing.cut_layers(model)
    if until not in cuts:
        if until not in dict(freezing.layers_in(model)):
            raise freezing.no_such_layer(model, until, cuts)
        near = ", ".join(list(cuts)[-12:-1])
        raise UserError(
            f"The model {model.name} does not fall into two at its layer '{until}', which lies within a branch or a "
            f"nested model; choose a layer that everything goes through, such as {near}."
        )
    tensor = cuts[until]
    prefix = keras.Model(model.inputs[0], tensor, name="prefix")
    if tensor is model.inputs[0]:
        return prefix, model
    suffix = keras.Model(tensor, model.output, name=f"{model.name}_suffix")
    suffix.layers[0].name = "features"  # the same at every call, where Keras would count
    return prefix, suffix


def suffix_builder(build_model, image_shape, class_count, until):
    """What is left to train when a model is frozen up to a layer, to be built anew.

    Args:
        build_model: function (image_shape, class_count) to a keras.Model.
        image_shape: (height, width, 3).
        class_count: number of classes.
        until: the last frozen layer's name.

    Returns:
        A function (features' shape, class_count) to a keras.Model from features to probabilities; the features' shape.
    """

    def build(_, class_count):
        return split(freezing.freeze_until(build_model(image_shape, class_count), until), until)[1]

    return build, tuple(build(None, class_count).input_shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What comes out of the frozen part for a split's images; it gives batches as `tfproject.data.Split` does.

    Attributes:
        store: where the features lie.
        places: int64 (views, n), where each view of each image is in the store.
        labels: int64 (n,).
        augment: names of the augmentations that made the views.
    """

    store: FeatureStore
    places: np.ndarray
    labels: np.ndarray
    augment: tuple[str, ...] = ()

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size=256):
        """The first view's features in order, as `Split.batches` gives images; fewer at once where they are large."""
        batch_size = max(1, min(batch_size, READ_TOGETHER // self.store.size))
        numbers = tf.data.Dataset.range(len(self)).batch(batch_size)
        batches = numbers.map(lambda i: (self._features(0, i), tf.gather(self.labels, i))).prefetch(2)
        return pipeline.untuned(batches)

    def training_batches(self, class_count, batch_size, augment=(), seed=0, first_epoch=0, epochs=1):
        """Batches for training, as `tfproject.data.pipeline.training_batches` gives of images: in the same order.

        Epoch e shows each image's view e modulo the number of views.

        Args:
            augment: what the views were made with, which must be what `features` was given.
            class_count, batch_size, seed, first_epoch, epochs: as there.

        Returns:
            A tf.data.Dataset of (float32 features (batch_size, ...), float32 labels (batch_size, class_count)).
        """
        if tuple(augment) != self.augment:
            raise ValueError(f"these are features of views made with {self.augment}, not with {augment}")
        labels = tf.one_hot(self.labels, class_count)

        def batch(number, indices, epoch):
            x = self._features(epoch % len(self.places), indices)
            return tf.ensure_shape(x, (batch_size, *self.store.shape)), tf.gather(labels, indices)

        return pipeline.in_batches(len(self), batch_size, batch, seed, first_epoch, epochs)

    def _features(self, view, indices):
        def read(view, indices):
            return self.store.read(self.places[view, indices]).astype(np.float32, copy=False)

        return tf.ensure_shape(tf.numpy_function(read, [view, indices], tf.float32), (None, *self.store.shape))


def run_once(prefix, image_set, directory, augment=(), views=1, view_seed=0, dtype="float32", progress=True):
    """Run the frozen part on the images that training shows, and keep what comes out.

    Args:
        prefix: the frozen part, a keras.Model; dropout and the like in it do nothing. It works in the precision it was
            built in, as it would as a part of the whole network.
        image_set: an ImageSet.
        directory: where features are kept, for all runs; see `features`.
        augment, views, view_seed: of the training images; see `features`.
        dtype: "float32", or "float16" for half the room.
        progress: show how far it is.

    Returns:
        The ImageSet with Features in place of its splits `train` and, where it has one, `val`.
    """
    splits = {
        name: features(
            prefix, image_set.splits[name], directory, *((augment, views, view_seed) if name == "train" else ()),
            dtype=dtype, progress=progress,
        )
        for name in ("train", "val") if name in image_set.splits
    }  # fmt: skip
    return dataclasses.replace(image_set, splits=splits)


def features(prefix, split, directory, augment=(), views=1, view_seed=0, dtype="float32", progress=True):
    """What comes out of the frozen part for each image of a split and each view of it, computed where it is not there.

    It is kept by the frozen part's configuration and weights, and within by the pixels that went in, so splits, runs
    and processes share it, and nothing else is ever taken for it. It is checked whenever it is opened; what was damaged
    is computed anew, and an interrupted computation goes on where it stopped. The directory can be removed when no
    training uses it.

    Args:
        prefix: a keras.Model from images (b, h, w, 3) to features; see `run_once`.
        split: a tfproject.data.Split.
        directory: where features are kept.
        augment: names of augmentations that make the views (`tfproject.data.augmentation.BY_NAME`).
        views: how many fixed views of each image; without augmentations there is one.
        view_seed: an integer; with an image's pixels it decides its views, in every split that has the image.
        dtype: "float32" or "float16".
        progress: show how far it is.

    Returns:
        Features.

    Raises:
        UserError: if an augmentation is unknown or mixes images, or the directory cannot be written or has no room.
    """
    augment = tuple(augment)
    augmentation.check(augment, split.image_shape)
    mixing = [name for name in augment if name in MIXING]
    if mixing:
        raise UserError(
            f"The augmentation '{mixing[0]}' mixes the images of a batch, which a frozen part that runs once has no "
            "view of; leave it out, or freeze nothing."
        )
    description = _description(prefix)
    place = pathlib.Path(directory) / f"{prefix.layers[-1].name}-{description['sha256'][:16]}-{dtype}"
    show = _views(split, augment, view_seed)
    shown = [(view, i) for view in range(views if augment else 1) for i in range(len(split))]
    if augment:
        names = [_digest(image) for part in _parts(shown, 256) for image in show(part)]
    else:
        names = split.digests
    with held_when_free(place / ".lock"):
        store = FeatureStore(place, prefix.output_shape[1:], dtype, description)
        found = store.find(names)
        missing = {name: each for name, each in zip(names, shown) if name not in found}
        for computed in _compute(prefix, show, missing, store, progress):
            found |= store.add(*computed)
    places = np.array([found[name] for name in names], np.int64).reshape(-1, len(split))
    return Features(store, places, split.labels, augment)


def _compute(prefix, show, missing, store, progress):
    """Runs the frozen part on what is missing, a dict from name to (view, number of the image).

    Yields:
        A list of names and their features, about WRITTEN_TOGETHER bytes of them.
    """

    @tf.function(input_signature=[tf.TensorSpec((BATCH, *prefix.input_shape[1:]), tf.float32)])
    def forward(images):
        return tf.cast(prefix(images, training=False), tf.float32)

    terminal = progress and sys.stderr.isatty()
    if missing and progress and not terminal:
        print(f"running the frozen part once, on {len(missing):,} images", file=sys.stderr, flush=True)
    with tqdm.tqdm(total=len(missing), desc="frozen part", unit=" images", disable=not terminal) as bar:
        together = BATCH * max(1, WRITTEN_TOGETHER // (BATCH * store.size))
        for names in _parts(list(missing), together):
            outputs = []
            for part in _parts(names, BATCH):
                images = show([missing[name] for name in part])
                images = np.pad(images, ((0, BATCH - len(part)), (0, 0), (0, 0), (0, 0)))
                outputs.append(forward(images).numpy()[: len(part)])
                bar.update(len(part))
            outputs = np.concatenate(outputs)
            if not np.abs(outputs).max() <= np.finfo(store.dtype).max:  # so written, NaN is found too
                raise UserError(
                    f"Some of what comes out of the frozen part is no number of {store.dtype}; use float32, or other "
                    "weights if it is that already."
                )
            yield names, outputs


def _views(split, augment, view_seed):
    """A function from a list of (view, number of the image) to float32 images (b, h, w, 3) as training shows them."""

    @tf.function(reduce_retracing=True)
    def change(images, seeds, numbers, views):
        # One image at a time, so that its view does not depend on its neighbours.
        def one(image, seed, number, view):
            image = augmentation.augment(image[None], tf.zeros((1, 1)), augment, seed, number[None], view)[0]
            return tf.cast(tf.ensure_shape(image, (1, *split.image_shape))[0], tf.float32)

        return tf.map_fn(lambda each: one(*each), (images, seeds, numbers, views), fn_output_signature=tf.float32)

    def show(pairs):
        views, indices = np.array(pairs).T
        images = split.images[indices]
        if not augment:
            return images.astype(np.float32)
        digests = [split.digests[i] for i in indices]
        seeds = [_digest(f"{view_seed} {view} ".encode() + digest) for view, digest in zip(views, digests)]
        return change(
            images, np.stack([np.frombuffer(seed[:8], np.int32) for seed in seeds]),
            np.stack([np.frombuffer(digest[:4], np.int32)[0] for digest in digests]), views.astype(np.int32),
        ).numpy()  # fmt: skip

    return show


def _digest(content):
    return hashlib.blake2b(content, digest_size=NAME_BYTES).digest()


def _parts(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def _description(prefix):
    """What features are computed from, apart from the images: JSON values, with a SHA-256 of all of them."""
    weights = hashlib.sha256()
    for weight in prefix.get_weights():
        weights.update(f"{weight.dtype}{weight.shape}".encode() + weight.tobytes())
    description = {
        "layer": prefix.layers[-1].name,
        "network": hashlib.sha256(prefix.to_json().encode()).hexdigest(),
        "weights": weights.hexdigest(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    return {**description, "sha256": hashlib.sha256(json.dumps(description).encode()).hexdigest()}
