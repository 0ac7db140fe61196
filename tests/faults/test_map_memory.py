"""Scenes larger than the memory that mapping them may take, and mapping killed in the middle: real processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from tfproject.models import saved_models
from tfproject.tools.mapping import FILES, map_scene

CLASSES = ("dark", "red", "green")
WINDOW = 512
SIDE = 40 * WINDOW
MOST_BYTES = 1_250_000_000  # of which TensorFlow and what else is imported take half
ROOM = 600_000_000  # bytes that the process may still ask for when it has loaded TensorFlow and the model

MAPPED = """
import resource, sys
import numpy as np, rasterio
from tfproject import cli
from tfproject.models import saved_models

def taken(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(what))

room, command, model, scene, *options = sys.argv[1:]
network = saved_models.load(model).model
network(np.zeros((1, *network.input_shape[1:]), np.float32))  # starts threads, by the number of processors
# Not RLIMIT_AS: TensorFlow and each thread reserve addresses that they never use.
resource.setrlimit(resource.RLIMIT_DATA, [taken("VmData") + int(room)] * 2)
try:
    rasterio.open(scene).read()
except MemoryError:
    print("does not fit")
code = cli.main([command, model, scene, *options])
print(taken("VmHWM"))
sys.exit(code)
"""

SLOWLY = """
import sys, time
from tfproject.models import saved_models
from tfproject.tools import scenes
from tfproject.tools.mapping import map_scene

read = scenes.Scene.rows

def slowly(self, start, stop):
    time.sleep(0.2)
    return read(self, start, stop)

scenes.Scene.rows = slowly
map_scene(saved_models.load(sys.argv[1]), sys.argv[2], sys.argv[3], stride=8)
"""


def colour_model(path, window):
    """Says which class's colour the mean of a window is nearest to."""
    image = keras.Input((window, window, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 20)(image))
    dense = keras.layers.Dense(3, activation="softmax", name="classes")
    network = keras.Model(image, dense(x))
    dense.set_weights([np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), np.array([3.0, 0, 0])])
    return saved_models.save(network, path, CLASSES)


@pytest.mark.long
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_scene_larger_than_the_memory_that_the_process_may_have(tally, tmp_path):
    assert SIDE * SIDE * 3 > max(MOST_BYTES, 2 * ROOM)
    model = colour_model(tmp_path / "colours.keras", WINDOW)
    transform = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    labels = np.zeros((SIDE // WINDOW, SIDE // WINDOW), int)
    with rasterio.open(
        tmp_path / "large.tif", "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8", tiled=True,
        blockxsize=WINDOW, blockysize=WINDOW, compress="deflate", sparse_ok=True, photometric="RGB",
        crs="EPSG:32631", transform=transform,
    ) as tiff:  # fmt: skip
        for i, (row, column) in enumerate([(0, 0), (0, 39), (17, 23), (18, 23), (39, 5), (39, 39)]):
            labels[row, column] = 1 + i % 2
            block = np.zeros((3, WINDOW, WINDOW), np.uint8)
            block[i % 2] = 200
            tiff.write(block, window=rasterio.windows.Window(column * WINDOW, row * WINDOW, WINDOW, WINDOW))
    assert (tmp_path / "large.tif").stat().st_size < 10_000_000
    command = ["map", str(model), str(tmp_path / "large.tif"), "--out", str(tmp_path / "map")]
    with tally.fault():
        result = subprocess.run(
            [sys.executable, "-c", MAPPED, str(ROOM), *command, "--stride", str(WINDOW), "--batch-size", "8"],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    assert said[0] == "does not fit" and int(said[-1]) < MOST_BYTES, said
    with rasterio.open(tmp_path / "map/classes.tif") as tiff:
        np.testing.assert_array_equal(tiff.read(1), labels + 1)
    assert json.loads((tmp_path / "map/map.json").read_text())["areas"][1]["pixels"] == 3 * WINDOW**2


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tally, tmp_path):
    model = colour_model(tmp_path / "colours.keras", 16)
    image = np.random.default_rng(0).integers(0, 256, (3, 170, 90), np.uint8)
    scene = tmp_path / "scene.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", count=3, height=170, width=90, dtype="uint8", photometric="RGB",
        crs="EPSG:32631", transform=Affine(10, 0, 500_000, 0, -10, 4_600_000),
    ) as tiff:  # fmt: skip
        tiff.write(image)
    loaded = saved_models.load(model)
    whole = map_scene(loaded, scene, tmp_path / "whole", stride=8)
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, model, scene, tmp_path / "parts"])
    windows, deadline = tmp_path / "parts/windows.bin", time.monotonic() + 300
    while not (windows.exists() and windows.stat().st_size > 1000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "parts/map.json").exists()
    with tally.fault():
        resumed = map_scene(loaded, scene, tmp_path / "parts", stride=8)
        assert 0 < resumed.computed < whole.computed
        for name in FILES:
            tally.result((tmp_path / "parts" / name).read_bytes(), (tmp_path / "whole" / name).read_bytes(), name)
