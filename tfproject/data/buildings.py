"""Buildings for the transfer task: split by a protocol, drawn per class, balanced, joined with another city's."""

import collections
import dataclasses
import functools
import warnings

import numpy as np

from tfproject.data import audit, catalog, splits
from tfproject.data.image_set import Split, concatenate
from tfproject.errors import UserError

UNKNOWN = "desconegut"  # Terrassa Buildings' class of photos that show none of the twelve
PROTOCOLS = ("own", "70/30")


def load(
    name, image_size, data_dir=None, on_bad_image="list",
    protocol="own", seed=0, per_class=None, val_images=None, balanced=False, city=None,
):  # fmt: skip
    """A set of buildings as one run uses it.

    Args:
        name: the set, as `tfproject.data.load` takes it.
        image_size: pixels a side.
        data_dir, on_bad_image: see `tfproject.data.load`; the city's own folder is looked for in its usual place.
        protocol: "own": the set's train, val and test. "70/30": 70 % of all photos in train and 30 % in val, drawn by
            the seed in each class's proportions, identical photos together; there is no test.
        seed: of the draws.
        per_class: train on so many photos of each class, or all where there are fewer; a larger draw of the same seed
            holds the smaller one. None for all.
        val_images: validate with so many photos, drawn by the seed; None for all. What is scored stays as it is.
        balanced: training photos of the rarer classes are repeated until each class is as often as the most frequent;
            a photo at most once more often than another of its class.
        city: another set whose photos are all trained on too, its classes united with this one's. None for none.

    Returns:
        An ImageSet with train, val and, by the set's own split, test; and `distinct`, what is scored (test, or val
        where there is no test) without the photos of which train has a duplicate or near duplicate.

    Raises:
        UserError: if the protocol is unknown, or as `tfproject.data.load`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"There is no protocol '{protocol}'; choose from {', '.join(PROTOCOLS)}.")
    images = _read(name, image_size, data_dir, on_bad_image)
    if protocol == "70/30":
        images = _seventy_thirty(images, seed)
    images = with_distinct(images, duplicates(name, data_dir, on_bad_image))
    train, method = images.train, images.split_method
    if per_class is not None:
        train = draw_per_class(train, per_class, seed)
        method += f"; at most {per_class} training photos of each class, seed {seed}"
    parts = images.splits
    if val_images is not None and "test" in parts:
        kept = np.random.default_rng(seed).permutation(len(images.val))[:val_images]
        parts = {**parts, "val": images.val.take(np.sort(kept))}
        method += f"; {len(kept)} validation photos, seed {seed}"
    if balanced:
        train = repeat_to_balance(train, seed)
        method += "; rarer classes repeated in train"
    images = dataclasses.replace(images, splits={**parts, "train": train}, split_method=method)
    return images if city is None else concatenate(images, _all_in_train(city, image_size, on_bad_image))


def with_distinct(image_set, partners):
    """The image set with one more split, `distinct`: what is scored, without the photos that train has a duplicate of.

    Args:
        image_set: an ImageSet with train, val and perhaps test.
        partners: a dict from an image's name to the names of its duplicates, as `duplicates` gives it.
    """
    scored = image_set.splits["test" if "test" in image_set.splits else "val"]
    trained = set(image_set.train.names)
    kept = [i for i, name in enumerate(scored.names) if not trained & partners.get(name, set())]
    return dataclasses.replace(image_set, splits={**image_set.splits, "distinct": scored.take(kept)})


@functools.lru_cache(maxsize=4)
def duplicates(name, data_dir=None, on_bad_image="list"):
    """Which photos show the same, identical or nearly (see `tfproject.data.audit`): by name, a set of others' names.

    Raises:
        UserError: if there are more near pairs than are looked for, so that some would be overlooked.
    """
    report = audit.audit(_read(name, catalog.BUILDING_SIZE[0], data_dir, on_bad_image), all_duplicates=True)
    if not report["near_duplicates"]["complete"]:
        raise UserError(
            f"{name} has {report['near_duplicates']['pairs']:,} pairs of near duplicates or more, too many to keep all "
            "of them out of the test; remove photos that show the same."
        )
    return duplicates_in(report)


def duplicates_in(report):
    """The duplicates that an audit's report lists, a dict from an image's name to a set of names."""
    groups = [{image["name"] for image in group} for group in report["exact_duplicates"]["list"]]
    groups += [{image["name"] for image in pair["images"]} for pair in report["near_duplicates"]["list"]]
    partners = collections.defaultdict(set)
    for group in groups:
        for name in group:
            partners[name] |= group - {name}
    # Of identical images the audit compares only the first with others: what is near to it is near to all of them.
    for group in groups[: len(report["exact_duplicates"]["list"])]:
        near = set().union(*(partners[name] for name in group))
        for name in group:
            partners[name] |= near - {name}
        for other in near - group:
            partners[other] |= group
    return dict(partners)


def draw_per_class(split, count, seed):
    """At most so many images of each class, in the split's order; draws of one seed are nested."""
    shuffled = np.random.default_rng(seed).permutation(len(split))
    kept = [shuffled[split.labels[shuffled] == label][:count] for label in np.unique(split.labels)]
    return split.take(np.sort(np.concatenate(kept)))


def repeat_to_balance(split, seed):
    """The images with those of rarer classes repeated until every class is as often as the most frequent one."""
    shuffled = np.random.default_rng(seed).permutation(len(split))
    most = np.bincount(split.labels).max()
    taken = [np.resize(shuffled[split.labels[shuffled] == label], most) for label in np.unique(split.labels)]
    return split.take(np.sort(np.concatenate(taken)))


@functools.lru_cache(maxsize=6)
def _read(name, image_size, data_dir, on_bad_image):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*identical pixels in two splits")  # that is what `distinct` is for
        return catalog.load(name, image_size=(image_size,) * 2, data_dir=data_dir, on_bad_image=on_bad_image)


def _seventy_thirty(images, seed):
    drawn = splits.stratified_holdout(images, seed, (0.70, 0.15, 0.15))
    val = _joined((drawn.val, drawn.test))
    return dataclasses.replace(
        drawn, splits={"train": drawn.train, "val": val}, split_method=f"stratified hold-out 70/30, seed {seed}"
    )


def _all_in_train(city, image_size, on_bad_image):
    images = _read(city, image_size, None, on_bad_image)
    train = _joined(images.splits.values())
    return dataclasses.replace(images, splits={"train": train}, split_method="all in train")


def _joined(parts):
    parts = tuple(parts)
    return Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        sum((part.names for part in parts), ()),
    )
