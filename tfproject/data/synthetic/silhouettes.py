"""Generated silhouettes before clutter, in CIFAR-10's classes."""

import functools

import numpy as np

from tfproject.data.image_set import ImageSet, Origin, Split
from tfproject.data.synthetic import drawing


def objects(seed=0, per_class=150):
    """Generated pictures of CIFAR-10's ten classes: silhouettes before cluttered backgrounds.

    Args:
        seed: the same seed gives the same images, bit for bit.
        per_class: images of each class; a sixth of them are the test split, as in CIFAR-10.

    Returns:
        An ImageSet of 32x32 images in two splits, "train" and "test".
    """
    class_names = tuple(_OBJECTS)
    images = [
        drawing.expose(rng, _draw_object(rng, per_class, parts), haze=0.15)
        for parts, rng in zip(_OBJECTS.values(), drawing.generators(seed, 1, len(class_names)))
    ]
    test_count = per_class // 6
    splits = {}
    for split_name, chosen in (("train", slice(test_count, None)), ("test", slice(test_count))):
        numbers = range(per_class)[chosen]
        splits[split_name] = Split(
            np.concatenate([of_class[chosen] for of_class in images]),
            np.repeat(np.arange(len(class_names)), len(numbers)),
            tuple(f"{split_name}/{name}_{i + 1}.png" for name in class_names for i in numbers),
        )
    return ImageSet(
        name="synthetic-objects",
        class_names=class_names,
        splits=splits,
        origin=Origin(
            description=f"silhouettes generated from seed {seed} in CIFAR-10's classes; not photographs",
            licence="same as the program",
            synthetic=True,
        ),
    )


# Objects: each class is a list of parts (paint, shape, numbers), drawn in order, with x to the right and y down, from
# -1 to 1. An ellipse is x, y, half width, half height; a polygon is convex, its corners clockwise on the screen.

_OBJECT = 32


def _box(left, top, right, bottom):
    return ((left, top), (right, top), (right, bottom), (left, bottom))


_WHEELS = [("dark", "ellipse", (x, 0.40, 0.19, 0.19)) for x in (-0.52, 0.52)]
_LEGS = [("body", "polygon", _box(x - 0.07, 0.1, x + 0.07, 0.85)) for x in (-0.5, -0.28, 0.22, 0.44)]

