import dataclasses

import numpy as np
import pytest

from tfproject.data.image_set import ImageSet, Origin, Split, concatenate
from tfproject.errors import UserError


def small_set(name, class_names, splits):
    """splits: {split name: [(grey value, label), …]} of 4x4 images."""
    made = {}
    for split_name, items in splits.items():
        images = np.stack([np.full((4, 4, 3), value, np.uint8) for value, _ in items])
        labels = np.array([label for _, label in items])
        made[split_name] = Split(images, labels, tuple(f"{split_name}{i}" for i in range(len(items))))
    return ImageSet(name, tuple(class_names), made, Origin(name))


def test_the_union_of_classes_keeps_the_first_sets_labels_and_joins_equal_names():
    terrassa = small_set("terrassa", ["mill", "church"], {"train": [(1, 0), (2, 1)], "test": [(3, 1)]})
    paris = small_set("paris", ["church", "eiffel"], {"train": [(4, 0), (5, 1)]})
    both = concatenate(terrassa, paris)
    assert both.class_names == ("mill", "church", "eiffel")
    assert both.train.labels.tolist() == [0, 1, 1, 2]
    assert both.train.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert both.train.names == ("terrassa/train0", "terrassa/train1", "paris/train0", "paris/train1")
    assert both.test.labels.tolist() == [1]
    with pytest.raises(UserError, match="no split 'val'"):
        both.val


def test_images_of_different_size_are_not_joined():
    first = small_set("a", ["x"], {"train": [(1, 0)]})
    second = dataclasses.replace(
        first, splits={"train": Split(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, int), ("b",))}
    )
    with pytest.raises(UserError, match="same image_size"):
        concatenate(first, second)


def test_overlaps_are_found_by_content_whatever_the_name():
    image_set = small_set(
        "a", ["x", "y"], {"train": [(1, 0), (2, 0), (2, 1)], "val": [(3, 0)], "test": [(2, 0), (3, 1)]}
    )
    assert image_set.overlaps() == [("train1", "train", "test0", "test"), ("val0", "val", "test1", "test")]


def test_the_fingerprint_is_of_the_content_alone():
    image_set = small_set("a", ["x", "y"], {"train": [(1, 0), (2, 1)], "test": [(3, 0)]})
    again = small_set("a", ["x", "y"], {"test": [(3, 0)], "train": [(1, 0), (2, 1)]})
    turned = dataclasses.replace(image_set, splits={**image_set.splits, "train": image_set.train.take([1, 0])})
    assert image_set.fingerprint == again.fingerprint == turned.fingerprint
    other_pixel = small_set("a", ["x", "y"], {"train": [(1, 0), (9, 1)], "test": [(3, 0)]})
    other_label = small_set("a", ["x", "y"], {"train": [(1, 0), (2, 0)], "test": [(3, 0)]})
    other_class = small_set("a", ["x", "z"], {"train": [(1, 0), (2, 1)], "test": [(3, 0)]})
    assert len({s.fingerprint for s in (image_set, other_pixel, other_label, other_class)}) == 4


def test_a_split_is_whole():
    with pytest.raises(ValueError, match="uint8"):
        Split(np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, int), ("a", "b"))
    with pytest.raises(ValueError, match="as many labels"):
        Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), ("a", "b"))


def test_validation_joins_training_again():
    apart = small_set("a", ["x", "y"], {"train": [(1, 0), (2, 1)], "val": [(3, 1)], "test": [(4, 0)]})
    joined = apart.with_validation_in_training()
    assert list(joined.splits) == ["train", "test"] and joined.test is apart.test
    assert joined.train.images[:, 0, 0, 0].tolist() == [1, 2, 3] and joined.train.labels.tolist() == [0, 1, 1]
    assert joined.train.names == ("train0", "train1", "val0")
    assert joined.split_method != apart.split_method and len(apart.train) == 2
