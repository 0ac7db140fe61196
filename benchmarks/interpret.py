"""What looking into VGG16 costs, a section each; results go to results/interpret_SECTION.json.

attribution: seconds of the six methods for a batch of images, against tf-keras-vis called method by method, and against
what their own arithmetic takes at the speed of VGG16's forward pass, measured in the same rounds.
top_samples: VGG16's convolutional units over all test images in one pass, against the forward pass alone.
tsne: openTSNE against scikit-learn's, on features of two widths.
"""

import argparse
import contextlib
import dataclasses
import io
import pathlib
import time
import warnings

import tfproject  # noqa: F401  # isort: skip  # before Keras, as it chooses TensorFlow's kernels
import keras
import machine
import numpy as np
from claims import claim, difference_in_words, measure
from PIL import Image

from tfproject import cost, data
from tfproject.interpret import attribution as maps
from tfproject.interpret import samples
from tfproject.interpret.network import lay_open
from tfproject.statistics import compare

SHARED = ("gradcam", "gradcam++", "layercam")  # one forward pass for all three
ONCE = ("scorecam",)  # takes minutes, so it is measured in the first round alone
ROUNDS = {"top_samples": 2, "attribution": 3, "tsne": 5}  # one of the first takes four minutes


def vgg16(size, weights):
    """VGG16 with ImageNet's convolutions where their file is, and a random classifier, for images as it wants them."""
    model = keras.applications.VGG16(weights=None, input_shape=(size, size, 3))
    if pathlib.Path(weights).expanduser().is_file():
        base = keras.applications.VGG16(include_top=False, weights=pathlib.Path(weights).expanduser())
        for layer in base.layers:
            if layer.weights:
                model.get_layer(layer.name).set_weights(layer.get_weights())
    return keras.Model([model.inputs[0]], model.outputs[0])  # so built, Keras does not warn of lists


def photographs(name, count, size):
    """The first test images of a set in another size, as VGG16 wants them: float32 BGR less ImageNet's mean."""
    images = data.load(name).test.images[:count]
    images = [np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC)) for image in images]
    return keras.applications.vgg16.preprocess_input(np.stack(images).astype(np.float32))


