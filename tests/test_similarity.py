"""Matching units of two networks: against all permutations, permuted networks, and networks that share nothing."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers as L

from tfproject.errors import UserError
from tfproject.interpret import words
from tfproject.interpret.network import lay_open
from tfproject.interpret.similarity import compare_networks, linear_cka, match_units, mean_correlation, summaries
from tfproject.report import semantics_figures


def model_of(seed, side=8):
    keras.utils.set_random_seed(seed)
    image = keras.Input((side, side, 3))
    x = L.Rescaling(1 / 128, offset=-1)(image)
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.Dense(12, activation="relu", name="dense")(L.Flatten()(x))
    return keras.Model(image, L.Dense(3, activation="softmax", name="classes")(x))


@pytest.fixture(scope="module")
def images():
    """White noise, in which nothing correlates that is not wired to do so."""
    return np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def permuted():
    """A network, and the same function with its units in another order, one of which was taken out of either."""
    one, other = model_of(1), model_of(1)
    random = np.random.default_rng(2)
    of_conv, of_dense = random.permutation(8), random.permutation(12)
    for name in ("conv", "norm"):
        other.get_layer(name).set_weights([w[..., of_conv] for w in other.get_layer(name).get_weights()])
    kernel, bias = other.get_layer("dense").get_weights()
    kernel = kernel.reshape(64, 8, 12)[:, of_conv][..., of_dense].reshape(512, 12)
    other.get_layer("dense").set_weights([kernel, bias[of_dense]])
    kernel, bias = other.get_layer("classes").get_weights()
    other.get_layer("classes").set_weights([kernel[of_dense], bias])
    return lay_open(one), lay_open(other), {"conv": of_conv, "dense": of_dense}


def test_units_in_another_order_are_all_found(permuted, images):
    one, other, orders = permuted
    found = compare_networks(one, other, images, batch_size=64)
    assert [layer.layer for layer in found] == ["conv", "dense"]
    for layer in found:
        ours, theirs = layer.matching.units.T
        np.testing.assert_array_equal(orders[layer.layer][theirs], ours)
        np.testing.assert_allclose(layer.matching.correlations, 1, atol=1e-5)
        row = layer.row()
        assert row["share"] == 1 and row["cka"] == pytest.approx(1, abs=1e-6)
        assert row["null_share_highest"] == 0 and row["null_cka"] < 0.2
        assert row["share_low"] < 1 and row["correlation"] == pytest.approx(1, abs=1e-5)


def test_untrained_networks_share_nothing_on_noise(images):
    one, other = lay_open(model_of(1)), lay_open(model_of(2))
    (dense,) = compare_networks(one, other, images, ["dense"])
    row = dense.row()
    assert row["share"] == 0 and row["correlation"] < 0.25
    assert abs(row["correlation"] - row["null_correlation"]) < 0.15
    assert row["cka"] < 3 * row["null_cka"]


def test_a_summary_is_the_greatest_output(images):
    network = lay_open(model_of(4))
    conv, dense = network.function([network["conv"].output, network["dense"].output], 400)(images)
    found = summaries(network, images, ["dense", "conv"], batch_size=90)
    np.testing.assert_allclose(found["conv"], conv.reshape(400, -1, 8).max(axis=1), atol=1e-6)
    np.testing.assert_allclose(found["dense"], dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p, q", [(5, 5), (3, 6), (6, 4)])
def test_no_other_matching_has_a_larger_sum(p, q):
    random = np.random.default_rng(p)
    x, y = random.normal(size=(30, p)), random.normal(size=(30, q))
    correlations = np.corrcoef(x.T, y.T)[:p, p:]
    small, large = sorted((p, q))
    table = correlations if p <= q else correlations.T
    best = max(table[range(small), list(order)].sum() for order in itertools.permutations(range(large), small))
    found = match_units(x, y)
    assert found.correlations.sum() == pytest.approx(best)
    np.testing.assert_allclose(found.correlations, correlations[tuple(found.units.T)])
    assert len(set(found.units[:, 0])) == len(set(found.units[:, 1])) == small


def test_units_that_say_the_same_of_every_image_have_no_partner():
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 4)).astype(np.float32)
    y = x.copy()
    x[:, 1] = 7
    found = match_units(x, y, [random.permutation(50)])
    np.testing.assert_array_equal(np.sort(found.units, axis=0), [[0, 0], [2, 2], [3, 3]])
    assert found.null.shape == (1, 3)


def test_half_of_the_units_are_shared():
    random = np.random.default_rng(3)
    x = random.normal(size=(500, 10))
    y = np.concatenate([-x[:, 5:], x[:, 4::-1] * 3 + 1], axis=1)  # a unit turned round is another one
    orders = [random.permutation(500) for _ in range(3)]
    found = match_units(x, y, orders)
    assert (found.correlations > 0.999).sum() == 5 and (found.correlations < 0.3).sum() == 5
    assert np.all(found.null < 0.3)


def test_cka_is_the_alignment_of_the_centred_similarities():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(40, 6)), random.normal(size=(40, 9))
    y[:, :3] += x[:, :3]
    centring = np.eye(40) - 1 / 40

    def hsic(k, m):
        return np.trace(k @ centring @ m @ centring)

    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    assert linear_cka(x, 5 * x @ rotation + 3) == pytest.approx(1)
    assert np.isnan(linear_cka(x, np.ones((40, 2))))


def test_networks_that_cannot_be_compared_are_told(images):
    network, small = lay_open(model_of(1)), lay_open(model_of(1, side=6))
    for other, shown, layer_names, message in (
        (small, images, None, "the network takes"),
        (network, images[:2], None, "too few"),
        (network, images, ["conv2"], "no convolution or dense layer"),
    ):
        with pytest.raises(UserError, match=message):
            compare_networks(network, other, shown, layer_names)


def test_the_mean_correlation_of_units_with_each_other():
    x = np.random.default_rng(4).normal(size=(60, 5)) + np.random.default_rng(5).normal(size=(60, 1))
    pairs = np.corrcoef(x.T)[np.triu_indices(5, 1)]
    assert mean_correlation(np.c_[x, np.ones(60)]) == pytest.approx(pairs.mean())
    assert mean_correlation(x[:, :1]) is None


def row_of(layer, share, reach=0.05, null=0.0, cka=0.8, alike=0.1):
    return {"layer": layer, "images": 1000, "units": 100, "other_units": 100, "varying": 100, "threshold": 0.5,
            "share": share, "share_low": share - reach, "share_high": share + reach, "null_share": null,
            "null_share_highest": null, "correlation": share, "correlation_low": share - 0.02,
            "correlation_high": share + 0.02, "null_correlation": 0.1, "cka": cka, "null_cka": 0.1,
            "alike": alike}  # fmt: skip


def test_words_compare_with_chance_and_with_untrained_networks():
    rows = [row_of("first", 0.9), row_of("last", 0.3)]
    text = words.shared_units(rows, [row_of("first", 0.2), row_of("last", 0.28)])
    assert "90 % (" in text and "first" in text and "30 % (" in text
    assert "more than by chance in all 2 layers" in text
    assert "more than two untrained networks share in 1 of 2 layers: first, and less in none of 2 layers." in text
    assert "fewer" in text
    text = words.shared_units([row_of("first", 0.4), row_of("last", 0.38, null=0.36)])
    assert "1 of 2 layers: first" in text and "fewer" not in text and "untrained" not in text


def test_words_tell_where_untrained_networks_share_more():
    rows = [row_of("first", 0.9, cka=0.91), row_of("deep", 0.2, alike=0.12), row_of("last", 0.5)]
    control = [row_of("first", 0.88, cka=0.4), row_of("deep", 0.5, cka=0.35, alike=0.43), row_of("last", 0.1, cka=0.3)]
    text = words.shared_units(rows, control)
    assert "share in 1 of 3 layers: last, and less in 1 of 3 layers: deep." in text
    assert "In deep the units of an untrained network correlate with each other by 0.43" in text and "by 0.12." in text
    assert "is 0.80 to 0.91, and between the untrained networks 0.30 to 0.40." in text


def test_figure_of_the_matched_units(permuted, images):
    one, other, _ = permuted
    found = compare_networks(one, other, images)
    control = {"conv": np.linspace(0.6, 0.1, 8), "dense": None}
    rows = [
        {
            "layer": x.layer,
            "correlations": x.matching.correlations,
            "null": x.matching.null,
            "control": control[x.layer],
        }
        for x in found
    ]
    figure = semantics_figures.matched_correlations(rows, threshold=0.5)
    panel = next(axes for axes in figure.axes if "conv" in axes.get_title("left"))
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    np.testing.assert_allclose(lines["two seeds"], 1, atol=1e-5)
    np.testing.assert_allclose(lines["two untrained networks"], np.linspace(0.6, 0.1, 8))
    assert np.asarray(lines["by chance"]).max() < 0.4
