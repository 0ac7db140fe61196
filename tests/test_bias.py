"""Bias: planted ones are found, and a classifier without any is not accused."""

import numpy as np
import pytest
from scipy import stats

from tfproject import statistics
from tfproject.errors import UserError
from tfproject.evaluation import bias

CLASSES = ("a", "b", "c")


def sure(answers, class_count=3):
    return np.eye(class_count)[answers] * 0.9 + 0.1 / class_count


def answered(count, error, seed, drift=0.0):
    """Labels, and answers with so many errors at random; `drift` of class a's images are taken for b besides."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    wrong = random.random(count) < error
    answers = np.where(wrong, (labels + random.integers(1, 3, count)) % 3, labels)
    answers[(labels == 0) & (random.random(count) < drift)] = 1
    return sure(answers), labels


def test_wilson_is_scipys():
    for hits, count in ((0, 7), (3, 7), (7, 7), (395, 400)):
        low, high = statistics.wilson(hits, count)
        expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert statistics.wilson(0, 0) == (0, 1)


def test_mcnemars_test_is_the_binomial_one():
    for first, second in ((0, 0), (3, 9), (12, 2), (5, 5)):
        found = statistics.paired_difference(first, second, 100)
        expected = stats.binomtest(first, first + second).pvalue if first + second else 1
        assert found["p"] == pytest.approx(expected)
        assert found["difference"] == (first - second) / 100
        assert found["low"] < found["difference"] < found["high"]


def test_the_paired_interval_holds_the_truth_as_often_as_it_should():
    random = np.random.default_rng(0)
    drawn = random.multinomial(300, (0.05, 0.02, 0.93), 2000)
    found = [statistics.paired_difference(first, second, 300) for first, second, _ in drawn]
    assert 0.93 < np.mean([row["low"] <= 0.03 <= row["high"] for row in found]) < 0.98


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1, 1]
    assert statistics.holm([]) == []


def test_a_planted_drift_between_classes_is_found():
    found = bias.class_rates(*answered(2000, 0.03, 1, drift=0.1), CLASSES)
    a, b, c = found["classes"]
    assert found["p"] < 1e-4 and found["degrees"] == 2
    assert a["high"] < 0 and a["p_corrected"] < 0.001
    assert b["low"] > 0 and b["p_corrected"] < 0.001
    assert c["p_corrected"] > 0.05
    assert a["difference"] == pytest.approx(a["predicted_rate"] - a["true_rate"])
    assert b["false_alarms"] - b["misses"] == round(2000 * b["difference"])


def test_an_unbiased_classifier_is_seldom_accused():
    found = [bias.class_rates(*answered(600, 0.08, seed), CLASSES) for seed in range(300)]
    assert np.mean([row["p"] < 0.05 for row in found]) < 0.09
    accused = [any(row["p_corrected"] < 0.05 for row in one["classes"]) for one in found]
    assert np.mean(accused) < 0.07
    assert stats.kstest([row["p"] for row in found], "uniform").pvalue > 0.001


def test_with_two_classes_the_common_test_is_mcnemars():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    answers = np.where(random.random(300) < np.where(labels, 0.2, 0.05), 1 - labels, labels)
    found = bias.class_rates(sure(answers, 2), labels, ("no", "yes"))
    alarms, misses = ((labels == 0) & (answers == 1)).sum(), ((labels == 1) & (answers == 0)).sum()
    assert found["statistic"] == pytest.approx((alarms - misses) ** 2 / (alarms + misses)) and found["degrees"] == 1


def test_a_classifier_without_errors_has_no_bias():
    labels = np.array([0, 1, 1, 0])
    found = bias.class_rates(sure(labels), labels, CLASSES)
    assert found["p"] == 1 and all(row["p_corrected"] == 1 and row["difference"] == 0 for row in found["classes"])
    assert found["classes"][2]["true_rate"] == 0


def test_group_accuracies_and_their_test_are_scipys():
    random = np.random.default_rng(2)
    groups = random.integers(0, 3, 900)
    correct = random.random(900) < np.array([0.9, 0.8, 0.9])[groups]
    found = bias.accuracy_by_group(correct, groups, ("x", "y", "z"))
    table = [[(correct & (groups == g)).sum(), (~correct & (groups == g)).sum()] for g in range(3)]
    expected = stats.chi2_contingency(table, correction=False)
    assert (found["statistic"], found["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert found["method"] == "chi-squared" and found["within_classes"] is None and found["p"] < 0.01
    for row, (hits, wrong) in zip(found["groups"], table):
        assert (row["hits"], row["count"], row["accuracy"]) == (hits, hits + wrong, hits / (hits + wrong))
        assert row["low"] < row["accuracy"] < row["high"] and row["expected"] is None


def test_small_groups_are_compared_by_permutation():
    groups = np.repeat(np.arange(6), 10)
    correct = np.ones(60, bool)
    correct[[0, 1, 2]] = False  # all in one group
    found = bias.accuracy_by_group(correct, groups, [str(i) for i in range(6)])
    in_one_group = 6 * (10 * 9 * 8) / (60 * 59 * 58)
    assert found["method"] == "permutation" and found["p"] == pytest.approx(in_one_group, abs=0.008)
    correct[[1, 2]], correct[[15, 38]] = True, False
    assert bias.accuracy_by_group(correct, groups, [str(i) for i in range(6)])["p"] > 0.5


def test_groups_that_differ_only_in_their_classes_are_not_accused_within_classes():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 4000)
    groups = (random.random(4000) < np.where(labels, 0.8, 0.2)).astype(int)
    correct = random.random(4000) < np.where(labels, 0.7, 0.95)
    found = bias.accuracy_by_group(correct, groups, ("clear", "hazy"), labels)
    assert found["p"] < 1e-6 and found["within_classes"]["p"] > 0.05 and found["within_classes"]["degrees"] == 1
    for row in found["groups"]:
        assert row["expected"] == pytest.approx(row["accuracy"], abs=0.02)
    harmed = correct & ~((groups == 1) & (random.random(4000) < 0.08))
    assert bias.accuracy_by_group(harmed, groups, ("clear", "hazy"), labels)["within_classes"]["p"] < 0.001


def test_the_test_within_classes_is_that_of_mantel_and_haenszel():
    random = np.random.default_rng(4)
    labels, groups = random.integers(0, 4, 300), random.integers(0, 2, 300)
    correct = random.random(300) < 0.8
    distance = variance = 0
    for label in range(4):
        own = labels == label
        n, right, second = own.sum(), correct[own].sum(), (groups[own] == 1).sum()
        distance += (correct[own] & (groups[own] == 1)).sum() - right * second / n
        variance += stats.hypergeom(n, right, second).var()
    found = bias.accuracy_by_group(correct, groups, ("x", "y"), labels)["within_classes"]
    assert found["statistic"] == pytest.approx(distance**2 / variance)


def test_images_without_a_group_and_groups_without_images_do_not_count():
    found = bias.accuracy_by_group([True, False, True], [-1, 2, 2], ("x", "y", "z"), [0, 0, 1])
    assert [(row["group"], row["count"]) for row in found["groups"]] == [("z", 2)]
    assert found["p"] == 1 and found["within_classes"]["p"] == 1


def test_quantile_groups_are_about_equal_and_in_order():
    values = np.random.default_rng(5).exponential(size=1000)
    groups, names = bias.quantile_groups(values, 4)
    assert np.bincount(groups).tolist() == [250] * 4 and len(names) == 4
    assert all(values[groups == g].max() <= values[groups == g + 1].min() for g in range(3))
    groups, names = bias.quantile_groups(np.zeros(9))
    assert not groups.any() and len(names) == 1


def test_class_sizes_group_the_images_of_classes_of_one_size():
    groups, names = bias.class_size_groups([0, 1, 2, 2], [3000, 2000, 3000], ["Forest", "Pasture", "River"])
    assert groups.tolist() == [1, 0, 1, 1]
    assert names == ["2,000 in training (Pasture)", "3,000 in training (2 classes)"]


def test_several_groupings_find_the_one_that_matters():
    random = np.random.default_rng(6)
    labels = random.integers(0, 3, 3000)
    haze, place = random.random(3000), random.integers(0, 10, 3000)
    wrong = random.random(3000) < 0.02 + 0.1 * (haze > 0.8)
    groupings = {
        "haze": bias.quantile_groups(haze),
        "place": (place, [f"place {i}" for i in range(10)]),
        "all": (np.zeros(3000, int), ["all"]),  # nothing to compare, so it does not count
    }
    found = bias.accuracy_by_groups(sure(np.where(wrong, (labels + 1) % 3, labels)), labels, groupings)
    assert found["haze"]["p_corrected"] == pytest.approx(2 * found["haze"]["p"]) and found["haze"]["p_corrected"] < 1e-6
    assert found["place"]["p_corrected"] > 0.05 and found["place"]["within_classes"]["p_corrected"] > 0.05
    assert found["haze"]["groups"][-1]["high"] < found["haze"]["groups"][0]["low"]


def test_nothing_to_score():
    with pytest.raises(UserError, match="no image"):
        bias.class_rates(np.empty((0, 3)), [], CLASSES)
    with pytest.raises(UserError, match="no image"):
        bias.accuracy_by_groups(np.empty((0, 3)), [], {})
