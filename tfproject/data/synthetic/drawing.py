"""Drawing a whole class of small images at once."""

import functools

import numpy as np


def generators(seed, set_number, count):
    """A random generator for each class, so that one class's drawing does not move the next one's."""
    return [np.random.default_rng([seed, set_number, i]) for i in range(count)]


# Drawing on a whole class at once: images are float32 (n, size, size, 3) in 0..1, masks and coordinates
# (n, size, size).


def uniform(rng, n, low, high):
    """A number for each image, shape (n, 1, 1)."""
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def chance(rng, n, probability):
    """1 for some images and 0 for the others, shape (n, 1, 1)."""
    return (rng.random((n, 1, 1)) < probability).astype(np.float32)


def colour(rng, n, *choices, jitter=0.035):
    """One of the colours for each image, a little changed, shape (n, 1, 1, 3)."""
    chosen = np.array(choices, np.float32)[rng.integers(len(choices), size=n)]
    chosen = chosen + rng.normal(0, jitter, (n, 1)) + rng.normal(0, jitter / 2, (n, 3))
    return chosen.astype(np.float32)[:, None, None, :]


def blend(images, colour, mask):
    return images + mask[..., None] * (colour - images)


@functools.cache
def _spline_weights(size, cells):
    """Uniform cubic B-splines at the pixels: (size, cells + 3), each row's weights of four neighbouring knots."""
    place = (np.arange(size) + 0.5) * cells / size
    knot = place.astype(int)
    t = place - knot
    pieces = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    weights = np.zeros((size, cells + 3), np.float32)
    for i in range(4):
        weights[np.arange(size), knot + i] = pieces[:, i]
    return weights


def noise(rng, n, size, cells):
    """Smooth noise with about `cells` hills a side, mean 0 and variance 1, (n, size, size)."""
    knots = rng.standard_normal((n, cells + 3, cells + 3), dtype=np.float32)
    weights = _spline_weights(size, cells)
    return weights @ knots @ weights.T / np.mean(np.sum(weights**2, axis=1))


def axes(rng, n, size, angle=np.pi, shift=0.3):
    """Coordinates along and across a random direction, from about -1 to 1: two arrays (n, size, size)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    turn = uniform(rng, n, -angle, angle)
    x, y = line[None, None, :], line[None, :, None]
    along = np.cos(turn) * x + np.sin(turn) * y - uniform(rng, n, -shift, shift)
    across = -np.sin(turn) * x + np.cos(turn) * y - uniform(rng, n, -shift, shift)
    return along, across


def inside(distance, size):
    """1 where a signed distance is negative, 0 where it is positive, with an edge one pixel soft."""
    return np.clip(0.5 - distance * size / 2, 0, 1)


def expose(rng, images, haze):
    """The pictures as a camera takes them: contrast, brightness, colour cast, haze and grain vary; uint8."""
    n, size = images.shape[:2]
    contrast = uniform(rng, n, 0.65, 1.25)[..., None]
    brightness = uniform(rng, n, -0.13, 0.13)[..., None]
    cast = rng.normal(0, 0.02, (n, 1, 1, 3)).astype(np.float32)
    images = (images - 0.4) * contrast + 0.4 + brightness + cast
    veil = uniform(rng, n, 0, haze) * (1 + 0.4 * noise(rng, n, size, 1))
    images = blend(images, np.array([0.72, 0.76, 0.82], np.float32), np.clip(veil, 0, 0.6))
    grain = rng.standard_normal(images.shape, dtype=np.float32) * uniform(rng, n, 0.005, 0.02)[..., None]
    return (np.clip(images + grain, 0, 1) * 255).round().astype(np.uint8)
