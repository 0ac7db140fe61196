"""A class that means "none of these": how well the others are told apart, and how well it is told from them."""

import numpy as np

from tfproject.errors import UserError


def unknown_scores(probabilities, labels, known):
    """Accuracy on the known classes, and how well what is unknown is told from them.

    Both rankings of the images are by what the classifier says anyway: the less sure it is of any known class (after
    Hendrycks and Gimpel 2017), or the more probability it gives to all that is not known, the more an image counts as
    unknown. An area under the ROC curve (AUROC) is the probability that of an unknown and a known image the unknown one
    is ranked higher.

    Args:
        probabilities: float (n, c).
        labels: int (n,), indices of classes.
        known: indices of the known classes; all others are unknown.

    Returns:
        A dict that goes to JSON: known and unknown (how many images of each); known_accuracy, the share of the known
        images whose most probable class is right; known_accuracy_among_known, the same where only the known classes
        can be said; auroc_least_sure, by 1 - the largest probability of a known class; auroc_own, by the probability of
        all that is not known. None where there are no images to tell it from.

    Raises:
        UserError: if no class is known, or the shapes do not match.

    Reference:
        Hendrycks and Gimpel 2017, A baseline for detecting misclassified and out-of-distribution examples in neural
        networks (https://arxiv.org/abs/1610.02136).
    """
    from sklearn.metrics import roc_auc_score

    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    known = np.asarray(known, dtype=np.int64)
    if not len(known):
        raise UserError("No class is known, so there is nothing to tell the unknown from; name at least one.")
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise UserError(
            f"There are probabilities of shape {probabilities.shape} for {len(labels)} labels; a row for each label is "
            "needed."
        )
    is_known = np.isin(labels, known)
    of_known = probabilities[:, known]
    scores = {
        "known": int(is_known.sum()), "unknown": int((~is_known).sum()),
        "known_accuracy": None, "known_accuracy_among_known": None, "auroc_least_sure": None, "auroc_own": None,
    }  # fmt: skip
    if scores["known"]:
        own = labels[is_known]
        scores["known_accuracy"] = float((probabilities[is_known].argmax(axis=1) == own).mean())
        scores["known_accuracy_among_known"] = float((known[of_known[is_known].argmax(axis=1)] == own).mean())
    if scores["known"] and scores["unknown"]:
        scores["auroc_least_sure"] = float(roc_auc_score(~is_known, 1 - of_known.max(axis=1)))
        # The sum of the others rather than 1 - the sum, which rounding makes equal where it is tiny.
        others = np.delete(probabilities, known, axis=1).sum(axis=1)
        scores["auroc_own"] = float(roc_auc_score(~is_known, others)) if len(known) < probabilities.shape[1] else None
    return scores
