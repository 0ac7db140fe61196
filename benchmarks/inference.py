"""Images/s of predict and map, against plain `model.predict` and against ONNX Runtime on the exported model.

All see the same tiles, one way after the other, several rounds. `predict` reads JPEG files, as `model.predict, from the
files` does through Keras' own reader; the others but `map` get the decoded images. `model.predict` is in a process of
its own, with TensorFlow's own threads and kernels. `map` reads a mosaic of the tiles as a GeoTIFF, a window a tile, and
also writes its map. `map_overlapping` is the same mosaic at a stride of a quarter window, counted in windows, as
`tfproject map` has it without a word; which share of the tiles it gets right is told, each judged in its middle, away
from the seams. `model.predict` lets tf.data's tuner watch its input, and at its end waits for it; how fast it is
without is told, too. So is how many times faster than it the network alone would be at the machine's matrix-product
peak. Where the processor has instructions for bfloat16, `predict` and `map` are also measured
as `--precision mixed_bfloat16` has them, and how many tiles both precisions get right, and see alike, is told.
"""

import argparse
import math
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import tfproject  # noqa: F401  # isort: skip  # before Keras, as it chooses TensorFlow's kernels
import keras
import machine
import numpy as np
from PIL import Image
from training_step import Contestant

from tfproject import cost, data
from tfproject.evaluation import predict_files
from tfproject.evaluation.prediction import predictor
from tfproject.models import saved_models
from tfproject.tools import export_model, map_scene
from tfproject.training.acceleration import precisions_of_the_processor

PLAIN = pathlib.Path(__file__).with_name("inference_plain.py")
LISTS = {"eurosat": "eurosat-random"}  # by which the model was trained: its validation tiles are none of its training's


def write_tiles(images, folder):
    """The images as JPEG files, as a person has them."""
    paths = [folder / f"{i:05d}.jpg" for i in range(len(images))]
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path, quality=95)
    return paths


