"""Generated land-cover tiles, in EuroSAT's classes."""

import numpy as np

from tfproject.data.image_set import ImageSet, Origin, Split
from tfproject.data.synthetic import drawing


def land_cover(seed=0, per_class=150):
    """Generated tiles of EuroSAT's ten classes, seen from above.

    Args:
        seed: the same seed gives the same images, bit for bit.
        per_class: images of each class.

    Returns:
        An ImageSet of 64x64 images in one split, "all".
    """
    class_names = tuple(_LAND_COVER)
    images = [
        drawing.expose(rng, draw(rng, per_class), haze=0.25)
        for draw, rng in zip(_LAND_COVER.values(), drawing.generators(seed, 0, len(class_names)))
    ]
    names = tuple(f"{name}_{i + 1}.png" for name in class_names for i in range(per_class))
    labels = np.repeat(np.arange(len(class_names)), per_class)
    return ImageSet(
        name="synthetic-land-cover",
        class_names=class_names,
        splits={"all": Split(np.concatenate(images), labels, names)},
        origin=Origin(
            description=f"land-cover tiles generated from seed {seed} in EuroSAT's classes; not satellite images",
            licence="same as the program",
            synthetic=True,
        ),
        split_method="not split",
    )


_TILE = 64
_GREENS = ((0.30, 0.42, 0.24), (0.36, 0.45, 0.28), (0.26, 0.36, 0.24))
_SOILS = ((0.48, 0.40, 0.32), (0.56, 0.48, 0.38), (0.40, 0.35, 0.30), (0.44, 0.44, 0.30))
_GREYS = ((0.52, 0.52, 0.53), (0.62, 0.60, 0.58), (0.44, 0.44, 0.47))
_WATERS = ((0.16, 0.26, 0.36), (0.18, 0.32, 0.34), (0.20, 0.28, 0.30))


def _ground(rng, n, colours, mottle=0.03, cells=8):
    """Ground of one colour with soft mottling."""
    images = np.broadcast_to(drawing.colour(rng, n, *colours), (n, _TILE, _TILE, 3))
    return images + mottle * drawing.noise(rng, n, _TILE, cells)[..., None] * np.array([1.0, 1.0, 0.8], np.float32)


def _fields(rng, n):
    """A patchwork of fields with straight borders."""
    along, across = drawing.axes(rng, n, _TILE, shift=0)
    column = sum((along > drawing.uniform(rng, n, -0.9, 0.9)).astype(int) for _ in range(2))
    row = sum((across > drawing.uniform(rng, n, -0.9, 0.9)).astype(int) for _ in range(3))
    palette = np.array(_GREENS + _SOILS, np.float32)
    crops = palette[rng.integers(len(palette), size=(n, 3, 4))] + rng.normal(0, 0.03, (n, 3, 4, 3)).astype(np.float32)
    images = crops[np.arange(n)[:, None, None], column, row]
    return images + 0.015 * drawing.noise(rng, n, _TILE, 10)[..., None]


def _countryside(rng, n):
    """What a road or a river runs through: fields, meadow or woods."""
    kind = rng.integers(3, size=(n, 1, 1, 1))
    return np.where(kind == 0, _fields(rng, n), np.where(kind == 1, _herbaceous(rng, n), _ground(rng, n, _GREENS)))


def _annual_crop(rng, n):
    return _fields(rng, n)


def _forest(rng, n):
    images = _ground(rng, n, ((0.16, 0.26, 0.22), (0.20, 0.30, 0.22), (0.24, 0.34, 0.24)), mottle=0.02, cells=4)
    crowns = drawing.noise(rng, n, _TILE, 30) * drawing.uniform(rng, n, 0.03, 0.06)
    return images + crowns[..., None]


def _herbaceous(rng, n):
    images = _ground(rng, n, _GREENS + _SOILS[-1:], mottle=0.055, cells=14)
    patches = np.clip(0.5 + drawing.noise(rng, n, _TILE, 8), 0, 1) * drawing.uniform(rng, n, 0.6, 0.9)
    return drawing.blend(
        images, drawing.colour(rng, n, (0.48, 0.42, 0.32), (0.42, 0.37, 0.30), (0.22, 0.30, 0.20)), patches
    )


def _highway(rng, n):
    along, across = drawing.axes(rng, n, _TILE, shift=0.45)
    middle = across - drawing.uniform(rng, n, -0.3, 0.3) * along**2
    road = drawing.inside(np.abs(middle) - drawing.uniform(rng, n, 0.05, 0.09), _TILE)
    return drawing.blend(_countryside(rng, n), drawing.colour(rng, n, *_GREYS), road)


