"""A few numbers for each image that a person can name: how bright, how hazy, how line-like it is."""

import numpy as np

from tfproject.exploration.spectra import LUMA, log_power_spectra, radial_profiles, spectral_slopes

DARK_PATCH = 7  # pixels; He et al. take 15 for photographs of some 500 pixels
BATCH = 512  # images

STATISTICS = {
    "brightness": "mean grey value, 0 to 1",
    "contrast": "standard deviation of the grey values, 0 to 1",
    "saturation": "mean of (largest - smallest channel) / largest, 0 to 1",
    "greenness": "mean of (green - red) / (green + red), -1 to 1",
    "haze": "dark channel: the darkest of the channels nearby, mean, 0 to 1",
    "edge strength": "mean grey gradient, of the grey range per pixel",
    "line-likeness": "share of the gradients' energy that lies in one direction, 0 to 1",
    "spectral slope": "exponent of the power spectrum; higher is finer",
}
# How an image with more and with less of it is called.
WORDS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("richer in contrast", "poorer in contrast"),
    "saturation": ("more saturated", "less saturated"),
    "greenness": ("greener", "less green"),
    "haze": ("hazier or paler", "less hazy or pale"),
    "edge strength": ("richer in edges", "poorer in edges"),
    "line-likeness": ("more line-like", "less line-like"),
    "spectral slope": ("finer in texture", "coarser in texture"),
}


def image_statistics(images):
    """Simple statistics of each image.

    The haze is the dark channel: without haze some channel is nearly black somewhere in almost every patch of a
    picture; haze and thin cloud add light to all channels. Snow, bright roofs and bare pale soil raise it too, so it is
    a stand-in for haze and no measure of it. The line-likeness is the coherence of the structure tensor of the whole
    image, ((l1 - l2) / (l1 + l2)) of its eigenvalues: 1 where all edges run one way, 0 where no direction is preferred.

    Args:
        images: uint8 (n, h, w, 3), at least 8 pixels each way.

    Returns:
        A dict from each name of `STATISTICS` to float32 (n,).

    Reference:
        He, Sun & Tang 2009, Single image haze removal using dark channel prior (CVPR); Bigün & Granlund 1987, Optimal
        orientation detection of linear symmetry (ICCV); Torralba & Oliva 2003, Statistics of natural image categories.
    """
    found = {name: np.empty(len(images), np.float32) for name in STATISTICS}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        for values, value in zip(found.values(), _batch_statistics(batch)):
            values[start : start + BATCH] = value
    return found


def _batch_statistics(images):
    from scipy import ndimage

    pixels = images.astype(np.float32) / 255
    grey = pixels @ LUMA
    largest = pixels.max(axis=3)
    smallest = pixels.min(axis=3)
    red, green = pixels[..., 0], pixels[..., 1]
    axes = (1, 2)
    dark = ndimage.minimum_filter(smallest, (1, DARK_PATCH, DARK_PATCH), mode="nearest")
    down, across = np.gradient(grey, axis=axes)
    xx, yy, xy = ((a * b).mean(axis=axes) for a, b in ((across, across), (down, down), (across, down)))
    energy = xx + yy
    coherence = np.hypot(xx - yy, 2 * xy) / np.maximum(energy, 1e-12)
    return (
        grey.mean(axis=axes),
        grey.std(axis=axes),
        ((largest - smallest) / np.maximum(largest, 1 / 255)).mean(axis=axes),
        ((green - red) / np.maximum(green + red, 1 / 255)).mean(axis=axes),
        dark.mean(axis=axes),
        np.hypot(down, across).mean(axis=axes),
        coherence,
        spectral_slopes(*radial_profiles(log_power_spectra(images))),
    )
