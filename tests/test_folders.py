"""Folders and zips are read in both layouts, and what cannot be used is listed by name and reason."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfproject import data
from tfproject.data import folders
from tfproject.data.decoding import decode_images
from tfproject.data.folders import read_folder
from tfproject.errors import UserError


def write_image(path, shade=100, size=(12, 10)):
    """A plain image of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


def write_classes(root, names=("cat", "dog"), count=3):
    for label, name in enumerate(names):
        for i in range(count):
            write_image(root / name / f"{name}_{i}.png", 100 * label + i)


def write_annotated(root, rows, header="ImageID\tClassID", images=None):
    """One annotation.txt with these rows (text lines), and an image for each name in `images`."""
    for i, name in enumerate(images if images is not None else [row.split("\t")[0] + ".png" for row in rows]):
        write_image(root / "images" / name, i)
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotation.txt").write_text("\n".join([header, *rows]) + "\n")


def write_zip(path, root):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))


def reasons(image_set):
    return {bad.name: bad.reason for bad in image_set.bad_images}


# A folder for each class


def test_a_folder_for_each_class(tmp_path):
    write_classes(tmp_path / "pets", ("dog", "cat"))
    pets = read_folder(tmp_path / "pets")
    assert pets.name == "pets" and pets.class_names == ("cat", "dog") and list(pets.splits) == ["all"]
    split = pets.splits["all"]
    assert split.names == tuple(f"{name}/{name}_{i}.png" for name in ("cat", "dog") for i in range(3))
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1] and split.labels.dtype == np.int64
    assert split.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 1, 2]
    assert pets.image_shape == (10, 12, 3)
    assert pets.bad_images == ()


def test_train_val_test_with_a_folder_for_each_class(tmp_path):
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        write_classes(tmp_path / split, count=count)
    (tmp_path / "val" / "mouse").mkdir()
    write_image(tmp_path / "val" / "mouse" / "m.png")
    write_image(tmp_path / "other" / "cat" / "x.png")
    pets = read_folder(tmp_path)
    assert {name: len(split) for name, split in pets.splits.items()} == {"train": 8, "val": 4, "test": 2}
    assert pets.test.names == ("test/cat/cat_0.png", "test/dog/dog_0.png")
    assert pets.class_names == ("cat", "dog")
    assert "unknown class" in reasons(pets)["val/mouse/m.png"]
    assert "other/cat/x.png" in reasons(pets) and len(pets.bad_images) == 2


def test_a_stray_image_does_not_make_classes_of_splits(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / split)
        write_image(tmp_path / split / "overview.png")
    pets = read_folder(tmp_path)
    assert pets.class_names == ("cat", "dog") and set(pets.splits) == {"train", "test"}
    assert list(reasons(pets)) == ["test/overview.png", "train/overview.png"]


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, ("train", "tram"))
    assert read_folder(tmp_path).class_names == ("train", "tram")


def test_one_enclosing_folder_is_passed_through(tmp_path):
    write_classes(tmp_path / "2750")
    write_image(tmp_path / "preview.png")
    with pytest.warns(UserWarning, match=r"lie in 2750/, which is taken for the folder that holds .* \(cat, dog\)"):
        pets = read_folder(tmp_path)
    assert pets.class_names == ("cat", "dog") and pets.splits["all"].names[0] == "cat/cat_0.png"
    assert list(reasons(pets)) == ["preview.png"]


def test_a_class_whose_images_lie_deeper_is_not_split_without_a_word(tmp_path, recwarn):
    write_classes(tmp_path / "one" / "cats", ("2020", "2021"))
    assert read_folder(tmp_path / "one").class_names == ("2020", "2021")
    assert "lie in cats/" in str(recwarn.pop().message)
    read_folder(tmp_path / "one", name="known")  # whose layout is known
    read_folder(tmp_path / "one" / "cats")
    assert not recwarn


