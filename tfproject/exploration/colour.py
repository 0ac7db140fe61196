"""The colours of each class, and how far a linear model comes that sees nothing but colours.

All statistics are of an image's pixels as a bag: they stay the same when the pixels are put in another order, so they
know nothing of shape and texture.
"""

import numpy as np

from tfproject.errors import UserError

CHANNELS = ("red", "green", "blue")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BATCH = 512  # images
# Differences of two channels by their sum, as vegetation indices are made. Without near infrared there is no NDVI;
# green against red is its nearest relative in visible light (Tucker 1979, Red and photographic infrared linear
# combinations for monitoring vegetation).
RATIOS = {"green-red": (1, 0), "blue-green": (2, 1), "red-blue": (0, 2)}
STATISTIC_NAMES = (
    *(f"{channel} {kind}" for channel in CHANNELS for kind in ("mean", "deviation", *(f"{q:.0%}" for q in QUANTILES))),
    "red, green correlation", "green, blue correlation", "blue, red correlation",
    "hue cosine", "hue sine", "saturation mean", "saturation deviation",
    *(f"{name} {kind}" for name in RATIOS for kind in ("mean", "deviation")),
)  # fmt: skip


def channel_statistics(images, labels, class_names):
    """Mean and standard deviation of each channel in each class, this parted into that within and that between images.

    Args:
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        class_names: c names.

    Returns:
        A list of dicts, class by class and channel by channel: class, channel ("red", "green", "blue"), images, mean,
        spread (standard deviation of all pixels), within (root mean square of the images' own standard deviations) and
        between (standard deviation of the images' means), in 0..255; spread^2 = within^2 + between^2. A class without
        images has no row.
    """
    means, squares = np.empty((2, len(images), 3))
    for start in range(0, len(images), BATCH):
        pixels = images[start : start + BATCH].astype(np.float32)
        means[start : start + BATCH] = pixels.mean(axis=(1, 2), dtype=np.float64)
        squares[start : start + BATCH] = (pixels**2).mean(axis=(1, 2), dtype=np.float64)
    rows = []
    for label, name in enumerate(class_names):
        own = np.flatnonzero(np.asarray(labels) == label)
        if not len(own):
            continue
        within = np.sqrt(np.maximum(0, squares[own] - means[own] ** 2).mean(axis=0))
        between = means[own].std(axis=0)
        for channel, channel_name in enumerate(CHANNELS):
            rows.append(
                {
                    "class": name,
                    "channel": channel_name,
                    "images": len(own),
                    "mean": float(means[own, channel].mean()),
                    "spread": float(np.hypot(within, between)[channel]),
                    "within": float(within[channel]),
                    "between": float(between[channel]),
                }
            )
    return rows


def colour_histograms(images, labels, class_count, bins=64):
    """How the values of each channel are spread in each class.

    Args:
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        class_count: c.
        bins: of equal width over 0..255; a divisor of 256.

    Returns:
        float64 (c, 3, bins), the share of the class's pixels in each bin; 0 throughout for a class without images.
    """
    if bins < 1 or 256 % bins:
        raise ValueError(f"bins must divide 256, got {bins}")
    counts = np.zeros((class_count, 3, 256), np.int64)
    for label in range(class_count):
        own = np.flatnonzero(np.asarray(labels) == label)
        for start in range(0, len(own), BATCH):
            pixels = images[own[start : start + BATCH]].reshape(-1, 3)
            for channel in range(3):
                counts[label, channel] += np.bincount(pixels[:, channel], minlength=256)
    counts = counts.reshape(class_count, 3, bins, -1).sum(axis=-1)
    return counts / np.maximum(1, counts.sum(axis=-1, keepdims=True))


def colour_statistics(images):
    """Numbers for each image that tell its colours and nothing else, as `STATISTIC_NAMES` lists them.

    Mean, standard deviation and quantiles of each channel; the correlations of the channels; the mean direction on the
    circle of hues, weighted by saturation; mean and standard deviation of the saturation and of ratios of channels.

    Args:
        images: uint8 (n, h, w, 3).

    Returns:
        float32 (n, d), d = len(STATISTIC_NAMES).
    """
    found = [_batch_statistics(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return np.concatenate([np.empty((0, len(STATISTIC_NAMES)), np.float32), *found])


def colour_floor(train_images, train_labels, images, class_count, seed=0):
    """What a linear model says of images from their colour statistics alone: the floor that a network must beat.

    Multinomial logistic regression on standardised statistics; its regularisation is chosen by cross-validation with
    three folds on the training images.

    Args:
        train_images: uint8 (m, h, w, 3).
        train_labels: int (m,).
        images: uint8 (n, h, w, 3), those to classify.
        class_count: c, number of classes.
        seed: of the folds.

    Returns:
        float32 (n, c), probabilities; `evaluation.scores` takes them.

    Raises:
        UserError: if there is no image to classify, or the training images are of one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known, counts = np.unique(train_labels, return_counts=True)
    if len(known) < 2 or not len(images):
        raise UserError(
            f"There are training images of {len(known)} classes and {len(images)} images to classify; a linear model "
            "needs at least two classes and an image."
        )
    # For 18,900 x 34 the default solver has not converged after 1,000 iterations, two minutes; this one has after 9.
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    statistics = colour_statistics(train_images).astype(np.float64)  # in float32 it meets ill-conditioned matrices
    regularisation = 1.0
    if counts.min() >= 3:
        search = GridSearchCV(
            model,
            {"logisticregression__C": [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0]},
            scoring="neg_log_loss",
            cv=StratifiedKFold(3, shuffle=True, random_state=seed),
        )
        regularisation = search.fit(statistics, train_labels).best_params_["logisticregression__C"]
    model.set_params(logisticregression__C=regularisation).fit(statistics, train_labels)
    probabilities = np.zeros((len(images), class_count), np.float32)
    probabilities[:, known] = model.predict_proba(colour_statistics(images).astype(np.float64))
    return probabilities


def _batch_statistics(images):
    pixels = images.reshape(len(images), -1, 3).astype(np.float32)
    means, deviations = pixels.mean(axis=1), pixels.std(axis=1)
    quantiles = np.quantile(pixels, QUANTILES, axis=1).transpose(1, 2, 0)  # (n, 3, quantiles)
    of_channels = np.concatenate([means[..., None], deviations[..., None], quantiles], axis=-1).reshape(len(images), -1)

    centred = pixels - means[:, None]
    products = (centred * np.roll(centred, -1, axis=2)).mean(axis=1)  # red green, green blue, blue red
    correlations = products / np.maximum(deviations * np.roll(deviations, -1, axis=1), 1e-6)

    largest = pixels.max(axis=2)
    chroma = largest - pixels.min(axis=2)
    saturation = chroma / np.maximum(largest, 1)
    # Red, green and blue as three directions a third of the circle apart; the length is nearly the chroma.
    red, green, blue = pixels.transpose(2, 0, 1)
    hue = np.stack([red - (green + blue) / 2, (green - blue) * np.sqrt(3) / 2]).mean(axis=2) / 255

    ratios = [
        (pixels[..., a] - pixels[..., b]) / np.maximum(pixels[..., a] + pixels[..., b], 1) for a, b in RATIOS.values()
    ]
    singles = [*hue, saturation.mean(axis=1), saturation.std(axis=1)]
    singles += [value for ratio in ratios for value in (ratio.mean(axis=1), ratio.std(axis=1))]
    return np.concatenate([of_channels, correlations, np.stack(singles, axis=1)], axis=1).astype(np.float32)