_OBJECTS = {
    "airplane": [
        ("body", "polygon", ((-0.30, 0.0), (-0.45, -0.80), (-0.22, -0.80), (0.25, 0.0))),
        ("body", "polygon", ((0.25, 0.0), (-0.22, 0.80), (-0.45, 0.80), (-0.30, 0.0))),
        ("body", "polygon", ((-0.85, 0.0), (-0.95, -0.35), (-0.80, -0.35), (-0.60, 0.0))),
        ("body", "polygon", ((-0.60, 0.0), (-0.80, 0.35), (-0.95, 0.35), (-0.85, 0.0))),
        ("body", "ellipse", (0.0, 0.0, 0.95, 0.15)),
        ("light", "ellipse", (0.65, 0.0, 0.12, 0.07)),
    ],
    "automobile": [
        ("body", "polygon", ((-0.60, 0.0), (-0.35, -0.45), (0.30, -0.45), (0.55, 0.0))),
        ("light", "polygon", ((-0.42, -0.03), (-0.25, -0.34), (0.22, -0.34), (0.38, -0.03))),
        ("body", "polygon", _box(-0.92, -0.05, 0.92, 0.38)),
        *_WHEELS,
    ],
    "bird": [
        ("body", "polygon", ((-0.95, -0.05), (-0.85, -0.25), (-0.20, 0.10), (-0.35, 0.30))),
        ("body", "ellipse", (0.0, 0.15, 0.48, 0.28)),
        ("body", "ellipse", (0.48, -0.20, 0.22, 0.22)),
        ("light", "polygon", ((0.66, -0.28), (0.98, -0.15), (0.66, -0.08))),
        ("second", "polygon", ((-0.45, -0.80), (0.20, 0.05), (-0.15, 0.20))),
        ("dark", "polygon", _box(-0.04, 0.40, 0.03, 0.85)),
        ("dark", "polygon", _box(0.13, 0.40, 0.20, 0.85)),
        ("dark", "ellipse", (0.53, -0.25, 0.06, 0.06)),
    ],
    "cat": [
        ("body", "polygon", ((-0.62, -0.85), (-0.05, -0.35), (-0.58, 0.10))),
        ("body", "polygon", ((0.62, -0.85), (0.58, 0.10), (0.05, -0.35))),
        ("body", "ellipse", (0.0, 0.12, 0.66, 0.58)),
        ("light", "ellipse", (-0.26, 0.0, 0.15, 0.13)),
        ("light", "ellipse", (0.26, 0.0, 0.15, 0.13)),
        ("dark", "ellipse", (-0.26, 0.0, 0.06, 0.13)),
        ("dark", "ellipse", (0.26, 0.0, 0.06, 0.13)),
        ("dark", "polygon", ((-0.10, 0.25), (0.10, 0.25), (0.0, 0.40))),
    ],
    "deer": [
        ("body", "ellipse", (-0.05, 0.10, 0.55, 0.22)),
        *_LEGS,
        ("body", "polygon", ((0.25, 0.05), (0.42, -0.40), (0.58, -0.35), (0.48, 0.15))),
        ("body", "ellipse", (0.60, -0.38, 0.25, 0.12)),
        ("second", "polygon", ((0.40, -0.45), (0.10, -0.95), (0.20, -0.98), (0.50, -0.48))),
        ("second", "polygon", ((0.52, -0.48), (0.62, -0.98), (0.72, -0.96), (0.62, -0.46))),
        ("second", "polygon", ((0.22, -0.70), (0.38, -0.95), (0.45, -0.90), (0.30, -0.62))),
        ("second", "polygon", ((0.60, -0.66), (0.88, -0.86), (0.92, -0.79), (0.64, -0.58))),
    ],
    "dog": [
        ("body", "ellipse", (0.0, 0.0, 0.48, 0.65)),
        ("light", "ellipse", (0.0, 0.38, 0.30, 0.26)),
        ("dark", "ellipse", (0.0, 0.26, 0.13, 0.10)),
        ("dark", "ellipse", (-0.20, -0.15, 0.08, 0.08)),
        ("dark", "ellipse", (0.20, -0.15, 0.08, 0.08)),
        ("second", "ellipse", (-0.55, 0.05, 0.18, 0.48)),
        ("second", "ellipse", (0.55, 0.05, 0.18, 0.48)),
    ],
    "frog": [
        ("second", "ellipse", (-0.70, 0.45, 0.25, 0.32)),
        ("second", "ellipse", (0.70, 0.45, 0.25, 0.32)),
        ("body", "ellipse", (0.0, 0.28, 0.72, 0.45)),
        ("body", "ellipse", (-0.38, -0.20, 0.24, 0.24)),
        ("body", "ellipse", (0.38, -0.20, 0.24, 0.24)),
        ("dark", "ellipse", (-0.38, -0.22, 0.12, 0.12)),
        ("dark", "ellipse", (0.38, -0.22, 0.12, 0.12)),
        ("dark", "polygon", _box(-0.45, 0.30, 0.45, 0.38)),
    ],
    "horse": [
        ("second", "polygon", ((-0.75, -0.10), (-0.55, -0.12), (-0.68, 0.50), (-0.85, 0.45))),
        ("body", "ellipse", (-0.05, 0.02, 0.60, 0.28)),
        *_LEGS,
        ("body", "polygon", ((0.15, -0.05), (0.45, -0.75), (0.68, -0.65), (0.52, 0.15))),
        ("body", "ellipse", (0.68, -0.58, 0.28, 0.15)),
        ("second", "polygon", ((0.02, -0.20), (0.38, -0.85), (0.50, -0.80), (0.22, -0.10))),
    ],
    "ship": [
        ("body", "polygon", ((-0.95, 0.10), (0.98, 0.10), (0.68, 0.55), (-0.75, 0.55))),
        ("light", "polygon", _box(-0.60, -0.22, 0.40, 0.10)),
        ("second", "polygon", _box(-0.28, -0.75, 0.0, -0.22)),
        ("dark", "polygon", _box(-0.48, -0.12, 0.28, -0.02)),
    ],
    "truck": [
        ("second", "polygon", _box(-0.92, -0.70, 0.30, 0.35)),
        ("body", "polygon", ((0.34, -0.30), (0.70, -0.30), (0.90, 0.0), (0.90, 0.35), (0.34, 0.35))),
        ("light", "polygon", ((0.45, -0.20), (0.65, -0.20), (0.80, 0.02), (0.45, 0.02))),
        ("dark", "ellipse", (-0.15, 0.40, 0.18, 0.18)),
        ("dark", "ellipse", (-0.62, 0.40, 0.18, 0.18)),
        ("dark", "ellipse", (0.60, 0.40, 0.18, 0.18)),
    ],
}


