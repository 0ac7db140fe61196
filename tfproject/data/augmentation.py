"""Random changes of training images, a whole batch at a time, from a seed.

Each augmentation takes uint8 or float images (b, h, w, 3), their labels as one probability per class (b, c), and a seed
of two int32, and gives images and labels of the same shapes. The same seed gives the same result on every machine, so
a batch depends on its number alone and a resumed run sees what an uninterrupted one would have seen.
"""

import tensorflow as tf

from tfproject.errors import UserError

SHIFT, SMALL_SHIFT = 4, 2  # pixels; reflected at the border
CUTOUT = 0.25  # side of the grey square, as a share of the image's side
COLOUR = 0.2  # largest relative change of brightness and contrast
QUALITY = 50, 100  # of JPEG, drawn from the first to one below the second
MIX_ALPHA = 0.2  # of the Beta distribution that mixup and cutmix draw from (Zhang et al. 2018)


def _coins(seed, count):
    return tf.random.stateless_uniform((count, 1), seed) < 0.5


def _order(mirrored, size):
    """Places 0..size-1, backwards where `mirrored` (b, 1) says so: int32 (b, size)."""
    return tf.where(mirrored, size - 1 - tf.range(size), tf.range(size))


def _split_seed(seed, parts):
    return tf.unstack(tf.random.experimental.stateless_split(seed, parts))


def flip(images, labels, seed):
    """Mirror each image left to right with probability 1/2."""
    count, _, width, _ = tf.unstack(tf.shape(images))
    # Pixels are picked by gather throughout: on bytes it is five times as fast as reversing and tf.where.
    return tf.gather(images, _order(_coins(seed, count), width), axis=2, batch_dims=1), labels


def alternating_flip(images, labels, numbers, epoch):
    """Mirror half of the images in even epochs and the other half in odd ones: two epochs show each image both ways.

    Args:
        images, labels: as ever.
        numbers: int (b,), the images' places in the split, which decide the half.
        epoch: the epoch's number.

    Reference: K. Jordan 2024, arXiv:2404.00498, section 3.6.
    """
    half = tf.bitwise.right_shift(tf.cast(numbers, tf.uint32) * 2654435761, 16) % 2  # Knuth's multiplicative hash
    mirrored = tf.equal(half, tf.cast(epoch, tf.uint32) % 2)
    return tf.gather(images, _order(mirrored[:, None], tf.shape(images)[2]), axis=2, batch_dims=1), labels


def symmetries(images, labels, seed):
    """One of the eight symmetries of the square: a view from above stays a view from above. Needs square images."""
    left_right, up_down, transpose = _split_seed(seed, 3)
    count, size = tf.unstack(tf.shape(images)[:2])
    rows, columns = _order(_coins(up_down, count), size), _order(_coins(left_right, count), size)
    straight = rows[:, :, None] * size + columns[:, None, :]
    turned = rows[:, None, :] * size + columns[:, :, None]
    places = tf.where(_coins(transpose, count)[..., None], turned, straight)  # (b, size, size), in the image
    places += tf.range(count)[:, None, None] * size * size
    return tf.gather(tf.reshape(images, (-1, 3)), places), labels


def shift(images, labels, seed, largest=SHIFT):
    """Move each image by up to SHIFT pixels each way, the border reflected ("random crop" with padding)."""
    count, height, width = tf.unstack(tf.shape(images)[:3])
    rows, columns = _split_seed(seed, 2)

    def moved(size, seed):
        offset = tf.random.stateless_uniform((count, 1), seed, -largest, largest + 1, dtype=tf.int32)
        position = tf.abs(tf.range(size) + offset)
        return tf.minimum(position, 2 * (size - 1) - position)  # reflects at the far border as tf.abs did at the near

    images = tf.gather(images, moved(height, rows), axis=1, batch_dims=1)
    return tf.gather(images, moved(width, columns), axis=2, batch_dims=1), labels


def small_shift(images, labels, seed):
    """Move each image by up to SMALL_SHIFT pixels each way: gentler than `shift`, for short trainings."""
    return shift(images, labels, seed, SMALL_SHIFT)


def _squares(count, height, width, side, seed):
    """Boolean (count, height, width, 1): a square around a random centre, cut at the border."""
    rows, columns = _split_seed(seed, 2)

    def near(size, seed):
        centre = tf.random.stateless_uniform((count, 1), seed, 0, size, dtype=tf.int32)
        distance = tf.cast(tf.abs(tf.range(size) - centre), tf.float32)
        return distance < side * tf.cast(size, tf.float32) / 2

    return (near(height, rows)[:, :, None] & near(width, columns)[:, None, :])[..., None]


