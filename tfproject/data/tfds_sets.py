"""CIFAR-10 and EuroSAT: as TensorFlow Datasets has prepared them, or from an archive or a folder."""

import contextlib
import dataclasses
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from tfproject.data import archives, decoding, folders
from tfproject.data.archives import Archive
from tfproject.data.image_set import BadImage, ImageSet, Origin, Split
from tfproject.errors import UserError

# Size and SHA-256 as TensorFlow Datasets registers them. TFDS' own address for EuroSAT is often down, with an expired
# certificate, so two more are asked; the checksum decides, whoever delivers. The torchgeo mirror's commit is pinned.
EUROSAT_ARCHIVE = Archive("8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd", 94_280_567)
# Zenodo packs the same tiles anew, below EuroSAT_RGB/, with a sum of its own, as torchgeo and others record it.
EUROSAT_ZENODO = Archive("b4f5b234ecb7d7ff9c6cddb046543b4717c53fd6e9815be6c0e80cc614f51b90", 94_658_721)
EUROSAT_SOURCES = {
    "http://madm.dfki.de/files/sentinel/EuroSAT.zip": EUROSAT_ARCHIVE,
    "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip": EUROSAT_ZENODO,
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip": (
        EUROSAT_ARCHIVE
    ),
}
EUROSAT_CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
EUROSAT_ORIGIN = Origin(
    description="EuroSAT RGB: Sentinel-2 tiles of 64x64 pixels in ten classes of land use and land cover",
    licence="MIT",
    citation="P. Helber, B. Bischke, A. Dengel, D. Borth: EuroSAT: A Novel Dataset and Deep Learning Benchmark for "
    "Land Use and Land Cover Classification. IEEE JSTARS 12(7), 2019",
)