def test_what_is_passed_over_is_told(tmp_path, recwarn):
    write_classes(tmp_path / "pets", ("cat", "dog", "cow"))
    (tmp_path / "pets" / "README.md").write_text("beside the classes")
    (tmp_path / "pets" / "cat" / ".hidden.heic").write_text("hidden")
    read_folder(tmp_path / "pets")
    assert not recwarn
    for image in (tmp_path / "pets" / "dog").iterdir():
        image.rename(image.with_suffix(".heic"))
    for image in (tmp_path / "pets" / "cow").iterdir():
        image.write_text("no image")
    (tmp_path / "pets" / "empty").mkdir()
    (tmp_path / "pets" / "cat" / "notes").write_text("no image")
    write_zip(tmp_path / "pets.zip", tmp_path / "pets")
    for source in ("pets", "pets.zip"):
        assert set(np.unique(read_folder(tmp_path / source).splits["all"].labels)) == {0}
        told = str(recwarn.pop().message)
        assert "(4: .heic, none)" in told and "no image can be used of the folders cow, dog, empty" in told
        assert told.endswith(".") and "\n" not in told and not recwarn
        read_folder(tmp_path / source, name="known")
        assert not recwarn


@pytest.mark.parametrize("name", ["a.gif", "a.jfif", "a.JPE"])
def test_rarer_extensions(tmp_path, name):
    write_classes(tmp_path)
    Image.new("RGB", (12, 10)).save(tmp_path / "cat" / name, "GIF" if name.endswith("gif") else "JPEG")
    assert f"cat/{name}" in read_folder(tmp_path).splits["all"].names


def test_bad_files_are_listed_and_the_rest_is_read(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "cat" / "page.JPG").write_text("<html>not found</html>")
    (tmp_path / "cat" / "empty.png").touch()
    whole = (tmp_path / "dog" / "dog_0.png").read_bytes()
    (tmp_path / "dog" / "cut.png").write_bytes(whole[:-30])
    write_image(tmp_path / "stray.png")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    pets = read_folder(tmp_path)
    assert len(pets.splits["all"]) == 6
    found = reasons(pets)
    assert list(found) == ["cat/empty.png", "cat/page.JPG", "dog/cut.png", "stray.png"]
    assert "0 bytes" in found["cat/empty.png"] and "not an image" in found["cat/page.JPG"]
    assert "damaged" in found["dog/cut.png"] and "beside the class folders" in found["stray.png"]


