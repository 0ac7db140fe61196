"""Corruptions that do what they say, and the accuracy that they cost."""

import numpy as np
import pytest

from tfproject.errors import UserError
from tfproject.evaluation import robustness
from tfproject.evaluation.robustness import SEVERITIES, corrupt

RANDOM = np.random.default_rng(0)
GREY = np.full((4, 32, 32, 3), 128, np.uint8)
SMOOTH = np.clip(np.cumsum(np.cumsum(RANDOM.normal(size=(4, 32, 32, 3)), axis=1), axis=2) * 3 + 128, 20, 235)
SMOOTH = SMOOTH.astype(np.uint8)


@pytest.mark.parametrize("name", SEVERITIES)
def test_the_same_seed_gives_the_same_images_in_whatever_batches(name):
    whole = corrupt(SMOOTH, name, 3, seed=5)
    assert whole.dtype == np.uint8 and whole.shape == SMOOTH.shape
    parts = [corrupt(SMOOTH[:1], name, 3, seed=5), corrupt(SMOOTH[1:], name, 3, seed=5, first=1)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("name", SEVERITIES)
def test_each_severity_is_farther_from_the_image(name):
    distance = [np.abs(corrupt(SMOOTH, name, severity).astype(float) - SMOOTH).mean() for severity in range(1, 6)]
    assert 0 < distance[0] and np.all(np.diff(distance) > 0)


def test_noise_has_its_deviation_and_differs_from_image_to_image_and_seed_to_seed():
    noisy = corrupt(GREY, "noise", 2)
    assert noisy.astype(float).std() == pytest.approx(0.08 * 255, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert (noisy[0] != noisy[1]).any() and (noisy != corrupt(GREY, "noise", 2, seed=1)).any()


def test_blur_spreads_a_point_by_its_deviation():
    point = np.zeros((1, 33, 33, 3), np.uint8)
    point[0, 16, 16] = 255
    blurred = corrupt(point, "blur", 5)[0, ..., 0].astype(float)
    place = np.arange(33) - 16
    assert (blurred.sum(axis=0) * place**2).sum() / blurred.sum() == pytest.approx(1.5**2, rel=0.15)


def test_jpeg_is_pillows():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(SMOOTH[0]).save(buffer, "JPEG", quality=25)
    np.testing.assert_array_equal(corrupt(SMOOTH, "JPEG", 5)[0], np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("name, new_value", [("brightness", lambda v: v + 0.3), ("darkness", lambda v: v * 0.55)])
def test_brightness_changes_the_value_and_keeps_hue_and_saturation(name, new_value):
    import colorsys

    colour = (110, 140, 90)
    changed = corrupt(np.broadcast_to(np.array(colour, np.uint8), (1, 8, 8, 3)), name, 3)[0, 0, 0]
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    expected = colorsys.hsv_to_rgb(hue, saturation, new_value(value))
    np.testing.assert_allclose(changed, 255 * np.array(expected), atol=0.51)
    black = np.zeros((1, 8, 8, 3), np.uint8)
    assert corrupt(black, "brightness", 1).mean() == pytest.approx(255 * 0.1, abs=0.6)


def test_contrast_keeps_the_means_and_scales_the_deviations():
    changed = corrupt(SMOOTH, "contrast", 1).astype(float)
    np.testing.assert_allclose(changed.mean(axis=(1, 2)), SMOOTH.mean(axis=(1, 2)), atol=0.3)
    np.testing.assert_allclose(changed.std(axis=(1, 2)), 0.4 * SMOOTH.std(axis=(1, 2)), rtol=0.03)


def test_haze_mixes_in_white():
    np.testing.assert_array_equal(corrupt(GREY, "haze", 4), np.full_like(GREY, round(0.5 * 128 + 0.5 * 255)))


def bar(angle=0.0, factor=1.0, size=33):
    down, across = np.mgrid[:size, :size] - (size - 1) / 2
    angle = np.deg2rad(angle)
    away = -across * np.sin(angle) + down * np.cos(angle)
    smooth = 255 / (1 + np.exp(np.clip(2 * (np.abs(away) / factor - 4), -50, 50)))
    return np.repeat(smooth[..., None], 3, axis=-1).astype(np.uint8)


def test_rotation_turns_by_its_degrees_to_either_side():
    turned = corrupt(np.repeat(bar()[None], 12, axis=0), "rotation", 3).astype(float)
    sides = []
    middle = (slice(8, 25), slice(8, 25))
    for image in turned:
        errors = [np.abs(image[middle] - bar(angle)[middle]).mean() for angle in (-20, 0, 20)]
        sides.append(int(np.argmin(errors)))
        assert min(errors) < 8 < errors[1]
    assert set(sides) == {0, 2}


def test_scale_makes_larger_or_smaller():
    scaled = corrupt(np.repeat(bar()[None], 12, axis=0), "scale", 4).astype(float)
    found = set()
    for image in scaled:
        errors = [np.abs(image[6:27, 6:27] - bar(factor=factor)[6:27, 6:27]).mean() for factor in (1 / 1.5, 1, 1.5)]
        found.add(int(np.argmin(errors)))
        assert min(errors) < 8
    assert found == {0, 2}


def brightness_classifier(images):
    """Class 1 is what is brighter than the middle."""
    bright = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - bright, bright], axis=1)


def test_the_accuracy_falls_where_the_classifier_looks_and_stays_elsewhere():
    random = np.random.default_rng(1)
    labels = np.arange(50) % 2
    images = random.integers(60, 90, (50, 16, 16, 3)) + 100 * labels[:, None, None, None]
    rows = robustness.robustness(
        brightness_classifier, images.astype(np.uint8), labels, ("noise", "brightness"), batch_size=16
    )
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        ("none", 0), *(("noise", s) for s in range(1, 6)), *(("brightness", s) for s in range(1, 6))
    ]  # fmt: skip
    assert rows[0]["accuracy"] == 1 and rows[0]["drop"] == 0 and rows[0]["p"] == 1
    assert all(row["accuracy"] == 1 for row in rows[:6])
    last = rows[-1]  # 75 + 127 is brighter than the middle
    assert last["strength"] == 0.5 and last["accuracy"] == 0.5 and last["class_accuracy"] == [0, 1]
    assert last["drop"] == 0.5 and last["drop_low"] > 0.3 and last["p"] < 0.001 and last["low"] < 0.5 < last["high"]


def test_what_is_not_there_is_said():
    with pytest.raises(UserError, match="no corruption 'snow'"):
        corrupt(GREY, "snow", 1)
    with pytest.raises(UserError, match="severity is 6"):
        corrupt(GREY, "noise", 6)
    with pytest.raises(UserError, match="no corruption 'snow'"):
        robustness.robustness(brightness_classifier, GREY, np.zeros(4, int), ("snow",))
    with pytest.raises(UserError, match="no image"):
        robustness.robustness(brightness_classifier, GREY[:0], [])
