"""Image sets by name: `load` gives one with train, val and test, wherever its images lie."""

import dataclasses
import hashlib
import inspect
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from tfproject.data import decoding, folders, splits, tfds_sets
from tfproject.data.archives import data_home
from tfproject.data.image_set import Origin, Split
from tfproject.errors import UserError

BUILDING_SIZE = (160, 160)

TERRASSA_ORIGIN = Origin(
    description="Terrassa Buildings: photographs of twelve buildings of Terrassa, and of others (desconegut)",
    licence="research use",
    citation="Terrassa Buildings, Image Processing Group (GPI), Universitat Politècnica de Catalunya",
)
PARIS_ORIGIN = Origin(
    description="Paris Buildings: photographs of landmarks of Paris",
    licence="research use",
    citation="J. Philbin, O. Chum, M. Isard, J. Sivic, A. Zisserman: Lost in Quantization: Improving Particular Object "
    "Retrieval in Large Scale Image Databases. CVPR 2008",
)
PARIS_CLASSES = (
    *("defense", "eiffel", "general", "invalides", "louvre", "moulinrouge"),
    *("museedorsay", "notredame", "pantheon", "pompidou", "sacrecoeur", "triomphe"),
)

# Each set's name, and the split that it is used with unless another is asked for.
DEFAULT_SPLITS = {
    "cifar10": "own",
    "eurosat": "holdout",
    "terrassa": "own",
    "paris": "holdout",
    "synthetic-land-cover": "holdout",
    "synthetic-objects": "own",
    "synthetic-buildings": "own",
    "synthetic-city": "holdout",
}
NAMES = tuple(DEFAULT_SPLITS)
ALIASES = {"synthetic": "synthetic-land-cover"}