def _ellipse(x, y, numbers):
    """Signed distance to an ellipse, nearly: exact on the outline, which is where it matters."""
    centre_x, centre_y, half_width, half_height = numbers
    u, v = (x - centre_x) / half_width, (y - centre_y) / half_height
    return (np.hypot(u, v) - 1) * min(half_width, half_height)


def _polygon(x, y, corners):
    """Signed distance to a convex polygon, exact along its sides."""
    distance = -np.inf
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0])):
        side = np.hypot(x1 - x0, y1 - y0)
        distance = np.maximum(distance, ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / side)
    return distance


def _clutter(rng, n):
    """A background: two colours that run into each other, mottled, with some vague things in it."""
    size = _OBJECT
    slope = np.clip(0.5 + 0.8 * drawing.noise(rng, n, size, 1), 0, 1)
    images = drawing.blend(_vivid(rng, n), _vivid(rng, n), slope)
    images = images + (drawing.uniform(rng, n, 0.01, 0.06) * drawing.noise(rng, n, size, 9))[..., None]
    for _ in range(4):
        along, across = drawing.axes(rng, n, size, shift=1.0)
        thing = np.maximum(
            np.abs(along) - drawing.uniform(rng, n, 0.1, 0.5), np.abs(across) - drawing.uniform(rng, n, 0.04, 0.3)
        )
        images = drawing.blend(images, _vivid(rng, n), 0.5 * drawing.inside(thing, size))
    return images


def _vivid(rng, n, low=0.15, high=0.85):
    """Any colour, (n, 1, 1, 3)."""
    return rng.uniform(low, high, (n, 1, 1, 3)).astype(np.float32)


def _draw_object(rng, n, parts):
    """One class's pictures: the same parts, bent, turned, mirrored, scaled, moved and painted differently in each."""
    size = _OBJECT
    x, y = drawing.axes(rng, n, size, angle=0.3, shift=0.2)
    scale = drawing.uniform(rng, n, 1.05, 1.45) * np.where(drawing.chance(rng, n, 0.5) > 0, -1, 1)
    x = x * scale + 0.05 * drawing.noise(rng, n, size, 2)
    y = y * np.abs(scale) * drawing.uniform(rng, n, 0.88, 1.12) + 0.05 * drawing.noise(rng, n, size, 2)
    images = _clutter(rng, n)
    body = _vivid(rng, n)
    paints = {
        "body": body,
        "second": 0.5 * body + 0.5 * _vivid(rng, n),
        "light": rng.uniform(0.75, 0.95, (n, 1, 1, 1)).astype(np.float32),
        "dark": rng.uniform(0.03, 0.2, (n, 1, 1, 1)).astype(np.float32),
    }
    shade = (0.05 * drawing.noise(rng, n, size, 6) - 0.12 * y)[..., None]
    # A dark outline keeps an object visible before a background of its own colour.
    distance_to = {"ellipse": _ellipse, "polygon": _polygon}
    shapes = [(paint, distance_to[kind](x, y, numbers)) for paint, kind, numbers in parts]
    outline = functools.reduce(np.minimum, (distance for _, distance in shapes)) - 0.08
    images = drawing.blend(images, 0.3 * body, drawing.uniform(rng, n, 0.5, 0.9) * drawing.inside(outline, size))
    for paint, distance in shapes:
        images = drawing.blend(images, paints[paint] + shade, drawing.inside(distance, size))
    return images
