"""Backbones for transfer learning: keras.applications or a trained network, without their classifier, and a new one."""

import collections
import contextlib
import difflib
import pathlib
import re
import socket
import threading
import urllib.error
import urllib.request
import warnings

import keras
import numpy as np
from keras import layers

from tfproject.data.archives import data_home
from tfproject.errors import UserError
from tfproject.models import freezing
from tfproject.models.layers import class_probabilities

NAMES = tuple(sorted(name for name, value in vars(keras.applications).items() if callable(value)))
POOLINGS = {
    "average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D, "flatten": layers.Flatten,
}  # fmt: skip
SECONDS = 5  # after so long without an answer, a download is given up


def backbone(name, image_shape, weights="imagenet"):
    """A network of keras.applications without its classifier, its own preprocessing inside, as one flat model.

    Args:
        name: its name there, such as "VGG16", "ResNet50", "MobileNetV2", "EfficientNetB0", "ConvNeXtTiny".
        image_shape: (height, width, 3).
        weights: "imagenet", the path of a weights file, or None (drawn anew). "imagenet" is looked for in
            `imagenet_file(name)`, in Keras' cache and on the network, which is given up within seconds. For "imagenet",
            Keras scales the input of EfficientNetB0 to B7 once more than for other weights; so for these the first
            place is passed over, and a path is for weights of one's own.

    Returns:
        A functional keras.Model of Keras' own layers, float32 RGB images (b, height, width, 3) in 0..255 to features
        (b, h, w, channels), with the layers' names of keras.applications.

    Raises:
        UserError: if there is no such network, it does not take images of this size, or the weights are not there or
            do not fit.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=6, cutoff=0.5) or NAMES
        raise UserError(f"keras.applications has no network '{name}'; choose one such as {', '.join(near)}.")

    def build(weights=None):
        image = keras.Input(image_shape, name="image")
        x = _preprocessed(image, name)
        return getattr(keras.applications, name)(
            include_top=False, weights=weights, input_tensor=x, input_shape=tuple(image_shape)
        )

    try:
        model = build()
    except ValueError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"{name} does not take images of {tuple(image_shape)} ({reason}); give others.") from error
    if weights == "imagenet":
        path = imagenet_file(name)
        if path.is_file() and not _differs_for_imagenet(name):
            _load(model, path, name)
        else:
            model = _with_keras_weights(build, name)
    elif weights is not None:
        _load(model, pathlib.Path(weights), name)
    return _with_stable_names(keras.Model(model.inputs, model.output, name=name.lower()))


def imagenet_file(name):
    """Where a backbone's ImageNet weights are looked for first: in the folder of the user's data."""
    return data_home() / "weights" / f"{name.lower()}_imagenet_notop.weights.h5"


def classifier(base, class_count, head=(), dropout=0.0, pooling="average"):
    """A backbone with new layers that classify.

    Args:
        base: a functional keras.Model from images to features (b, h, w, channels) or (b, features); its layers become
            the classifier's, with their weights.
        class_count: number of classes.
        head: units of the dense layers (ReLU) before the output layer.
        dropout: share of units dropped before every dense layer, the output layer too.
        pooling: "average", "max" or "flatten": what makes a vector of (h, w, channels).

    Returns:
        A flat functional keras.Model to probabilities (b, class_count); its new layers are head_pool, head_dense1 ...
        and classes.
    """
    if pooling not in POOLINGS:
        raise UserError(f"There is no pooling '{pooling}'; choose from {', '.join(POOLINGS)}.")
    x = base.output
    if len(x.shape) == 4:
        x = POOLINGS[pooling](name="head_pool")(x)
    for number, units in enumerate((*head, None), start=1):
        if dropout:
            x = layers.Dropout(dropout, name=f"head_dropout{number}")(x)
        if units:
            x = layers.Dense(units, activation="relu", name=f"head_dense{number}")(x)
    return keras.Model(base.inputs, class_probabilities(x, class_count), name=f"{base.name}_classifier")


def pretrained_cnn(image_shape, class_count, name="VGG16", weights="imagenet", head=(), dropout=0.0, pooling="average"):
    """`classifier` on `backbone`, as `training.fit` takes it (with functools.partial for other than the defaults)."""
    return classifier(backbone(name, image_shape, weights), class_count, head, dropout, pooling)


def backbone_from(model, drop=1, image_shape=None):
    """A trained classifier without its last layers, as a backbone.

    Args:
        model: a functional keras.Model; it is copied and left as it is.
        drop: how many layers to leave out, counted from the output.
        image_shape: (height, width, 3) of the images to take; None for the model's own. Convolutions take any size,
            dense layers behind a Flatten only their own.

    Returns:
        A functional keras.Model with the same weights.

    Raises:
        UserError: if what is left is not one chain to one output, or does not take images of this size.
    """
    kept = model.layers[-1 - drop] if 1 <= drop < len(model.layers) - 1 else None
    cuts = freezing.cut_layers(model)
    if kept is None or kept.name not in cuts:
        raise UserError(
            f"The model {model.name} cannot be cut {drop} layers before its end; "
            f"the layers to cut behind are {', '.join(list(cuts)[-12:-1])}."
        )
    body = keras.Model(model.inputs, cuts[kept.name])
    image_shape = tuple(image_shape or model.input_shape[1:])
    image = keras.Input(image_shape, name=model.inputs[0].name)
    try:
        copy = keras.models.clone_model(body, input_tensors=[image])
        copy.set_weights(body.get_weights())
    except ValueError as error:
        raise UserError(
            f"{model.name} up to its layer {kept.name} takes images of {model.input_shape[1:]}, not of {image_shape}; "
            "drop more layers, up to the last convolution, or give images of its size."
        ) from error
    return keras.Model([image], copy.output, name=model.name)


def _preprocessed(image, name):
    """The layers that do what the network's own `preprocess_input` does."""
    application = getattr(keras.applications, name).__module__.rsplit(".", 1)[-1]
    preprocess = getattr(keras.applications, application).preprocess_input
    # All of them scale and shift each channel, some after having reversed them: four colours tell.
    colours = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    black, *primaries = preprocess(colours[None, None], data_format="channels_last")[0, 0]
    matrix = np.array(primaries) - black
    if not matrix[0, 0]:
        image = keras.ops.flip(image, axis=-1)  # RGB to BGR
        matrix = matrix[::-1]
    scale = np.diag(matrix)
    if np.any(scale != 1) or np.any(black != 0):
        # In float32 under every precision: an ImageNet mean has more digits than bfloat16.
        image = layers.Rescaling(scale.tolist(), black.tolist(), dtype="float32", name="preprocessing")(image)
    return image


