"""From an image file to RGB pixels, whatever the file turns out to be."""

import contextlib
import io
import os
import stat
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tfproject.errors import UserError

MAX_PIXELS = 100_000_000
MASK_SHARE = 0.9  # of pixels that are wholly transparent or not at all, from which on a band is transparency
DARK = 64  # of 255: 16 bits that never reach it are measurements, say reflectances times 10,000, and no picture
GEOTIFF_TAGS = {33550, 33922, 34264, 34735}  # pixel scale, tie points, transformation, keys

# Named, because Pillow would otherwise offer a file to every plug-in it has, one of which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")

_SETTINGS = threading.RLock()


class UnreadableImage(Exception):
    """An image that cannot be read; `reason` says why, in a few words.

    Attributes:
        reason: the reason, without the file's name.
    """

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def decode_image(source, size=None):
    """One image as RGB.

    The EXIF orientation is applied, transparent parts are laid on white, 16-bit grey values v become v // 257. Of the
    16-bit colours of a PNG file the upper 8 bits are taken. Refused are 16 bits that all are nearly black, those of
    georeferenced TIFF files, and 16-bit colours of any TIFF file: they may be reflectances of any range. What a
    georeferenced TIFF calls transparency is one only if nearly every pixel is either in or out: GDAL calls the fourth
    of four bands so whatever it is.

    Args:
        source: a path, or the bytes of an image file.
        size: (height, width) to resize to (bilinear with antialiasing; the aspect ratio is not kept), or None.

    Returns:
        A uint8 array of shape (height, width, 3).

    Raises:
        UnreadableImage: if it is not an image, is damaged, has more than MAX_PIXELS pixels, or has pixels of a kind
            whose range is not known.
    """
    with _pillow_as_we_need_it():
        return _decode(source, size)


def decode_images(sources, size=None):
    """Many images as RGB, decoded in a pool of threads.

    Args:
        sources: a sequence; each item a path, the bytes of an image file, or a function that returns either and may
            raise UnreadableImage.
        size: (height, width), or None for each image's own size.

    Returns:
        (images, bad). The images that could be read, in order: with a `size` a uint8 array of shape
        (n, height, width, 3), without one a list of uint8 arrays of shape (h, w, 3). And a dict of the others, from
        index in `sources` to reason.
    """
    count = len(sources)
    try:
        images = [None] * count if size is None else np.zeros((count, *size, 3), np.uint8)
    except MemoryError:
        height, width = size
        raise UserError(
            f"{count:,} images of {height}x{width} pixels take {count * height * width * 3 / 1e9:,.1f} GB, more than "
            "this machine gives; bring them to a smaller image size (`--image-size`), or take fewer."
        ) from None
    bad = {}

    def decode(indices):
        for i in indices:
            try:
                source = sources[i]
                images[i] = _decode(source() if callable(source) else source, size)
            except UnreadableImage as error:
                bad[i] = error.reason

    # Whole chunks, because handing a small image alone to a thread costs as much as decoding it.
    chunks = [range(start, min(start + 64, count)) for start in range(0, count, 64)]
    with _pillow_as_we_need_it(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, chunks):
            pass
    if bad:
        kept = [i for i in range(count) if i not in bad]
        images = [images[i] for i in kept] if size is None else images[kept]
    return images, dict(sorted(bad.items()))


def sizes_in_headers(sources):
    """(height, width) of each image as its header and its EXIF orientation say, of which nothing is decoded.

    Args:
        sources: as `decode_images` takes them.

    Returns:
        A list; None for what has no readable header.
    """
    with _pillow_as_we_need_it():
        return [_size_in_header(source) for source in sources]


def _size_in_header(source):
    try:
        source = source() if callable(source) else source
        if not isinstance(source, bytes) and not os.path.isfile(source):  # opening a named pipe would wait for ever
            return None
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            turned = Image.Image.getexif(image).get(0x0112, 1) in (5, 6, 7, 8)  # PNG's own getexif decodes the image
            return image.size if turned else image.size[::-1]
    except Exception:  # Pillow's readers raise nearly anything on a damaged header
        return None


