import numpy as np
import pytest
import tensorflow as tf

from tfproject.data import augmentation, image_set
from tfproject.errors import UserError

SEED = tf.constant([3, 4])


def batches_of(toy_set, **options):
    return list(toy_set.train.training_batches(3, 32, **options).as_numpy_iterator())


def test_epochs_show_the_images_in_different_orders(toy_set):
    images = np.concatenate([images for images, _ in batches_of(toy_set, epochs=2, seed=1)]).astype(np.uint8)
    first, second = ([image.tobytes() for image in half] for half in (images[:96], images[96:]))
    assert first != second and len(set(first) & set(second)) >= 72  # each leaves out 24 of the 120


def test_an_epoch_shows_every_image_at_most_once_and_seeds_differ(toy_set):
    first, second = batches_of(toy_set, epochs=1), batches_of(toy_set, epochs=1, seed=1)
    assert len(first) == 120 // 32
    seen = np.concatenate([images for images, _ in first]).astype(np.uint8)
    known = {image.tobytes(): label for image, label in zip(toy_set.train.images, toy_set.train.labels)}
    labels = np.concatenate([labels for _, labels in first]).argmax(axis=1)
    assert len({image.tobytes() for image in seen}) == 96
    assert [known[image.tobytes()] for image in seen] == labels.tolist()
    assert not np.array_equal(first[0][0], second[0][0])


def test_a_pipeline_begun_later_gives_what_the_whole_one_gives_from_there(toy_set):
    names = ("symmetries", "shift", "cutout", "colour", "jpeg", "mixup", "cutmix")
    options = {"augment": names, "seed": 7, "epochs": 3}
    whole, rest = batches_of(toy_set, **options), batches_of(toy_set, first_epoch=2, **options)
    assert len(whole) == 9 and len(rest) == 3
    for (images, labels), (same_images, same_labels) in zip(whole[6:], rest):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    assert not np.array_equal(whole[0][0], whole[3][0])


def test_evaluation_batches_keep_order_and_pixels(toy_set):
    images = np.concatenate([images for images, _ in toy_set.val.batches(8).as_numpy_iterator()])
    labels = np.concatenate([labels for _, labels in toy_set.val.batches(8).as_numpy_iterator()])
    np.testing.assert_array_equal(images, toy_set.val.images)
    np.testing.assert_array_equal(labels, toy_set.val.labels)
    assert images.dtype == np.float32


def test_symmetries_are_the_eight_of_the_square_and_all_occur():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    eight = {np.rot90(m, k).tobytes() for m in (image, image[:, ::-1]) for k in range(4)}
    images, _ = augmentation.symmetries(tf.constant(np.stack([image] * 400)), None, SEED)
    counts = {}
    for each in images.numpy():
        counts[each.tobytes()] = counts.get(each.tobytes(), 0) + 1
    assert set(counts) == eight
    assert min(counts.values()) > 25  # 50 expected


def test_shift_moves_by_every_offset_up_to_four_and_reflects():
    rows, columns = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    image = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    possible = {padded[y : y + 12, x : x + 12].tobytes() for y in range(9) for x in range(9)}
    shifted, _ = augmentation.shift(tf.constant(np.stack([image] * 2000)), None, SEED)
    assert {each.tobytes() for each in shifted.numpy()} == possible


def test_flip_mirrors_about_half():
    images = np.random.default_rng(0).integers(0, 255, (200, 4, 6, 3)).astype(np.uint8)
    flipped = augmentation.flip(tf.constant(images), None, SEED)[0].numpy()
    same = (flipped == images).all(axis=(1, 2, 3))
    assert (same | (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))).all()
    assert 60 < same.sum() < 140


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs(toy_set):
    known = {image.tobytes(): i for i, image in enumerate(toy_set.train.images)}
    mirrored = {image[:, ::-1].tobytes(): i for i, image in enumerate(toy_set.train.images)}
    shown = list(toy_set.train.training_batches(3, 30, ("alternating_flip",), epochs=2).as_numpy_iterator())
    epochs = [np.concatenate([images for images, _ in part]).astype(np.uint8) for part in (shown[:4], shown[4:])]
    plain = [{known[image.tobytes()] for image in epoch if image.tobytes() in known} for epoch in epochs]
    turned = [{mirrored[image.tobytes()] for image in epoch if image.tobytes() in mirrored} for epoch in epochs]
    assert plain[0] == turned[1] and plain[1] == turned[0]
    assert plain[0] | plain[1] == set(range(120)) and 30 < len(plain[0]) < 90


