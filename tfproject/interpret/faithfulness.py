"""Whether attribution maps are true: do they depend on what was learnt, and do the pixels that they name count?"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage, stats

from tfproject.errors import UserError
from tfproject.interpret.attribution import METHODS, attributor, class_probabilities, default_batch_size
from tfproject.interpret.network import Network, lay_open
from tfproject.statistics import summarise

KINDS = ("deletion", "insertion")
# The controls, and the name of the gain over each: the same map moved in its image, and another image's map.
CONTROLS = {"control": "gain", "others": "gain_over_others"}
SIMILAR = 0.5  # maps whose rank correlation may be as high as this do not depend enough on the weights
NEGLIGIBLE = 0.01  # of probability: a gain over the control smaller than this is none, whatever its interval
SSIM_WINDOW = 11  # pixels, Wang et al.'s own
SSIM_IMAGES = 64  # compared at a time


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """How similar a network's maps are to those of the same network with its weights randomised from the top down.

    Attributes:
        randomised: l numbers, how many of the layers with weights were randomised, the last one all of them.
        layer_names: all layers with weights, in the order in which they were randomised, from the top down.
        rank_correlation: a dict from method to float64 (l, n): for each image Spearman's correlation of the pixels of
            the two maps, mean of the draws of random weights.
        ssim: the same with the structural similarity of the maps.
    """

    randomised: tuple[int, ...]
    layer_names: tuple[str, ...]
    rank_correlation: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]

    def correlation(self, method):
        """Summary of the rank correlation with the maps of the network that is randomised throughout."""
        return summarise(self.rank_correlation[method][-1])


@dataclasses.dataclass(frozen=True, eq=False)
class PixelCurves:
    """The class's probability while an image's pixels are taken away or put in, the map's most important first.

    Attributes:
        shares: float64 (s,), the share of the pixels that is replaced, from 0 to 1.
        deletion, insertion: a dict from method to float32 (n, s), the probability of the class of each image.
        deletion_control, insertion_control: the same with each map moved to another place of its image.
        deletion_others, insertion_others: the same with another image's map of the same method.
    """

    shares: np.ndarray
    deletion: dict[str, np.ndarray]
    insertion: dict[str, np.ndarray]
    deletion_control: dict[str, np.ndarray]
    insertion_control: dict[str, np.ndarray]
    deletion_others: dict[str, np.ndarray]
    insertion_others: dict[str, np.ndarray]

    def areas(self, kind, method):
        """The area under each image's curve, float64 (n,); `kind` is the name of an attribute that holds curves."""
        return np.trapezoid(getattr(self, kind)[method], self.shares, axis=1)

    def gain(self, kind, method, control="control"):
        """Summary of how much better the maps are than those of one of CONTROLS, paired by image.

        For "deletion" the control's area less the map's own, as the probability is to fall early; for "insertion" the
        map's own less the control's. In probability.
        """
        difference = self.areas(f"{kind}_{control}", method) - self.areas(kind, method)
        return summarise(difference if kind == "deletion" else -difference)


