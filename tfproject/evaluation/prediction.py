"""What a model says about image files: read on several threads while the network works, bad files listed."""

import collections
import concurrent.futures
import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import warnings

import numpy as np

from tfproject.data.decoding import decode_images
from tfproject.data.folders import IMAGE_EXTENSIONS, has_image_extension
from tfproject.data.image_set import BadImage
from tfproject.errors import UserError
from tfproject.files import write_atomically

VIEWS = {
    1: "the image as it is",
    2: "and mirrored left to right",
    6: "and moved by a pixel down and right, or up and left, each mirrored too",
    8: "all symmetries of the square",
}
TOLERANCE = 1e-2  # of probabilities and their sum, which half precision rounds
READ_AHEAD = 3  # batches decoded or being decoded while one is in the network: the memory's bound


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The class probabilities of image files.

    Attributes:
        names: n file names, as they were given or found.
        class_names: c names.
        probabilities: float32, shape (n, c).
        bad: the files that could not be read, with their reasons; they have no row.
        abstain_below: a probability; the model abstains where the most probable class has less. None if it never does.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    bad: tuple[BadImage, ...] = ()
    abstain_below: float | None = None

    def __len__(self):
        return len(self.names)

    @property
    def classes(self):
        """The most probable class of each file: n names."""
        return [self.class_names[i] for i in self.probabilities.argmax(axis=1)]

    @property
    def confidences(self):
        """The probability of that class: float32, shape (n,)."""
        return self.probabilities.max(axis=1)

    @property
    def abstains(self):
        """Whether the model abstains: bool, shape (n,)."""
        return self.confidences < (0 if self.abstain_below is None else self.abstain_below)

    def to_csv(self, path):
        """Write file, class, probability, abstains (true, false) and the probability of every class.

        There is a line for every file that could be read.

        Raises:
            UserError: if the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "class", "probability", "abstains", *self.class_names])
        for name, class_name, confidence, abstains, row in self._rows():
            abstains = "true" if abstains else "false"
            writer.writerow([name, class_name, f"{confidence:.6f}", abstains, *(f"{p:.6f}" for p in row)])
        # A file name need not be valid UTF-8; surrogateescape gives its own bytes back.
        write_atomically(path, text.getvalue().encode(errors="surrogateescape"))

    def to_json(self, path):
        """Write {class_names, abstain_below, predictions, bad: [{file, reason}]}.

        predictions: [{file, class, probability, abstains, probabilities: {class: probability}}].

        Raises:
            UserError: if the file cannot be written.
        """
        content = {
            "class_names": list(self.class_names),
            "abstain_below": self.abstain_below,
            "predictions": [
                {
                    "file": name,
                    "class": class_name,
                    "probability": round(float(confidence), 6),
                    "abstains": bool(abstains),
                    "probabilities": {c: round(float(p), 6) for c, p in zip(self.class_names, row)},
                }
                for name, class_name, confidence, abstains, row in self._rows()
            ],
            "bad": [{"file": image.name, "reason": image.reason} for image in self.bad],
        }
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    def to_text(self):
        """A table of file, class, probability and whether it abstains, if it may; below, the bad files with reasons."""
        lines = []
        if self.names:
            names = [_printable(name) for name in self.names]
            width = max(len("file"), *map(len, names))
            class_width = max(len("class"), *map(len, self.classes))
            may_abstain = self.abstain_below is not None
            lines.append(f"{'file':<{width}}  {'class':<{class_width}}  probability" + "  abstains" * may_abstain)
            lines += [
                f"{name:<{width}}  {class_name:<{class_width}}  {confidence:>11.4f}"
                + (f"  {'yes' if abstains else 'no':<8}" if may_abstain else "")
                for name, (_, class_name, confidence, abstains, _) in zip(names, self._rows())
            ]
        if self.bad:
            lines += [""] if lines else []
            lines.append(f"{len(self.bad)} of {len(self.bad) + len(self)} files could not be read:")
            lines += [f"  {_printable(image.name)}: {image.reason}" for image in self.bad]
        return "\n".join(lines)

    def _rows(self):
        return zip(self.names, self.classes, self.confidences, self.abstains, self.probabilities)


def find_images(paths):
    """The image files that paths stand for.

    Args:
        paths: files, taken as they are, and folders, searched with all below for files with an image's extension;
            what is hidden (a name with a leading dot) is left out, and a warning tells of other files. One path alone
            may be given as it is.

    Returns:
        A list of pathlib.Path, each file once; a folder's files sorted by name.

    Raises:
        UserError: if a path does not exist, a folder cannot be read or it holds no image.
    """
    found = {}
    for path in map(pathlib.Path, [paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if path.is_dir():
            files = sorted(_files_below(path))
            images = [file for file in files if has_image_extension(file)]
            if not images:
                raise UserError(
                    f"The folder {path} holds no image ({' '.join(IMAGE_EXTENSIONS)}); give one that does, or files."
                )
            if others := [file for file in files if not has_image_extension(file)]:
                warnings.warn(
                    f"In {path} files are left out for what their names end with ({len(others):,}, such as "
                    f"{others[0].name}).", stacklevel=2
                )  # fmt: skip
        elif os.path.lexists(path):
            images = [path]
        else:
            raise UserError(f"There is no file or folder {path}; give the path of an image or of a folder of images.")
        for image in images:
            found.setdefault(os.path.abspath(image), image)
    return list(found.values())


def predict_files(saved_model, paths, batch_size=128, views=1, abstain_below=None):
    """The class probabilities of image files, each resized to the model's input size.

    A file that cannot be read is listed in the result's `bad` and does not stop the others.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        paths: image files, as `find_images` lists them.
        batch_size: images a step.
        views: how many views of each image are averaged, see `VIEWS`.
        abstain_below: as `threshold` takes it.

    Returns:
        Predictions, in the order of `paths`.

    Raises:
        UserError: if there is no such number of views, the images are not square where they must be, or abstain_below
            is no probability.
    """
    abstain_below = threshold(saved_model, abstain_below)
    paths = list(paths)
    batch_size = max(1, min(batch_size, len(paths)))
    predict = predictor(saved_model.model, saved_model.image_size, batch_size, views)
    names, bad, probabilities = [], [], [np.empty((0, len(saved_model.class_names)), np.float32)]
    for batch, images, reasons in _decoded_batches(paths, saved_model.image_size, batch_size):
        bad += [BadImage(str(batch[i]), reason) for i, reason in reasons.items()]
        names += [str(path) for i, path in enumerate(batch) if i not in reasons]
        if len(images):
            probabilities.append(predict(images))
    probabilities = np.concatenate(probabilities)
    return Predictions(tuple(names), saved_model.class_names, probabilities, tuple(bad), abstain_below)


def threshold(saved_model, abstain_below=None):
    """The probability below which the model abstains.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        abstain_below: 0..1; None takes what the model's card says, if it does.

    Returns:
        A float, or None for a model that never abstains.

    Raises:
        UserError: if it is no probability.
    """
    found = saved_model.card.get("abstain_below") if abstain_below is None else abstain_below
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= 1:
        where = "the model's card says" if abstain_below is None else "it is"
        raise UserError(f"The model shall abstain below a probability, and {where} {found!r}; give one from 0 to 1.")
    return float(found)


def predictor(model, image_size, batch_size, views=1):
    """A function from images to class probabilities, the one behind `predict_files` and `evaluate` alike.

    Args:
        model: a Keras model from float32 (b, h, w, 3) in 0..255 to probabilities (b, c).
        image_size: (h, w).
        batch_size: the most images that a call may hold. Fewer are filled up to it, so that TensorFlow traces the
            network once.
        views: how many views of each image are averaged, see `VIEWS`.

    Returns:
        A function: images (n, h, w, 3), uint8 or float in 0..255, n <= batch_size, to float32 (n, c).

    Raises:
        UserError: if there is no such number of views, or the images are not square where they must be; from the
            function, if what the model gives are no probabilities.
    """
    if views not in VIEWS:
        raise UserError(f"views is {views}; give " + ", ".join(f"{n} ({text})" for n, text in VIEWS.items()) + ".")
    if views == 8 and image_size[0] != image_size[1]:
        raise UserError(f"The images are {image_size[0]}x{image_size[1]}, and 8 views need square ones; give views=1.")

    network = _traced(model, (batch_size, *image_size, 3))

    def predict(images):
        padded = np.asarray(images, np.float32)
        if len(images) < batch_size:
            padded = np.concatenate([padded, np.zeros((batch_size - len(images), *image_size, 3), np.float32)])
        found = np.mean([network(view).numpy()[: len(images)] for view in _views(padded, views)], axis=0)
        if not (found >= -TOLERANCE).all() or not (np.abs(found.sum(axis=-1) - 1) <= TOLERANCE).all():  # NaN too
            raise UserError(
                f"What {model.name} gives are no probabilities: they shall be 0 or more and sum to 1 for each image; "
                "give a model that ends in a softmax and has finite weights."
            )
        return found

    return predict


@functools.lru_cache(maxsize=2)  # tracing takes as long as some hundred images
def _traced(model, shape):
    """The model in inference mode as a tf.function of float32 images of this shape; as with Keras' own, of its layers
    as they are now and its weights as they are then."""
    import tensorflow as tf

    from tfproject.models.folding import call_folded

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
    def network(images):
        return tf.cast(call_folded(model, images), tf.float32)

    return network


def _views(images, views):
    """The images (b, h, w, 3) in each of their views."""
    if views == 8:
        seen = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    elif views == 6:
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        seen = [images, padded[:, :-2, :-2], padded[:, 2:, 2:]]
    else:
        seen = [images]
    for view in seen:
        yield view
        if views > 1:
            yield view[:, :, ::-1]


def _decoded_batches(paths, size, batch_size):
    """(paths, uint8 images (n, h, w, 3) of those that could be read, {index in paths: reason} of the others), in order.

    A thread of its own reads a few batches ahead, so that decoding and network overlap.
    """
    reader = concurrent.futures.ThreadPoolExecutor(1)  # one batch at a time: decode_images itself uses every core
    try:
        ahead = collections.deque()
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            ahead.append((batch, reader.submit(decode_images, batch, size)))
            if len(ahead) > READ_AHEAD:
                batch, result = ahead.popleft()
                yield batch, *result.result()
        for batch, result in ahead:
            yield batch, *result.result()
    finally:
        reader.shutdown(cancel_futures=True)


def _files_below(folder):
    def unreadable(error):
        reason = error.strerror or error
        raise UserError(f"The folder {error.filename} cannot be read ({reason}); leave it out, or let it be read.")

    # Links to folders are not followed: they may lead in circles.
    for current, subfolders, names in os.walk(folder, onerror=unreadable):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield pathlib.Path(current, name)


def _printable(name):
    """The name with line breaks, control characters and invalid bytes written as escapes, to stay on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
