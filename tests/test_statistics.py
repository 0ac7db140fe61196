import numpy as np
import pytest
import toy
from scipy import stats

from tfproject.experiments import noise_scale
from tfproject.statistics import compare, difference_of_shares, holm, share, summarise


def test_mean_spread_and_interval_of_known_numbers():
    # Student's t with two degrees of freedom has its 97.5 % point at 4.3027.
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.count, summary.mean, summary.spread) == (3, 2.0, 1.0)
    assert summary.high - summary.mean == pytest.approx(4.302652729911275 / 3**0.5)
    assert summary.mean - summary.low == pytest.approx(summary.high - summary.mean)
    values = np.random.default_rng(0).normal(size=7)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (summarise(values).low, summarise(values).high) == pytest.approx((interval.low, interval.high))


def test_too_few_numbers_have_no_interval():
    assert summarise([0.5]).mean == 0.5 and summarise([0.5]).spread is None and summarise([0.5]).low is None
    assert summarise([]).mean is None
    equal = summarise([0.8493723849372385] * 3)  # whose mean and spread NumPy rounds
    assert (equal.mean, equal.spread, equal.low, equal.high) == (0.8493723849372385, 0.0, *[0.8493723849372385] * 2)


def test_the_paired_comparison_is_scipys():
    random = np.random.default_rng(1)
    baseline = random.normal(0.7, 0.05, 5)
    values = baseline + random.normal(0.02, 0.005, 5)
    found = compare(values, baseline)
    assert found.p == pytest.approx(stats.ttest_1samp(values - baseline, 0).pvalue)
    assert found.p < 0.01 < stats.ttest_ind(values, baseline).pvalue  # pairing is what shows it
    assert found.low < found.mean < found.high and found.low > 0
    # By hand: differences 1, 2, 3 have mean 2 and standard error 1/sqrt(3), so t = 3.4641 and p = 0.0742.
    by_hand = compare([2, 4, 6], [1, 2, 3])
    assert by_hand.mean == 2 and by_hand.p == pytest.approx(0.07418, abs=1e-5)
    assert by_hand.low == pytest.approx(2 - 4.302652729911275 / 3**0.5)


def test_differences_that_do_not_vary_prove_nothing():
    assert compare([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]).p is None
    same = compare([0.5, 0.6], [0.5, 0.6])
    assert same.mean == 0 and same.low is None and same.p is None
    assert compare([0.5], [0.4]).p is None


def test_holm_by_hand():
    # 4*0.01, 3*0.013, 2*0.02, 1*0.04: each at least as large as the one before.
    assert holm([0.013, 0.01, 0.04, 0.02]) == pytest.approx([0.04, 0.04, 0.04, 0.04])
    assert holm([0.001, 0.3, 0.02]) == pytest.approx([0.003, 0.3, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.03, None]) == [None, 0.03, None]
    assert holm([]) == []


def test_holm_keeps_false_alarms_rare():
    random = np.random.default_rng(2)
    alarms = sum(min(holm(random.uniform(size=8).tolist())) < 0.05 for _ in range(2000))
    assert 0.03 < alarms / 2000 < 0.07  # without correction it were 34 %


def test_the_noise_scale_is_that_of_all_single_gradients():
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    train = toy.image_set().train
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 64)(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    gradients = []
    for pixels, label in zip(train.images, train.labels):
        with tf.GradientTape() as tape:
            loss = -tf.math.log(model(pixels[None].astype("float32"))[0, label])
        gradients.append(np.concatenate([np.ravel(g) for g in tape.gradient(loss, [w.value for w in model.weights])]))
    mean = np.mean(gradients, axis=0)
    trace = ((np.array(gradients) - mean) ** 2).sum(axis=1).mean()

    found = noise_scale.measure(model, train, 3, small=4, big=64, draws=40)
    assert found.images == 40 * 64
    assert found.trace == pytest.approx(trace, rel=0.1)
    assert found.gradient == pytest.approx(mean @ mean, rel=0.1)
    assert found.scale == pytest.approx(trace / (mean @ mean), rel=0.15)
    with pytest.raises(ValueError, match="multiple"):
        noise_scale.measure(model, train, 3, small=48, big=64)


def test_the_difference_of_two_shares_is_newcombe_s():
    # Newcombe 1998, table II, method 10: 56/70 against 48/80, and 9/10 against 3/10.
    found = difference_of_shares(share(56, 70), share(48, 80))
    assert [round(found[key], 4) for key in ("difference", "low", "high")] == [0.2, 0.0524, 0.3339]
    found = difference_of_shares(share(9, 10), share(3, 10))
    assert [round(found[key], 4) for key in ("difference", "low", "high")] == [0.6, 0.1705, 0.8090]
    assert difference_of_shares(share(0, 0), share(3, 10))["difference"] is None
