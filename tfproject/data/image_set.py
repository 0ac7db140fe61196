"""The image set: images, labels, class names, named splits, and where they came from."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping

import numpy as np

from tfproject.errors import UserError


@dataclasses.dataclass(frozen=True)
class BadImage:
    """An image that could not be used: where it is, and why not, in words."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an image set comes from, for reports, model cards and citations."""

    description: str
    licence: str = "unknown"
    citation: str = ""
    synthetic: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Some labelled images of an image set, in a fixed order.

    Attributes:
        images: uint8, shape (n, height, width, 3), RGB.
        labels: int64, shape (n,), indices into the image set's class names.
        names: n strings, unique within the set; a file's path relative to the set's folder where there are files.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images must be uint8 (n, h, w, 3), got {self.images.dtype} {self.images.shape}")
        if not len(self.images) == len(self.labels) == len(self.names):
            raise ValueError(
                f"as many labels and names as images are needed, got "
                f"{len(self.images)} images, {len(self.labels)} labels, {len(self.names)} names"
            )

    def __len__(self):
        return len(self.images)

    @property
    def image_shape(self):
        """(height, width, 3)."""
        return self.images.shape[1:]

    def take(self, indices):
        """The split of the images at these indices, in their order."""
        indices = np.asarray(indices, dtype=np.int64)
        return Split(self.images[indices], self.labels[indices], tuple(self.names[i] for i in indices))

    @functools.cached_property
    def digests(self):
        """A hash of each image's pixels: n bytes objects of 16 bytes; equal exactly where the pixels are."""
        return [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in self.images]

    def batches(self, batch_size=256):
        """The images in order, for evaluation.

        Returns:
            A tf.data.Dataset of (float32 (b, h, w, 3) in 0..255, int64 labels (b,)); the last batch may be smaller.
        """
        from tfproject.data import pipeline

        return pipeline.batches(self, batch_size)

    def training_batches(self, class_count, batch_size, augment=(), seed=0, first_epoch=0, epochs=1):
        """The images shuffled and augmented, each epoch anew; see `tfproject.data.pipeline.training_batches`."""
        from tfproject.data import pipeline

        return pipeline.training_batches(self, class_count, batch_size, augment, seed, first_epoch, epochs)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in named splits.

    Attributes:
        name: the set's name, as `tfproject.data.load` takes it.
        class_names: the classes' names; a label is an index into them.
        splits: the splits by name; `train`, `val` and `test` after `tfproject.data.load`.
        origin: where it comes from.
        bad_images: what could not be used, each with its reason.
        split_method: how the splits were made, in words.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    origin: Origin
    bad_images: tuple[BadImage, ...] = ()
    split_method: str = "the set's own"

    @property
    def train(self):
        return self._split("train")

    @property
    def val(self):
        return self._split("val")

    @property
    def test(self):
        return self._split("test")

    def with_validation_in_training(self):
        """The same set with the validation images among the training ones: for a training after all is chosen."""
        both = (self.train, self.val)
        train = Split(
            np.concatenate([split.images for split in both]),
            np.concatenate([split.labels for split in both]),
            sum((split.names for split in both), ()),
        )
        splits = {"train": train} | {k: split for k, split in self.splits.items() if k not in ("train", "val")}
        return dataclasses.replace(self, splits=splits, split_method=f"{self.split_method}, val joined to train again")

    def in_classes(self, class_names):
        """The same set with labels that are indices into these class names, among which its own all are."""
        if tuple(class_names) == self.class_names:
            return self
        relabel = np.array([class_names.index(name) for name in self.class_names], dtype=np.int64)
        splits = {name: Split(s.images, relabel[s.labels], s.names) for name, s in self.splits.items()}
        return dataclasses.replace(self, class_names=tuple(class_names), splits=splits)

    def _split(self, name):
        if name not in self.splits:
            raise UserError(f"{self.name} has no split '{name}'; it has: {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def image_shape(self):
        """(height, width, 3)."""
        return next(iter(self.splits.values())).image_shape

    @functools.cached_property
    def fingerprint(self):
        """A SHA-256 (hex) of class names, splits, file names, labels and pixels: the same where the content is."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split_name in sorted(self.splits):
            split = self.splits[split_name]
            digest.update(f"\0{split_name}\0{split.image_shape}\0".encode())
            for item in sorted(zip(split.names, split.labels.tolist(), split.digests)):
                digest.update(repr(item).encode())
        return digest.hexdigest()

    def overlaps(self):
        """Images with identical pixels in two splits.

        Returns:
            A list of (name, split of it, name, split of it), one for each later image that an earlier split holds.
        """
        first_seen, found = {}, []
        for split_name, split in self.splits.items():
            seen_here = {}
            for digest, name in zip(split.digests, split.names):
                if digest in first_seen:
                    found.append((*first_seen[digest], name, split_name))
                else:
                    seen_here.setdefault(digest, (name, split_name))
            first_seen.update(seen_here)
        return found


def concatenate(first, second, name=None):
    """Two image sets as one, with the union of their classes.

    Classes of the same name become one class; the first set's classes keep their labels. Splits of the same name are
    joined. Names get the set's name as prefix, so that they stay unique.

    Args:
        first, second: image sets with images of one size.
        name: the new set's name; `first+second` if None.

    Raises:
        UserError: if the images differ in size.
    """
    if first.image_shape != second.image_shape:
        raise UserError(
            f"{first.name} has images of {first.image_shape} and {second.name} of {second.image_shape}; "
            "load both with the same image_size to join them."
        )
    class_names = first.class_names + tuple(c for c in second.class_names if c not in first.class_names)
    relabel = np.array([class_names.index(c) for c in second.class_names], dtype=np.int64)
    splits = {}
    for split_name in dict.fromkeys((*first.splits, *second.splits)):
        parts = []
        if split_name in first.splits:
            parts.append((first.name, first.splits[split_name], np.arange(len(first.class_names))))
        if split_name in second.splits:
            parts.append((second.name, second.splits[split_name], relabel))
        splits[split_name] = Split(
            np.concatenate([split.images for _, split, _ in parts]),
            np.concatenate([labels[split.labels] for _, split, labels in parts]).astype(np.int64),
            tuple(f"{set_name}/{n}" for set_name, split, _ in parts for n in split.names),
        )
    return ImageSet(
        name=name or f"{first.name}+{second.name}",
        class_names=class_names,
        splits=splits,
        origin=Origin(
            description=f"{first.origin.description}; {second.origin.description}",
            licence=f"{first.origin.licence}; {second.origin.licence}",
            citation="; ".join(c for c in (first.origin.citation, second.origin.citation) if c),
            synthetic=first.origin.synthetic or second.origin.synthetic,
        ),
        bad_images=first.bad_images + second.bad_images,
        split_method=f"{first.split_method}; {second.split_method}",
    )
