"""How a classifier stands images that are noisier, blurred, compressed, brighter, turned or scaled."""

import io

import numpy as np

from tfproject.errors import UserError
from tfproject.statistics import paired_difference, wilson

# For each severity from 1 to 5. Noise, blur, JPEG, brightness and contrast are as Hendrycks & Dietterich have them for
# 64x64 images (Tiny ImageNet-C); the others are our own.
SEVERITIES = {
    "noise": (0.04, 0.08, 0.12, 0.15, 0.18),
    "blur": (0.5, 0.75, 1.0, 1.25, 1.5),
    "JPEG": (65, 58, 50, 40, 25),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "darkness": (0.85, 0.7, 0.55, 0.4, 0.25),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "haze": (0.1, 0.2, 0.35, 0.5, 0.65),
    "rotation": (5, 10, 20, 30, 45),
    "scale": (1.1, 1.2, 1.35, 1.5, 1.75),
}
MEANING = {
    "noise": "Gaussian noise, its standard deviation by the range of values",
    "blur": "Gaussian blur, its standard deviation in pixels",
    "JPEG": "JPEG compression, its quality",
    "brightness": "added to the value of hue, saturation and value, of 1",
    "darkness": "factor of all values",
    "contrast": "factor of each channel's differences from its mean",
    "haze": "share of white light in a mixture with the image",
    "rotation": "degrees, to the left or right",
    "scale": "factor, larger or smaller",
}


def corrupt(images, corruption, severity, seed=0, first=0):
    """Images made worse.

    Args:
        images: uint8 (n, h, w, 3).
        corruption: a name from `SEVERITIES`. A rotated or smaller image is continued beyond its edge by its reflection.
        severity: 1 (weak) to 5.
        seed: of noise and directions; each image has its own from the seed and its number.
        first: the first image's number, so that batches give what the whole would.

    Returns:
        uint8 (n, h, w, 3).

    Raises:
        UserError: if there is no such corruption or severity.

    Reference:
        Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and perturbations
        (https://arxiv.org/abs/1903.12261).
    """
    if corruption not in SEVERITIES:
        raise UserError(f"There is no corruption '{corruption}'; give one of {', '.join(SEVERITIES)}.")
    if severity not in range(1, 6):
        raise UserError(f"The severity is {severity}; give a whole number from 1 to 5.")
    strength = SEVERITIES[corruption][severity - 1]
    change = _CHANGES[corruption]
    number = tuple(SEVERITIES).index(corruption)
    found = np.empty_like(images)
    for i, image in enumerate(images):
        found[i] = change(image, strength, np.random.default_rng((seed, number, severity, first + i)))
    return found


def robustness(predict, images, labels, corruptions=tuple(SEVERITIES), batch_size=256, seed=0):
    """The accuracy on images made worse in several ways at five severities.

    Args:
        predict: a function from uint8 images (b, h, w, 3), b <= batch_size, to probabilities (b, c), such as
            `tfproject.evaluation.prediction.predictor` gives.
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        corruptions: names from `SEVERITIES`.
        batch_size: images a step.
        seed: of `corrupt`.

    Returns:
        A list of dicts, first that of the images as they are (corruption "none", severity 0, strength None), then for
        each corruption and severity: corruption, severity, strength, count, accuracy, low, high (Wilson), drop (the
        accuracy lost) with drop_low and drop_high (paired), p (McNemar's exact test), class_accuracy (c numbers;
        None for a class without images).

    Raises:
        UserError: if there is no image or no such corruption.
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise UserError("There is no image to score; choose a split that holds some.")
    unknown = [name for name in corruptions if name not in SEVERITIES]
    if unknown:
        raise UserError(f"There is no corruption '{unknown[0]}'; give one of {', '.join(SEVERITIES)}.")

    def answers(change):
        found = []
        for start in range(0, len(images), batch_size):
            found.append(np.asarray(predict(change(images[start : start + batch_size], start))))
        probabilities = np.concatenate(found)
        return probabilities.argmax(axis=1) == labels, probabilities.shape[1]

    before, class_count = answers(lambda batch, start: batch)
    rows = [_row("none", 0, None, before, before, labels, class_count)]
    for corruption in corruptions:
        for severity, strength in enumerate(SEVERITIES[corruption], start=1):
            after, _ = answers(lambda batch, start: corrupt(batch, corruption, severity, seed, start))
            rows.append(_row(corruption, severity, strength, before, after, labels, class_count))
    return rows


def _row(corruption, severity, strength, before, after, labels, class_count):
    low, high = wilson(after.sum(), len(after))
    lost = paired_difference(int((before & ~after).sum()), int((~before & after).sum()), len(after))
    return {
        "corruption": corruption,
        "severity": severity,
        "strength": strength,
        "count": len(after),
        "accuracy": float(after.mean()),
        "low": float(low),
        "high": float(high),
        "drop": lost["difference"],
        "drop_low": lost["low"],
        "drop_high": lost["high"],
        "p": lost["p"],
        "class_accuracy": [
            float(after[labels == label].mean()) if (labels == label).any() else None for label in range(class_count)
        ],
    }


def _to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _noise(image, strength, random):
    return _to_bytes(image + 255 * strength * random.standard_normal(image.shape))


def _blur(image, strength, random):
    from scipy.ndimage import gaussian_filter

    return _to_bytes(gaussian_filter(image.astype(np.float32), (strength, strength, 0), mode="nearest"))


def _jpeg(image, strength, random):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=strength)
    return np.asarray(Image.open(buffer))


def _brightness(image, strength, random):
    # Hue and saturation stay if all channels grow as the largest does, which is the value.
    value = image.max(axis=2, keepdims=True).astype(np.float32)
    brighter = np.clip(value + 255 * strength, 0, 255)
    return _to_bytes(np.where(value > 0, image * (brighter / np.maximum(value, 1)), brighter))


def _darkness(image, strength, random):
    return _to_bytes(image * strength)


def _contrast(image, strength, random):
    means = image.mean(axis=(0, 1), keepdims=True)
    return _to_bytes((image - means) * strength + means)


def _haze(image, strength, random):
    return _to_bytes(image * (1 - strength) + 255 * strength)


def _rotation(image, strength, random):
    angle = np.deg2rad(strength * random.choice((-1, 1)))
    return _warp(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _scale(image, strength, random):
    return _warp(image, np.eye(2) * float(strength) ** random.choice((-1, 1)))


def _warp(image, matrix):
    """The image where each point shows the one that `matrix` leads to, both from the middle; bilinear."""
    from scipy.ndimage import affine_transform

    middle = (np.array(image.shape[:2]) - 1) / 2
    offset = middle - matrix @ middle
    channels = [
        affine_transform(image[..., channel].astype(np.float32), matrix, offset, order=1, mode="mirror")
        for channel in range(3)
    ]
    return _to_bytes(np.stack(channels, axis=-1))


_CHANGES = {
    "noise": _noise, "blur": _blur, "JPEG": _jpeg, "brightness": _brightness, "darkness": _darkness,
    "contrast": _contrast, "haze": _haze, "rotation": _rotation, "scale": _scale,
}  # fmt: skip