def _with_stable_names(model):
    """Number the layers that Keras named after their type anew, from one: the same names however often it is built."""
    counts = collections.Counter()
    for operation in model.operations:
        if isinstance(operation, keras.Model):
            _with_stable_names(keras.Model(operation.inputs, operation.outputs))
        kind = re.sub(r"_\d+$", "", operation.name)
        if kind.replace("_", "") == type(operation).__name__.lower():
            counts[kind] += 1
            operation.name = kind if counts[kind] == 1 else f"{kind}_{counts[kind]}"
    return model


def _differs_for_imagenet(name):
    return re.fullmatch(r"EfficientNetB\d", name) is not None


def _load(model, path, name):
    """Load a weights file. Raises UserError if it is not there, damaged, or another network's."""
    if not path.is_file():
        raise UserError(f"There is no weights file {path}; give a .weights.h5 file of {name} without its top.")
    try:
        with warnings.catch_warnings():
            # Keras only warns where it leaves weights as they were drawn; such a backbone is of no use.
            warnings.filterwarnings("error", message=".*freshly-initialized", category=UserWarning)
            model.load_weights(path)
        sound = all(np.isfinite(weight).all() for weight in model.get_weights())
    except Exception as error:  # h5py and Keras raise whatever the damaged place gives
        raise UserError(
            f"{path} holds no weights of {name} without its top, or is damaged; give another file."
        ) from error
    if not sound:
        raise UserError(f"{path} is damaged: some of its weights are no finite numbers; give another file.")


def _with_keras_weights(build, name):
    """The network with the ImageNet weights that Keras has in its cache or downloads."""
    try:
        with _impatient_downloads():
            return build("imagenet")
    except Exception as error:  # Keras raises a plain Exception where a download fails
        reason = str(error).rpartition(" -- ")[2].rstrip(".")
        put = "" if _differs_for_imagenet(name) else f", or put them into {imagenet_file(name)}"
        raise UserError(
            f"{name}'s ImageNet weights are not on this disk and could not be downloaded ({reason}); connect to the "
            f"network{put}."
        ) from error


@contextlib.contextmanager
def _impatient_downloads():
    """Downloads within fail where nothing answers for SECONDS; Keras would wait for minutes, or for ever."""

    class Impatient(urllib.request.HTTPSHandler):
        def https_open(self, request):
            _reach(request.host)
            request.timeout = SECONDS
            return super().https_open(request)

    before = urllib.request._opener
    urllib.request.install_opener(urllib.request.build_opener(Impatient))
    try:
        yield
    finally:
        urllib.request.install_opener(before)


def _reach(host):
    """Raise URLError unless the host answers. In a thread, as looking up a name has no timeout."""
    name, _, port = host.partition(":")
    reached = []

    def connect():
        with contextlib.suppress(OSError):
            socket.create_connection((name, int(port or 443)), SECONDS).close()
            reached.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not reached:
        raise urllib.error.URLError("no connection")
