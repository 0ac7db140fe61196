"""Probabilities that mean what they say: temperature scaling, and when a classifier had better abstain."""

import numpy as np

from tfproject.errors import UserError
from tfproject.evaluation.scores import scores
from tfproject.statistics import share

TINY = 1e-45  # probabilities below it, the least of float32, count as it
TEMPERATURES = (0.02, 50)
RESAMPLES = 1000


def fit_temperature(probabilities, labels):
    """The temperature that makes the true classes most probable.

    A softmax's logits are its log-probabilities but for a constant in each row, which it does not notice, so
    probabilities are all that is needed.

    Args:
        probabilities: float (n, c), of images that the model was not trained on and is not tested on.
        labels: int (n,).

    Returns:
        A float in 0.02..50: above 1 where the classifier is too sure of itself.

    Raises:
        UserError: if there is no image.

    Reference:
        Guo et al. 2017, On calibration of modern neural networks (https://arxiv.org/abs/1706.04599).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not len(labels):
        raise UserError("There is no image to fit a temperature on; give validation images.")
    logits = _logits(probabilities)
    own = logits[np.arange(len(labels)), labels]

    def loss(log_temperature):
        scale = np.exp(-log_temperature)
        return (logsumexp(logits * scale, axis=1) - own * scale).mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def apply_temperature(probabilities, temperature):
    """Probabilities whose logits are divided by a temperature.

    Args:
        probabilities: float (n, c).
        temperature: above 0.

    Returns:
        float64 (n, c); the most probable class stays the same.
    """
    from scipy.special import softmax

    return softmax(_logits(probabilities) / temperature, axis=1)


def brier_score(probabilities, labels):
    """The mean squared distance of the probabilities from the truth, summed over the classes: 0..2 (Brier 1950)."""
    return float(_squared_distances(np.asarray(probabilities, np.float64), labels).mean())


def temperature_scaling(validation, validation_labels, test, test_labels, class_names, seed=0):
    """Fit a temperature on validation images, and score test images before and after it.

    Args:
        validation: float (m, c) probabilities.
        validation_labels: int (m,).
        test: float (n, c) probabilities.
        test_labels: int (n,).
        class_names: c names.
        seed: of the bootstrap.

    Returns:
        A dict: temperature; before and after, each with calibration_error (see `scores`), log_loss, brier, confidence
        (mean), accuracy and reliability (bins, as `Scores` has them); and change, for the first three after - before
        with a 95 % percentile interval of 1,000 paired bootstrap resamples, as [change, low, high].

    Raises:
        UserError: if a set is empty or the rows are no probabilities.
    """
    temperature = fit_temperature(validation, validation_labels)
    test_labels = np.asarray(test_labels)
    # Of both by the same way, so that at a temperature of 1 nothing changes.
    test, scaled = apply_temperature(test, 1.0), apply_temperature(test, temperature)
    found = {"temperature": temperature}
    parts = {}
    for name, probabilities in (("before", test), ("after", scaled)):
        whole = scores(probabilities, test_labels, class_names)
        found[name] = {
            "calibration_error": whole.calibration_error,
            "log_loss": whole.log_loss,
            "brier": brier_score(probabilities, test_labels),
            "confidence": float(probabilities.max(axis=1).mean()),
            "accuracy": whole.accuracy,
            "reliability": whole.reliability,
        }
        own = probabilities[np.arange(len(test_labels)), test_labels]
        excess = (probabilities.argmax(axis=1) == test_labels) - probabilities.max(axis=1)
        edges = np.array([b["low"] for b in whole.reliability[1:]])
        bins = np.digitize(probabilities.max(axis=1), edges, right=True)
        parts[name] = (
            bins,
            excess,
            -np.log(np.clip(own, np.finfo(float).eps, 1)),
            _squared_distances(probabilities, test_labels),
        )
    random = np.random.default_rng(seed)
    changes = np.empty((RESAMPLES, 3))
    for i in range(RESAMPLES):
        drawn = random.integers(0, len(test_labels), len(test_labels))
        changes[i] = np.subtract(*(_resampled(parts[name], drawn) for name in ("after", "before")))
    found["change"] = {
        name: [found["after"][name] - found["before"][name], *np.percentile(values, (2.5, 97.5)).tolist()]
        for name, values in zip(("calibration_error", "log_loss", "brier"), changes.T)
    }
    return found


def risk_coverage(probabilities, labels):
    """The share of errors among the images that are answered, when the least sure ones are left out first.

    Args:
        probabilities: float (n, c).
        labels: int (n,).

    Returns:
        A dict: coverage (1/n .. 1) and risk, float64 (n,) each, in 0..1; threshold, float64 (n,), the confidence of the
        least sure image answered; aurc, the mean risk over all coverages (the area under this risk-coverage curve);
        best_aurc, that of a classifier with the same errors that is least sure of exactly these. Images of equal
        confidence count with their mean error, as if they came in a random order.

    Raises:
        UserError: if there is no image.

    Reference:
        El-Yaniv & Wiener 2010, On the foundations of noise-free selective classification (JMLR 11); Geifman, Uziel &
        El-Yaniv 2019, Bias-reduced uncertainty estimation for deep neural classifiers
        (https://arxiv.org/abs/1805.08206), for the area and the best one.
    """
    confidence, correct = _answers(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, errors = confidence[order], (~correct[order]).astype(np.float64)
    count = np.arange(1, len(errors) + 1)
    _, group = np.unique(-confidence, return_inverse=True)
    errors = (np.bincount(group, errors) / np.bincount(group))[group]
    risk = np.cumsum(errors) / count
    best = np.cumsum(np.sort(~correct)) / count
    return {
        "coverage": count / len(errors),
        "risk": risk,
        "threshold": confidence,
        "aurc": float(risk.mean()),
        "best_aurc": float(best.mean()),
    }


def choose_threshold(probabilities, labels, accuracy):
    """The lowest confidence to answer from that gives the wanted accuracy among the images answered.

    Chosen on the very images it is then kept to, it is a little hopeful: what it gives on others is `abstention`'s.

    Args:
        probabilities: float (n, c), of validation images.
        labels: int (n,).
        accuracy: wanted, in 0..1.

    Returns:
        A float in 0..1, or None where no threshold gives it.
    """
    curve = risk_coverage(probabilities, labels)
    # Images of equal confidence are answered together: only the last of them is a choice.
    last = np.append(curve["threshold"][:-1] > curve["threshold"][1:], True)
    enough = np.flatnonzero(last & (curve["risk"] <= 1 - accuracy + 1e-12))
    return float(curve["threshold"][enough[-1]]) if len(enough) else None


def abstention(probabilities, labels, threshold):
    """What happens when the classifier answers only where its confidence is at least a threshold.

    Args:
        probabilities: float (n, c).
        labels: int (n,).
        threshold: a confidence in 0..1.

    Returns:
        A dict: threshold, coverage and accuracy (of the images answered), each {hits, count, share, low, high} with a
        95 % Wilson interval; abstained_accuracy, the same of the images left out: how often it would have been right.
    """
    confidence, correct = _answers(probabilities, labels)
    answered = confidence >= threshold
    return {
        "threshold": float(threshold),
        "coverage": share(answered.sum(), len(answered)),
        "accuracy": share(correct[answered].sum(), answered.sum()),
        "abstained_accuracy": share(correct[~answered].sum(), (~answered).sum()),
    }


def abstention_table(validation, validation_labels, test, test_labels, wanted=(0.99, 0.995, 0.999)):
    """Thresholds chosen on validation images for wanted accuracies, and what they give on test images.

    Args:
        validation: float (m, c) probabilities.
        validation_labels: int (m,).
        test: float (n, c) probabilities.
        test_labels: int (n,).
        wanted: accuracies in 0..1.

    Returns:
        A list of dicts: wanted, threshold; validation and test, what `abstention` gives; all None where no threshold
        gives the accuracy on the validation images.
    """
    rows = []
    for accuracy in wanted:
        threshold = choose_threshold(validation, validation_labels, accuracy)
        on = [
            None if threshold is None else abstention(*images, threshold)
            for images in ((validation, validation_labels), (test, test_labels))
        ]
        rows.append({"wanted": accuracy, "threshold": threshold, "validation": on[0], "test": on[1]})
    return rows


def _logits(probabilities):
    return np.log(np.maximum(np.asarray(probabilities, np.float64), TINY))


def _answers(probabilities, labels):
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if not len(labels):
        raise UserError("There is no image to score; choose a split that holds some.")
    return probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels


def _squared_distances(probabilities, labels):
    truth = np.eye(probabilities.shape[1])[np.asarray(labels)]
    return ((probabilities - truth) ** 2).sum(axis=1)


def _resampled(parts, drawn):
    bins, excess, losses, distances = (part[drawn] for part in parts)
    return np.array([np.abs(np.bincount(bins, excess)).sum() / len(drawn), losses.mean(), distances.mean()])