def attribution(arguments):
    """Every method on `images` images; SmoothGrad and Score-CAM, ours and theirs, on `few`.

    What either library builds once for a network is built before the clock starts.
    """
    model = vgg16(arguments.size, arguments.weights)
    images = photographs(arguments.data, arguments.images, arguments.size)
    few = images[: arguments.few]
    network = lay_open(model)
    batch_size = maps.default_batch_size(network.image_shape)
    batch_size = min(batch_size, len(images))  # what is filled up to a batch costs as much as images
    forward = network.function([network.logits], batch_size)
    features = network.function([maps.feature_map(network)], batch_size)
    classes = np.concatenate([forward(batch)[0] for batch in _batches(images, batch_size)]).argmax(axis=1)
    used = [features(batch)[0].any(axis=(1, 2)).sum(axis=1) for batch in _batches(few, batch_size)]
    used = float(np.concatenate(used).mean())

    # In forward passes an image; the way back to the image takes as many multiplications as the way forward.
    passes = {
        "gradients": 2, "smoothgrad": 1 + 2 * arguments.samples, "gradcam": 1, "gradcam++": 1, "layercam": 1,
        "scorecam": 1 + used, "gradcam, gradcam++ and layercam": 1,
    }  # fmt: skip
    whole, speeds, found = images[: len(images) // batch_size * batch_size], [], {}
    rows, explainers = {}, {}
    for name, count in passes.items():
        methods = SHARED if "," in name else (name,)
        explainers[name], tracing = _timed(lambda: maps.attributor(network, methods, samples=arguments.samples))
        explainers[name](images[:1], classes[:1])
        given = few if name in ("smoothgrad", "scorecam") else images
        rows[name] = {"images": len(given), "seconds": [], "tracing_seconds": tracing, "passes_an_image": count}
    theirs = {
        method: {"images": len(few if method in ("smoothgrad", "scorecam") else images), "seconds": []}
        for method in maps.METHODS
    }
    their_explainers = {method: _tf_keras_vis(method, model, arguments.samples) for method in maps.METHODS}
    for turn in range(arguments.rounds or ROUNDS["attribution"]):
        _, of_forward = _timed(lambda: [forward(batch) for batch in _batches(whole, batch_size)])
        speeds.append(of_forward / len(whole))
        for name, row in rows.items():
            if turn and name in ONCE:
                continue
            given = images[: row["images"]]
            ours, seconds = _timed(lambda: explainers[name](given, classes[: len(given)]))
            found |= ours
            row["seconds"].append(seconds)
            if name in theirs:
                other = theirs[name]
                given = images[: other["images"]]
                their_maps, seconds = _timed(lambda: their_explainers[name](given, classes))
                other["seconds"].append(seconds)
                if name != "smoothgrad":  # its noise is not ours
                    other["largest_difference"] = float(np.abs(their_maps - found[name][: len(given)]).max())
    a_pass = float(np.median(speeds))
    for row in rows.values():
        arithmetic = row["passes_an_image"] * row["images"] * a_pass
        row["times_its_arithmetic"] = [seconds / arithmetic for seconds in row["seconds"]]
    flops = cost.study(model, 1).totals["forward_flops"]
    return {
        "network": "VGG16", "size": arguments.size, "batch_size": batch_size, "smoothgrad_samples": arguments.samples,
        "forward_seconds_an_image": a_pass, "forward_gflops": round(flops / a_pass / 1e9), "score_cam_channels": used,
        "ours": rows, "tf_keras_vis": theirs, "claims": attribution_claims(rows, theirs),
    }  # fmt: skip


def attribution_claims(ours, theirs):
    """The rows of the table, from the seconds and images of each."""

    def an_image(row):
        return np.array(row["seconds"]) / row["images"]

    claims = []
    for name, row in ours.items():
        other = sum(an_image(theirs[method]) for method in (SHARED if "," in name else (name,)))
        told = claim(
            f"{name}, VGG16, {row['images']} images", "tf-keras-vis", "s an image", list(an_image(row)), list(other),
            target=3 if "cam" in name else None,
        )  # fmt: skip
        if name in ONCE:
            allowed = told["ratio"] * np.median(row["times_its_arithmetic"])
            told["remark"] = (
                f"{row['passes_an_image']:.0f} forward passes an image, one for each channel that is not zero; this "
                f"arithmetic alone, at the speed of VGG16's forward pass, allows {allowed:.2f} times"
            )
        claims.append(told)
    slowest = max(ours, key=lambda name: np.median(ours[name]["times_its_arithmetic"]))
    remark = "its forward and backward passes, at the speed of VGG16's forward pass"
    what, times = f"the slowest method, {slowest}, in times of its arithmetic", ours[slowest]["times_its_arithmetic"]
    return [*claims, measure(what, "", times, target=1.5, at_most=True, remark=remark)]


def _tf_keras_vis(method, model, samples):
    """A function (images, classes) to maps, as its documentation has it, on the model with its softmax taken off."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    kinds = {
        "gradients": Saliency, "smoothgrad": Saliency, "gradcam": Gradcam, "gradcam++": GradcamPlusPlus,
        "scorecam": Scorecam, "layercam": Layercam,
    }  # fmt: skip
    batch_size = 1 if method == "scorecam" else 8
    options = {"smooth_samples": samples} if method == "smoothgrad" else {}
    explain = kinds[method](model, model_modifier=ReplaceToLinear(), clone=True)

    def explained(images, classes):
        found = []
        for start in range(0, len(images), batch_size):  # in batches that memory bears
            batch = images[start : start + batch_size]
            scores = CategoricalScore([int(c) for c in classes[start : start + len(batch)]])
            with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
                found.append(explain(scores, batch, **options))
        return np.concatenate(found)

    return explained


def tsne(arguments):
    """openTSNE as the package calls it against scikit-learn's TSNE, on made-up features: seconds, and how good.

    Both with PCA initialisation, perplexity 30 and all cores. scikit-learn is given the features reduced to 50
    components, as the package gives them to openTSNE, and the reduction counts in both times. Each runs as many
    iterations as it does by default, openTSNE 750 and scikit-learn 1,000. Each round has features of its own: of
    which layout is better a single draw says little.
    """
    from sklearn.manifold import TSNE

    from tfproject.interpret import embedding

    def scikit_learns(features):
        reduced, _ = embedding.principal_components(features, 50)
        return TSNE(perplexity=30, init="pca", n_jobs=-1, random_state=0).fit_transform(reduced)

    contestants = {"openTSNE": lambda features: embedding.tsne(features).points, "scikit_learn": scikit_learns}
    found = []
    for width in (512, 4_096):
        row = {"images": 10_000, "width": width, "perplexity": 30, "accuracy_in_features": []} | {
            name: {"seconds": [], "trustworthiness": [], "neighbourhood_accuracy": []} for name in contestants
        }
        for draw in range(arguments.rounds or ROUNDS["tsne"]):
            features, labels = made_up_features(row["images"], width, draw)
            row["accuracy_in_features"].append(embedding.neighbourhood_accuracy(features, labels))
            for name, lay_out in contestants.items():
                points, seconds = _timed(lambda: lay_out(features))
                row[name]["seconds"].append(seconds)
                row[name]["trustworthiness"].append(embedding.trustworthiness(features, points))
                row[name]["neighbourhood_accuracy"].append(embedding.neighbourhood_accuracy(points, labels))
        found.append(row)
    return {"features": found, "claims": [told for row in found for told in tsne_claims(row)]}


def tsne_claims(row):
    """The rows of the table for features of one width."""
    what, (ours, theirs) = f"t-SNE of {row['images']:,} x {row['width']}", (row["openTSNE"], row["scikit_learn"])
    trust = ours["trustworthiness"], theirs["trustworthiness"]
    iterations = "750 iterations against scikit-learn's 1,000, of either the default"
    return [
        claim(what, "scikit-learn", "s", ours["seconds"], theirs["seconds"], target=2, remark=iterations),
        measure(f"{what}: time", "s", ours["seconds"], target=120, at_most=True),
        claim(
            f"{what}: trustworthiness", "scikit-learn", "", *trust, target=1, rate=True,
            remark=difference_in_words(compare(*trust), digits=5),
        ),  # fmt: skip
    ]


def made_up_features(images, width, draw, classes=10):
    """float32 (images, width) and labels: groups that overlap, in 40 directions with noise in the others."""
    random = np.random.default_rng(draw)
    labels = np.arange(images) % classes
    centres = random.normal(size=(classes, 40))[labels] + random.normal(size=(images, 40))
    features = centres @ random.normal(size=(40, width)) + 2 * random.normal(size=(images, width))
    return np.maximum(0, features).astype(np.float32), labels


def top_samples(arguments):
    """The top images of VGG16's 4,224 convolutional units in one pass, against the forward pass alone, at 64x64."""
    import resource

    split = data.load(arguments.data).test  # not resized with all others, whose memory would count
    images = [np.asarray(Image.fromarray(image).resize((64, 64), Image.BICUBIC)) for image in split.images]
    split = dataclasses.replace(split, images=np.stack(images))
    network = lay_open(vgg16(64, arguments.weights))
    last = network.function([network.convolutions[-1].output], 64)
    last(split.images[:64])  # traced before the clock starts

    def forward():
        for batch in _batches(split.images, 64):
            last(batch)

    layers, seconds, alone = [conv.name for conv in network.convolutions], [], []
    for _ in range(arguments.rounds or ROUNDS["top_samples"]):
        alone.append(_timed(forward)[1])
        found, took = _timed(lambda: samples.top_samples(network, split, layers=layers))
        seconds.append(took)
    return {
        "images": len(split), "units": sum(len(top.indices) for top in found.values()), "seconds": seconds,
        "forward_seconds": alone, "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip


def _batches(images, batch_size):
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def _timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


# The first one's peak of memory is the process's, so nothing may run before it.
SECTIONS = {"top_samples": top_samples, "attribution": attribution, "tsne": tsne}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)} (default all)")
    parser.add_argument("--data", default="cifar10", help="a set's name (default cifar10)")
    parser.add_argument("--size", type=int, default=224, help="side that the images are brought to")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--few", type=int, default=2, help="images for SmoothGrad and Score-CAM")
    parser.add_argument("--samples", type=int, default=20, help="of SmoothGrad")
    parser.add_argument("--rounds", type=int, help=f"(default {ROUNDS}); Score-CAM is measured once")
    parser.add_argument("--weights", default="~/tfproject-data/weights/vgg16_imagenet_notop.weights.h5")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # tf-keras-vis's
    for section in arguments.sections or SECTIONS:
        machine.write(f"interpret_{section}", SECTIONS[section](arguments) | {"machine": machine.describe()})


if __name__ == "__main__":
    main()
