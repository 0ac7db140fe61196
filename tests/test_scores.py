"""Scores against scikit-learn, published numbers and cases made by hand; evaluation of a real model."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics

from tfproject import evaluation
from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.evaluation import Scores, scores, summary_text

CLASSES = ("river", "forest", "sea", "road")


@pytest.fixture
def random_case():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    logits = generator.normal(size=(300, 4)) + 1.5 * np.eye(4)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def sure(predicted, class_count=4):
    return np.eye(class_count)[predicted]


def test_agrees_with_scikit_learn(random_case):
    probabilities, labels = random_case
    predicted = probabilities.argmax(axis=1)
    result = scores(probabilities.astype(np.float32), labels, CLASSES)
    assert result.accuracy == metrics.accuracy_score(labels, predicted)
    assert result.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert result.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert result.kappa == pytest.approx(metrics.cohen_kappa_score(labels, predicted))
    assert result.log_loss == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    assert result.top2_accuracy == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=2))
    assert result.confusion == metrics.confusion_matrix(labels, predicted).tolist()
    report = metrics.classification_report(labels, predicted, target_names=CLASSES, output_dict=True)
    for row in result.per_class:
        expected = report[row["class"]]
        assert row["precision"] == pytest.approx(expected["precision"])
        assert row["recall"] == pytest.approx(expected["recall"])
        assert row["f1"] == pytest.approx(expected["f1-score"])
        assert row["support"] == expected["support"]


def test_the_bootstrap_s_intervals_are_as_wide_as_they_should_be():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 400)
    said = np.where(random.uniform(size=400) < 0.8, labels, random.integers(0, 4, 400))
    result = scores(np.eye(4)[said], labels, tuple("abcd"))
    found = evaluation.bootstrap(result.confusion)
    low, high = found["kappa_interval"]
    by_chance = sum((labels == c).mean() * (said == c).mean() for c in range(4))
    error = 1.96 * np.sqrt(result.accuracy * (1 - result.accuracy) / 400) / (1 - by_chance)  # Cohen's own
    assert (result.kappa - low, high - result.kappa) == pytest.approx((error, error), rel=0.15)


def test_the_bootstrap_has_the_scores_definitions_where_a_class_is_absent():
    labels = np.array([0] * 40 + [1] * 40 + [2] * 40)
    predicted = np.where(np.arange(120) % 5 == 0, (labels + 1) % 3, labels)
    result = scores(sure(predicted), labels, CLASSES)  # there is no road
    found = evaluation.bootstrap(result.confusion)
    for name in ("macro_f1", "kappa"):
        low, high = found[f"{name}_interval"]
        assert found[name] == pytest.approx(getattr(result, name)) and low < found[name] < high


@pytest.mark.parametrize(
    "right, count, low, high",
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_has_the_published_values(right, count, low, high):
    predicted = np.array([0] * right + [1] * (count - right))
    result = scores(sure(predicted), np.zeros(count, int), CLASSES)
    assert result.accuracy_interval == pytest.approx([low, high], abs=5e-5)


def test_confusion_has_true_classes_in_rows():
    result = scores(sure([1, 1, 0]), [0, 0, 0], CLASSES)
    assert result.confusion[0] == [1, 2, 0, 0]


def test_calibration_error_of_a_made_case():
    # Ten images at 0.9 of which 6 are right, ten at 0.5 of which 5 are: (10 * 0.3 + 10 * 0) / 20.
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.5, 0.5]] * 10)
    labels = [0] * 6 + [1] * 4 + [0] * 5 + [1] * 5
    result = scores(probabilities, labels, ("a", "b"))
    assert result.calibration_error == pytest.approx(0.15)
    assert len(result.reliability) == 15
    filled = [b for b in result.reliability if b["count"]]
    assert [(b["count"], b["accuracy"]) for b in filled] == [(10, 0.5), (10, 0.6)]
    assert [b["confidence"] for b in filled] == pytest.approx([0.5, 0.9])
    assert all(b["low"] < b["confidence"] <= b["high"] for b in filled)


def test_full_confidence_falls_into_the_last_bin():
    result = scores(sure([0, 1]), [0, 1], CLASSES)
    assert result.reliability[-1]["count"] == 2
    assert result.calibration_error == 0


def test_top_losses_are_the_worst_first(random_case):
    probabilities, labels = random_case
    names = [f"image-{i}" for i in range(300)]
    result = scores(probabilities, labels, CLASSES, names)
    losses = -np.log(probabilities[np.arange(300), labels])
    assert len(result.top_losses) == 20
    assert [row["loss"] for row in result.top_losses] == pytest.approx(sorted(losses, reverse=True)[:20])
    worst = result.top_losses[0]
    i = losses.argmax()
    assert (worst["index"], worst["name"]) == (i, f"image-{i}")
    assert (worst["true"], worst["predicted"]) == (CLASSES[labels[i]], CLASSES[probabilities[i].argmax()])
    assert worst["probability"] == pytest.approx(probabilities[i].max())


def test_absent_classes_and_a_single_class_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        some = scores(sure([0, 1, 3, 1]), [0, 1, 1, 1], CLASSES)
        one = scores(sure([0, 0]), [0, 0], CLASSES)
    assert [row["support"] for row in some.per_class] == [1, 3, 0, 0]
    assert some.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert some.macro_f1 == pytest.approx((1 + 0.8 + 0) / 3)  # "road" was predicted, "sea" does not occur
    assert one.kappa is None and one.accuracy == 1


def test_probability_zero_for_the_true_class_gives_a_finite_loss():
    assert np.isfinite(scores(sure([1]), [0], CLASSES).log_loss)


def test_json_round_trip(random_case):
    result = scores(*random_case, CLASSES)
    assert Scores.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_summary_names_the_figures(random_case):
    result = scores(*random_case, CLASSES)
    text = summary_text(result)
    low, high = result.accuracy_interval
    assert f"{result.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})" in text
    lines = text.splitlines()[-4:]
    assert [line.split()[0] for line in lines] == list(CLASSES)
    assert len({len(line) for line in lines}) == 1
    for line, row in zip(lines, result.per_class):
        assert [float(word) for word in line.split()[1:]] == [
            pytest.approx(row[key], abs=5e-5) for key in ("precision", "recall", "f1", "support")
        ]


@pytest.mark.parametrize(
    "probabilities, labels, message",
    [
        (np.empty((0, 4)), [], "no image"),
        (sure([0, 1], 3), [0, 1], "outputs of shape"),
        ([[np.nan] * 4], [0], "NaN"),
        ([[2.0, -1.0, 0.0, 0.0]], [0], "softmax"),
        ([[3.0, 1.0, 0.0, 0.5]], [0], "softmax"),
        (sure([0]), [4], "labels"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_sentence(probabilities, labels, message):
    with pytest.raises(UserError, match=message) as error:
        scores(probabilities, labels, CLASSES)
    text = str(error.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(6, 3, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(image, keras.layers.Dense(4, activation="softmax", kernel_initializer="he_normal")(x))


def random_split(count, size=8):
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, generator.integers(0, 4, count), tuple(f"{i}.png" for i in range(count)))


def test_evaluate_scores_what_the_model_predicts(model, capfd):
    split = random_split(37)  # not a multiple of the batch size
    result = evaluation.evaluate(model, split, CLASSES, batch_size=16)
    expected = scores(model.predict(split.images.astype("float32"), verbose=0), split.labels, CLASSES, split.names)
    assert result.confusion == expected.confusion
    assert result.log_loss == pytest.approx(expected.log_loss, rel=1e-4)
    assert result.top_losses[0]["name"] == expected.top_losses[0]["name"]
    assert capfd.readouterr().out == ""


def test_eight_views_do_not_change_when_the_image_is_turned_or_mirrored(model):
    split = random_split(12)
    plain = evaluation.evaluate(model, split, CLASSES)
    views = evaluation.evaluate(model, split, CLASSES, views=8)
    assert views.log_loss != pytest.approx(plain.log_loss, rel=1e-3)
    for changed in (np.rot90(split.images, axes=(1, 2)), split.images[:, :, ::-1], split.images.transpose(0, 2, 1, 3)):
        turned = Split(np.ascontiguousarray(changed), split.labels, split.names)
        assert evaluation.evaluate(model, turned, CLASSES, views=8).log_loss == pytest.approx(views.log_loss, rel=1e-4)
        assert evaluation.evaluate(model, turned, CLASSES).log_loss != pytest.approx(plain.log_loss, rel=1e-4)


def test_evaluate_refuses_what_does_not_fit(model):
    with pytest.raises(UserError, match="holds no image"):
        evaluation.evaluate(model, random_split(0), CLASSES)
    with pytest.raises(UserError, match="images are 9x9 and the model takes 8x8"):
        evaluation.evaluate(model, random_split(3, size=9), CLASSES)
    with pytest.raises(UserError, match="5 classes"):
        evaluation.evaluate(model, random_split(3), (*CLASSES, "more"))
    with pytest.raises(UserError, match="views is 3"):
        evaluation.evaluate(model, random_split(3), CLASSES, views=3)