def cutout(images, labels, seed):
    """A grey square at a random place (DeVries and Taylor 2017)."""
    count, height, width = tf.unstack(tf.shape(images)[:3])
    grey = tf.cast(127, images.dtype)
    return tf.where(_squares(count, height, width, CUTOUT, seed), grey, images), labels


def colour(images, labels, seed):
    """Brightness and contrast of each image changed by up to COLOUR, the same for all channels."""
    brightness, contrast = _split_seed(seed, 2)
    shape = (tf.shape(images)[0], 1, 1, 1)
    images = tf.cast(images, tf.float32)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    spread = 1 + tf.random.stateless_uniform(shape, contrast, -COLOUR, COLOUR)
    level = 1 + tf.random.stateless_uniform(shape, brightness, -COLOUR, COLOUR)
    return tf.clip_by_value((images - mean) * spread + mean * level, 0, 255), labels


def jpeg(images, labels, seed):
    """Each image with probability 1/2 as JPEG gives it back: quality from QUALITY, colour at half the resolution."""
    chosen, quality = _split_seed(seed, 2)
    count = tf.shape(images)[0]
    qualities = tf.random.stateless_uniform((count,), quality, *QUALITY, dtype=tf.int32)
    places = tf.where(_coins(chosen, count)[:, 0])
    whole = tf.cast(tf.round(tf.cast(tf.gather_nd(images, places), tf.float32)), tf.uint8)
    compressed = tf.map_fn(
        lambda image: tf.image.adjust_jpeg_quality(*image), (whole, tf.gather_nd(qualities, places)),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8),
    )  # fmt: skip
    return tf.tensor_scatter_nd_update(images, places, tf.cast(compressed, images.dtype)), labels


def _beta(seed):
    first, second = (tf.random.stateless_gamma((), s, alpha=MIX_ALPHA) + 1e-12 for s in _split_seed(seed, 2))
    return first / (first + second)


def mixup(images, labels, seed):
    """Each image blended with another of the batch, and their labels alike (Zhang et al. 2018)."""
    share = _beta(seed)
    images = tf.cast(images, tf.float32)
    return share * images + (1 - share) * images[::-1], share * labels + (1 - share) * labels[::-1]


def cutmix(images, labels, seed):
    """A square of each image replaced by that of another of the batch, labels by area (Yun et al. 2019)."""
    share, place = _split_seed(seed, 2)
    count, height, width = tf.unstack(tf.shape(images)[:3])
    mask = _squares(count, height, width, tf.sqrt(1 - _beta(share)), place)
    kept = 1 - tf.reduce_mean(tf.cast(mask, tf.float32), axis=(1, 2))
    return tf.where(mask, images[::-1], images), kept * labels + (1 - kept) * labels[::-1]


_ALL = (flip, alternating_flip, symmetries, shift, small_shift, cutout, colour, jpeg, mixup, cutmix)
BY_NAME = {function.__name__: function for function in _ALL}


def augment(images, labels, names, seed, numbers, epoch):
    """Apply augmentations in the given order, each with a seed of its own.

    Args:
        images: uint8 (b, h, w, 3).
        labels: float32 (b, c).
        names: names from BY_NAME.
        seed: int32 (2,).
        numbers: int (b,), the images' places in the split.
        epoch: the epoch's number.

    Returns:
        Images (b, h, w, 3) and labels (b, c).
    """
    check(names, images.shape)
    if names:
        for name, own_seed in zip(names, _split_seed(seed, len(names)) if len(names) > 1 else [seed]):
            draw = (numbers, epoch) if name == "alternating_flip" else (own_seed,)
            images, labels = BY_NAME[name](images, labels, *draw)
    return images, labels


def check(names, image_shape):
    """Raise a UserError for a name that does not exist or that these images (…, h, w, 3) do not allow."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UserError(f"Unknown augmentation '{unknown[0]}'; choose from {', '.join(BY_NAME)}.")
    height, width = image_shape[-3:-1]
    if "symmetries" in names and height != width:
        raise UserError(f"The augmentation 'symmetries' needs square images, these are {height}x{width}; use 'flip'.")
    for name, pixels in (("shift", SHIFT), ("small_shift", SMALL_SHIFT)):
        if name in names and min(height, width) <= pixels:
            raise UserError(
                f"The augmentation '{name}' moves by {pixels} pixels, more than images of {height}x{width} have."
            )