def sanity_check(
    model, images, classes=None, methods=METHODS, *, levels=5, draws=3, seed=0, explain=attributor, **options
):
    """Randomise a network's weights layer by layer from the top and see whether its maps change.

    A map that stays the same when all that the network has learnt is gone shows the image, as an edge detector would,
    and says nothing of the network; nor does one that is the same everywhere, which counts as one that stays. The
    classes stay those of the trained network. Weights are drawn from the layer's own initialisers, as before a
    training. A method passes if, with every layer randomised, the 95 % interval of the mean rank correlation lies below
    SIMILAR. The interval is over the images, for the weights drawn.

    Args:
        model: a keras.Model that `lay_open` takes, or a Network; stays as it is.
        images: uint8 or float, shape (n, h, w, channels).
        classes: int, shape (n,); the predicted ones if None.
        methods: some of `attribution.METHODS`.
        levels: at how many numbers of randomised layers the maps are compared, evenly from one layer to all.
        draws: how often weights are drawn; an image's similarity is the mean.
        seed: of the random weights.
        explain: makes the maps: from a Network, methods and options to a function from images and classes to a dict
            from method to maps (n, h, w); it must see when the Network's weights change. `attributor`, or one's own.
        options: for `explain`: layer, batch_size, samples, noise, max_channels.

    Returns:
        SanityCheck.

    Raises:
        UserError: as `attribute`, or if there is no image or no layer with weights.

    Reference:
        Adebayo et al. 2018, Sanity checks for saliency maps (https://arxiv.org/abs/1810.03292).
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    if not len(images):
        raise UserError("There is no image to compare maps of; give some.")
    network = lay_open(model.model if isinstance(model, Network) else model)  # its own copy, to be randomised
    # Those of Normalization are the data's mean and spread, not learnt from the classes.
    layers = [
        layer
        for layer in reversed(network.model.layers)
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    if not layers:
        raise UserError(f"The network {network.model.name} has no layer with weights to randomise; give a trained one.")
    batch_size = options.get("batch_size") or default_batch_size(network.image_shape)
    classes = _predicted(network, images, batch_size) if classes is None else classes
    maps = explain(network, methods, **options)
    trained = maps(images, classes)
    learnt = network.model.get_weights()
    numbers = sorted({round(number) for number in np.linspace(1, len(layers), levels)} | {len(layers)})
    correlation, ssim = ({m: np.zeros((len(numbers), len(images))) for m in trained} for _ in range(2))
    for draw in range(draws):
        network.model.set_weights(learnt)
        random = np.random.default_rng((seed, draw))
        done = 0
        for level, number in enumerate(numbers):
            for layer in layers[done:number]:
                _randomise(layer, random)
            done = number
            for method, found in maps(images, classes).items():
                correlation[method][level] += rank_correlation(trained[method], found) / draws
                ssim[method][level] += structural_similarity(trained[method], found) / draws
    return SanityCheck(tuple(numbers), tuple(layer.name for layer in layers), correlation, ssim)


def deletion_insertion(model, images, maps, classes=None, *, steps=32, blur=0.1, batch_size=None, seed=0):
    """Take away and put in each image's pixels in the order of its map, and watch the probability of its class.

    Deletion replaces the most important pixels first with the image's mean colour: with a true map the probability
    falls early, and the area under the curve is small. Insertion starts with the blurred image and puts the most
    important pixels in first: with a true map the probability rises early, and the area is large. Pixels of the same
    importance come in a random order.

    Two controls tell what a map with the method's own values and grain gives by chance. Grain matters: single pixels
    strewn over an image destroy more than a patch of as many, so a random map of single pixels would be a control for
    some methods only.

    - The same map moved (around the edges) by at least a quarter of the image in each direction. It has the map's own
      values, but not its place: what was bright in the middle, where most photographs have their subject, ends in a
      corner, so that any map that is bright in the middle does better.
    - Another image's map of the same method. It has the method's mean place, and says nothing of this image.

    Args:
        model: a keras.Model that `lay_open` takes, or a Network.
        images: uint8 or float, shape (n, h, w, channels).
        maps: a dict from method to maps, float, shape (n, h, w), the most important pixel the largest.
        classes: int, shape (n,); the predicted ones if None.
        steps: into how many parts the pixels are divided.
        blur: standard deviation of the Gaussian that insertion starts with, as a share of the shorter side.
        batch_size: images a step; if None about half a million pixels a step. Memory depends on this alone.
        seed: of the moved maps' places, of whose map each image is given, and of the order of pixels of the same
            importance.

    Returns:
        PixelCurves, with s = steps + 1.

    Raises:
        UserError: if there is no image, or the maps are not as many and as large as the images.

    Reference:
        Petsiuk et al. 2018, RISE (https://arxiv.org/abs/1806.07421).
    """
    network = model if isinstance(model, Network) else lay_open(model)
    height, width = network.image_shape[:2]
    for method, found in maps.items():
        if not len(images) or np.shape(found) != (len(images), height, width):
            raise UserError(
                f"The maps of {method} have the shape {np.shape(found)} and there are {len(images)} images of "
                f"{height}x{width}; give a map of that size for each image, and at least one."
            )
    batch_size = batch_size or default_batch_size(network.image_shape)
    classes = _predicted(network, images, batch_size) if classes is None else np.asarray(classes)
    probability = class_probabilities(network)
    random = np.random.default_rng(seed)
    ties = random.permutation(height * width)
    pixels = np.round(np.linspace(0, height * width, steps + 1)).astype(int)
    other = _each_anothers(len(images), random)
    controls = ("", *(f"_{control}" for control in CONTROLS))
    curves = np.empty((len(images), len(maps), len(controls), len(KINDS), steps + 1), np.float32)
    for i, image in enumerate(images):
        offset = [int(random.integers(side // 4, side - side // 4 + 1)) for side in (height, width)]
        shown = [
            m for found in maps.values() for m in (found[i], np.roll(found[i], offset, axis=(0, 1)), found[other[i]])
        ]
        ranks = np.stack([_ranks(m, ties) for m in shown])
        curves[i] = _curves(
            image, ranks, pixels, blur, lambda x: probability(x, np.full(len(x), classes[i], np.int32)), batch_size
        ).reshape(curves.shape[1:])
    return PixelCurves(
        pixels / (height * width),
        **{
            f"{kind}{control}": {method: curves[:, m, c, k] for m, method in enumerate(maps)}
            for c, control in enumerate(controls)
            for k, kind in enumerate(KINDS)
        },
    )


def table(sanity, curves):
    """What both checks say of each method, and a verdict in words.

    Args:
        sanity: SanityCheck.
        curves: PixelCurves; of the same methods.

    Returns:
        A list of dicts, one for each method, with `method`; `passes`, of the sanity check; `verdict`; and the mean with
        its 95 % interval (x, x_low, x_high; None where there are fewer than two images) of `sanity_correlation`,
        `sanity_ssim` (with all layers randomised); and for deletion and for insertion of the area under the curve
        (`deletion_auc`), of that with the maps moved (`deletion_control`) and with other images' (`deletion_others`),
        and of what the map is better by (`deletion_gain`, `deletion_gain_over_others`).
    """
    rows = []
    for method in curves.deletion:
        numbers = {
            "sanity_correlation": sanity.correlation(method),
            "sanity_ssim": summarise(sanity.ssim[method][-1]),
        }
        for kind in KINDS:
            numbers[f"{kind}_auc"] = summarise(curves.areas(kind, method))
            for control, gain in CONTROLS.items():
                numbers[f"{kind}_{control}"] = summarise(curves.areas(f"{kind}_{control}", method))
                numbers[f"{kind}_{gain}"] = curves.gain(kind, method, control)
        row = {"method": method, "passes": None, "verdict": None}
        for name, found in numbers.items():
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"passes": passes_sanity(row), "verdict": verdict(row)})
    return rows


def shown(row, name):
    """Whether a gain is shown: 1 where it is, -1 where a loss is, else 0.

    Args:
        row: of `table`, or the same read from a CSV file.
        name: the gain's, such as "deletion_gain".
    """
    if row[f"{name}_low"] in (None, ""):  # of a single image
        return 0
    mean, low, high = _interval(row, name)
    return 0 if abs(mean) < NEGLIGIBLE else (low > 0) - (high < 0)


def passes_sanity(row):
    """Whether a method's maps depend on the weights: the interval of `sanity_correlation` lies below SIMILAR.

    Args:
        row: of `table`, or the same read from a CSV file.
    """
    return _interval(row, "sanity_correlation")[2] < SIMILAR


def verdict(row):
    """In words what the checks found of a method.

    By deletion, and by insertion, it is better than chance where it is shown to be better than both controls, and worse
    where it is shown to be worse than either: where the interval of the gain does not hold 0 and the mean gain is
    NEGLIGIBLE or more.

    Args:
        row: of `table`, or the same read from a CSV file.

    Returns:
        "passes" if it passes the sanity check and is better than chance by deletion and by insertion, else what it
        lacks.
    """
    gains = {kind: [shown(row, f"{kind}_{gain}") for gain in CONTROLS.values()] for kind in KINDS}
    better = [kind for kind in KINDS if min(gains[kind]) > 0]
    worse = [kind for kind in KINDS if min(gains[kind]) < 0]
    if passes_sanity(row) and len(better) == len(KINDS):
        return "passes"
    fails = _interval(row, "sanity_correlation")[1] >= SIMILAR
    parts = [] if passes_sanity(row) else ["fails the sanity check" if fails else "left open by the sanity check"]
    if not better and not worse:
        return ", ".join([*parts, "not shown to be better than moved and other images' maps"])
    if better:
        parts.append(f"better than moved and other images' maps by {' and '.join(better)}")
    if worse:
        parts.append(f"worse than moved or other images' maps by {' and '.join(worse)}")
    if left := [kind for kind in KINDS if kind not in better + worse]:
        parts.append(f"left open by {' and '.join(left)}")
    return ", ".join(parts)


def _interval(row, name):
    """Mean, low and high; the mean for all where there is no interval, which a CSV file leaves empty."""
    numbers = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
    return [float(numbers[0] if number in (None, "") else number) for number in numbers]


def rank_correlation(maps, others):
    """Spearman's correlation of the pixels of each two maps, by absolute value.

    Of a map without differences there is none: 1 if it is the first, which says nothing that could be lost, and 0 if
    only the other is.

    Args:
        maps: float, shape (n, h, w), those of the trained network.
        others: the same, those to compare with.

    Returns:
        float64, shape (n,).
    """
    found = np.empty(len(maps))
    for i, pair in enumerate(zip(maps, others)):
        a, b = (stats.rankdata(np.abs(m)) for m in pair)
        flat = [np.ptp(ranks) == 0 for ranks in (a, b)]
        found[i] = float(flat[0]) if any(flat) else np.corrcoef(a, b)[0, 1]
    return found


def structural_similarity(maps, others):
    """SSIM of each two maps of values in -1..1, by absolute value.

    Args:
        maps, others: float32, shape (n, h, w).

    Returns:
        float32, shape (n,).
    """
    window = min(SSIM_WINDOW, *maps.shape[1:])
    parts = []
    for start in range(0, len(maps), SSIM_IMAGES):
        a, b = (np.abs(m[start : start + SSIM_IMAGES, ..., None]) for m in (maps, others))
        parts.append(tf.image.ssim(a, b, max_val=1.0, filter_size=window).numpy())
    return np.concatenate(parts)


def _predicted(network, images, batch_size):
    (logits,) = network.values([network.logits], images, batch_size)
    return logits.argmax(axis=1)


def _each_anothers(count, random):
    """For each image the number of another one, each given once: a random cycle through all of them."""
    order = random.permutation(count)
    other = np.empty(count, int)
    other[order] = np.roll(order, 1)
    return other


def _randomise(layer, random):
    """New weights as before a training, each from an initialiser with a seed of its own."""
    for weight in layer.weights:
        initializer = getattr(layer, f"{weight.name}_initializer", None)
        if initializer is None and len(weight.shape) < 2:  # of unknown making: the values that it has, in other places
            weight.assign(random.permutation(weight.numpy()))
            continue
        initializer = initializer or keras.initializers.GlorotUniform()
        config = initializer.get_config()
        if "seed" in config:
            config["seed"] = int(random.integers(2**31))
        weight.assign(type(initializer).from_config(config)(weight.shape))


def _ranks(importance, ties):
    """The place of each pixel in the order from the most to the least important, int (h, w)."""
    order = np.lexsort((ties, -importance.ravel()))
    ranks = np.empty(importance.size, np.int32)
    ranks[order] = np.arange(importance.size)
    return ranks.reshape(importance.shape)


def _curves(image, ranks, pixels, blur, probability, batch_size):
    """The probability with the first pixels of an order replaced.

    Args:
        image: (h, w, channels).
        ranks: int (r, h, w), the pixels' places in r orders.
        pixels: int (s,), how many are replaced.
        blur: as `deletion_insertion`.
        probability: from float32 images (b, h, w, channels) to (b,).
        batch_size: b at most.

    Returns:
        float32 (r, 2, s), first deletion, then insertion.
    """
    image = np.asarray(image, np.float32)
    sigma = blur * min(image.shape[:2])
    whole = np.stack([image, ndimage.gaussian_filter(image, (sigma, sigma, 0))])
    replaced = np.stack([np.broadcast_to(image.mean(axis=(0, 1)), image.shape), image])
    found = np.empty((len(ranks), 2, len(pixels)), np.float32)
    for start in range(0, found.size, batch_size):
        places = np.arange(start, min(start + batch_size, found.size))
        order, kind, step = np.unravel_index(places, found.shape)
        gone = ranks[order] < pixels[step][:, None, None]
        found.flat[places] = probability(np.where(gone[..., None], replaced[kind], whole[kind]))
    return found