CIFAR10_FILE = "cifar-10-binary.tar.gz"
CIFAR10_SOURCES = {
    f"https://www.cs.toronto.edu/~kriz/{CIFAR10_FILE}": Archive(
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171
    )
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_ORIGIN = Origin(
    description="CIFAR-10: colour images of 32x32 pixels in ten classes",
    licence="none stated",
    citation="A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. Technical report, 2009",
)
# Mean of red, green and blue over the 50,000 training images, as published everywhere: what tells a lossy copy.
CIFAR10_MEAN = (125.30691805, 122.95039414, 113.86538318)
LOSSY_COPY = "a lossy copy of it: the images were compressed again, which costs accuracy"


def read_eurosat(data_dir=None):
    """EuroSAT RGB.

    Args:
        data_dir: where the user has it: EuroSAT.zip (its checksum is verified), a folder with the zip, with `2750/` or
            with the ten class folders, or a TFDS data directory. If None, it is looked for in TFDS' own place and in
            `archives.data_home()`, and downloaded into the latter where it is in neither.

    Returns:
        An ImageSet with one split "all"; an image's name is its file's name, such as AnnualCrop_6.jpg.

    Raises:
        UserError: if it is not there and cannot be downloaded, or is not EuroSAT.
    """
    _check_exists(data_dir)
    if builder := _prepared("eurosat/rgb", data_dir):
        image_set = ImageSet("eurosat", EUROSAT_CLASSES, {}, EUROSAT_ORIGIN)
        return _from_tfds(builder, image_set, {"train": "all"}, "filename")
    path = _find_eurosat(data_dir)
    if path is None:
        if data_dir is not None:
            raise UserError(
                f"'{data_dir}' holds no EuroSAT: expected is EuroSAT.zip, a folder with it, with 2750/ or with the ten "
                "class folders, or a TFDS data directory in which eurosat/rgb is prepared."
            )
        path = _download_eurosat(archives.data_home())
    if path.is_file():
        archives.verify(path, EUROSAT_SOURCES.values())
    image_set = _with_classes(folders.read_folder(path, "eurosat"), EUROSAT_CLASSES, path)
    if list(image_set.splits) != ["all"]:
        raise UserError(f"'{path}' is split into {', '.join(image_set.splits)}; expected is one folder for each class.")
    # The lists of names that are published have the files' names alone, and TFDS too.
    split, bad = image_set.splits["all"], image_set.bad_images
    split = _sorted(Split(split.images, split.labels, tuple(name.rsplit("/", 1)[-1] for name in split.names)))
    bad = tuple(BadImage(b.name.rsplit("/", 1)[-1], b.reason) for b in bad)
    return dataclasses.replace(image_set, splits={"all": split}, bad_images=bad, origin=EUROSAT_ORIGIN)


def read_cifar10(data_dir=None):
    """CIFAR-10.

    Args:
        data_dir: where the user has it: cifar-10-binary.tar.gz (its checksum is verified), a folder with it, a folder
            or zip with train/ and test/ of ten class folders each, or a TFDS data directory. If None, it is looked for
            in TFDS' own place and in `archives.data_home()`, and TFDS downloads it where it is in neither.

    Returns:
        An ImageSet with the splits train and test; an image's name is its number, such as train_00001.

    Raises:
        UserError: if it is not there and cannot be downloaded, or is not CIFAR-10.
    """
    image_set = _read_cifar10(data_dir)
    train = image_set.splits.get("train")
    if train is None or np.allclose(train.images.mean(axis=(0, 1, 2)), CIFAR10_MEAN, atol=1e-4):
        return image_set
    origin = dataclasses.replace(image_set.origin, description=f"{CIFAR10_ORIGIN.description}; {LOSSY_COPY}")
    return dataclasses.replace(image_set, origin=origin)


def _read_cifar10(data_dir):
    _check_exists(data_dir)
    builder = _prepared("cifar10", data_dir)
    if builder is None and (path := _find_cifar10(data_dir)):
        if path.name.endswith(".tar.gz"):
            archives.verify(path, CIFAR10_SOURCES.values())
            return _read_cifar10_binary(path)
        image_set = _with_classes(folders.read_folder(path, "cifar10"), CIFAR10_CLASSES, path)
        return dataclasses.replace(image_set, origin=CIFAR10_ORIGIN)
    if builder is None:
        if data_dir is not None:
            raise UserError(
                f"'{data_dir}' holds no CIFAR-10: expected is {CIFAR10_FILE}, a folder with it, train/ and test/ with "
                "the ten class folders, or a TFDS data directory in which cifar10 is prepared."
            )
        builder = _download_cifar10(None)
    image_set = ImageSet("cifar10", CIFAR10_CLASSES, {}, CIFAR10_ORIGIN)
    return _from_tfds(builder, image_set, {"train": "train", "test": "test"}, "id")


def prepare_eurosat(data_dir=None):
    """Has `read_eurosat` find the set with this data_dir, by a download if need be; returns where it is."""
    if builder := _prepared("eurosat/rgb", data_dir):
        return str(builder.data_path)
    home = archives.data_home() if data_dir is None else Path(data_dir)
    return str(_find_eurosat(data_dir) or _download_eurosat(home))


def prepare_cifar10(data_dir=None):
    """Has `read_cifar10` find the set with this data_dir, by a download if need be; returns where it is."""
    builder = _prepared("cifar10", data_dir)
    if builder is None and (path := _find_cifar10(data_dir)):
        return str(path)
    return str((builder or _download_cifar10(data_dir)).data_path)


# Looking for what is there


def _check_exists(data_dir):
    if data_dir is not None and not Path(data_dir).exists():
        raise UserError(f"There is no '{data_dir}'; give an existing folder or archive as data_dir.")


def _prepared(tfds_name, data_dir):
    """The TFDS builder if the set lies prepared there, else None; nothing is asked of the network."""
    if data_dir is not None and not Path(data_dir).is_dir():
        return None
    with _quiet_tfds() as tfds:
        builder = tfds.builder(tfds_name, data_dir=data_dir)
        return builder if builder.is_prepared() else None


def _candidates(data_dir, name):
    if data_dir is not None:
        return [Path(data_dir), Path(data_dir) / name]
    return [archives.data_home() / name]


def _find_eurosat(data_dir):
    for place in _candidates(data_dir, "eurosat"):
        if place.is_file() or (place / EUROSAT_CLASSES[0]).is_dir():
            return place
        for inside in ("EuroSAT.zip", "EuroSAT_RGB.zip", "2750", "EuroSAT_RGB"):
            if (place / inside).exists():
                return place / inside
    return None


def _find_cifar10(data_dir):
    for place in _candidates(data_dir, "cifar10"):
        if place.is_file() or (place / "train" / CIFAR10_CLASSES[0]).is_dir():
            return place
        if (place / CIFAR10_FILE).exists():
            return place / CIFAR10_FILE
    return None


# Fetching what is not


def _download_eurosat(home):
    try:
        return archives.download(EUROSAT_SOURCES, home / "eurosat" / "EuroSAT.zip")
    except archives.DownloadFailed as error:
        raise _unavailable("eurosat", error, "EuroSAT.zip or its unpacked 2750/") from error


def _download_cifar10(data_dir):
    # TFDS asks again and again for minutes where there is no network, so the source is asked first.
    answers = archives.probe(CIFAR10_SOURCES)
    if any(answers.values()):
        raise _unavailable("cifar10", archives.DownloadFailed(answers), CIFAR10_FILE)
    with _quiet_tfds() as tfds:
        builder = tfds.builder("cifar10", data_dir=data_dir)
        try:
            builder.download_and_prepare()
        except Exception as error:  # The network may still fail in any of its ways, or the checksum.
            failed = archives.DownloadFailed({url: type(error).__name__ for url in CIFAR10_SOURCES})
            raise _unavailable("cifar10", failed, CIFAR10_FILE) from error
    return builder


def _unavailable(name, error, own_copy):
    tried = "; ".join(f"{urlsplit(url).hostname}: {reason}" for url, reason in error.attempts.items())
    return UserError(
        f"{name} is not prepared on this machine and could not be downloaded (tried {tried}); with a network "
        f"`tfproject data prepare {name}` gets it, --data-dir takes a folder or archive that you have ({own_copy}, "
        "or a TFDS data directory), and --data synthetic needs no download."
    )


@contextlib.contextmanager
def _quiet_tfds():
    """tensorflow_datasets with its progress messages held back."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield tfds
    finally:
        logging.set_verbosity(verbosity)


# Reading


def _from_tfds(builder, image_set, split_names, name_feature):
    """Fills an image set that has no splits yet from the builder's files."""
    if tuple(builder.info.features["label"].names) != image_set.class_names:
        raise UserError(f"'{builder.data_path}' has other classes than {image_set.name}; prepare it anew.")
    size = builder.info.features["image"].shape[:2]
    splits, bad_images = {}, []
    for tfds_name, split_name in split_names.items():
        examples = []
        with _quiet_tfds() as tfds:
            # The files' own bytes, decoded as every image is: TensorFlow's JPEG decoder by default gives other pixels.
            dataset = builder.as_dataset(split=tfds_name, decoders={"image": tfds.decode.SkipDecoding()})
            for batch in tfds.as_numpy(dataset.batch(1024)):
                names = (name.decode().rsplit("/", 1)[-1] for name in batch[name_feature])
                examples.extend(zip(names, batch["label"].tolist(), batch["image"]))
        examples.sort()
        images, bad = decoding.decode_images([encoded for _, _, encoded in examples], size)
        bad_images.extend(BadImage(examples[i][0], reason) for i, reason in bad.items())
        good = [example for i, example in enumerate(examples) if i not in bad]
        labels = np.array([label for _, label, _ in good], dtype=np.int64)
        splits[split_name] = Split(images, labels, tuple(name for name, _, _ in good))
    return dataclasses.replace(image_set, splits=splits, bad_images=tuple(bad_images))


def _read_cifar10_binary(path):
    """The published binary version: a record is a byte of label and three planes of 32x32 bytes."""
    splits = {}
    with tarfile.open(path) as tar:
        files_of = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
        for split_name, files in files_of.items():
            content = b"".join(tar.extractfile(f"cifar-10-batches-bin/{file}").read() for file in files)
            records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            names = tuple(f"{split_name}_{i:05d}" for i in range(len(records)))
            splits[split_name] = Split(images, records[:, 0].astype(np.int64), names)
    return ImageSet("cifar10", CIFAR10_CLASSES, splits, CIFAR10_ORIGIN)


def _with_classes(image_set, class_names, path):
    if image_set.class_names != class_names:
        raise UserError(
            f"'{path}' has the classes {', '.join(image_set.class_names[:12])}; expected of {image_set.name} are "
            f"{', '.join(class_names)}."
        )
    return image_set


def _sorted(split):
    order = sorted(range(len(split)), key=split.names.__getitem__)
    return split.take(order)