def resize(image, size):
    """A uint8 image (h, w, 3) at another size (height, width), bilinear with antialiasing."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _pillow_as_we_need_it():
    # What Pillow warns of (size, damaged EXIF, odd palettes) is judged here, and half a file is no image, though
    # WeasyPrint tells Pillow otherwise when it is imported. Both settings belong to the whole process, so that only one
    # caller at a time may change them and put them back.
    with _SETTINGS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode(source, size):
    if isinstance(source, bytes):
        if not source:
            raise UnreadableImage("an empty file (0 bytes)")
        return _decode_stream(io.BytesIO(source), size)
    try:
        status = os.stat(source)
        # Before opening, because opening a named pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage("not a regular file")
        if status.st_size == 0:
            raise UnreadableImage("an empty file (0 bytes)")
        with open(source, "rb") as stream:
            return _decode_stream(stream, size)
    except OSError as error:
        raise UnreadableImage(f"cannot be opened: {error.strerror or error}") from error


def _decode_stream(stream, size):
    try:
        with Image.open(stream, formats=FORMATS) as image:
            if pixels_in_memory(image) > MAX_PIXELS:
                raise UnreadableImage(_too_large(f"{image.width} x {image.height}"))
            _check_depth(image)
            deep = _has_16_bits(image)
            pixels = _to_rgb(ImageOps.exif_transpose(_without_false_alpha(image)))
        if deep and pixels.max() < DARK:
            raise UnreadableImage(
                "16-bit values that are all below a quarter of 65,535 and would be nearly black: their range is not "
                "known; save it with 8 bits, or give it to `tfproject map` if it is a scene"
            )
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        stream.seek(0)
        if stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise UnreadableImage(
                "a TIFF file whose bands or pixels are of another kind; save it as RGB with 8 bits, or give it to "
                "`tfproject map` if it is a scene"
            ) from error
        raise UnreadableImage("not an image (no readable header of a JPEG, PNG, TIFF, BMP, WebP or GIF)") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(_too_large("its header says far more")) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file, down to struct.error.
        raise UnreadableImage(f"damaged: {str(error) or type(error).__name__}") from error
    return pixels if size is None else resize(pixels, size)


def pixels_in_memory(image):
    """How many pixels decoding an open Pillow image takes: a TIFF file's tiles may be far larger than the image."""
    tags = getattr(image, "tag_v2", {})
    tile = [int(tags.get(tag, 0)) for tag in (322, 323)]  # width and length
    return max(image.width * image.height, tile[0] * tile[1])


def _georeferenced(image):
    return bool(GEOTIFF_TAGS & set(getattr(image, "tag_v2", {})))


def _without_false_alpha(image):
    """The open image; in RGB where it is a georeferenced TIFF whose fourth band is no mask, but near infrared say."""
    if image.mode != "RGBA" or not _georeferenced(image):
        return image
    return image if is_mask(np.asarray(image)[..., 3]) else image.convert("RGB")


def is_mask(values):
    """Whether a band that is called transparency is one: nearly all of its pixels are wholly in or wholly out."""
    return bool(((values == 0) | (values == values.max())).mean() >= MASK_SHARE)


def _check_depth(image):
    """Refuse what Pillow would read as 8 or 16 bits though it is not, and measurements whose range nobody said."""
    bits = tuple(getattr(image, "tag_v2", {}).get(258, ()))  # of each sample
    known = (32,) if _georeferenced(image) else (16, 32)
    if bits and max(bits) > 8 and (len(bits) > 1 or max(bits) not in known):
        kind = f"{max(bits)}-bit {'colours' if len(bits) > 1 else 'grey values'}"
        raise UnreadableImage(
            f"{kind}, whose range is not known; save it with 8 bits, or give it to `tfproject map` if it is a scene"
        )


def _has_16_bits(image):
    """Whether an open image has 16 bits a sample; of colours Pillow tells it nowhere but in how a PNG is to be read."""
    colours = image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile)
    return colours or image.mode.startswith("I;16")


def _too_large(found):
    return f"too large: more than {MAX_PIXELS // 1_000_000} million pixels ({found})"


def _to_rgb(image):
    if image.mode.startswith("I;16"):
        # v // 257 takes 0..65535 onto 0..255 evenly; Pillow's own conversion would clip at 255.
        grey = (np.asarray(image) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise UnreadableImage(f"{kind} pixels, whose range is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