def load(
    name,
    *,
    split=None,
    split_files=None,
    seed=0,
    data_dir=None,
    image_size=None,
    on_bad_image="list",
    on_overlap="warn",
    part=None,
):
    """An image set with the splits train, val and test.

    Args:
        name: one of `NAMES`, "synthetic" for synthetic-land-cover, or the path of a folder or zip in a layout of
            `tfproject.data.folders`.
        split: "own", the set's own splits (with val drawn from train where it has none); "holdout", 70/15/15 stratified
            by seed; "files", the lists in `split_files`; None, "files" if `split_files` is given and else what the set
            is used with (its own where it has them, else "holdout").
        split_files: a folder with the lists `*-train.txt`, `*-val.txt` and `*-test.txt`, or the name of a published
            split of EuroSAT ("eurosat-random", "eurosat-spatial").
        seed: an integer, for what is drawn.
        data_dir: where the user has a known set; None for the usual places.
        image_size: (height, width) to bring all images to; None for the set's own size (160x160 for buildings).
        on_bad_image: "list", images that cannot be used stand in `bad_images`; "fail", they are an error.
        on_overlap: what to do with images that two splits hold: "warn", "drop" or "fail".
        part: the one split that is looked at; where a folder has that split of its own, and no train or no test, and
            no `split` is asked for, it is taken as it is.

    Returns:
        An ImageSet.

    Raises:
        UserError: if the set is not there, cannot be read or cannot be split so.

    Example:
        tiles = load("eurosat", split_files="eurosat-spatial")
        tiles.train.images.shape
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed is {seed}; give a whole number from 0 to 2**32 - 1.")
    name = ALIASES.get(str(name), name)
    split = _check_arguments(split, split_files, on_bad_image, on_overlap)
    image_set = read(name, data_dir, image_size)
    if image_set.bad_images and on_bad_image == "fail":
        raise UserError(_bad_images_in_words(image_set))
    lacking = {"train", "test"} - image_set.splits.keys()
    if part in image_set.splits and lacking and split is None:
        return splits.check_overlap(image_set, on_overlap)
    own_default = "own" if {"train", "test"} & image_set.splits.keys() else "holdout"
    split = split or DEFAULT_SPLITS.get(str(name), own_default)
    if split == "files":
        image_set = splits.from_files(image_set, split_files)
    elif split == "holdout":
        image_set = splits.stratified_holdout(image_set, seed)
    else:
        image_set = splits.own(image_set, seed)
    return splits.check_overlap(image_set, on_overlap)


def load_all(name, data_dir=None, image_size=None, on_bad_image="list"):
    """An image set with all its images in one split "all".

    Args, Raises: as `load`.

    Returns:
        An ImageSet.
    """
    _check_arguments(None, None, on_bad_image, "warn")
    image_set = read(name, data_dir, image_size)
    if image_set.bad_images and on_bad_image == "fail":
        raise UserError(_bad_images_in_words(image_set))
    return splits.joined(image_set)


def read(name, data_dir=None, image_size=None):
    """An image set with the splits it comes with, before `load` makes train, val and test of them.

    Args, Raises: as `load`.

    Returns:
        An ImageSet; one split "all" where it has none of its own.
    """
    name = ALIASES.get(str(name), str(name))
    image_size = _check_size(image_size)
    if data_dir is not None and name not in ("cifar10", "eurosat", "terrassa", "paris"):
        raise UserError(f"A data_dir ('{data_dir}') goes with cifar10, eurosat, terrassa or paris, not with '{name}'.")
    if name == "cifar10":
        return _resized(tfds_sets.read_cifar10(data_dir), image_size)
    if name == "eurosat":
        return _resized(tfds_sets.read_eurosat(data_dir), image_size)
    if name == "synthetic-land-cover":
        from tfproject.data import synthetic

        return _resized(synthetic.land_cover(), image_size)
    if name == "synthetic-objects":
        from tfproject.data import synthetic

        return _resized(synthetic.objects(), image_size)
    if name in NAMES:
        root, origin = _building_folder(name, data_dir)
        image_set = folders.read_folder(root, name, image_size or BUILDING_SIZE)
        return dataclasses.replace(image_set, origin=origin)
    if not Path(name).exists():
        raise UserError(
            f"There is no image set '{name}'; expected is {', '.join(NAMES)}, or the path of an existing folder or zip."
        )
    return folders.read_folder(name, image_size=image_size)


def prepare(name, data_dir=None):
    """Makes sure that `load` finds a known set: downloads or generates it where that is needed and possible.

    Args:
        name: one of `NAMES`.
        data_dir: where to put it, and where `load` is then told to look; None for the usual place.

    Returns:
        Where it lies, in words.

    Raises:
        UserError: if the name is unknown, or the set is not there and cannot be downloaded.
    """
    if name not in NAMES:
        raise UserError(f"There is no image set '{name}' to prepare; expected is one of {', '.join(NAMES)}.")
    if name == "eurosat":
        return tfds_sets.prepare_eurosat(data_dir)
    if name == "cifar10":
        return tfds_sets.prepare_cifar10(data_dir)
    if name in ("synthetic-land-cover", "synthetic-objects"):
        return "in memory, generated whenever it is loaded"
    return str(_building_folder(name, data_dir)[0])


def _check_arguments(split, split_files, on_bad_image, on_overlap):
    if split not in (None, "own", "holdout", "files"):
        raise UserError(f"The split is '{split}'; expected is 'own', 'holdout' or 'files'.")
    if on_bad_image not in ("list", "fail"):
        raise UserError(f"on_bad_image is '{on_bad_image}'; expected is 'list' or 'fail'.")
    if on_overlap not in ("warn", "drop", "fail"):
        raise UserError(f"on_overlap is '{on_overlap}'; expected is 'warn', 'drop' or 'fail'.")
    if split == "files" and split_files is None:
        raise UserError(
            "The split 'files' needs split_files (`--split-files`), a folder with *-train.txt, *-val.txt and "
            "*-test.txt."
        )
    if split_files is not None and split not in (None, "files"):
        raise UserError(
            f"There are split_files ('{split_files}') for the split '{split}'; they go with 'files' alone "
            "(`--split-method files`)."
        )
    return "files" if split_files is not None else split


def _check_size(image_size):
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,)
    if len(size) != 2 or not all(isinstance(n, (int, np.integer)) and 0 < n <= 4096 for n in size):
        raise UserError(f"The image_size is {image_size!r}; expected is (height, width), each from 1 to 4096.")
    return tuple(int(n) for n in size)


def warn_of_bad_images(image_set):
    """A warning if an ImageSet is without some of what was found, and of what kind."""
    if image_set.bad_images:
        first = image_set.bad_images[0]
        warnings.warn(
            f"{len(image_set.bad_images)} of what {image_set.name} holds cannot be used and is left out, such as "
            f"{first.name}: {first.reason}; `tfproject data check` names more of them.", stacklevel=3
        )  # fmt: skip


def _bad_images_in_words(image_set):
    first = "; ".join(f"{bad.name}: {bad.reason}" for bad in image_set.bad_images[:3])
    more = "; ..." if len(image_set.bad_images) > 3 else ""
    return (
        f"{image_set.name} has {len(image_set.bad_images)} images that cannot be used ({first}{more}); mend or remove "
        "them, or go on without them with on_bad_image='list' (`--on-bad-image list`)."
    )


def _resized(image_set, size):
    if size is None or image_set.image_shape[:2] == size:
        return image_set
    resized = {}
    for name, split in image_set.splits.items():
        images = np.empty((len(split), *size, 3), np.uint8)
        for i, image in enumerate(split.images):
            images[i] = decoding.resize(image, size)
        resized[name] = Split(images, split.labels, split.names)
    return dataclasses.replace(image_set, splits=resized)


def _building_folder(name, data_dir):
    """(root, Origin) of a set of buildings; the synthetic ones are written first if they are not there."""
    if name.startswith("synthetic-"):
        from tfproject.data import synthetic

        if name == "synthetic-buildings":
            return _generated(name, synthetic.write_buildings), synthetic.BUILDINGS_ORIGIN
        return _generated(name, synthetic.write_city), synthetic.CITY_ORIGIN
    places = [data_home() / name] if data_dir is None else [Path(data_dir), Path(data_dir) / name]
    for place in places:
        if place.is_file():
            return place, TERRASSA_ORIGIN if name == "terrassa" else PARIS_ORIGIN
        if name == "terrassa" and (place / "train" / folders.ANNOTATION).is_file():
            return place, TERRASSA_ORIGIN
        if name == "paris" and any((place / class_name).is_dir() for class_name in PARIS_CLASSES):
            return place, PARIS_ORIGIN
    layout = {
        "terrassa": "train/, val/ and test/, each with annotation.txt and images/",
        "paris": "a folder for each class, such as louvre/",
    }[name]
    raise UserError(
        f"{name} is not in {' nor in '.join(repr(str(place)) for place in places)} and cannot be downloaded; expected "
        f"there is {layout}: put it there, give its folder or zip with --data-dir, or use --data synthetic."
    )


def _generated(name, write):
    """The folder of a generated set, written once; another version of the generator gets another folder."""
    cache = Path(os.environ.get("TFPROJECT_CACHE") or Path.home() / ".cache" / "tfproject")
    version = hashlib.sha256(Path(inspect.getsourcefile(write)).read_bytes()).hexdigest()[:12]
    root = cache / f"{name}-{version}"
    if root.exists():
        return root
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-") as part:
            write(Path(part) / "set")
            # A folder appears under its name only whole; where two write at once, the first one's stays.
            if not root.exists():
                os.rename(Path(part) / "set", root)
    except OSError as error:
        if not root.exists():
            reason = error.strerror or error
            raise UserError(f"'{cache}' cannot be written ({reason}); set TFPROJECT_CACHE to a folder.") from error
    return root