def test_links_inside_are_read_and_links_outside_are_listed(tmp_path):
    root = tmp_path / "pets"
    write_classes(root)
    write_image(tmp_path / "secret.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "cat" / "in.png").symlink_to(root / "dog" / "dog_0.png")
    (root / "cat" / "nowhere.png").symlink_to(root / "none.png")
    (root / "bird").symlink_to(tmp_path)
    pets = read_folder(root)
    assert "cat/in.png" in pets.splits["all"].names and pets.class_names == ("cat", "dog")
    found = reasons(pets)
    assert list(found) == ["bird", "cat/nowhere.png", "cat/out.png"]
    assert "leads out" in found["cat/out.png"] and "link" in found["bird"]


def test_image_size(tmp_path):
    write_image(tmp_path / "cat" / "small.png", size=(12, 10))
    write_image(tmp_path / "dog" / "large.png", size=(30, 20))
    with pytest.raises(UserError, match=r"differ in size.*10x12 and 20x30.*image_size"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, image_size=(8, 9)).image_shape == (8, 9, 3)


def test_sizes_are_compared_before_all_is_decoded(tmp_path, monkeypatch):
    decoded = []

    def decode(sources, size=None):
        decoded.append(len(sources))
        return decode_images(sources, size)

    monkeypatch.setattr(folders, "decode_images", decode)
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(20):
        write_image(tmp_path / "cat" / f"{i}.png", size=(12, 10))
    Image.new("RGB", (10, 12)).save(tmp_path / "cat" / "turned.jpg", exif=turned)
    whole = (tmp_path / "cat" / "0.png").read_bytes()
    (tmp_path / "cat" / "broken.png").write_bytes(whole[:16] + (40).to_bytes(4) * 2 + whole[24:-20])
    assert len(read_folder(tmp_path).splits["all"]) == 21 and decoded == [2, 22]  # a header alone says nothing
    write_image(tmp_path / "dog" / "large.png", size=(30, 20))
    with pytest.raises(UserError, match="differ in size"):
        read_folder(tmp_path)
    assert decoded[2:] == [3]


@pytest.mark.parametrize("content", ["nothing", "files", "broken"])
def test_a_folder_without_images_of_a_class(tmp_path, content):
    if content == "files":
        write_image(tmp_path / "a.png")
    if content == "broken":
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat" / "a.png").write_text("no image")
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_folder_and_no_zip(tmp_path):
    with pytest.raises(UserError, match="no folder or zip"):
        read_folder(tmp_path / "none")
    (tmp_path / "a.zip").write_text("<html>")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        read_folder(tmp_path / "a.zip")


# annotation.txt beside images/


def test_annotated_splits(tmp_path):
    write_annotated(tmp_path / "train", ["aa\tmill", "bb\tchurch", "cc\tmill"], images=["aa.png", "bb.JPG", "cc.jpeg"])
    write_annotated(tmp_path / "val", ["aa\tmill"])
    write_annotated(tmp_path / "test", ["dd\tchurch"])
    houses = read_folder(tmp_path)
    assert houses.class_names == ("church", "mill") and list(houses.splits) == ["train", "val", "test"]
    assert houses.train.names == ("train/images/aa.png", "train/images/bb.JPG", "train/images/cc.jpeg")
    assert houses.train.labels.tolist() == [1, 0, 1] and houses.test.labels.tolist() == [0]
    assert houses.bad_images == ()


def test_a_single_annotated_folder(tmp_path):
    write_annotated(tmp_path, ["aa\tmill", "bb\tchurch"])
    houses = read_folder(tmp_path)
    assert houses.splits["all"].names == ("images/aa.png", "images/bb.png") and houses.class_names == ("church", "mill")


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    write_annotated(tmp_path / "train", ["aa\tmill"])
    (tmp_path / "train" / "annotation.txt").write_bytes("\ufeffImageID\tClassID\r\naa\tmill\r\n".encode())
    houses = read_folder(tmp_path)
    assert houses.class_names == ("mill",) and houses.bad_images == ()


def test_every_bad_row_is_listed(tmp_path):
    write_image(tmp_path / "secret.png")
    root = tmp_path / "houses"
    rows = [
        "aa\tmill",
        "gone\tmill",
        "../../../secret\tmill",
        f"{tmp_path}/secret\tmill",
        "linked\tmill",
        "",
        "bb mill",
        "bb\tmill\textra",
        "bb\t",
        "twice\tmill",
        "twice\tchurch",
        "same\tchurch",
        "same\tchurch",
        "two\tmill",
        "text\tmill",
    ]
    write_annotated(root / "train", rows, images=["aa.png", "bb.png", "twice.png", "same.png", "two.png", "two.jpg"])
    (root / "train" / "images" / "linked.png").symlink_to(tmp_path / "secret.png")
    (root / "train" / "images" / "text.jpg").write_text("no image")
    write_image(root / "train" / "loose.png")
    write_annotated(root / "test", ["ee\tmill", "ff\tcastle"])
    houses = read_folder(root)

    assert houses.train.names == ("train/images/aa.png", "train/images/same.png")
    assert houses.test.names == ("test/images/ee.png",) and houses.class_names == ("church", "mill")
    expected = {
        "train/annotation.txt, line 3": "no file in train/images/ for the ID 'gone'",
        "train/annotation.txt, line 4": "leads out",
        "train/annotation.txt, line 5": "leads out",
        "train/annotation.txt, line 7": "empty line",
        "train/annotation.txt, line 8": "two columns",
        "train/annotation.txt, line 9": "two columns",
        "train/annotation.txt, line 10": "two columns",
        "train/images/bb.png": "not named",
        "train/images/linked.png": "leads out",
        "train/images/text.jpg": "not an image",
        "train/images/twice.png": "conflicting classes in annotation.txt: church, mill",
        "train/images/two.jpg": "several files",
        "train/images/two.png": "several files",
        "train/loose.png": "lies in none of",
        "test/images/ff.png": "unknown class: train has no 'castle'",
    }
    found = reasons(houses)
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name], name