def test_cutout_hides_a_square_of_the_stated_size():
    images = tf.zeros((300, 32, 32, 3), tf.uint8)
    hidden = (augmentation.cutout(images, None, SEED)[0].numpy() == 127).all(axis=-1).sum(axis=(1, 2))
    assert hidden.max() in (7 * 7, 8 * 8) and hidden.min() >= 16


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_labels_follow_the_share_of_each_image(name):
    values = np.array([250, 130, 40, 10, 0])
    images = np.stack([np.full((16, 16, 3), value) for value in values]).astype(np.uint8)
    surest = []
    for seed in range(8):
        mixed, labels = augmentation.BY_NAME[name](tf.constant(images), tf.eye(5), tf.constant([seed, 1]))
        means = tf.cast(mixed, tf.float32).numpy().mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, labels.numpy() @ values, atol=1e-2)
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, atol=1e-6)
        surest.append(labels.numpy()[0].max())
    assert min(surest) < 0.9  # something was mixed


def test_colour_changes_brightness_and_contrast_of_each_image_by_up_to_a_fifth():
    images = np.random.default_rng(0).integers(90, 160, (64, 8, 8, 3)).astype(np.uint8)  # none is cut off
    changed = augmentation.colour(tf.constant(images), None, SEED)[0].numpy()
    means, new_means = (x.mean(axis=(1, 2, 3), keepdims=True) for x in (images, changed))
    levels = (new_means / means).ravel()
    contrast = (changed - new_means) / np.where(abs(images - means) < 5, np.nan, images - means)
    spreads = np.nanmean(contrast, axis=(1, 2, 3))
    np.testing.assert_allclose(contrast, spreads[:, None, None, None] + 0 * contrast, atol=1e-3)
    for factors in (levels, spreads):
        assert 0.8 <= factors.min() < 0.85 and 1.15 < factors.max() <= 1.2
    assert abs(np.corrcoef(levels, spreads)[0, 1]) < 0.5  # each drawn on its own


def test_each_batch_and_each_augmentation_draws_anew():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    split = image_set.Split(np.stack([image] * 64), np.zeros(64, np.int64), tuple(map(str, range(64))))
    first, second = (x for x, _ in split.training_batches(1, 32, ("symmetries",)).as_numpy_iterator())
    assert not np.array_equal(first, second)
    once = augmentation.augment(tf.constant(first), tf.eye(32), ("flip",), SEED, tf.range(32), 0)[0]
    twice = augmentation.augment(tf.constant(first), tf.eye(32), ("flip", "flip"), SEED, tf.range(32), 0)[0]
    assert not np.array_equal(once, first) and not np.array_equal(twice, first)


def test_colour_stays_in_range_and_changes_each_image_differently():
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    changed = augmentation.colour(tf.constant(images), None, SEED)[0].numpy()
    assert changed.min() >= 0 and changed.max() <= 255
    shift = (changed.mean(axis=(1, 2, 3)) / images.mean(axis=(1, 2, 3))).round(4)
    assert len(set(shift)) == 8


def test_jpeg_gives_half_of_the_images_as_a_jpeg_of_some_quality_has_them():
    rows, columns = np.mgrid[:16, :16]
    image = np.stack([rows * 12, columns * 12, 90 + 60 * np.sin(rows + columns)], axis=-1).astype(np.uint8)
    possible = {tf.image.adjust_jpeg_quality(image, quality).numpy().tobytes() for quality in range(50, 100)}
    changed = augmentation.jpeg(tf.constant(np.stack([image] * 300)), None, SEED)[0]
    assert changed.dtype == tf.uint8
    same = [(each == image).all() for each in changed.numpy()]
    assert 100 < sum(same) < 200
    compressed = {each.tobytes() for each, as_it_was in zip(changed.numpy(), same) if not as_it_was}
    assert compressed <= possible and len(compressed) > 15


def test_mistakes_are_told_in_a_sentence(toy_set):
    with pytest.raises(UserError, match="Unknown augmentation 'rotate'"):
        toy_set.train.training_batches(3, 32, augment=("rotate",))
    with pytest.raises(UserError, match="batch size 500 is larger than the 120"):
        toy_set.train.training_batches(3, 500)
    with pytest.raises(UserError, match="needs square images"):
        augmentation.check(("symmetries",), (None, 32, 48, 3))


def test_batches_end_at_once(toy_set):
    for batches in (toy_set.train.batches(16), toy_set.train.training_batches(3, 16)):
        assert batches.options().autotune.enabled is False
