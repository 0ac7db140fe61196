"""Colours, spectra, statistics and embeddings of made-up images whose truth is known."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfproject import exploration
from tfproject.errors import UserError
from tfproject.evaluation import scores
from tfproject.exploration import appearance, colour, embeddings, spectra

CLASSES = ("red", "stripes down", "stripes across")


def stripes(count, cycles, across=False, size=32, strength=60):
    """Grey sinusoids with so many cycles an image, each with a phase of its own."""
    random = np.random.default_rng(cycles)
    place = np.arange(size) / size
    wave = np.sin(2 * np.pi * (cycles * place + random.random((count, 1))))
    wave = wave[:, None, :, None] if across else wave[:, :, None, None]
    return np.broadcast_to(np.rint(128 + strength * wave), (count, size, size, 3)).astype(np.uint8)


def three_classes(count, seed):
    """One class of another colour, and two that differ in direction only, with the same colours."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(100, 150, (count, 16, 16, 3))
    images[labels == 0, ..., 0] += 60
    images[labels == 1] += (40 * (np.arange(16) % 2))[:, None, None]
    images[labels == 2] += (40 * (np.arange(16) % 2))[None, :, None]
    return images.astype(np.uint8), labels


def test_the_package_imports_without_its_heavy_parts():
    code = "import sys, tfproject.exploration; print({'tensorflow', 'sklearn', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_channel_statistics_are_those_of_all_pixels():
    images, labels = three_classes(31, 0)
    rows = exploration.channel_statistics(images, labels, CLASSES)
    assert len(rows) == 9
    for row in rows:
        own = images[labels == CLASSES.index(row["class"])][..., colour.CHANNELS.index(row["channel"])].astype(float)
        assert row["images"] == len(own)
        assert row["mean"] == pytest.approx(own.mean())
        assert row["spread"] == pytest.approx(own.std())
        assert row["between"] == pytest.approx(own.mean(axis=(1, 2)).std())
        assert row["within"] ** 2 == pytest.approx(own.var(axis=(1, 2)).mean())


def test_channel_statistics_leave_out_a_class_without_images():
    images, _ = three_classes(4, 0)
    assert {row["class"] for row in exploration.channel_statistics(images, np.zeros(4, int), CLASSES)} == {"red"}


def test_histograms_count_every_pixel_of_the_class():
    images, labels = three_classes(12, 1)
    found = exploration.colour_histograms(images, labels, 4, bins=16)
    for label in range(3):
        for channel in range(3):
            counts, _ = np.histogram(images[labels == label][..., channel], bins=16, range=(0, 256))
            np.testing.assert_allclose(found[label, channel], counts / counts.sum())
    assert not found[3].any()
    with pytest.raises(ValueError, match="divide 256"):
        exploration.colour_histograms(images, labels, 3, bins=7)


def test_colour_statistics_do_not_know_where_a_pixel_lies():
    images, _ = three_classes(6, 2)
    order = np.random.default_rng(0).permutation(256)
    mixed = images.reshape(6, 256, 3)[:, order].reshape(images.shape)
    found = exploration.colour_statistics(images)
    assert found.shape == (6, len(colour.STATISTIC_NAMES)) and found.dtype == np.float32
    np.testing.assert_allclose(found, exploration.colour_statistics(mixed), atol=1e-3)