@pytest.mark.parametrize("text", ["aa\tmill\n", "", "ImageID,ClassID\naa,mill\n", b"\xff\xfe\x00\x01"])
def test_a_file_that_is_no_annotation(tmp_path, text):
    write_annotated(tmp_path / "train", ["aa\tmill"])
    (tmp_path / "train" / "annotation.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="expected is the header ImageID<TAB>ClassID"):
        read_folder(tmp_path)


def test_annotation_without_images_folder(tmp_path):
    write_annotated(tmp_path / "train", ["aa\tmill"], images=[])
    with pytest.raises(UserError, match="no images in train/images/"):
        read_folder(tmp_path)


def test_without_train_the_classes_come_from_what_there_is(tmp_path):
    write_annotated(tmp_path / "test", ["aa\tmill"])
    assert list(read_folder(tmp_path).splits) == ["test"] and read_folder(tmp_path).class_names == ("mill",)
    with pytest.raises(UserError, match="has no train split of its own"):
        data.load(tmp_path)


@pytest.mark.parametrize("names", [("Train", "VAL", "Test"), ("training", "valid", "testing")])
@pytest.mark.parametrize("inside", ["", "set"])
def test_folders_of_splits_have_several_names(tmp_path, recwarn, names, inside):
    for name in names:
        for colour in ("red", "blue"):
            write_image(tmp_path / inside / name / colour / f"{name}.png")
    found = read_folder(tmp_path)
    assert not recwarn
    assert list(found.splits) == ["train", "val", "test"] and found.class_names == ("blue", "red")
    assert not found.bad_images and all(len(split) == 2 for split in found.splits.values())
    write_image(tmp_path / inside / "validation" / "red" / "more.png")
    with pytest.raises(UserError, match="which all mean val; keep one of them"):
        read_folder(tmp_path)


# Zips


@pytest.mark.parametrize("inside", ["", "2750", "a/b"])
def test_a_zip_is_as_the_folder(tmp_path, inside):
    write_classes(tmp_path / "tiles" / inside)
    write_zip(tmp_path / "tiles.zip", tmp_path / "tiles")
    from_zip, from_folder = read_folder(tmp_path / "tiles.zip"), read_folder(tmp_path / "tiles" / inside)
    assert from_zip.fingerprint == from_folder.fingerprint and from_zip.name == "tiles"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiles", "tiles.zip"]


def test_a_zip_with_annotations(tmp_path):
    for split in ("train", "test"):
        write_annotated(tmp_path / "houses" / split, ["aa\tmill", "bb\tchurch"])
    write_zip(tmp_path / "houses.zip", tmp_path / "houses")
    assert read_folder(tmp_path / "houses.zip").fingerprint == read_folder(tmp_path / "houses").fingerprint


def test_bad_members_of_a_zip_are_listed(tmp_path):
    write_classes(tmp_path / "pets")
    image = (tmp_path / "pets" / "cat" / "cat_0.png").read_bytes()
    path = tmp_path / "pets.zip"
    write_zip(path, tmp_path / "pets")
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../out.png", "/abs.png", "cat/../../up.png", "C:\\x.png"):
            archive.writestr(name, image)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("cat/text.png", "no image")
        archive.writestr("__MACOSX/cat/._cat_0.png", "no image")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("dog/dog_0.png", image)
        archive.writestr("dog/spoilt.png", image)
    data = bytearray(path.read_bytes())
    data[data.rindex(image) + 40] ^= 0xFF  # the last image's bytes no longer agree with their CRC
    path.write_bytes(data)

    pets = read_folder(path)
    assert pets.class_names == ("cat", "dog") and len(pets.splits["all"]) == 5
    found = reasons(pets)
    assert sorted(found) == sorted(
        ["../out.png", "/abs.png", "C:\\x.png", "cat/../../up.png", "cat/link.png", "cat/text.png"]
        + ["dog/dog_0.png", "dog/spoilt.png"]
    )
    assert all("leads out" in found[name] for name in ("../out.png", "/abs.png", "C:\\x.png", "cat/../../up.png"))
    assert "unpacked" in found["dog/spoilt.png"] and "more than once" in found["dog/dog_0.png"]
    assert not (tmp_path / "out.png").exists() and not os.path.exists("/abs.png")


def test_a_member_that_would_fill_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    write_classes(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "huge.png").write_bytes(bytes(100_000))
    write_zip(tmp_path / "pets.zip", tmp_path / "pets")
    monkeypatch.setattr(folders, "MAX_MEMBER_BYTES", 50_000)
    pets = read_folder(tmp_path / "pets.zip")
    assert reasons(pets) == {"cat/huge.png": "too large: 100,000 bytes unpacked"} and len(pets.splits["all"]) == 6
