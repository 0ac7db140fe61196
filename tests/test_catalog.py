"""Image sets by name: found where they lie, split as asked, and refused in one sentence where something is missing."""

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfproject import data
from tfproject.data import archives, catalog, decoding, folders, splits, tfds_sets
from tfproject.errors import UserError

REAL = Path.home() / "tfproject-data"
TFDS = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


@pytest.fixture(autouse=True)
def empty_home(monkeypatch, tmp_path):
    """What the user has prepared must not change these tests."""
    monkeypatch.setenv("TFPROJECT_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("TFPROJECT_CACHE", str(tmp_path / "cache"))


def jpeg(generator, size=(64, 64)):
    stream = io.BytesIO()
    colours = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize(size).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def write_tiles(root, per_class=3, classes=tfds_sets.EUROSAT_CLASSES, pattern="{name}_{i}.jpg"):
    """A folder for each class, as EuroSAT's 2750/."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(1, per_class + 1):
            (root / name / pattern.format(name=name, i=i)).write_bytes(jpeg(generator))
    return root


def write_zip(path, root, inside):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.jpg")):
            archive.write(file, f"{inside}/{file.relative_to(root)}")
    return path


def as_eurosat(monkeypatch, path, urls=("http://127.0.0.1:9/EuroSAT.zip",)):
    """Makes this archive the one that is expected."""
    archive = archives.Archive(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    monkeypatch.setattr(tfds_sets, "EUROSAT_SOURCES", {url: archive for url in urls})


# The names, and the arguments


def test_the_package_offers_the_few_names_and_stays_light():
    assert data.load is catalog.load and data.NAMES == catalog.NAMES and data.audit.__name__ == "tfproject.data.audit"
    assert len(data.NAMES) == 8
    with pytest.raises(AttributeError):
        data.nothing
    program = "import sys, tfproject.data; print(sorted({'numpy', 'PIL', 'tensorflow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
    program = "import sys; from tfproject.data import NAMES; print({'tensorflow', 'sklearn'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("eurosta", {}, "no image set 'eurosta'.*cifar10, eurosat, terrassa"),
        ("synthetic-objects", {"split": "random"}, "'own', 'holdout' or 'files'"),
        ("synthetic-objects", {"split": "files"}, "needs split_files"),
        ("synthetic-objects", {"split": "own", "split_files": "x"}, "go with 'files' alone"),
        ("synthetic-objects", {"on_bad_image": "skip"}, "'list' or 'fail'"),
        ("synthetic-objects", {"on_overlap": "skip"}, "'warn', 'drop' or 'fail'"),
        ("synthetic-objects", {"data_dir": "x"}, "data_dir"),
        ("synthetic-objects", {"image_size": 64}, r"\(height, width\)"),
        ("synthetic-objects", {"image_size": (0, 64)}, r"\(height, width\)"),
        ("eurosat", {"data_dir": "/nowhere/at/all"}, "There is no '/nowhere/at/all'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(name, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        catalog.load(name, **arguments)
    assert "\n" not in str(caught.value)


# A user's folder


def test_a_folder_without_splits_is_held_out(tmp_path):
    root = write_tiles(tmp_path / "pets", per_class=20, classes=("cat", "dog"))
    pets = data.load(str(root), seed=2)
    assert {name: len(split) for name, split in pets.splits.items()} == {"train": 28, "val": 6, "test": 6}
    assert pets.name == "pets" and pets.split_method == "stratified hold-out 70/15/15, seed 2"
    assert data.load(root, seed=2).fingerprint == pets.fingerprint != data.load(root, seed=3).fingerprint
    with pytest.raises(UserError, match="no train and no test split"):
        data.load(root, split="own")


def test_a_folder_with_splits_keeps_them(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / split / name / f"{i}.jpg").write_bytes(jpeg(generator))
    pets = data.load(tmp_path)
    assert {name: len(split) for name, split in pets.splits.items()} == {"train": 18, "val": 2, "test": 6}
    assert all(name.startswith("test/") for name in pets.test.names)


def test_one_split_may_be_all_there_is(tmp_path):
    write_tiles(tmp_path / "test", classes=("cat", "dog"))
    assert list(data.load(tmp_path, part="test").splits) == ["test"]
    for options in ({"part": "val"}, {"part": "test", "split": "own"}, {}):
        with pytest.raises(UserError, match="has no train split of its own"):
            data.load(tmp_path, **options)
    write_tiles(tmp_path / "train", per_class=20, classes=("cat", "dog"))
    assert list(data.load(tmp_path, part="test").splits) == ["train", "val", "test"]


def test_bad_images_are_listed_or_fail(tmp_path):
    root = write_tiles(tmp_path / "pets", per_class=20, classes=("cat", "dog"))
    for i in range(5):
        (root / "cat" / f"bad{i}.jpg").write_text("no image")
    assert len(data.load(root).bad_images) == 5
    with pytest.raises(UserError, match=r"5 images that cannot be used .cat/bad0.jpg: not an image.*bad2.*; \.\.\."):
        data.load(root, on_bad_image="fail")


def test_overlap_of_a_folder_is_found_at_load(tmp_path):
    root = write_tiles(tmp_path / "pets", per_class=20, classes=("cat", "dog"))
    image_set = data.load(root)
    lists = tmp_path / "lists"
    splits.write_lists(image_set, lists)
    trained, tested = image_set.train.names[0], image_set.test.names[0]
    (root / tested).write_bytes((root / trained).read_bytes())
    with pytest.warns(UserWarning, match="1 of test in train"):
        assert len(data.load(root, split_files=lists).test) == 6
    with pytest.raises(UserError, match="1 of test in train"):
        data.load(root, split_files=lists, on_overlap="fail")
    assert len(data.load(root, split_files=lists, on_overlap="drop").test) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(root, split="holdout")  # which keeps the twins together


# EuroSAT and CIFAR-10


@pytest.mark.parametrize("place", ["zip", "folder with zip", "unpacked", "folder with 2750"])
def test_eurosat_from_what_the_user_has(tmp_path, monkeypatch, place):
    own = tmp_path / "own"
    tiles = write_tiles(own / "2750")
    archive = write_zip(tmp_path / "EuroSAT.zip", tiles, "2750")
    as_eurosat(monkeypatch, archive)
    if place == "folder with zip":
        own = tmp_path / "downloads"
        own.mkdir()
        archive = archive.rename(own / "EuroSAT.zip")
    data_dir = {"zip": archive, "unpacked": tiles}.get(place, own)
    image_set = catalog.read("eurosat", data_dir=data_dir)
    split = image_set.splits["all"]
    assert len(split) == 30 and image_set.class_names == tfds_sets.EUROSAT_CLASSES and image_set.name == "eurosat"
    assert split.names[:2] == ("AnnualCrop_1.jpg", "AnnualCrop_2.jpg") and list(split.names) == sorted(split.names)
    assert np.array_equal(split.images[4], decoding.decode_image(tiles / "Forest" / "Forest_2.jpg"))
    assert image_set.origin.licence == "MIT" and "Helber" in image_set.origin.citation


def test_a_eurosat_zip_with_another_checksum_is_refused(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "EuroSAT.zip", write_tiles(tmp_path / "tiles"), "2750")
    with pytest.raises(UserError) as caught:
        catalog.read("eurosat", data_dir=archive)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in str(caught.value)
    assert tfds_sets.EUROSAT_ARCHIVE.sha256 in str(caught.value)


def test_another_set_is_not_taken_for_eurosat(tmp_path):
    with pytest.raises(UserError, match="holds no EuroSAT"):
        catalog.read("eurosat", data_dir=write_tiles(tmp_path / "pets", classes=("cat", "dog")))
    tiles = write_tiles(tmp_path / "2750", classes=("AnnualCrop", "Forest"))
    with pytest.raises(UserError, match="classes AnnualCrop, Forest; expected of eurosat are"):
        catalog.read("eurosat", data_dir=tiles)


def test_eurosat_is_downloaded_once_and_then_found(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    archive = write_zip(served / "EuroSAT.zip", write_tiles(tmp_path / "tiles"), "2750")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        as_eurosat(monkeypatch, archive, [f"{url}/gone.zip", f"{url}/EuroSAT.zip"])
        place = catalog.prepare("eurosat", tmp_path / "mine")
        server.shutdown()
    assert place == str(tmp_path / "mine" / "eurosat" / "EuroSAT.zip")
    assert catalog.prepare("eurosat", tmp_path / "mine") == place
    assert len(catalog.read("eurosat", tmp_path / "mine").splits["all"]) == 30


@pytest.mark.parametrize("name", ["eurosat", "cifar10"])
def test_without_the_set_and_without_a_network_there_is_one_quick_message(tmp_path, name):
    program = (
        "import sys\n"
        "from tfproject.data import catalog, tfds_sets\n"
        "from tfproject.errors import UserError\n"
        "for sources in (tfds_sets.EUROSAT_SOURCES, tfds_sets.CIFAR10_SOURCES):\n"
        "    archive = next(iter(sources.values()))\n"
        "    sources.clear()\n"
        "    sources.update({f'http://127.0.0.{i}:9/x': archive for i in (1, 2, 3)})\n"
        "for attempt in (catalog.load, catalog.prepare):\n"
        "    try:\n"
        "        attempt(sys.argv[1])\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    nowhere = str(tmp_path / "nowhere")
    environment = os.environ | {"TFDS_DATA_DIR": nowhere, "TFPROJECT_DATA": nowhere}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, env=environment)
    assert time.monotonic() - start < 15
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith(f"{name} is not prepared on this machine")
    assert all(part in first for part in ("127.0.0.1: no connection", "127.0.0.3: no connection"))
    assert all(part in first for part in (f"`tfproject data prepare {name}`", "--data-dir", "--data synthetic"))


def test_cifar10_from_the_published_archive(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    path = tmp_path / "cifar-10-binary.tar.gz"
    records = {}
    with tarfile.open(path, "w:gz") as tar:
        for file in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            records[file] = generator.integers(0, 256, (20, 3073), dtype=np.uint8)
            records[file][:, 0] = np.arange(20) % 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            member.size = records[file].nbytes
            tar.addfile(member, io.BytesIO(records[file].tobytes()))
    with pytest.raises(UserError, match="SHA-256"):
        catalog.read("cifar10", data_dir=path)
    archive = archives.Archive(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    monkeypatch.setattr(tfds_sets, "CIFAR10_SOURCES", {"http://127.0.0.1:9/": archive})

    image_set = catalog.read("cifar10", data_dir=tmp_path)
    assert {name: len(split) for name, split in image_set.splits.items()} == {"train": 100, "test": 20}
    train = image_set.train
    assert train.names[21] == "train_00021" and image_set.class_names[train.labels[21]] == "automobile"
    red, green, blue = records["data_batch_2.bin"][1, 1:].reshape(3, 32, 32)
    assert np.array_equal(train.images[21], np.stack([red, green, blue], axis=-1))
    assert "compressed again" in image_set.origin.description
    monkeypatch.setattr(tfds_sets, "CIFAR10_MEAN", train.images.mean(axis=(0, 1, 2)))
    assert "compressed" not in catalog.read("cifar10", data_dir=tmp_path).origin.description
    own = catalog.load("cifar10", data_dir=tmp_path, image_size=(16, 20))
    assert [len(split) for split in own.splits.values()] == [90, 10, 20] and own.image_shape == (16, 20, 3)


def test_a_set_that_tfds_has_prepared(tmp_path):
    """TFDS' own builder writes a small EuroSAT, which is read as the files it was made from are."""
    tfds = pytest.importorskip("tensorflow_datasets")
    tiles = write_tiles(tmp_path / "2750", per_class=2)
    builder = tfds.builder("eurosat/rgb", data_dir=tmp_path / "tfds")
    builder._split_generators = lambda *_, **__: {"train": builder._generate_examples(str(tiles), "rgb")}
    builder.download_and_prepare()
    from_tfds = catalog.read("eurosat", data_dir=tmp_path / "tfds")
    from_files = catalog.read("eurosat", data_dir=tiles)
    assert from_tfds.fingerprint == from_files.fingerprint and len(from_tfds.splits["all"]) == 20
    assert from_tfds.splits["all"].names == from_files.splits["all"].names
    assert catalog.prepare("eurosat", tmp_path / "tfds") == str(builder.data_path)


# Buildings


@pytest.mark.parametrize("name, layout", [("terrassa", "annotation.txt and images/"), ("paris", "for each class")])
def test_missing_buildings_say_where_and_how_they_are_expected(tmp_path, name, layout):
    for attempt in (catalog.load, catalog.prepare):
        with pytest.raises(UserError) as caught:
            attempt(name)
        assert str(tmp_path / "home" / name) in str(caught.value) and layout in str(caught.value)
    with pytest.raises(UserError, match=f"{name} is not in"):
        catalog.load(name, data_dir=tmp_path)


def test_buildings_are_found_in_the_home_and_in_a_data_dir(tmp_path):
    tiles = write_tiles(tmp_path / "home" / "paris", per_class=20, classes=("louvre", "eiffel"))
    paris = data.load("paris")
    assert paris.name == "paris" and paris.image_shape == (160, 160, 3) and "Philbin" in paris.origin.citation
    assert [len(split) for split in paris.splits.values()] == [28, 6, 6]
    for data_dir in (tiles, tiles.parent):
        assert data.load("paris", data_dir=data_dir).fingerprint == paris.fingerprint
    assert data.load("paris", image_size=(32, 48)).image_shape == (32, 48, 3)
    assert catalog.prepare("paris") == str(tiles)


# Synthetic sets


@pytest.mark.parametrize("name", ["synthetic-objects", "synthetic-city"])
def test_synthetic_sets_stay_the_same_while_their_splits_follow_the_seed(name):
    first, second = data.load(name, seed=0), data.load(name, seed=1)
    pixels = [sorted(sum((split.digests for split in image_set.splits.values()), [])) for image_set in (first, second)]
    assert pixels[0] == pixels[1]
    assert first.val.names != second.val.names


@pytest.mark.parametrize("name", [name for name in data.NAMES if name.startswith("synthetic")])
def test_synthetic_sets_need_nothing(name):
    image_set = data.load(name, on_bad_image="fail", on_overlap="fail", image_size=(24, 32))
    assert image_set.name == name and image_set.origin.synthetic and image_set.image_shape == (24, 32, 3)
    assert list(image_set.splits) == ["train", "val", "test"]
    assert {len(set(split.labels)) for split in image_set.splits.values()} == {len(image_set.class_names)}
    assert catalog.prepare(name)


def test_synthetic_alone_means_the_tiles():
    assert catalog.load("synthetic", seed=3).fingerprint == catalog.load("synthetic-land-cover", seed=3).fingerprint


def test_generated_folders_are_written_once_and_whole(tmp_path, monkeypatch):
    root = Path(catalog.prepare("synthetic-city"))
    assert root.parent == tmp_path / "cache" and list(root.parent.iterdir()) == [root]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert catalog.prepare("synthetic-city") == str(root) and before
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")} == before
    generator = tmp_path / "generator.py"
    generator.write_text("# another one")
    monkeypatch.setattr(catalog.inspect, "getsourcefile", lambda _: str(generator))
    assert catalog.prepare("synthetic-city") != str(root) and len(list(root.parent.iterdir())) == 2


# The real sets, where they are prepared


@pytest.mark.skipif(not (TFDS / "eurosat" / "rgb").exists(), reason="EuroSAT is not prepared on this machine")
@pytest.mark.skipif(not (REAL / "eurosat-random-splits").exists(), reason="the lists of names are not on this machine")
def test_the_real_eurosat():
    tiles = data.load("eurosat", split_files=REAL / "eurosat-random-splits", on_bad_image="fail", on_overlap="fail")
    assert [len(split) for split in tiles.splits.values()] == [18_900, 4_050, 4_050]
    assert tiles.image_shape == (64, 64, 3) and tiles.class_names == tfds_sets.EUROSAT_CLASSES
    for split in tiles.splits.values():
        assert all(name.startswith(tiles.class_names[label] + "_") for name, label in zip(split.names, split.labels))


@pytest.mark.skipif(not (REAL / "terrassa").exists(), reason="Terrassa Buildings is not on this machine")
def test_the_real_terrassa():
    root = REAL / "terrassa"
    with pytest.warns(UserWarning, match="6 of test in train, 1 of test in val"):
        terrassa = data.load("terrassa", data_dir=root, image_size=(40, 40), on_bad_image="fail")
    assert [len(split) for split in terrassa.splits.values()] == [1194, 477, 717] and len(terrassa.class_names) == 13


@pytest.mark.skipif(not (REAL / "paris").exists(), reason="Paris Buildings is not on this machine")
def test_the_real_paris():
    paris = folders.read_folder(REAL / "paris", image_size=(40, 40))
    assert len(paris.splits["all"]) == 279
    assert [bad.name for bad in paris.bad_images] == [
        "louvre/paris_louvre_000136.jpg",
        "moulinrouge/paris_moulinrouge_000422.jpg",
        "sacrecoeur/paris_sacrecoeur_000299.jpg",
    ]