def test_colour_statistics_have_the_values_of_their_names():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, :8] = (200, 100, 50)
    images[0, 8:] = (100, 100, 50)
    images[1] = (50, 50, 200)
    first, second = (dict(zip(colour.STATISTIC_NAMES, row)) for row in exploration.colour_statistics(images))
    assert first["red mean"] == pytest.approx(150) and first["red deviation"] == pytest.approx(50)
    assert first["blue 50%"] == 50 and first["red 5%"] == 100 and first["red 95%"] == 200
    assert first["saturation mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert first["green-red mean"] == pytest.approx((-1 / 3 + 0) / 2, abs=1e-6)
    assert second["blue-green mean"] == pytest.approx(0.6)
    assert np.arctan2(second["hue sine"], second["hue cosine"]) % (2 * np.pi) == pytest.approx(4 * np.pi / 3)  # blue


def test_the_floor_tells_colours_apart_and_nothing_else():
    train, val = three_classes(240, 3), three_classes(150, 4)
    floor = exploration.colour_floor(*train, val[0], len(CLASSES))
    np.testing.assert_allclose(floor.sum(axis=1), 1, atol=1e-5)
    found = scores(floor, val[1], CLASSES)
    assert found.per_class[0]["recall"] == 1
    confused = np.array(found.confusion)[1:, 1:]
    assert confused.sum() == 100 and 30 < confused.trace() < 70  # a coin's throw


def test_the_floor_needs_two_classes():
    images, labels = three_classes(9, 3)
    with pytest.raises(UserError, match="1 classes"):
        exploration.colour_floor(images, np.zeros(9, int), images, len(CLASSES))


def test_mean_images_are_the_means_in_whatever_batches(monkeypatch):
    monkeypatch.setattr(spectra, "BATCH", 3)
    images, labels = three_classes(20, 5)
    found = exploration.mean_images(images, labels, 4)
    for label in range(3):
        np.testing.assert_allclose(found[label], images[labels == label].mean(axis=0), rtol=1e-5)
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("cycles", [3, 8, 12])
@pytest.mark.parametrize("across", [False, True])
def test_the_spectrum_of_a_sinusoid_peaks_at_its_frequency(cycles, across):
    spectrum = exploration.mean_log_spectra(stripes(5, cycles, across), np.zeros(5, int), 1)[0]
    peak = np.abs(np.array(np.unravel_index(spectrum.argmax(), (32, 32))) - 16)
    assert tuple(peak) == ((0, cycles) if across else (cycles, 0))
    frequencies, profiles = exploration.radial_profiles(spectrum[None])
    assert frequencies[0] == 1 / 32 and frequencies[-1] == 0.5
    assert frequencies[profiles[0].argmax()] == pytest.approx(cycles / 32)


def test_spectra_add_up_to_the_variance():
    random = np.random.default_rng(0)
    images = np.repeat(random.integers(0, 256, (200, 16, 16, 1)), 3, axis=-1).astype(np.uint8)
    power = 10 ** spectra.log_power_spectra(images).astype(float)
    assert power.mean() == pytest.approx((images[..., 0] / 255).var(), rel=0.05)


@pytest.mark.parametrize("exponent", [0, -2, -3])
def test_the_spectral_slope_of_a_power_law_is_its_exponent(exponent):
    random = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    frequency[0, 0] = 1
    waves = np.fft.ifft2(np.fft.fft2(random.normal(size=(60, 64, 64))) * frequency ** (exponent / 2)).real
    waves = 128 + 40 * waves / waves.std(axis=(1, 2), keepdims=True)
    images = np.repeat(np.clip(np.rint(waves), 0, 255)[..., None], 3, axis=-1).astype(np.uint8)
    slopes = spectra.spectral_slopes(*exploration.radial_profiles(spectra.log_power_spectra(images)))
    assert slopes.mean() == pytest.approx(exponent, abs=0.3)


def test_image_statistics_say_what_their_names_promise():
    random = np.random.default_rng(2)
    grain = random.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    lines = stripes(3, 4)
    even = np.full((3, 32, 32, 3), 60, np.uint8)
    hazy = np.rint(0.5 * lines + 0.5 * 255).astype(np.uint8)
    groups = {"grain": grain, "lines": lines, "even": even, "hazy": hazy, "turned": lines.transpose(0, 2, 1, 3)}
    found = exploration.image_statistics(np.concatenate(list(groups.values())))
    assert list(found) == list(appearance.STATISTICS) == list(appearance.WORDS)
    of = {name: dict(zip(groups, values.reshape(-1, 3).mean(axis=1))) for name, values in found.items()}
    assert of["brightness"]["even"] == pytest.approx(60 / 255, abs=1e-3)
    assert of["contrast"]["lines"] == pytest.approx(60 / 255 / np.sqrt(2), rel=0.02)
    assert of["haze"]["hazy"] > of["haze"]["lines"] + 0.2 and of["haze"]["even"] == pytest.approx(60 / 255, abs=1e-3)
    assert of["line-likeness"]["lines"] > 0.99 and of["line-likeness"]["turned"] > 0.99
    assert of["line-likeness"]["grain"] < 0.1 and of["line-likeness"]["even"] == 0
    assert of["saturation"]["grain"] > 0.3 and of["saturation"]["lines"] == 0
    assert of["edge strength"]["grain"] > of["edge strength"]["lines"] > of["edge strength"]["even"] == 0
    assert of["spectral slope"]["grain"] > of["spectral slope"]["lines"]
    green = np.broadcast_to(np.array([50, 150, 50], np.uint8), (1, 32, 32, 3))
    assert exploration.image_statistics(green)["greenness"][0] == pytest.approx(0.5)


def test_penultimate_features_are_what_the_last_dense_layer_is_given():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(5, activation="relu")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="classes")(x))
    images = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)
    found = exploration.penultimate_features(model, images, batch_size=4)
    assert found.shape == (11, 5) and found.dtype == np.float32
    kernel, bias = model.get_layer("classes").get_weights()
    logits = found @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(expected, model.predict(images.astype("float32"), verbose=0), rtol=1e-4)
    with pytest.raises(UserError, match="takes"):
        exploration.penultimate_features(model, images[:, :4])
    with pytest.raises(UserError, match="no dense layer"):
        exploration.penultimate_features(keras.Model(image, keras.layers.Flatten()(image)), images)


