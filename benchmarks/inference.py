"""Images/s of predict and map, against plain `model.predict` and against ONNX Runtime on the exported model.

All see the same tiles, one way after the other, several rounds. `predict` reads JPEG files; the others but `map` get
the decoded images. `map` reads a mosaic of the tiles as a GeoTIFF, a window a tile, and also writes its map.
`map_overlapping` is the same mosaic at a stride of a quarter window, counted in windows.
"""

import argparse
import math
import pathlib
import statistics
import tempfile
import time
import warnings

import keras
import machine
import numpy as np
from PIL import Image

from tfproject import data
from tfproject.evaluation import predict_files
from tfproject.evaluation.prediction import predictor
from tfproject.models import saved_models
from tfproject.tools import export_model, map_scene


def write_tiles(images, folder):
    """The images as JPEG files, as a person has them."""
    paths = [folder / f"{i:05d}.jpg" for i in range(len(images))]
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path, quality=95)
    return paths


def write_mosaic(images, path):
    """The images side by side, as near to a square as can be without leaving one out; returns how many there are."""
    import rasterio

    rows = math.isqrt(len(images))
    columns = len(images) // rows
    count, height, width, _ = images[: rows * columns].shape
    mosaic = images[:count].reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    mosaic = mosaic.reshape(rows * height, columns * width, 3)
    profile = {"driver": "GTiff", "count": 3, "height": len(mosaic), "width": mosaic.shape[1], "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", photometric="RGB", tiled=True, **profile) as tiff:
            tiff.write(np.moveaxis(mosaic, -1, 0))
    return count


def onnx_runner(saved_model, path, batch_size):
    """A function from float32 images to probabilities by ONNX Runtime."""
    import onnxruntime

    export_model(saved_model, path, "onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.concatenate(
        [session.run(None, {name: images[i : i + batch_size]})[0] for i in range(0, len(images), batch_size)]
    )


def ways(saved_model, split, folder, batch_size):
    """name: a function that does it once and returns (images or windows, probabilities or None)."""
    images = split.images.astype(np.float32)
    paths = write_tiles(split.images, folder)
    mosaic_count = write_mosaic(split.images, folder / "mosaic.tif")
    by_onnx = onnx_runner(saved_model, folder / "model.onnx", batch_size)
    predict = predictor(saved_model.model, saved_model.image_size, batch_size)
    turns = iter(range(10**6))

    def mapped(stride):
        result = map_scene(
            saved_model, folder / "mosaic.tif", folder / f"map{next(turns)}", stride=stride, batch_size=batch_size,
            progress=False,
        )  # fmt: skip
        assert stride is None or result.computed == mosaic_count
        return result.computed, None

    def arrays():
        return np.concatenate([predict(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])

    return {
        "model.predict": lambda: (len(images), saved_model.model.predict(images, verbose=0)),
        "model.predict, same batches": lambda: (
            len(images), saved_model.model.predict(images, batch_size=batch_size, verbose=0)
        ),
        "onnxruntime": lambda: (len(images), by_onnx(images)),
        "predictor on arrays": lambda: (len(images), arrays()),
        "predict": lambda: (len(paths), predict_files(saved_model, paths, batch_size).probabilities),
        "map": lambda: mapped(min(saved_model.image_size)),
        "map_overlapping": lambda: mapped(None),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="saved_models/eurosat_best.keras")
    parser.add_argument("--data", default="eurosat", help="a set's name (default eurosat)")
    parser.add_argument("--images", type=int, default=2_000, help="use so many validation images")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    keras.config.disable_interactive_logging()
    saved_model = saved_models.load(arguments.model)
    image_set = data.load(arguments.data, image_size=saved_model.image_size)
    split = image_set.val.take(range(min(arguments.images, len(image_set.val))))
    rates, probabilities = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        every = ways(saved_model, split, pathlib.Path(folder), arguments.batch_size)
        for turn in range(arguments.rounds + 1):  # the first warms up
            for name, run in every.items():
                start = time.perf_counter()
                count, probabilities[name] = run()
                if turn:
                    rates.setdefault(name, []).append(count / (time.perf_counter() - start))
    plain, median = probabilities["model.predict"], {name: statistics.median(rates[name]) for name in rates}
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
            "largest_difference_from_model_predict": {
                name: float(np.abs(probabilities[name] - plain).max())
                for name in ("onnxruntime", "predictor on arrays")
            },
            "machine": machine.describe(),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
