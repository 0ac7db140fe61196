"""Work that goes on where it was stopped, each on a directory, and what of it must come out the same."""

import csv
import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from tfproject.training import Recipe

RECIPE = Recipe(
    epochs=4, batch_size=20, optimizer="muon", learning_rate=0.01, weight_decay=0.1, augment=("symmetries", "shift"),
    precision="float32", jit_compile=False, keep_epoch="best", seed=5,
)  # fmt: skip
FROZEN = dataclasses.replace(RECIPE, optimizer="sgd", frozen_until="conv1_relu", views=2)
TIMING = ("seconds", "images_per_second")


def train(directory, **changes):
    import toy

    from tfproject import training

    recipe = dataclasses.replace(RECIPE, **changes)
    training.fit(toy.network, toy.image_set(), recipe, directory, progress=False)


def train_frozen(directory, features=None):
    """With the frozen part's output written in many small pieces."""
    import toy

    from tfproject import training
    from tfproject.training import frozen_prefix

    frozen_prefix.WRITTEN_TOGETHER = 1 << 15
    features = features or pathlib.Path(directory, "features")
    training.fit(toy.network, toy.image_set(), FROZEN, directory, progress=False, features_dir=features)


def toy_study(directory):
    from tfproject.experiments import Experiment, Study, Variation

    recipe = dataclasses.replace(RECIPE, epochs=2, optimizer="sgd", keep_epoch="last", schedule="constant")
    plain = Variation("plain", recipe, "toy:network")
    other = dataclasses.replace(plain, name="without dropout", options={"dropout": 0.0})
    question = Experiment("dropout", "Does it help?", (plain, other), "plain", (0, 1), figures=("curves",))
    return Study(pathlib.Path(directory), (question,), images="toy:image_set")


def study(directory, **options):
    from tfproject.experiments import run_study

    run_study(toy_study(directory), progress=False, **options)


def top(directory):
    import keras
    import toy

    from tfproject.interpret import samples
    from tfproject.interpret.network import lay_open

    keras.utils.set_random_seed(0)
    pathlib.Path(directory).mkdir(exist_ok=True)
    network, split = lay_open(toy.network((16, 16, 3), 3)), toy.image_set().train
    path = pathlib.Path(directory, "top.csv")
    if not path.exists():
        samples.to_csv(path, network, samples.top_samples(network, split, batch_size=8), split)


def map_scene(directory):
    from tfproject.models import saved_models
    from tfproject.tools import mapping

    about = pathlib.Path(directory).parent
    saved = saved_models.load(about / "tiny.keras")
    mapping.map_scene(saved, about / "scene.tif", directory, stride=4, batch_size=16, progress=False)


def write_scene(folder):
    """The model and the scene that `map_scene` takes, in the folder above its directory."""
    import keras
    import rasterio
    import toy

    from tfproject.models import saved_models

    keras.utils.set_random_seed(1)
    saved_models.save(toy.network((16, 16, 3), 3), folder / "tiny.keras", ("red", "green", "blue"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 160, 96)).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 3, "height": 160, "width": 96, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(folder / "scene.tif", "w", crs="EPSG:32631",
                       transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4.6e6), **profile) as tiff:  # fmt: skip
        tiff.write(pixels)


def weights_of(model_path):
    import zipfile

    import h5py

    with zipfile.ZipFile(model_path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
        found = {}
        # visititems ends at the first answer that is not None.
        weights.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    assert found
    return {name: (array.shape, hashlib.sha256(array.tobytes()).hexdigest()) for name, array in found.items()}


def _history(path):
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(file)]


def _run(directory):
    metrics = json.loads((directory / "metrics.json").read_text())
    for name in ("seconds", "peak_memory_mb"):
        metrics["training"].pop(name)
    return [weights_of(directory / "model.keras"), _history(directory / "history.csv"), metrics,
            (directory / "recipe.json").read_text(), (directory / "model.json").read_text()]  # fmt: skip


def result(directory):
    """All that must be the same however often the work was interrupted, without what a clock decides."""
    directory = pathlib.Path(directory)
    if (directory / "top.csv").exists():
        return (directory / "top.csv").read_bytes()
    if (directory / "map.json").exists():
        return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}
    if (directory / "runs").exists():
        from tfproject.experiments import analysis

        runs = {path.name: _run(path) for path in directory.glob("runs/*/") if path.is_dir()}
        tables = {}
        for path in directory.glob("*.csv"):
            with open(path, newline="") as file:
                rows = csv.DictReader(file)
                tables[path.name] = [{k: v for k, v in row.items() if k not in analysis.TIMING} for row in rows]
        assert len(runs) == 4 and tables
        return runs, tables
    return _run(directory)
