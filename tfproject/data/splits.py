"""Train, val and test: drawn from a seed, read from lists of names, or the set's own; and checked for overlap."""

import dataclasses
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.files import write_atomically

NAMES = ("train", "val", "test")
PUBLISHED = {path.name: path for path in sorted((Path(__file__).parent / "split_lists").iterdir()) if path.is_dir()}


def stratified_holdout(image_set, seed=0, fractions=(0.70, 0.15, 0.15)):
    """Splits all images anew, each class in the same proportions.

    Images with identical pixels stay together, so that no test image has been trained on. The draw depends on the
    images' names and content and the seed, not on the order in which they were read.

    Args:
        image_set: an ImageSet; splits that it has are joined first.
        seed: an integer.
        fractions: the parts of train, val and test; they sum to 1.

    Returns:
        The ImageSet with the splits train, val and test, each sorted by name.

    Raises:
        UserError: if a class has too few different images to be in all three.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise UserError(f"The fractions of train, val, test are {fractions}; expected are three above 0 that sum to 1.")
    images = _joined(image_set)
    rest, test = _draw(image_set, images, np.arange(len(images)), fractions[2], seed)
    train, val = _draw(image_set, images, rest, fractions[1] / (fractions[0] + fractions[1]), seed)
    indices = {"train": train, "val": val, "test": test}
    return dataclasses.replace(
        image_set,
        splits={name: images.take(indices[name]) for name in NAMES},
        split_method=f"stratified hold-out {'/'.join(f'{100 * f:g}' for f in fractions)}, seed {seed}",
    )


def own(image_set, seed=0, val_fraction=0.1):
    """The set's own splits; where it has no val, a stratified part of train becomes val.

    Args:
        image_set: an ImageSet with the splits train and test, or train, val and test.
        seed: an integer, for the part that becomes val.
        val_fraction: that part of train.

    Returns:
        The ImageSet with the splits train, val and test. Test is never touched.

    Raises:
        UserError: if the set has no train or no test of its own.
    """
    missing = [name for name in ("train", "test") if name not in image_set.splits]
    if missing:
        raise UserError(
            f"{image_set.name} has no {' and no '.join(missing)} split of its own (it has: "
            f"{', '.join(image_set.splits)}); use the split 'holdout' (`--split-method holdout`), lists of names "
            "(`--split-files`) or, to evaluate, every image (`--split all`)."
        )
    if "val" in image_set.splits:
        splits, method = {name: image_set.splits[name] for name in NAMES}, "the set's own"
    else:
        train, val = _draw(image_set, image_set.train, np.arange(len(image_set.train)), val_fraction, seed)
        splits = {"train": image_set.train.take(train), "val": image_set.train.take(val), "test": image_set.test}
        method = f"the set's own, with {100 * val_fraction:g} % of train (stratified, seed {seed}) as val"
    return dataclasses.replace(image_set, splits=splits, split_method=method)


def from_files(image_set, folder):
    """The splits that three lists of names give.

    Args:
        image_set: an ImageSet; splits that it has are joined first.
        folder: the folder with the lists `*-train.txt`, `*-val.txt` and `*-test.txt`: UTF-8, a name a line, either an
            image's name in the set or its file name alone; or a name from `PUBLISHED`, lists that the package brings.

    Returns:
        The ImageSet with the splits train, val and test in the lists' order. Images that no list names are left out,
        and `split_method` says how many.

    Raises:
        UserError: if a list is missing or empty, or names an image that is not in the set, twice, or ambiguously. Names
            of the set's `bad_images` may stand in a list; they are left out.
    """
    folder = Path(folder)
    if str(folder) in PUBLISHED and not folder.exists():
        folder = PUBLISHED[str(folder)]
    images = _joined(image_set)
    lists = {name: _read_list(folder, name) for name in NAMES}
    by_file_name = {}
    for i, name in enumerate(images.names):
        by_file_name.setdefault(_file_name(name), []).append(i)
    by_name = by_file_name | {name: [i] for i, name in enumerate(images.names)}
    unreadable = {key for bad in image_set.bad_images for key in (bad.name, _file_name(bad.name))} - by_name.keys()

    every_name = [name for names in lists.values() for name in names]
    _refuse(folder, f"not in {image_set.name}", [n for n in every_name if n not in by_name and n not in unreadable])
    _refuse(folder, "the file name of several images", [n for n in every_name if len(by_name.get(n, ())) > 1])
    indices = {split: [by_name[n][0] for n in names if n in by_name] for split, names in lists.items()}
    named = Counter(i for found in indices.values() for i in found)
    _refuse(folder, "in more than one place", [images.names[i] for i, times in named.items() if times > 1])
    if not all(indices.values()):
        raise UserError(f"Of one of the lists in '{folder}' no image can be read; every split needs one at least.")
    left_out = len(images) - len(named)
    return dataclasses.replace(
        image_set,
        splits={split: images.take(found) for split, found in indices.items()},
        split_method=f"lists of names from {folder.resolve().name}"
        + (f", which leave out {left_out} images" if left_out else ""),
    )


def write_lists(image_set, folder):
    """Writes the names of train, val and test where `from_files` reads them.

    Args:
        image_set: an ImageSet with the three splits.
        folder: a folder, made where it is not there.

    Returns:
        The three files' paths.
    """
    paths = [Path(folder) / f"{image_set.name}-{name}.txt" for name in NAMES]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path, split in zip(paths, (image_set.train, image_set.val, image_set.test)):
            write_atomically(path, "".join(f"{name}\n" for name in split.names))
    except OSError as error:
        raise UserError(f"The lists of names cannot be written to '{folder}' ({error.strerror}).") from error
    return paths


def check_overlap(image_set, on_overlap="warn"):
    """Looks for images whose pixels are identical in two splits.

    Args:
        image_set: an ImageSet with the splits train, val and test.
        on_overlap: "warn"; "fail"; or "drop", which leaves out of val and test what train holds, and out of test what
            val holds.

    Returns:
        The ImageSet, without the overlap if it was dropped.

    Raises:
        UserError: if there is overlap and `on_overlap` is "fail", or if nothing of a split would be left.
    """
    if on_overlap not in ("warn", "drop", "fail"):
        raise UserError(f"on_overlap is {on_overlap!r}; expected is 'warn', 'drop' or 'fail'.")
    ordered = {name: image_set.splits[name] for name in NAMES if name in image_set.splits} | dict(image_set.splits)
    image_set = dataclasses.replace(image_set, splits=ordered)
    found = image_set.overlaps()
    if not found:
        return image_set
    pairs = Counter((later, earlier) for _, earlier, _, later in found)
    counts = ", ".join(f"{count} of {later} in {earlier}" for (later, earlier), count in sorted(pairs.items()))
    message = f"{image_set.name} has images with identical pixels in two splits ({counts})"
    if on_overlap == "fail":
        first, _, second, _ = found[0]
        raise UserError(
            f"{message}, such as {first} and {second}; leave them out with on_overlap='drop' (`--on-overlap drop`), or "
            "keep them with 'warn'."
        )
    if on_overlap == "warn":
        warnings.warn(f"{message}; on_overlap='drop' (`--on-overlap drop`) leaves them out.", stacklevel=2)
        return image_set

    dropped = {(split, name) for _, _, name, split in found}
    splits = {}
    for split_name, split in ordered.items():
        kept = [i for i, name in enumerate(split.names) if (split_name, name) not in dropped]
        if not kept:
            raise UserError(f"{message}; dropping them would leave nothing of {split_name}.")
        splits[split_name] = split if len(kept) == len(split) else split.take(kept)
    return dataclasses.replace(
        image_set, splits=splits, split_method=f"{image_set.split_method}; {len(found)} images left out that overlap"
    )


def joined(image_set):
    """The ImageSet with all its images in one split "all", sorted by name."""
    return dataclasses.replace(image_set, splits={"all": _joined(image_set)}, split_method="all images")


def _joined(image_set):
    """All images as one split, sorted by name."""
    parts = list(image_set.splits.values())
    names = sum((part.names for part in parts), ())
    order = sorted(range(len(names)), key=names.__getitem__)
    if len(parts) == 1:
        return parts[0] if order == list(range(len(names))) else parts[0].take(order)
    joined = Split(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]), names)
    return joined.take(order)


def _draw(image_set, split, candidates, fraction, seed):
    """Draws a stratified part of these candidates (indices into the split), identical images together.

    Returns:
        (the rest, the part): indices into the split, in the candidates' order.
    """
    from sklearn.model_selection import train_test_split

    numbers = {}
    groups = np.array([numbers.setdefault(split.digests[i], len(numbers)) for i in candidates])
    _, first = np.unique(groups, return_index=True)
    labels = split.labels[candidates[first]]
    part_size = round(fraction * len(first))
    try:
        rest, part = train_test_split(np.arange(len(first)), test_size=part_size, stratify=labels, random_state=seed)
    except ValueError as error:  # What scikit-learn refuses here are the sizes: `load` has seen to the seed.
        raise _too_few(image_set, split) from error
    if min(len(set(labels[rest])), len(set(labels[part]))) < len(image_set.class_names):
        raise _too_few(image_set, split)
    in_part = np.isin(groups, part)
    return candidates[~in_part], candidates[in_part]


def _too_few(image_set, split):
    label_of = dict(zip(split.digests, split.labels.tolist()))
    sizes = np.bincount(list(label_of.values()), minlength=len(image_set.class_names))
    scarce = int(np.argmin(sizes))
    name = image_set.class_names[scarce]
    bad = sum(name in bad.name.split("/")[:-1] for bad in image_set.bad_images)
    beside = f" ({bad} more cannot be used)" if bad else ""
    return UserError(
        f"The class '{name}' of {image_set.name} has {sizes[scarce]} different images{beside}, too few for each split "
        "to get its share; add images of it, leave it out, or give lists of names."
    )


def _read_list(folder, split_name):
    found = sorted(folder.glob(f"*-{split_name}.txt"))
    if len(found) != 1:
        what = f"{len(found)} lists" if found else "no list"
        raise UserError(
            f"'{folder}' has {what} *-{split_name}.txt; expected is a folder with one each of *-train.txt, *-val.txt "
            f"and *-test.txt, or one of {', '.join(PUBLISHED)}."
        )
    try:
        names = [line.strip() for line in found[0].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{found[0]}' cannot be read ({error}); expected is UTF-8 text, a name a line.") from error
    if not names:
        raise UserError(f"'{found[0]}' is empty; expected is a name a line.")
    return names


def _refuse(folder, what, names):
    if names:
        first = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        raise UserError(
            f"The lists in '{folder}' hold {len(names)} names that are {what} ({first}); "
            "correct the lists, or give those of this image set."
        )


def _file_name(name):
    return name.rsplit("/", 1)[-1]