def clouds(count=40):
    """Three well separated directions, and image 5 of class 0 among those of class 2."""
    random = np.random.default_rng(3)
    labels = np.arange(3 * count) % 3
    features = 10 * np.eye(3, 6)[labels] + random.normal(size=(3 * count, 6))
    features[5 * 3] = 10 * np.eye(3, 6)[2]
    return features, labels


def test_a_planted_outlier_is_the_first():
    features, labels = clouds()
    rows = exploration.outliers(features, labels, CLASSES, count=4, k=5)
    assert len(rows) == 4 and rows[0]["index"] == 15 and rows[0]["class"] == "red"
    assert rows[0]["neighbours"] == {"stripes across": 5}
    assert rows[0]["ratio"] > 2 * rows[1]["ratio"]
    assert rows[0]["z"] > 2 * rows[1]["z"] and rows[1]["z"] >= rows[2]["z"] >= rows[3]["z"]


def test_a_class_whose_distances_vary_much_does_not_take_all_places():
    """Five times its median is usual in one class, twice the median is far in the other."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    angles = np.where(labels, 0.1 * random.normal(size=400), np.exp(1.5 * random.normal(size=400)) / 50 + np.pi / 2)
    angles[-1] = 0.9
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = exploration.outliers(features, labels, CLASSES, count=3, k=5)
    assert 399 in {row["index"] for row in rows}


def test_distances_are_those_of_brute_force():
    features, labels = clouds(8)
    found = exploration.own_class_distance(features, labels, k=3)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
        assert found[i] == pytest.approx(np.sort(np.linalg.norm(unit[others] - unit[i], axis=1))[:3].mean(), abs=1e-4)


def test_an_image_alone_in_its_class_has_no_distance():
    assert np.isnan(exploration.own_class_distance(np.eye(3), np.array([0, 0, 1]))[2])
    assert {row["index"] for row in exploration.outliers(np.eye(3), np.array([0, 0, 1]), CLASSES)} == {0, 1}


def test_clusters_are_the_classes_only_where_features_tell_them():
    features, labels = clouds()
    found = exploration.clusters(features, labels, CLASSES)
    assert found["adjusted_rand"] > 0.95 and found["normalised_mutual_information"] > 0.95
    assert found["matched_accuracy"] == pytest.approx(119 / 120)
    assert np.trace(found["table"]) == 119 and np.sum(found["table"]) == 120
    assert found == exploration.clusters(features, labels, CLASSES)
    noise = np.random.default_rng(0).normal(size=features.shape)
    assert abs(exploration.clusters(noise, labels, CLASSES)["adjusted_rand"]) < 0.1
    with pytest.raises(UserError, match="2 images for 3 clusters"):
        exploration.clusters(features[:2], labels[:2], CLASSES)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        embeddings.own_class_distance(np.full((3, 2), np.nan), np.zeros(3, int))
