"""Confused classes, what sets confused images apart, and labels that are wrong: all planted."""

import numpy as np
import pytest
from scipy import stats

from tfproject.errors import UserError
from tfproject.evaluation import confusions
from tfproject.exploration import WORDS

CLASSES = ("River", "Highway", "Forest")
LABELS = np.repeat([0, 1, 2], (40, 50, 30))


def answers():
    """8 rivers as highways, 3 highways as rivers, 1 highway as forest."""
    found = LABELS.copy()
    found[:8], found[40:43], found[43] = 1, 0, 2
    return found


def sure(given):
    return np.eye(3)[given] * 0.85 + 0.05


def test_the_hardest_class_is_the_first():
    rows = confusions.hardest_classes(sure(answers()), LABELS, CLASSES)
    assert [row["class"] for row in rows] == ["River", "Highway", "Forest"]
    assert rows[0]["recall"] == 32 / 40 and rows[0]["errors"] == 8 and rows[0]["taken_for"] == {"Highway": 8}
    assert list(rows[1]["taken_for"].items()) == [("River", 3), ("Forest", 1)]
    expected = stats.binomtest(32, 40).proportion_ci(0.95, method="wilson")
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((expected.low, expected.high))
    assert rows[2]["taken_for"] == {} and rows[2]["high"] == 1


def test_a_class_without_images_is_left_out():
    rows = confusions.hardest_classes(sure([0, 1]), [0, 1], CLASSES)
    assert {row["class"] for row in rows} == {"River", "Highway"}


def test_pairs_count_both_ways():
    first, second = confusions.confused_pairs(sure(answers()), LABELS, CLASSES)
    assert (first["first"], first["second"], first["errors"], first["rate"]) == ("River", "Highway", 11, 11 / 90)
    assert (first["first_as_second"]["hits"], first["first_as_second"]["count"]) == (8, 40)
    assert (first["second_as_first"]["hits"], first["second_as_first"]["count"]) == (3, 50)
    assert first["share_of_errors"] == pytest.approx(11 / 12)
    assert (second["first"], second["second"], second["errors"]) == ("Highway", "Forest", 1)


def planted(seed=0, shift=0.3):
    """600 rivers and 300 highways; the 40 rivers taken for highways are brighter, as the highways are."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], (600, 300))
    given = labels.copy()
    given[:40] = 1
    statistics = {name: random.normal(0.4, 0.1, 900) for name in ("brightness", "haze", "contrast")}
    statistics["brightness"][:40] += shift
    statistics["brightness"][600:] += 0.35
    return statistics, sure(given), labels


def test_what_sets_the_confused_apart_is_found_and_nothing_else():
    statistics, probabilities, labels = planted()
    rows = confusions.what_distinguishes(statistics, probabilities, labels, 0, 1)
    assert rows[0]["statistic"] == "brightness" and rows[0]["p_corrected"] < 1e-6 and rows[0]["towards"]
    assert all(row["p_corrected"] > 0.05 for row in rows[1:])
    values = statistics["brightness"]
    pairs = np.sign(values[:40, None] - values[None, 40:600])
    assert rows[0]["effect"] == pytest.approx(pairs.mean())
    assert (rows[0]["confused"], rows[0]["right"]) == (40, 560)
    assert rows[0]["confused_median"] == np.median(values[:40])
    assert rows[0]["other_median"] == np.median(values[600:])
    assert rows[0]["p_corrected"] == pytest.approx(min(1, 3 * rows[0]["p"]))


def test_no_difference_is_seldom_claimed():
    found = [confusions.what_distinguishes(*planted(seed, shift=0), 0, 1) for seed in range(200)]
    assert np.mean([any(row["p_corrected"] < 0.05 for row in rows) for rows in found]) < 0.09


def test_the_sentence_says_what_the_numbers_say():
    rows = confusions.what_distinguishes(*planted(), 0, 1)
    text = confusions.describe_confusion(rows, "River", "Highway", WORDS)
    assert text.startswith("The 40 images of River taken for Highway are much brighter (median ")
    assert f"median {rows[0]['confused_median']:.3g} against {rows[0]['right_median']:.3g}" in text
    assert "nearer to Highway" in text and "p below 0.001" in text and "haz" not in text
    darker = confusions.what_distinguishes(*planted(shift=-0.3), 0, 1)
    text = confusions.describe_confusion(darker, "River", "Highway", WORDS)
    assert "much darker" in text and "nearer" not in text
    assert "much lower in brightness" in confusions.describe_confusion(darker, "River", "Highway")


def test_the_sentence_admits_what_it_cannot_tell():
    rows = confusions.what_distinguishes(*planted(shift=0), 0, 1)
    assert "In none of 3 statistics" in confusions.describe_confusion(rows, "River", "Highway", WORDS)
    statistics, probabilities, labels = planted(shift=0)
    probabilities[3:40] = sure([0])
    rows = confusions.what_distinguishes(statistics, probabilities, labels, 0, 1)
    assert "from so few" in confusions.describe_confusion(rows, "River", "Highway", WORDS)
    assert confusions.what_distinguishes(statistics, probabilities, labels, 1, 0) == []
    assert "No image" in confusions.describe_confusion([], "Highway", "River", WORDS)


def noisy(seed=0, models=3, wrong=12):
    """Three models that are mostly right, and labels of which the first 12 are wrong."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, 600)
    labels = truth.copy()
    labels[:wrong] = (truth[:wrong] + 1) % 3
    logits = 4 * np.eye(3)[truth] + random.normal(size=(models, 600, 3))
    logits[:, :wrong] += 3 * np.eye(3)[truth[:wrong]]  # clear pictures of what they really are
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return probabilities, labels, truth


