"""A linear support vector machine on a network's features."""

import dataclasses
from typing import Any

import numpy as np

from tfproject.errors import UserError

COSTS = tuple(10.0**exponent for exponent in range(-5, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class LinearSVM:
    """A trained one-against-rest linear SVM.

    Attributes:
        pipeline: the scikit-learn Pipeline: features standardised, then LinearSVC.
        cost: the chosen C.
        accuracies: a dict from each C that was tried to its accuracy on what it was chosen by.
    """

    pipeline: Any
    cost: float
    accuracies: dict[float, float]

    def predict(self, features):
        """The class of each row: int (n,)."""
        return self.pipeline.predict(features)

    def probabilities(self, features, class_count):
        """Numbers that rank classes and images as the margins do and sum to 1: the softmax of the margins.

        They are not calibrated: an SVM has no probabilities.

        Args:
            features: float (n, f).
            class_count: number of classes c; one that was not trained gets 0.

        Returns:
            float64 (n, c).
        """
        margins = self.pipeline.decision_function(features)
        if margins.ndim == 1:  # scikit-learn gives one margin where there are two classes
            margins = np.stack([-margins, margins], axis=1)
        exponentials = np.exp(margins - margins.max(axis=1, keepdims=True))
        probabilities = np.zeros((len(margins), class_count))
        probabilities[:, self.pipeline.classes_] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities


def fit_linear_svm(features, labels, val=None, costs=COSTS, seed=0):
    """Train a linear SVM whose cost C is the best of several on validation; of equals the smallest.

    Larger costs are not tried any more once two in a row were worse than the best.

    Args:
        features: float (n, f).
        labels: int (n,).
        val: (features, labels) to choose C by; None for a stratified fifth of the training images, which the final SVM
            is trained with too.
        costs: values of C.
        seed: of the draw and of the solver.

    Returns:
        LinearSVM, trained on all of `features`.

    Raises:
        UserError: if there is but one class, or too few images to set a fifth apart.
    """
    if len(np.unique(labels)) < 2:
        raise UserError("A linear SVM needs images of at least two classes; there is one.")
    kept = (features, labels)
    if val is None:
        from sklearn.model_selection import train_test_split

        try:
            train_x, val_x, train_y, val_y = train_test_split(
                features, labels, test_size=0.2, stratify=labels, random_state=seed
            )
        except ValueError as error:
            raise UserError(
                f"{len(labels)} images are too few to set a fifth of each class apart for the choice of C; give more, "
                "or a validation set."
            ) from error
        kept, val = (train_x, train_y), (val_x, val_y)
    accuracies = {}
    for cost in sorted(costs):
        accuracies[cost] = float(_pipeline(cost, seed, kept[0]).fit(*kept).score(*val))
        if max(accuracies.values()) > max(list(accuracies.values())[-2:]):
            break  # two in a row were worse than the best, and the larger the cost, the longer it takes
    cost = max(accuracies, key=accuracies.get)  # the first of equals
    return LinearSVM(_pipeline(cost, seed, features).fit(features, labels), cost, accuracies)


def _pipeline(cost, seed, features):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    # The dual even where images somewhat outnumber features: for 835 x 512 and C = 10 it took 2 s, the primal 74.
    dual = len(features) < 4 * np.shape(features)[1]
    return make_pipeline(StandardScaler(), LinearSVC(C=cost, dual=dual, max_iter=10_000, random_state=seed))
