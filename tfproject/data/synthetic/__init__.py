"""Image sets generated from a seed: everything runs, and is tested, without a download.

They stand in for EuroSAT (`land_cover`), CIFAR-10 (`objects`), Terrassa Buildings (`write_buildings`) and Paris
Buildings (`write_city`), with those sets' class names and layouts. Classes differ as the real ones do, by texture,
lines, colour and shape, while light, haze, position and orientation vary from image to image, so that single pixels
tell little: a linear model on pixels stays under 70 %, and a small convolutional network passes 90 % on the first two.
A score on them says that the program works, and nothing about real images.

The tiles are drawn a whole class at a time with NumPy; the buildings, as few and larger, a photo at a time with Pillow.
"""

from tfproject.data.synthetic.buildings import BUILDINGS_ORIGIN, CITY_ORIGIN, write_buildings, write_city
from tfproject.data.synthetic.silhouettes import objects
from tfproject.data.synthetic.tiles import land_cover

__all__ = ["BUILDINGS_ORIGIN", "CITY_ORIGIN", "land_cover", "objects", "write_buildings", "write_city"]