def test_planted_wrong_labels_rank_first_with_the_right_suggestion():
    probabilities, labels, truth = noisy()
    found = confusions.label_noise(probabilities, labels, CLASSES)
    first = found["candidates"][:12]
    assert {row["index"] for row in first} == set(range(12))
    assert all(row["suggested"] == CLASSES[truth[row["index"]]] for row in first)
    assert all(row["given"] == CLASSES[labels[row["index"]]] for row in first)
    assert [row["rank"] for row in first] == list(range(1, 13))
    keys = [(-row["models"], -row["margin"]) for row in found["candidates"]]
    assert keys == sorted(keys)
    assert found["share"]["hits"] == len(found["candidates"]) < 20
    assert found["share"]["low"] < 12 / 600 < found["share"]["high"]


def test_thresholds_are_the_mean_probability_of_the_class_for_its_own_images():
    probabilities, labels, _ = noisy(models=1)
    found = confusions.label_noise(probabilities, labels, (*CLASSES[:2], "Forest"))
    for label in range(3):
        assert found["thresholds"][0][label] == pytest.approx(probabilities[0, labels == label, label].mean())
    empty = confusions.label_noise(probabilities[:, labels < 2], labels[labels < 2], CLASSES)
    assert empty["thresholds"][0][2] is None
    assert all(row["suggested"] != "Forest" for row in empty["candidates"])


def test_one_model_of_three_is_not_enough():
    probabilities = np.tile(sure([0, 0, 0, 1, 1, 1, 2, 2]), (3, 1, 1))
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    probabilities[0, 0] = sure([1])[0]
    assert confusions.label_noise(probabilities, labels, CLASSES)["candidates"] == []
    probabilities[1, 0] = sure([1])[0]
    (row,) = confusions.label_noise(probabilities, labels, CLASSES)["candidates"]
    assert (row["index"], row["suggested"], row["models"]) == (0, "Highway", 2)


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match="models, images, classes"):
        confusions.label_noise(np.ones((4, 3)), np.zeros(4, int), CLASSES)
    with pytest.raises(UserError, match="no image"):
        confusions.confused_pairs(np.empty((0, 3)), [], CLASSES)
