"""Splits: stratified, seeded, never an image on two sides, and exactly what lists of names say."""

import dataclasses
import warnings
import zlib

import numpy as np
import pytest

from tfproject.data import splits
from tfproject.data.image_set import BadImage, ImageSet, Origin, Split
from tfproject.errors import UserError


def make_split(counts, prefix="", first_shade=0):
    """counts[k] images of class k, each of its own colour."""
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = first_shade + np.arange(len(labels))
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[..., 0], images[..., 1] = (numbers // 256)[:, None, None], (numbers % 256)[:, None, None]
    return Split(images, labels, tuple(f"{prefix}{label}/{prefix}{i:04d}.png" for i, label in enumerate(labels)))


def make_set(bad_images=(), **named):
    classes = tuple("abcdefgh"[: 1 + max(int(split.labels.max()) for split in named.values())])
    return ImageSet("toy", classes, named, Origin("made for a test"), tuple(bad_images))


def names_of(image_set):
    return {name: split.names for name, split in image_set.splits.items()}


def write_lists(folder, **lists):
    folder.mkdir(exist_ok=True)
    for name, names in lists.items():
        (folder / f"toy-{name}.txt").write_text("\n".join(names) + "\n")


# Hold-out


def test_holdout_is_stratified_and_complete():
    image_set = make_set(all=make_split([200, 100, 40]))
    held_out = splits.stratified_holdout(image_set, seed=3)
    assert list(held_out.splits) == ["train", "val", "test"]
    assert [len(split) for split in held_out.splits.values()] == [238, 51, 51]
    for split, expected in ((held_out.train, [140, 70, 28]), (held_out.val, [30, 15, 6]), (held_out.test, [30, 15, 6])):
        assert np.bincount(split.labels).tolist() == expected
        assert list(split.names) == sorted(split.names)
    assert sorted(sum((split.names for split in held_out.splits.values()), ())) == sorted(image_set.splits["all"].names)
    assert held_out.split_method == "stratified hold-out 70/15/15, seed 3"


def test_holdout_depends_on_the_seed_and_not_on_the_order():
    split = make_split([60, 60])
    image_set = make_set(all=split)
    shuffled = make_set(all=split.take(np.random.default_rng(0).permutation(len(split))))
    first = splits.stratified_holdout(image_set, seed=1)
    assert names_of(first) == names_of(splits.stratified_holdout(shuffled, seed=1))
    assert first.fingerprint == splits.stratified_holdout(shuffled, seed=1).fingerprint
    assert names_of(first) != names_of(splits.stratified_holdout(image_set, seed=2))


def test_holdout_keeps_names_labels_and_pixels_together():
    image_set = make_set(all=make_split([50, 50]))
    everything = image_set.splits["all"]
    original = dict(zip(everything.names, zip(everything.digests, everything.labels)))
    for split in splits.stratified_holdout(image_set).splits.values():
        for name, digest, label in zip(split.names, split.digests, split.labels):
            assert original[name] == (digest, label)


@pytest.mark.parametrize("seed", range(5))
def test_identical_images_never_fall_into_different_splits(seed):
    split = make_split([100, 100])
    images = split.images.copy()
    images[50:100] = images[:50]  # every second image of the first class has a twin
    image_set = make_set(all=Split(images, split.labels, split.names))
    held_out = splits.stratified_holdout(image_set, seed=seed)
    assert held_out.overlaps() == []
    assert sum(len(split) for split in held_out.splits.values()) == 200


def test_holdout_joins_the_splits_a_set_has():
    image_set = make_set(train=make_split([40, 40], "x"), test=make_split([20, 20], "y", first_shade=80))
    held_out = splits.stratified_holdout(image_set)
    assert sum(len(split) for split in held_out.splits.values()) == 120
    assert {name[0] for name in held_out.test.names} == {"x", "y"}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_class_with_too_few_images_is_named(count):
    image_set = make_set(all=make_split([50, count, 50]))
    with pytest.raises(UserError, match=f"The class 'b' of toy has {count} different images") as caught:
        splits.stratified_holdout(image_set)
    assert "\n" not in str(caught.value)


def test_images_of_it_that_cannot_be_used_are_counted():
    bad = tuple(BadImage(name, "damaged") for name in ("b/1.png", "train/b/2.png", "a/b.png"))
    image_set = dataclasses.replace(make_set(all=make_split([50, 1])), bad_images=bad)
    with pytest.raises(UserError, match=r"'b' of toy has 1 different images \(2 more cannot be used\)"):
        splits.stratified_holdout(image_set)


def test_twins_do_not_count_as_different_images():
    split = make_split([50, 20])
    images = split.images.copy()
    images[50:] = images[50]
    with pytest.raises(UserError, match="The class 'b' of toy has 1 different images"):
        splits.stratified_holdout(make_set(all=Split(images, split.labels, split.names)))


def test_fractions_are_checked():
    with pytest.raises(UserError, match="sum to 1"):
        splits.stratified_holdout(make_set(all=make_split([50, 50])), fractions=(0.7, 0.2, 0.2))


# The set's own


def test_own_takes_val_from_train_and_leaves_test_alone():
    image_set = make_set(train=make_split([100, 50], "x"), test=make_split([10, 10], "y", first_shade=200))
    own = splits.own(image_set, seed=5)
    assert np.bincount(own.train.labels).tolist() == [90, 45] and np.bincount(own.val.labels).tolist() == [10, 5]
    assert own.test is image_set.test
    assert not set(own.train.names) & set(own.val.names)
    assert names_of(own) == names_of(splits.own(image_set, seed=5)) != names_of(splits.own(image_set, seed=6))
    assert "10 % of train" in own.split_method and "seed 5" in own.split_method


def test_own_keeps_three_splits():
    parts = {name: make_split([4, 4], name, first_shade=i * 8) for i, name in enumerate(("test", "val", "train"))}
    own = splits.own(make_set(**parts))
    assert list(own.splits) == ["train", "val", "test"] and all(own.splits[name] is parts[name] for name in parts)
    assert own.split_method == "the set's own"


def test_own_needs_train_and_test():
    with pytest.raises(UserError, match="has no train and no test split of its own .it has: all.*holdout.*--split all"):
        splits.own(make_set(all=make_split([50, 50])))
    with pytest.raises(UserError, match="no test split"):
        splits.own(make_set(train=make_split([50, 50])))


# Lists of names


def test_written_lists_give_the_same_splits_again(tmp_path):
    image_set = make_set(all=make_split([30, 30]))
    held_out = splits.stratified_holdout(image_set, seed=1)
    paths = splits.write_lists(held_out, tmp_path / "lists")
    assert [path.name for path in paths] == ["toy-train.txt", "toy-val.txt", "toy-test.txt"]
    read = splits.from_files(image_set, tmp_path / "lists")
    assert read.fingerprint == held_out.fingerprint and names_of(read) == names_of(held_out)
    assert read.split_method == "lists of names from lists"


def test_lists_may_give_file_names_alone(tmp_path):
    image_set = make_set(all=make_split([3, 3]))
    write_lists(tmp_path, train=["0003.png", "0000.png"], val=["0/0001.png", ""], test=["0004.png\r"])
    read = splits.from_files(image_set, tmp_path)
    assert names_of(read) == {"train": ("1/0003.png", "0/0000.png"), "val": ("0/0001.png",), "test": ("1/0004.png",)}
    assert read.train.labels.tolist() == [1, 0]
    assert read.split_method.endswith("which leave out 2 images")


def test_names_of_unreadable_images_may_stand_in_a_list(tmp_path):
    image_set = make_set(all=make_split([3]), bad_images=[BadImage("0/spoilt.png", "damaged")])
    write_lists(tmp_path, train=["0000.png", "spoilt.png"], val=["0001.png", "0/spoilt.png"], test=["0002.png"])
    assert [len(split) for split in splits.from_files(image_set, tmp_path).splits.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    "lists, message",
    [
        ({"train": ["0000.png", "z1", "z2", "z3", "z4"]}, "4 names that are not in toy .z1, z2, z3, ..."),
        ({"train": ["0000.png", "0001.png"]}, "1 names that are in more than one place .0/0001.png"),
        ({"train": ["0000.png", "0/0000.png"]}, "1 names that are in more than one place .0/0000.png"),
        ({"train": []}, "toy-train.txt' is empty"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, lists, message):
    write_lists(tmp_path, **({"val": ["0001.png"], "test": ["0002.png"]} | lists))
    with pytest.raises(UserError, match=message):
        splits.from_files(make_set(all=make_split([4])), tmp_path)


def test_a_file_name_that_two_images_share_is_refused(tmp_path):
    parts = make_split([4])
    image_set = make_set(all=Split(parts.images, parts.labels, ("a/x.png", "b/x.png", "y.png", "z.png")))
    write_lists(tmp_path, train=["x.png"], val=["y.png"], test=["z.png"])
    with pytest.raises(UserError, match="the file name of several images .x.png"):
        splits.from_files(image_set, tmp_path)
    write_lists(tmp_path, train=["b/x.png"])
    assert splits.from_files(image_set, tmp_path).train.names == ("b/x.png",)


def test_missing_and_doubled_lists_are_refused(tmp_path):
    write_lists(tmp_path, train=["0000.png"], val=["0001.png"])
    with pytest.raises(UserError, match=r"no list \*-test.txt"):
        splits.from_files(make_set(all=make_split([4])), tmp_path)
    (tmp_path / "other-train.txt").write_text("0000.png\n")
    with pytest.raises(UserError, match=r"2 lists \*-train.txt"):
        splits.from_files(make_set(all=make_split([4])), tmp_path)


# Overlap


@pytest.fixture
def overlapping():
    """train: shades 0..9; val: two of train's; test: one of train's, one of val's alone, one of both."""
    train, val, test = make_split([10], "x"), make_split([6], "y", 100), make_split([6], "z", 200)
    val.images[:2] = train.images[:2]
    test.images[0], test.images[1], test.images[2] = train.images[5], val.images[4], val.images[0]
    return make_set(test=test, val=val, train=train)


def test_overlap_warns_with_counts_of_each_pair(overlapping):
    with pytest.warns(UserWarning, match=r"2 of test in train, 1 of test in val, 2 of val in train") as caught:
        checked = splits.check_overlap(overlapping)
    assert len(caught) == 1
    assert checked.fingerprint == overlapping.fingerprint


def test_overlap_is_dropped_from_the_later_split(overlapping):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked = splits.check_overlap(overlapping, "drop")
        assert splits.check_overlap(checked, "fail") is not None
    assert checked.train is overlapping.train
    assert checked.val.names == overlapping.val.names[2:] and checked.test.names == overlapping.test.names[3:]
    assert "5 images left out" in checked.split_method


def test_overlap_fails(overlapping):
    with pytest.raises(UserError, match="2 of test in train.*such as x0/x0000.png and y0/y0000.png"):
        splits.check_overlap(overlapping, "fail")


def test_dropping_never_empties_a_split(overlapping):
    everything = dataclasses.replace(overlapping, splits={**overlapping.splits, "val": overlapping.train.take([1, 2])})
    with pytest.raises(UserError, match="nothing of val"):
        splits.check_overlap(everything, "drop")


def test_no_overlap_no_warning():
    image_set = make_set(train=make_split([5]), val=make_split([5], "y", 50), test=make_split([5], "z", 90))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert splits.check_overlap(image_set).fingerprint == image_set.fingerprint
    with pytest.raises(UserError, match="'warn', 'drop' or 'fail'"):
        splits.check_overlap(image_set, "ignore")


@pytest.mark.parametrize(
    "name, sizes, checksums",
    [
        ("eurosat-random", (18900, 4050, 4050), [2367639157, 3623244582, 214709874]),
        ("eurosat-spatial", (16200, 5400, 5400), [1147403230, 1536738849, 4037377413]),
    ],
)
def test_published_lists_name_every_tile_once(name, sizes, checksums):
    lists = [(splits.PUBLISHED[name] / f"{name}-{part}.txt").read_text().split() for part in ("train", "val", "test")]
    assert tuple(map(len, lists)) == sizes
    assert len(set().union(*lists)) == 27000
    found = [zlib.crc32("\n".join(names).encode()) for names in lists]
    assert found == checksums  # as torchgeo has them


def test_published_lists_are_taken_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(splits.PUBLISHED, "mine", tmp_path)
    image_set = make_set(all=make_split((2, 1)))
    for part, name in zip(("train", "val", "test"), image_set.splits["all"].names):
        (tmp_path / f"mine-{part}.txt").write_text(name)
    assert [len(split) for split in splits.from_files(image_set, "mine").splits.values()] == [1, 1, 1]
