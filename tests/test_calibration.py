"""Temperature scaling and abstention, on probabilities whose true calibration is known."""

import numpy as np
import pytest
from scipy.special import softmax

from tfproject.errors import UserError
from tfproject.evaluation import calibration
from tfproject.evaluation.scores import scores

CLASSES = ("a", "b", "c")


def honest(count, seed, strength=2.0):
    """Probabilities that mean what they say: the labels are drawn from them."""
    random = np.random.default_rng(seed)
    probabilities = softmax(strength * random.normal(size=(count, 3)), axis=1)
    labels = (random.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    return probabilities, labels


def sharpened(probabilities, temperature):
    return softmax(np.log(probabilities) * temperature, axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0, 10.0])
def test_the_planted_temperature_is_found(temperature):
    probabilities, labels = honest(8000, 0)
    found = calibration.fit_temperature(sharpened(probabilities, temperature), labels)
    assert found == pytest.approx(temperature, rel=0.06)


def test_applying_a_temperature_undoes_the_sharpening():
    probabilities, _ = honest(50, 1)
    undone = calibration.apply_temperature(sharpened(probabilities, 2.5), 2.5)
    np.testing.assert_allclose(undone, probabilities, atol=1e-7)


def test_scaling_repairs_a_classifier_that_is_too_sure():
    (val, val_labels), (test, test_labels) = honest(4000, 2), honest(4000, 3)
    found = calibration.temperature_scaling(
        sharpened(val, 3), val_labels, sharpened(test, 3).astype(np.float32), test_labels, CLASSES
    )
    before, after = found["before"], found["after"]
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert before["calibration_error"] > 0.1 and after["calibration_error"] < 0.03
    assert after["log_loss"] < before["log_loss"] and after["brier"] < before["brier"]
    assert before["accuracy"] == after["accuracy"] == (test.argmax(axis=1) == test_labels).mean()
    for name, (change, low, high) in found["change"].items():
        assert change == pytest.approx(after[name] - before[name]) and low < change < high < 0
    # The change's interval is of the same images before and after: for the log loss, that of a mean of differences.
    scaled = sharpened(test, 3 / found["temperature"])
    own = [-np.log(p[np.arange(4000), test_labels]) for p in (scaled, sharpened(test, 3))]
    error = 1.96 * (own[0] - own[1]).std() / np.sqrt(4000)
    change, low, high = found["change"]["log_loss"]
    assert (change - low, high - change) == pytest.approx((error, error), rel=0.1)


def test_an_honest_classifier_is_not_changed_demonstrably():
    (val, val_labels), (test, test_labels) = honest(4000, 4), honest(2000, 5)
    found = calibration.temperature_scaling(val, val_labels, test, test_labels, CLASSES)
    _, low, high = found["change"]["log_loss"]
    assert low < 0.001 and high > -0.001 and abs(found["temperature"] - 1) < 0.08


def test_the_resampled_numbers_are_those_of_the_scores():
    probabilities, labels = honest(300, 6)
    drawn = np.arange(300)
    whole = scores(probabilities, labels, CLASSES)
    edges = np.linspace(0, 1, 16)[1:-1]
    parts = (
        np.digitize(probabilities.max(axis=1), edges, right=True),
        (probabilities.argmax(axis=1) == labels) - probabilities.max(axis=1),
        -np.log(probabilities[drawn, labels]),
        ((probabilities - np.eye(3)[labels]) ** 2).sum(axis=1),
    )
    expected = (whole.calibration_error, whole.log_loss, calibration.brier_score(probabilities, labels))
    np.testing.assert_allclose(calibration._resampled(parts, drawn), expected)


def test_brier_score_by_hand():
    assert calibration.brier_score([[0.5, 0.5], [1, 0]], [0, 1]) == pytest.approx((0.5 + 2) / 2)


def test_risk_coverage_by_hand():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = calibration.risk_coverage(probabilities, np.array([0, 1, 0, 0]))  # the second surest is wrong
    np.testing.assert_allclose(found["coverage"], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found["risk"], [0, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(found["threshold"], confidence)
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["best_aurc"] == pytest.approx((1 / 4) / 4)


def test_the_order_of_equally_sure_images_does_not_matter():
    probabilities = np.tile([0.8, 0.2], (6, 1))
    labels = np.array([0, 0, 0, 0, 1, 1])
    for order in (np.arange(6), np.arange(6)[::-1]):
        found = calibration.risk_coverage(probabilities[order], labels[order])
        np.testing.assert_allclose(found["risk"], 1 / 3)


def test_sorting_by_confidence_beats_chance_only_where_it_says_something():
    probabilities, labels = honest(3000, 7)
    error = (probabilities.argmax(axis=1) != labels).mean()
    informed = calibration.risk_coverage(probabilities, labels)
    assert informed["best_aurc"] < informed["aurc"] < 0.6 * error
    mixed = np.random.default_rng(0).permutation(labels)
    blind = calibration.risk_coverage(probabilities, mixed)
    assert blind["aurc"] == pytest.approx((probabilities.argmax(axis=1) != mixed).mean(), abs=0.03)


def test_the_threshold_is_the_lowest_that_gives_the_accuracy():
    probabilities, labels = honest(500, 8)
    found = calibration.choose_threshold(probabilities, labels, 0.9)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    enough = [t for t in confidence if correct[confidence >= t].mean() >= 0.9]
    assert found == min(enough)
    assert calibration.choose_threshold([[0.9, 0.1]], [1], 0.9) is None


def test_equally_sure_images_are_answered_together():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2]])
    assert calibration.choose_threshold(probabilities, np.array([0, 0, 1]), 0.99) == 0.9


def test_abstention_counts():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    found = calibration.abstention(probabilities, np.array([0, 1, 0, 0]), 0.7)
    assert (found["coverage"]["hits"], found["coverage"]["count"]) == (3, 4)
    assert (found["accuracy"]["hits"], found["accuracy"]["count"]) == (1, 3)
    assert found["abstained_accuracy"]["share"] == 1
    assert calibration.abstention(probabilities, np.zeros(4, int), 1.0)["accuracy"]["share"] is None


def test_a_threshold_from_validation_keeps_what_it_promises_on_test():
    (val, val_labels), (test, test_labels) = honest(6000, 9, 4), honest(6000, 10, 4)
    rows = calibration.abstention_table(val, val_labels, test, test_labels, wanted=(0.9, 0.95))
    for row in rows:
        assert row["validation"]["accuracy"]["share"] >= row["wanted"]
        assert row["test"]["accuracy"]["low"] - 0.01 < row["wanted"] < row["test"]["accuracy"]["high"] + 0.01
        assert row["test"]["coverage"]["share"] > 0.5
    assert rows[0]["threshold"] < rows[1]["threshold"]
    (row,) = calibration.abstention_table([[0.9, 0.1]], [1], test, test_labels, wanted=(0.9,))
    assert row == {"wanted": 0.9, "threshold": None, "validation": None, "test": None}


def test_nothing_to_score():
    empty = np.empty((0, 3))
    with pytest.raises(UserError, match="no image"):
        calibration.fit_temperature(empty, [])
    with pytest.raises(UserError, match="no image"):
        calibration.risk_coverage(empty, [])