def write_mosaic(images, path):
    """The images side by side, as near to a square as can be without leaving one out; the middle of each, in metres."""
    import rasterio

    rows = math.isqrt(len(images))
    columns = len(images) // rows
    count, height, width, _ = images[: rows * columns].shape
    mosaic = images[:count].reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    mosaic = mosaic.reshape(rows * height, columns * width, 3)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)
    profile = {"driver": "GTiff", "count": 3, "height": len(mosaic), "width": mosaic.shape[1], "dtype": "uint8",
               "crs": "EPSG:32631", "transform": place}  # fmt: skip
    with rasterio.open(path, "w", photometric="RGB", tiled=True, **profile) as tiff:
        tiff.write(np.moveaxis(mosaic, -1, 0))
    return [place @ (i % columns * width + width / 2, i // columns * height + height / 2) for i in range(count)]


def tiles_right(directory, middles, labels):
    """The share of a mosaic's tiles whose class a map has in the tile's middle; `middles` as from `write_mosaic`."""
    import rasterio

    with rasterio.open(directory / "classes.tif") as tiff:
        found = np.array([value for (value,) in tiff.sample(middles)])
    return float((found == labels[: len(found)] + 1).mean())


def onnx_runner(saved_model, path, batch_size):
    """A function from float32 images to probabilities by ONNX Runtime."""
    import onnxruntime

    export_model(saved_model, path, "onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.concatenate(
        [session.run(None, {name: images[i : i + batch_size]})[0] for i in range(0, len(images), batch_size)]
    )


def ways(path, split, folder, middles, batch_size, plain):
    """name: a function that does it once and returns (images or windows, seconds, probabilities or None)."""
    saved_model = saved_models.load(path)
    images, paths = np.load(folder / "images.npy"), sorted((folder / "tiles").iterdir())
    by_onnx = onnx_runner(saved_model, folder / "model.onnx", batch_size)
    predict = predictor(saved_model.model, saved_model.image_size, batch_size)

    def mapped(model, name, stride):
        shutil.rmtree(folder / name, ignore_errors=True)  # a whole map is only read
        found, seconds = timed(
            lambda: map_scene(
                model, folder / "mosaic.tif", folder / name, stride=stride, batch_size=batch_size, progress=False
            )
        )
        assert stride is None or found.computed == len(middles)
        return found.computed, seconds, None

    def predicted(by):
        probabilities, seconds = timed(by)
        return len(images), seconds, probabilities

    def plainly(name):
        seconds = plain.ask(name)
        return len(images), seconds, np.load(folder / "probabilities.npy")

    def arrays():
        return np.concatenate([predict(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])

    found = {name: lambda name=name: plainly(name) for name in plain.says}
    found["onnxruntime"] = lambda: predicted(lambda: by_onnx(images))
    found["predictor on arrays"] = lambda: predicted(arrays)
    for precision in precisions_of_the_processor():
        model = saved_models.load(path, precision)
        suffix = "" if precision == "float32" else f" in {precision}"
        found[f"predict{suffix}"] = lambda model=model: predicted(
            lambda: predict_files(model, paths, batch_size).probabilities
        )
        for name, stride in (("map", min(model.image_size)), ("map_overlapping", None)):
            found[name + suffix] = lambda model=model, name=name + suffix, stride=stride: mapped(model, name, stride)
    return found


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="saved_models/eurosat_best.keras")
    parser.add_argument("--data", default="eurosat", help="a set's name (default eurosat)")
    parser.add_argument("--images", type=int, default=4_050, help="use so many validation images (default all)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    keras.config.disable_interactive_logging()
    side = saved_models.load(arguments.model).image_size
    image_set = data.load(arguments.data, image_size=side, split_files=LISTS.get(arguments.data))
    split = image_set.val.take(range(min(arguments.images, len(image_set.val))))
    rates, probabilities, peaks = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        middles = write_mosaic(split.images, folder / "mosaic.tif")
        (folder / "tiles").mkdir()
        write_tiles(split.images, folder / "tiles")
        np.save(folder / "images.npy", split.images.astype(np.float32))
        command = [sys.executable, PLAIN, arguments.model, folder, str(arguments.batch_size)]
        plain = Contestant(command, machine.plain_environment())
        every = ways(arguments.model, split, folder, middles, arguments.batch_size, plain)
        for turn in range(arguments.rounds + 1):  # the first warms up
            if turn:
                peaks.append(machine.peak_gflops())
            for name, run in every.items():
                count, seconds, probabilities[name] = run()
                if turn:
                    rates.setdefault(name, []).append(count / seconds)
        plain.close()
        right = {name: tiles_right(folder / name, middles, split.labels) for name in every if name.startswith("map")}
    flops = cost.study(saved_models.load(arguments.model).model, 1).totals["forward_flops"]
    plain, median = probabilities["model.predict"], {name: statistics.median(rates[name]) for name in rates}
    predicted = {name: p.argmax(axis=1) for name, p in probabilities.items() if name.startswith("predict")}
    machine.write(
        "inference",
        {
            "model": pathlib.Path(arguments.model).name,
            "data": image_set.name,
            "images": len(split),
            "batch_size": arguments.batch_size,
            "images_per_second": {
                name: {
                    "median": round(median[name]), "least": round(min(values)), "most": round(max(values)),
                    "rounds": [round(value) for value in values],
                    "against_model_predict": round(median[name] / median["model.predict"], 2),
                    "against_onnxruntime": round(median[name] / median["onnxruntime"], 2),
                }
                for name, values in rates.items()
            },
            "tiles_right": right | {name: float((row == split.labels).mean()) for name, row in predicted.items()},
            "tiles_seen_as_in_float32": {
                name: float((classes == predicted["predict"]).mean()) for name, classes in predicted.items()
            },
            "largest_difference_from_model_predict": {
                name: float(np.abs(probabilities[name] - plain).max())
                for name in ("onnxruntime", "predictor on arrays")
            },
            "forward_flops_an_image": flops,
            "matrix_product_gflops": [round(peak) for peak in peaks],
            "at_the_peak_against_model_predict": [
                round(peak * 1e9 / flops / rate, 2) for peak, rate in zip(peaks, rates["model.predict"])
            ],
            "machine": machine.describe(),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
