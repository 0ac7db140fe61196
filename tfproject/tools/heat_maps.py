"""Heat maps as pictures, and one beside each image that was classified."""

import io
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfproject.data.decoding import UnreadableImage, decode_image, resize
from tfproject.errors import UserError
from tfproject.files import write_atomically

# The method of tfproject.interpret.attribution that `predict --explain` and the page show. Of those that need one pass
# an image, Layer-CAM does best in Task 3's checks: all passed with the custom CNN, half of them with VGG16. With the
# land-cover network no method passes all.
METHOD = "layercam"
PICTURE_SIDE = 320  # pixels of the longer side of a picture
CAPTION, GAP, TEXT = 44, 8, 13  # pixels: height of the caption, space between the pictures, size of letters
OPACITY = 0.55  # of the heat map over the image
BATCH = 16  # images in memory at once, at the network's size


def heat_mapper(model):
    """METHOD of a network: a function from images and classes, as `attribute` takes them, to maps (n, h, w) in 0..1.

    Raises:
        UserError: if the network cannot be laid open, or has no convolution and METHOD needs one.
    """
    from tfproject.interpret.attribution import attributor

    maps = attributor(model, (METHOD,))
    return lambda images, classes: maps(images, classes)[METHOD]


def heat_picture(heat):
    """A heat map (h, w) in 0..1 as a picture: from dark, the least, to light, the most important pixels."""
    import matplotlib

    colours = (matplotlib.colormaps["inferno"](heat) * 255).astype(np.uint8)
    return _enlarged(Image.fromarray(np.ascontiguousarray(colours[:, :, :3])))


def explain_files(saved_model, predictions, directory):
    """Write a PNG for each classified image: the image, and over it where METHOD sees most for its class.

    A picture is called by its image's path below the folder that all have in common, "forest-1.png" for forest/1.jpg.
    No file is overwritten: a name that is taken gets a number. Memory does not depend on how many images there are.

    Args:
        saved_model: the `tfproject.models.saved_models.SavedModel` that the predictions are of.
        predictions: `tfproject.evaluation.Predictions`; their files are read once more.
        directory: where to, made if it is not there.

    Returns:
        A list of pathlib.Path, a file for each row of the predictions; None for an image that is gone by now.

    Raises:
        UserError: if no heat maps can be drawn of the network, or a file cannot be written.
    """
    try:
        heat_of = heat_mapper(saved_model.model)
    except UserError as error:
        raise UserError(
            f"No heat maps can be drawn of {saved_model.path}: it has no convolution with more than one position, or "
            "cannot be laid open; leave out `--explain`."
        ) from error
    directory = pathlib.Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory} cannot be made ({error.strerror}); name a folder that can be.") from error
    classes, names = predictions.probabilities.argmax(axis=1), predictions.classes
    abstains = predictions.abstains
    paths = [pathlib.Path(os.path.abspath(name)) for name in predictions.names]
    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    written = [None] * len(predictions)
    for start in range(0, len(predictions), BATCH):
        rows, seen, shown = [], [], []
        for i in range(start, min(start + BATCH, len(predictions))):
            try:
                image = decode_image(pathlib.Path(predictions.names[i]))
            except UnreadableImage:
                continue
            rows.append(i)
            seen.append(resize(image, saved_model.image_size))
            shown.append(_enlarged(Image.fromarray(image)))
        if not rows:
            continue
        heats = heat_of(np.stack(seen), classes[rows])
        for i, image, heat in zip(rows, shown, heats):
            name = paths[i].relative_to(common)
            probability = f"{names[i]}  {predictions.probabilities[i, classes[i]]:.1%}"
            caption = (name.as_posix(), probability + ", abstains" * bool(abstains[i]))
            written[i] = _free(directory, "-".join(name.with_suffix("").parts))
            write_atomically(written[i], _png(_side_by_side(image, heat, caption)))
    return written


def _enlarged(picture):
    """The picture with PICTURE_SIDE pixels on its longer side."""
    scale = PICTURE_SIDE / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BILINEAR)


def _side_by_side(image, heat, caption):
    over = Image.blend(image, heat_picture(heat).resize(image.size, Image.Resampling.BILINEAR), OPACITY)
    width = max(2 * image.width + GAP, PICTURE_SIDE)
    sheet = Image.new("RGB", (width, CAPTION + image.height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for line, text in enumerate(caption):
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
        draw.text((2, 3 + 19 * line), text, "#222222", font)
    sheet.paste(image, (0, CAPTION))
    sheet.paste(over, (image.width + GAP, CAPTION))
    return sheet


def _free(directory, stem):
    number, path = 1, directory / f"{stem}.png"
    while path.exists() or path.is_symlink():
        number += 1
        path = directory / f"{stem}-{number}.png"
    return path


def _png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
