"""What looking into VGG16 costs, a section each; results go to results/interpret_SECTION.json.

attribution: seconds of the six methods for a batch of images, against tf-keras-vis called method by method, and against
what their own arithmetic takes at the speed of VGG16's forward pass, measured in the same run.
top_samples: VGG16's convolutional units over all test images in one pass, against the forward pass alone.
tsne: openTSNE against scikit-learn's.
"""

import argparse
import contextlib
import dataclasses
import io
import pathlib
import time
import warnings

import keras
import machine
import numpy as np
from PIL import Image

from tfproject import cost, data
from tfproject.interpret import attribution as maps
from tfproject.interpret import samples
from tfproject.interpret.network import lay_open

SHARED = ("gradcam", "gradcam++", "layercam")  # one forward pass for all three
ROUNDS = 3  # of the forward pass, in between the others; the median counts


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
    """Every method on `images` images; SmoothGrad, Score-CAM and tf-keras-vis's gradients on `few`."""
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
    whole, speeds, rows, found = images[: len(images) // batch_size * batch_size], [], {}, {}
    for name, count in passes.items():
        methods = SHARED if "," in name else (name,)
        given = few if name in ("smoothgrad", "scorecam") else images
        explain, tracing = _timed(lambda: maps.attributor(network, methods, samples=arguments.samples))
        explain(images[:1], classes[:1])
        ours, seconds = _timed(lambda: explain(given, classes[: len(given)]))
        found |= ours
        rows[name] = {"images": len(given), "seconds": seconds, "tracing_seconds": tracing, "passes_an_image": count}
        if len(speeds) < ROUNDS:
            _, of_forward = _timed(lambda: [forward(batch) for batch in _batches(whole, batch_size)])
            speeds.append(of_forward / len(whole))
    a_pass = float(np.median(speeds))
    for row in rows.values():
        row["arithmetic_seconds"] = row["passes_an_image"] * row["images"] * a_pass
        row["times_its_arithmetic"] = round(row["seconds"] / row["arithmetic_seconds"], 2)

    theirs = {}
    for method in maps.METHODS:
        given = images if method in SHARED else few
        their_maps, seconds = _timed(lambda: _tf_keras_vis(method, model, given, classes, arguments.samples))
        theirs[method] = {"images": len(given), "seconds": seconds}
        if method != "smoothgrad":  # its noise is not ours
            theirs[method]["largest_difference"] = float(np.abs(their_maps - found[method][: len(given)]).max())
    ratios = {
        method: round((theirs[method]["seconds"] / theirs[method]["images"]) / (row["seconds"] / row["images"]), 2)
        for method, row in rows.items()
        if method in theirs
    }
    ratios["gradcam, gradcam++ and layercam"] = round(
        sum(theirs[method]["seconds"] for method in SHARED) / rows["gradcam, gradcam++ and layercam"]["seconds"], 2
    )
    flops = cost.study(model, 1).totals["forward_flops"]
    return {
        "network": "VGG16", "size": arguments.size, "batch_size": batch_size, "smoothgrad_samples": arguments.samples,
        "forward_seconds_an_image": a_pass, "forward_gflops": round(flops / a_pass / 1e9), "score_cam_channels": used,
        "ours": rows, "tf_keras_vis": theirs, "times_faster_an_image": ratios,
        "largest_times_its_arithmetic": max(row["times_its_arithmetic"] for row in rows.values()),
    }  # fmt: skip


def _tf_keras_vis(method, model, images, classes, samples):
    """As its documentation has it, on the model with its softmax taken off; in batches that memory bears."""
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
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        scores = CategoricalScore([int(c) for c in classes[start : start + len(batch)]])
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
            found.append(explain(scores, batch, **options))
    return np.concatenate(found)


def tsne(_, images=10_000, width=4_096, classes=10):
    """openTSNE as the package calls it against scikit-learn's TSNE, on made-up features: seconds, and how good.

    Features of `classes` groups that overlap, in 40 directions with noise in the others. Both with PCA initialisation,
    perplexity 30 and all cores. scikit-learn is given the features reduced to 50 components, as the package gives them
    to openTSNE, and the reduction counts in both times: only the two t-SNEs differ.
    """
    from sklearn.manifold import TSNE

    from tfproject.interpret import embedding

    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    centres = random.normal(size=(classes, 40))[labels] + random.normal(size=(images, 40))
    features = centres @ random.normal(size=(40, width)) + 2 * random.normal(size=(images, width))
    features = np.maximum(0, features).astype(np.float32)

    def measured(lay_out):
        points, seconds = _timed(lay_out)
        return {
            "seconds": seconds,
            "trustworthiness": round(embedding.trustworthiness(features, points), 4),
            "neighbourhood_accuracy": round(embedding.neighbourhood_accuracy(points, labels), 4),
        }

    def scikit_learns():
        reduced, _ = embedding.principal_components(features, 50)
        return TSNE(perplexity=30, init="pca", n_jobs=-1, random_state=0).fit_transform(reduced)

    ours, theirs = measured(lambda: embedding.tsne(features).points), measured(scikit_learns)
    return {
        "images": images, "width": width, "perplexity": 30, "openTSNE": ours, "scikit_learn": theirs,
        "accuracy_in_features": round(embedding.neighbourhood_accuracy(features, labels), 4),
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
    }  # fmt: skip


def top_samples(arguments):
    """The top images of VGG16's 4,224 convolutional units in one pass, against the forward pass alone, at 64x64."""
    import resource

    split = data.load(arguments.data).test  # not resized with all others, whose memory would count
    images = [np.asarray(Image.fromarray(image).resize((64, 64), Image.BICUBIC)) for image in split.images]
    split = dataclasses.replace(split, images=np.stack(images))
    network = lay_open(vgg16(64, arguments.weights))
    last = network.function([network.convolutions[-1].output], 64)

    def forward():
        for batch in _batches(split.images, 64):
            last(batch)

    _, alone = _timed(forward)
    found, seconds = _timed(lambda: samples.top_samples(network, split, layers=[c.name for c in network.convolutions]))
    return {
        "images": len(split), "units": sum(len(top.indices) for top in found.values()), "seconds": seconds,
        "forward_seconds": alone, "times_forward": round(seconds / alone, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
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
    parser.add_argument(
        "--few", type=int, default=2, help="images for SmoothGrad, Score-CAM and tf-keras-vis's gradients"
    )
    parser.add_argument("--samples", type=int, default=20, help="of SmoothGrad")
    parser.add_argument("--weights", default="~/tfproject-data/weights/vgg16_imagenet_notop.weights.h5")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # tf-keras-vis's
    for section in arguments.sections or SECTIONS:
        machine.write(f"interpret_{section}", SECTIONS[section](arguments) | {"machine": machine.describe()})


if __name__ == "__main__":
    main()
