"""Scores of a classifier on labelled images, with their uncertainty and the calibration."""

import dataclasses

import numpy as np

from tfproject.errors import UserError
from tfproject.evaluation.prediction import predictor
from tfproject.statistics import wilson

CALIBRATION_BINS = 15  # as in Guo et al. 2017
WORST = 20  # how many top losses are kept
BOOTSTRAP = 2_000  # resampled confusion matrices


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a classifier reaches on n images of c classes; plain numbers, lists and dicts throughout.

    Attributes:
        class_names: the c class names.
        count: n.
        accuracy: the fraction of images whose most probable class is the true one.
        accuracy_interval: [low, high], the 95 % Wilson score interval of the accuracy.
        macro_f1: the mean F1 of the classes that occur among the labels or the predictions.
        balanced_accuracy: the mean recall of the classes that occur among the labels.
        kappa: Cohen's kappa; None where it is undefined, with one class in labels and predictions.
        log_loss: mean of -log(probability of the true class), in nats.
        calibration_error: expected calibration error (see `scores`).
        top2_accuracy: the fraction of images whose true class is among the two most probable ones.
        per_class: for each class {class, precision, recall, f1, support}; 0 where the ratio is undefined.
        confusion: c lists of c counts, rows the true classes, columns the predicted ones.
        reliability: for each bin of the confidence {low, high, count, confidence, accuracy}, the means None if empty.
        top_losses: the images of the largest loss, worst first: {index, name, true, predicted, probability, loss};
            `probability` is that of the predicted class, `index` the row in what was scored.
    """

    class_names: list[str]
    count: int
    accuracy: float
    accuracy_interval: list[float]
    macro_f1: float
    balanced_accuracy: float
    kappa: float | None
    log_loss: float
    calibration_error: float
    top2_accuracy: float
    per_class: list[dict]
    confusion: list[list[int]]
    reliability: list[dict]
    top_losses: list[dict]

    def to_json(self):
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content):
        """The scores from what `to_json` gave."""
        return cls(**content)


def scores(probabilities, labels, class_names, names=None):
    """Score predicted probabilities against labels.

    The expected calibration error puts the images into 15 bins of equal width by their confidence (the probability of
    the predicted class) and takes the mean of |accuracy - mean confidence| of the bins, weighted with their counts.

    Args:
        probabilities: float, shape (n, c); each row is non-negative and sums to 1.
        labels: int, shape (n,), in 0..c-1.
        class_names: c names.
        names: n names of the images, for the list of top losses; their numbers if None.

    Returns:
        Scores.

    Raises:
        UserError: if there are no images, shapes do not match, or the rows are no probabilities.

    Reference:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
        Guo et al. 2017, On calibration of modern neural networks (https://arxiv.org/abs/1706.04599).
    """
    from sklearn import metrics

    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    class_names = list(class_names)
    _check(probabilities, labels, class_names)
    count, class_count = probabilities.shape
    names = [str(i) for i in range(count)] if names is None else names
    classes = np.arange(class_count)

    order = np.argsort(-probabilities, axis=1, kind="stable")
    predicted = order[:, 0]
    correct = predicted == labels
    confidence = probabilities.max(axis=1)
    tiny = np.finfo(np.float64).eps  # keeps the loss finite where the true class got probability 0
    losses = -np.log(np.clip(probabilities[np.arange(count), labels], tiny, 1))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    reliability = _reliability(confidence, correct)
    filled = [b for b in reliability if b["count"]]
    low, high = wilson(int(correct.sum()), count)
    kappa = metrics.cohen_kappa_score(labels, predicted) if len({*labels, *predicted}) > 1 else None

    return Scores(
        class_names=class_names,
        count=count,
        accuracy=float(correct.mean()),
        accuracy_interval=[float(low), float(high)],
        macro_f1=float(metrics.f1_score(labels, predicted, average="macro", zero_division=0)),
        balanced_accuracy=float(recall[support > 0].mean()),
        kappa=None if kappa is None else float(kappa),
        log_loss=float(losses.mean()),
        calibration_error=sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in filled) / count,
        top2_accuracy=float((order[:, :2] == labels[:, None]).any(axis=1).mean()),
        per_class=[
            {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(class_names, precision, recall, f1, support)
        ],
        confusion=metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
        reliability=reliability,
        top_losses=[
            {
                "index": int(i),
                "name": names[i],
                "true": class_names[labels[i]],
                "predicted": class_names[predicted[i]],
                "probability": float(confidence[i]),
                "loss": float(losses[i]),
            }
            for i in np.argsort(-losses, kind="stable")[:WORST]
        ],
    )


def evaluate(model, split, class_names, batch_size=256, views=1):
    """Score a model on a split.

    Args:
        model: a Keras model from float32 RGB images in 0..255 (b, h, w, 3) to class probabilities (b, c).
        split: a `tfproject.data.Split`.
        class_names: c names.
        batch_size: images a step.
        views: how many views of each image are averaged, see `tfproject.evaluation.prediction.VIEWS`.

    Returns:
        Scores.

    Raises:
        UserError: if the split is empty, or the model does not suit the images or the classes.
    """
    if not len(split):
        raise UserError("The split holds no image; choose one that does.")
    found, expected = split.image_shape, tuple(model.input_shape[1:])
    if any(e not in (None, f) for e, f in zip(expected, found, strict=True)):
        raise UserError(
            f"The images are {found[0]}x{found[1]} and the model takes {expected[0]}x{expected[1]}; "
            "load the images with the model's image size."
        )
    batch_size = min(batch_size, len(split))
    predict = predictor(model, found[:2], batch_size, views)
    probabilities = np.concatenate([predict(images) for images, _ in split.batches(batch_size)])
    return scores(probabilities, split.labels, class_names, split.names)


def bootstrap(confusion, seed=0):
    """Cohen's kappa and macro F1 with 95 % intervals from resampled images.

    Args:
        confusion: int (c, c), rows the true classes, columns the predicted ones.
        seed: of the resampling.

    Returns:
        A dict: kappa, macro_f1; kappa_interval, macro_f1_interval: [low, high], percentiles of 2,000 draws. Defined as
        in Scores: a class that is in neither labels nor predictions is left out, and a kappa is NaN where it is
        undefined.
    """
    counts = np.asarray(confusion, float)
    total = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, BOOTSTRAP)
    found = {}
    for name, values in _kappa_and_f1(draws.reshape(-1, *counts.shape).astype(float)).items():
        found[f"{name}_interval"] = np.nanpercentile(values, (2.5, 97.5)).tolist()
    return {name: float(value) for name, (value,) in _kappa_and_f1(counts[None]).items()} | found


def _kappa_and_f1(confusions):
    """Cohen's kappa and macro F1 of many confusion matrices (b, c, c): a dict to two arrays (b,)."""
    hits = np.trace(confusions, axis1=1, axis2=2)
    true, predicted, count = confusions.sum(2), confusions.sum(1), confusions.sum((1, 2))
    by_chance = (true * predicted).sum(1) / count**2
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    with np.errstate(invalid="ignore"):
        kappa = (hits / count - by_chance) / (1 - by_chance)
        f1 = np.nanmean(2 * diagonal / (true + predicted), axis=1)
    return {"kappa": kappa, "macro_f1": f1}


def summary_text(scores):
    """The scores as a table to read: the overall figures, then a line per class."""
    low, high = scores.accuracy_interval
    overall = [
        ("images", f"{scores.count}"),
        ("accuracy", f"{scores.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})"),
        ("top-2 accuracy", f"{scores.top2_accuracy:.2%}"),
        ("balanced accuracy", f"{scores.balanced_accuracy:.2%}"),
        ("macro F1", f"{scores.macro_f1:.4f}"),
        ("Cohen's kappa", "undefined" if scores.kappa is None else f"{scores.kappa:.4f}"),
        ("log loss", f"{scores.log_loss:.4f}"),
        ("calibration error", f"{scores.calibration_error:.4f}"),
    ]
    width = max(len("class"), *(len(name) for name in scores.class_names))
    lines = [f"{name:<18} {value}" for name, value in overall]
    lines += ["", f"{'class':<{width}}  precision  recall      F1  images"]
    lines += [
        f"{row['class']:<{width}}  {row['precision']:>9.4f}  {row['recall']:.4f}  {row['f1']:.4f}  {row['support']:>6}"
        for row in scores.per_class
    ]
    return "\n".join(lines)


def _check(probabilities, labels, class_names):
    if not len(labels):
        raise UserError("There is no image to score; choose a split that holds some.")
    if probabilities.shape != (len(labels), len(class_names)):
        raise UserError(
            f"The model gives outputs of shape {probabilities.shape} for {len(labels)} images of {len(class_names)} "
            "classes; use a model with one output per class of this image set."
        )
    if not np.isfinite(probabilities).all():
        raise UserError(
            "The model gives NaN or infinite values instead of probabilities, as after a training that diverged; "
            "train it again with a smaller learning rate."
        )
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-2):
        raise UserError(
            "The model's outputs are no probabilities, which are not negative and sum to 1 for each image; "
            "end the model with a softmax."
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(
            f"The labels run from {labels.min()} to {labels.max()} and there are {len(class_names)} classes; "
            f"labels from 0 to {len(class_names) - 1} are needed."
        )


def _reliability(confidence, correct):
    """Images by confidence, in bins (low, high] as Guo et al. have them."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.digitize(np.clip(confidence, 0, 1), edges[1:-1], right=True)
    table = []
    for i, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
        inside = bins == i
        table.append(
            {
                "low": float(low),
                "high": float(high),
                "count": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if inside.any() else None,
                "accuracy": float(correct[inside].mean()) if inside.any() else None,
            }
        )
    return table