def _industrial(rng, n):
    images = _ground(rng, n, _GREYS + _SOILS[:1], mottle=0.03, cells=6)
    along, across = drawing.axes(rng, n, _TILE)
    for _ in range(7):
        length, width = drawing.uniform(rng, n, 0.18, 0.45), drawing.uniform(rng, n, 0.14, 0.32)
        left, top = drawing.uniform(rng, n, -1, 1), drawing.uniform(rng, n, -1, 1)
        hall = np.maximum(np.abs(along - left) - length, np.abs(across - top) - width)
        shadow = np.maximum(np.abs(along - left - 0.05) - length, np.abs(across - top - 0.05) - width)
        images = drawing.blend(images, np.float32(0.25), 0.7 * drawing.inside(shadow, _TILE))
        roof = drawing.colour(rng, n, (0.86, 0.86, 0.86), (0.70, 0.72, 0.76), (0.55, 0.58, 0.66), (0.62, 0.46, 0.40))
        images = drawing.blend(images, roof, drawing.inside(hall, _TILE))
    return images


def _pasture(rng, n):
    images = _ground(rng, n, _GREENS, mottle=0.012, cells=2)
    along, across = drawing.axes(rng, n, _TILE)
    for _ in range(4):
        tree = np.hypot(
            along - drawing.uniform(rng, n, -1, 1), across - drawing.uniform(rng, n, -1, 1)
        ) - drawing.uniform(rng, n, 0.05, 0.1)
        images = drawing.blend(
            images,
            drawing.colour(rng, n, (0.17, 0.25, 0.17)),
            drawing.inside(tree, _TILE) * drawing.chance(rng, n, 0.6),
        )
    return images


def _permanent_crop(rng, n):
    images = _fields(rng, n)
    along, across = drawing.axes(rng, n, _TILE)
    rows = np.cos(np.pi * _TILE * across / drawing.uniform(rng, n, 4.5, 8))
    trees = np.cos(np.pi * _TILE * along / drawing.uniform(rng, n, 4.5, 8))
    pattern = np.clip(0.5 + rows + np.where(drawing.chance(rng, n, 0.5) > 0, trees, 0), 0, 1)
    return drawing.blend(images, drawing.colour(rng, n, (0.20, 0.28, 0.18), (0.26, 0.34, 0.22)), 0.7 * pattern)


def _residential(rng, n):
    images = _ground(rng, n, _GREENS + _GREYS + _SOILS[:1], mottle=0.04, cells=16)
    along, across = drawing.axes(rng, n, _TILE)
    plot = drawing.uniform(rng, n, 0.19, 0.27)
    column, row = np.floor(along / plot), np.floor(across / plot)
    # Hashing the plot's number gives every house its own tone without a table of plots.
    tone = np.mod(np.sin(column * 12.9898 + row * 78.233 + drawing.uniform(rng, n, 0, 6)) * 43758.547, 1)
    house = np.maximum(np.abs(along / plot - column - 0.5), np.abs(across / plot - row - 0.5)) - 0.22 - 0.14 * tone
    roof = np.where(
        (tone > 0.55)[..., None],
        drawing.colour(rng, n, (0.62, 0.44, 0.36), (0.70, 0.52, 0.42)),
        drawing.colour(rng, n, (0.74, 0.72, 0.70), (0.58, 0.55, 0.54)),
    )
    images = drawing.blend(
        images, roof + (0.2 * tone - 0.1)[..., None], drawing.inside(house * plot, _TILE) * (tone > 0.12)
    )
    # A street takes the place of every fourth row of plots and every fifth column.
    for place in (np.mod(across / plot, 4), np.mod(along / plot, 5)):
        images = drawing.blend(
            images, drawing.colour(rng, n, *_GREYS), drawing.inside((np.abs(place - 0.5) - 0.28) * plot, _TILE)
        )
    return images


def _river(rng, n):
    along, across = drawing.axes(rng, n, _TILE)
    bends = drawing.uniform(rng, n, 0.1, 0.35) * np.sin(
        drawing.uniform(rng, n, 1.5, 3.5) * along + drawing.uniform(rng, n, 0, 6)
    )
    width = drawing.uniform(rng, n, 0.16, 0.34) * (1 + 0.15 * drawing.noise(rng, n, _TILE, 3))
    return drawing.blend(
        _countryside(rng, n), drawing.colour(rng, n, *_WATERS), drawing.inside(np.abs(across - bends) - width, _TILE)
    )


def _sea_lake(rng, n):
    return _ground(rng, n, _WATERS, mottle=0.012, cells=2)


_LAND_COVER = {
    "AnnualCrop": _annual_crop,
    "Forest": _forest,
    "HerbaceousVegetation": _herbaceous,
    "Highway": _highway,
    "Industrial": _industrial,
    "Pasture": _pasture,
    "PermanentCrop": _permanent_crop,
    "Residential": _residential,
    "River": _river,
    "SeaLake": _sea_lake,
}
