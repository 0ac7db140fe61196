"""The mean image of each class, and which spatial frequencies its images are made of."""

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
BATCH = 512  # images


def mean_images(images, labels, class_count):
    """The mean image of each class.

    Args:
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        class_count: c.

    Returns:
        float32 (c, h, w, 3) in 0..255; NaN for a class without images.
    """
    found = np.full((class_count, *images.shape[1:]), np.nan, np.float32)
    for label in range(class_count):
        own = np.flatnonzero(np.asarray(labels) == label)
        if len(own):
            parts = (own[start : start + BATCH] for start in range(0, len(own), BATCH))
            found[label] = sum(images[part].sum(axis=0, dtype=np.float64) for part in parts) / len(own)
    return found


def log_power_spectra(images):
    """The power spectrum of each image in grey, as a logarithm.

    The mean is taken out and the edges are faded with a Hann window; otherwise the jump from one edge to the opposite
    one would show as a cross.

    Args:
        images: uint8 (n, h, w, 3); call it with batches, it makes some copies.

    Returns:
        float32 (n, h, w), log10 of the power with grey values in 0..1, the frequency 0 at (h // 2, w // 2).
    """
    grey = images.astype(np.float32) @ LUMA / 255
    height, width = grey.shape[1:]
    # Without the zeros at its ends: the window is that of a period a pixel longer each way.
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    window = (window / np.sqrt((window**2).mean())).astype(np.float32)
    faded = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window
    power = np.abs(np.fft.fft2(faded)) ** 2 / (height * width)
    # The floor is below what rounding to 256 levels leaves (1 / 12 of a level squared), and keeps even images finite.
    return np.log10(np.fft.fftshift(power, axes=(1, 2)) + 1e-7).astype(np.float32)


def mean_log_spectra(images, labels, class_count):
    """The mean log power spectrum of the images of each class.

    Args:
        images: uint8 (n, h, w, 3).
        labels: int (n,).
        class_count: c.

    Returns:
        float32 (c, h, w), see `log_power_spectra`; NaN for a class without images.

    Reference:
        Torralba & Oliva 2003, Statistics of natural image categories (Network: Computation in Neural Systems 14).
    """
    found = np.full((class_count, *images.shape[1:3]), np.nan, np.float32)
    for label in range(class_count):
        own = np.flatnonzero(np.asarray(labels) == label)
        if len(own):
            parts = (own[start : start + BATCH] for start in range(0, len(own), BATCH))
            total = sum(log_power_spectra(images[part]).sum(axis=0, dtype=np.float64) for part in parts)
            found[label] = total / len(own)
    return found


def radial_profiles(spectra):
    """The mean of spectra over all directions, by frequency.

    Args:
        spectra: float (n, h, w), the frequency 0 at (h // 2, w // 2).

    Returns:
        (frequencies, profiles): float64 (k,) in cycles per pixel, from one cycle in the image's shorter side to 0.5;
        float64 (n, k).
    """
    height, width = spectra.shape[1:]
    down, across = (np.fft.fftshift(np.fft.fftfreq(size)) for size in (height, width))
    shorter = min(height, width)
    rings = np.rint(np.hypot(down[:, None], across) * shorter).astype(int).ravel()
    count = np.bincount(rings)
    highest = shorter // 2  # beyond it only the corners have frequencies
    profiles = np.stack([
        np.bincount(rings, spectrum.ravel().astype(np.float64)) / np.maximum(count, 1) for spectrum in spectra
    ]) if len(spectra) else np.empty((0, len(count)))  # fmt: skip
    return np.arange(1, highest + 1) / shorter, profiles[:, 1 : highest + 1]


def spectral_slopes(frequencies, profiles):
    """How steeply the power falls with the frequency: the exponent of a power law, about -2 to -3 for photographs.

    Args:
        frequencies: float (k,), above 0.
        profiles: float (n, k), log10 of the power.

    Returns:
        float64 (n,), the slopes of straight lines through log10 power over log10 frequency, by least squares.
    """
    return np.polyfit(np.log10(frequencies), np.asarray(profiles).T, 1)[0]
