"""Where in an image the evidence for a class lies: six attribution methods that share their passes."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from scipy import ndimage

from tfproject.errors import UserError
from tfproject.interpret.network import Network, lay_open

MEASURES = {  # what a method's map says of a place
    "gradients": "how sensitive the class's logit is to the pixel, for or against it: the largest absolute derivative "
    "over its colours",
    "smoothgrad": "the same sensitivity, averaged over noisy copies of the image",
    "gradcam": "the sum of the channels, each weighted with the logit's mean derivative to it; what is below 0 is cut "
    "off",
    "gradcam++": "the sum of the channels, each weighted with a weighted mean of the logit's derivatives to it "
    "that are above 0; what is below 0 is cut off",
    "scorecam": "the sum of the channels, each weighted with the class's probability for the image times the channel",
    "layercam": "the sum of the channels, each place of each weighted with the logit's derivative there where that is "
    "above 0",
}
METHODS = tuple(MEASURES)
CLASS_ACTIVATION_MAPS = ("gradcam", "gradcam++", "scorecam", "layercam")
BATCH_PIXELS = 2**19  # of a default batch: 10 images of 224x224; VGG16 needs about 2 GB for the gradients of these
EPSILON = 1e-7  # what tf-keras-vis adds to a map's range before it divides by it
LARGEST_EXPONENT = 60.0  # Grad-CAM++ takes exp(logit), which only scales the map; float32 ends at exp(88)


def attribute(
    model, images, classes=None, methods=METHODS, layer=None, *, batch_size=None, samples=20, noise=0.2, seed=0,
    max_channels=None,
):  # fmt: skip
    """Heat maps of what in each image speaks for its class.

    The maps are those of tf-keras-vis with its defaults on a model whose final softmax is taken off
    (`ReplaceToLinear`), and for the class activation maps the layer that they look at given as `penultimate_layer`: for
    each image from 0 at its least to 1 at its most important pixel; a map without any
    difference is 0 everywhere. The map of an image does not depend on the others. One pass forward and one backward
    serve "gradients", "gradcam", "gradcam++" and "layercam" together.

    "gradients" and "smoothgrad" are the largest absolute derivative of the class's logit over the colours of a pixel.
    The others weight the channels of a convolution after the normalisation and activation that follow it, as a channel
    says something where it is active; tf-keras-vis left alone takes it before those that are layers of their own, where
    the sum of the channels is often below 0 everywhere and the map is empty. Score-CAM weights a channel with the
    class's probability when the image is multiplied by the channel's map; a channel that is 0 everywhere adds nothing
    and is not computed.

    Args:
        model: a keras.Model that `lay_open` takes, or a Network.
        images: uint8 or float, shape (n, h, w, channels), as the model takes them.
        classes: int, shape (n,), the class that each map is for; the predicted ones if None.
        methods: some of METHODS.
        layer: name of the convolution whose channels the class activation maps look at; if None the last Conv2D that
            has more than one position.
        batch_size: images a step; if None about half a million pixels a step. Memory depends on this alone.
        samples: SmoothGrad's noisy copies of each image.
        noise: the standard deviation of SmoothGrad's noise, as a share of each image's range of values.
        seed: of SmoothGrad's noise; sample s has the same noise, but for its size, in every image.
        max_channels: Score-CAM takes so many channels of each image, those whose values vary most (Faster Score-CAM);
            all if None.

    Returns:
        A dict from method to float32 maps of shape (n, h, w), in 0..1.

    Raises:
        UserError: if there is no such method or layer, the network has no convolution for a method that needs one, or
            images or classes do not suit the network.

    Reference:
        Simonyan et al. 2013, Deep inside convolutional networks (https://arxiv.org/abs/1312.6034).
        Smilkov et al. 2017, SmoothGrad (https://arxiv.org/abs/1706.03825).
        Selvaraju et al. 2017, Grad-CAM (https://arxiv.org/abs/1610.02391).
        Chattopadhyay et al. 2018, Grad-CAM++ (https://arxiv.org/abs/1710.11063).
        Wang et al. 2020, Score-CAM (https://arxiv.org/abs/1910.01279).
        Jiang et al. 2021, LayerCAM (https://ieeexplore.ieee.org/document/9462463).
    """
    maps = attributor(
        model, methods, layer, batch_size=batch_size, samples=samples, noise=noise, seed=seed, max_channels=max_channels
    )
    return maps(images, classes)


def attributor(
    model, methods=METHODS, layer=None, *, batch_size=None, samples=20, noise=0.2, seed=0, max_channels=None
):  # fmt: skip
    """The function behind `attribute`, traced once for many calls; it sees when a Network's weights change.

    Args:
        model, methods, layer, batch_size, samples, noise, seed, max_channels: as `attribute` takes them.

    Returns:
        A function: images and classes, as `attribute` takes them, to a dict from method to maps.

    Raises:
        UserError: as `attribute`.
    """
    network = model if isinstance(model, Network) else lay_open(model)
    methods = _checked_methods(methods)
    for name, value in (("batch_size", batch_size), ("samples", samples), ("max_channels", max_channels)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; give 1 or more.")
    batch_size = batch_size or default_batch_size(network.image_shape)
    features = feature_map(network, layer) if set(methods) & set(CLASS_ACTIVATION_MAPS) else None
    one_pass = _one_pass(network, features, methods)
    if "smoothgrad" in methods:
        smoothgrad = _smoothgrad(network, batch_size, samples, noise, seed)
    if "scorecam" in methods:
        scorecam = _scorecam(network, features, batch_size, max_channels)

    def maps(images, classes=None):
        images, classes = _checked_images(network, images, classes)
        found = {method: np.empty(images.shape[:3], np.float32) for method in methods}
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            pixels = np.asarray(images[batch], np.float32)
            result = {name: value.numpy() for name, value in one_pass(pixels, classes[batch]).items()}
            if "smoothgrad" in methods:
                result["smoothgrad"] = smoothgrad(pixels, result["classes"])
            if "scorecam" in methods:
                result["scorecam"] = scorecam(pixels, result["features"], result["classes"])
            for method in methods:
                found[method][batch] = result[method]
        return found

    return maps


def described(network, methods=METHODS, layer=None):
    """What the map of each method measures of a network, where, and in how many cells.

    Args:
        network, methods, layer: as `attribute` takes them.

    Returns:
        A list of dicts, one for each method: method, measures, layer (the image, or the convolution's name), rows and
        columns (of cells that differ; the map itself has the image's).

    Raises:
        UserError: as `attribute`.
    """
    rows = []
    for method in _checked_methods(methods):
        if method in CLASS_ACTIVATION_MAPS:
            place = feature_layer(network, layer)
            name, (height, width) = place.name, place.output.shape[1:3]
        else:
            name, (height, width) = "the image", network.image_shape[:2]
        rows.append({"method": method, "measures": MEASURES[method], "layer": name, "rows": height, "columns": width})
    return rows


def feature_map(network, layer=None):
    """The tensor that the class activation maps look at, (None, h, w, channels), that of `feature_layer`."""
    return feature_layer(network, layer).output


def feature_layer(network, layer=None):
    """The UnitLayer whose channels the class activation maps look at.

    Args:
        network: Network.
        layer: name of a convolution; if None the last Conv2D that has more than one position.

    Raises:
        UserError: if there is none, or no such layer, or it is no convolution.
    """
    if layer is not None:
        unit_layer = network[layer]
        if unit_layer.kind != "convolution":
            raise UserError(
                f"The layer '{layer}' is a {unit_layer.kind} layer, whose units have no place in the image; "
                "give a convolution for the class activation maps."
            )
    else:
        with_places = [c for c in network.convolutions if c.raw.shape[1] * c.raw.shape[2] > 1]
        plain = [c for c in with_places if isinstance(c.layer, layers.Conv2D)]
        if not with_places:
            raise UserError(
                f"The network {network.model.name} has no convolution with more than one position, which "
                f"{', '.join(CLASS_ACTIVATION_MAPS)} need; give methods=('gradients', 'smoothgrad')."
            )
        unit_layer = (plain or with_places)[-1]
    return unit_layer


def class_probabilities(network):
    """A compiled function: float32 images (n, h, w, channels) and int classes (n,) to each one's probability (n,)."""
    part = network.part([network.model.output])
    compiled = _compiled(
        lambda images, classes: _probability(network, part(images, training=False), classes), _signature(network)
    )
    return lambda images, classes: compiled(np.asarray(images, np.float32), classes).numpy()


def default_batch_size(image_shape):
    """Images that have about BATCH_PIXELS pixels together."""
    return max(1, BATCH_PIXELS // (image_shape[0] * image_shape[1]))


def _one_pass(network, features, methods):
    """What one pass forward and at most one backward give: maps, classes, and the features for Score-CAM to go on."""
    with_images = "gradients" in methods
    with_features = bool({"gradcam", "gradcam++", "layercam"} & set(methods))
    part = network.part([network.logits] if features is None else [network.logits, features])
    enlarge = None if features is None else _enlargement(features.shape[1:3], network.image_shape[:2])

    def passes(images, classes):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits, *feature_values = keras.tree.flatten(part(images, training=False))
            predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
            classes = tf.where(classes < 0, predicted, classes)
            score = tf.gather(logits, classes, batch_dims=1)
        sources = [images] * with_images + feature_values * with_features
        slopes = tape.gradient(score, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO) if sources else []
        found = {"classes": classes}
        if with_images:
            found["gradients"] = _normalised(tf.reduce_max(tf.abs(slopes[0]), axis=-1))
        if with_features:
            for method, channel_maps in _CHANNEL_MAPS.items():
                if method in methods:
                    cam = tf.nn.relu(tf.reduce_sum(channel_maps(feature_values[0], slopes[-1], score), axis=-1))
                    found[method] = _normalised(enlarge(cam))
        if "scorecam" in methods:
            found["features"] = feature_values[0]
        return found

    return _compiled(passes, _signature(network))


def _gradcam(features, slopes, score):
    return features * tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)


def _gradcam_plus_plus(features, slopes, score):
    # The derivatives of exp(logit) to the features, for a network that is linear between there and the logit.
    first = tf.exp(tf.minimum(score, LARGEST_EXPONENT))[:, None, None, None] * slopes
    second = first * slopes
    third = second * slopes
    alphas = tf.math.divide_no_nan(
        second, 2 * second + third * tf.reduce_sum(features, axis=(1, 2), keepdims=True) + _one_where_zero(second)
    )
    total = tf.reduce_sum(alphas, axis=(1, 2), keepdims=True)
    alphas /= total + _one_where_zero(total)
    return features * tf.reduce_sum(tf.nn.relu(first) * alphas, axis=(1, 2), keepdims=True)


def _layercam(features, slopes, score):
    return features * tf.nn.relu(slopes)


# From features (n, h, w, c), the logit's derivative to them, and the logit (n,), to maps whose sum over c is the map.
_CHANNEL_MAPS = {"gradcam": _gradcam, "gradcam++": _gradcam_plus_plus, "layercam": _layercam}


def _one_where_zero(x):
    return tf.cast(tf.equal(x, 0), x.dtype)


def _smoothgrad(network, batch_size, samples, noise, seed):
    part = network.part([network.logits])

    def slopes_of(images, classes):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            score = tf.gather(part(images, training=False), classes, batch_dims=1)
        return tf.abs(tape.gradient(score, images, unconnected_gradients=tf.UnconnectedGradients.ZERO))

    slopes = _compiled(slopes_of, _signature(network))

    def maps(images, classes):
        scale = noise * np.ptp(images, axis=(1, 2, 3))
        total = np.zeros_like(images)
        # Samples of several images fill a batch together, so that one image runs as fast as many.
        places = np.indices((len(images), samples)).reshape(2, -1)
        for start in range(0, places.shape[1], batch_size):
            image, sample = places[:, start : start + batch_size]
            noisy = images[image]
            for row, i, s in zip(noisy, image, sample):
                row += scale[i] * standard_noise(seed, s, row.shape)
            for i, slope in zip(image, slopes(noisy, classes[image]).numpy()):
                total[i] += slope
        return _normalised((total / samples).max(axis=-1)).numpy()

    return maps


def standard_noise(seed, sample, shape):
    """SmoothGrad's noise of one sample before it gets an image's scale: float32, standard normal."""
    return np.random.default_rng((seed, sample)).standard_normal(shape, np.float32)


def _scorecam(network, features, batch_size, max_channels):
    part = network.part([network.model.output])
    size, image_size = features.shape[1:3], network.image_shape[:2]
    enlarge = _enlargement(size, image_size)
    enlarge_mask = _enlargement(size, image_size, mode="nearest")

    def masked(images, classes, activations):
        masks = _normalised(enlarge_mask(activations))
        return _probability(network, part(images * masks[..., None], training=False), classes)

    probability = _compiled(masked, [*_signature(network), tf.TensorSpec((None, *size), tf.float32)])

    def maps(images, values, classes):
        weights = np.zeros((len(values), values.shape[-1]), np.float32)
        used = values.any(axis=(1, 2))
        if max_channels is not None:
            order = np.argsort(-values.std(axis=(1, 2)), axis=1, kind="stable")
            np.put_along_axis(used, order[:, max_channels:], False, axis=1)
        image, channel = np.nonzero(used)
        for start in range(0, len(image), batch_size):
            i, c = image[start : start + batch_size], channel[start : start + batch_size]
            weights[i, c] = probability(images[i], classes[i], values[i, :, :, c]).numpy()
        return _normalised(enlarge(tf.nn.relu(tf.einsum("nhwc,nc->nhw", values, weights)))).numpy()

    return maps


def _probability(network, outputs, classes):
    if network.model.output is network.logits:  # the model ends without a softmax
        outputs = tf.nn.softmax(outputs) if network.class_count > 1 else tf.nn.sigmoid(outputs)
    return tf.gather(outputs, classes, batch_dims=1)


def _enlargement(size, image_size, mode="constant"):
    """A function that resizes maps (n, h, w) to the image's size, as `scipy.ndimage.zoom` of order 1 does.

    Linear interpolation is a product with a matrix along each axis, which zooming the identity gives, with all of
    SciPy's ways at the edges.
    """
    rows, columns = (
        ndimage.zoom(np.eye(few), (many / few, 1), order=1, mode=mode).astype(np.float32)
        for few, many in zip(size, image_size)
    )
    return lambda maps: tf.einsum("Hh,nhw,Ww->nHW", rows, maps, columns)


def _normalised(maps):
    """Each map (n, h, w) from 0 to 1; a map without differences becomes 0."""
    lowest = tf.reduce_min(maps, axis=(1, 2), keepdims=True)
    return (maps - lowest) / (tf.reduce_max(maps, axis=(1, 2), keepdims=True) - lowest + EPSILON)


def _compiled(function, signature):
    """The function traced at once, so that TensorFlow does not warn when it comes to many networks."""
    traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    return lambda *arguments: traced(*map(tf.convert_to_tensor, arguments))


def _signature(network):
    return [tf.TensorSpec((None, *network.image_shape), tf.float32), tf.TensorSpec((None,), tf.int32)]


def _checked_methods(methods):
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UserError(f"There is no attribution method {', '.join(unknown)!r}; give some of {', '.join(METHODS)}.")
    return methods


def _checked_images(network, images, classes):
    images = np.asarray(images)
    network.check_images(images)
    if classes is None:
        return images, np.full(len(images), -1, np.int32)
    classes = np.asarray(classes)
    if classes.shape != (len(images),) or not np.issubdtype(classes.dtype, np.integer):
        raise UserError(
            f"The classes are {classes.dtype} of shape {classes.shape}; give one whole number for each of the "
            f"{len(images)} images."
        )
    if len(classes) and not 0 <= classes.min() <= classes.max() < network.class_count:
        raise UserError(
            f"The classes run from {classes.min()} to {classes.max()}; the network knows 0 to "
            f"{network.class_count - 1}."
        )
    return images, classes.astype(np.int32)
