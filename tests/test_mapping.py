"""Land-cover maps of scenes, against scenes made so that the answer is known."""

import csv
import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from tfproject.errors import UserError
from tfproject.models import saved_models
from tfproject.tools import mapping, scenes
from tfproject.tools.mapping import Grid, map_scene

CLASSES = ("red", "green", "blue")
COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
UTM = Affine(10, 0, 500_000, 0, -10, 4_600_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Says which colour a window of 16x16 has most of: a softmax of the mean colour."""
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 20)(image))
    dense = keras.layers.Dense(3, activation="softmax", name="classes")
    network = keras.Model(image, dense(x))
    dense.set_weights([np.eye(3), np.zeros(3)])
    path = saved_models.save(network, tmp_path_factory.mktemp("model") / "tiny.keras", CLASSES)
    return saved_models.load(path)


def write(path, image, transform=UTM, crs="EPSG:32631", alpha=None, photometric="RGB", **profile):
    bands = np.moveaxis(image, -1, 0)
    if alpha is not None:
        bands = np.concatenate([bands, alpha[None]])
        profile["alpha"] = "YES"
    count, height, width = bands.shape
    profile |= {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", crs=crs, transform=transform, photometric=photometric, **profile) as tiff:
        tiff.write(bands)
    return path


def mosaic(labels, tile=16):
    return np.repeat(np.repeat(COLOURS[labels], tile, axis=0), tile, axis=1)


def read(path):
    with rasterio.open(path) as tiff:
        return tiff.read(1)


def classify(model, image):
    mean = image.reshape(-1, 3).mean(axis=0) / 20
    power = np.exp(mean - mean.max())
    return power / power.sum()


def brute_force(model, image, known, stride, window=16):
    """Classes and confidences of the cells, pixel by pixel."""
    height, width = known.shape
    tops, lefts = (sorted({*range(0, n - window + 1, stride), n - window}) for n in (height, width))
    total, weight = np.zeros((height, width, 3)), np.zeros((height, width))
    ramp = np.array([min(i + 0.5, window - i - 0.5) / window for i in range(window)]) ** mapping.SHARPNESS
    for top in tops:
        for left in lefts:
            place = np.s_[top : top + window, left : left + window]
            if known[place].mean() < 0.5:
                continue
            pixels = image[place].astype(float)
            pixels[~known[place]] = pixels[known[place]].mean(axis=0)
            total[place] += np.outer(ramp, ramp)[:, :, None] * classify(model, pixels)
            weight[place] += np.outer(ramp, ramp)
    edges = [cell_edges(length, stride, window) for length in (height, width)]
    classes, confidence = (np.full([len(e) - 1 for e in edges], empty) for empty in (0, np.nan))
    for i, j in np.ndindex(classes.shape):
        cell = np.s_[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]]
        if known[cell].mean() >= 0.5 and weight[cell].sum() > 0:
            mean = total[cell].sum(axis=(0, 1)) / weight[cell].sum()
            classes[i, j], confidence[i, j] = mean.argmax() + 1, mean.max()
    return classes, confidence


def cell_edges(length, stride, window=16):
    """Where cells begin and end so that the middle of the first window, at window / 2, is the middle of a cell."""
    edge = window / 2 - stride / 2
    assert edge == int(edge)
    return [0, *(e for e in range(int(edge) % stride, length, stride) if e > 0), length]


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text


def test_a_mosaic_gives_back_its_tiles_where_they_lie(model, tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (7, 9))
    scene = write(tmp_path / "scene.tif", mosaic(labels))
    result = map_scene(model, scene, tmp_path / "map", stride=16)
    with rasterio.open(tmp_path / "map/classes.tif") as tiff:
        assert tiff.crs == rasterio.crs.CRS.from_epsg(32631)
        assert tiff.nodata == 0 and tiff.dtypes == ("uint8",)
        np.testing.assert_array_equal(tiff.read(1), labels + 1)
        assert tiff.transform == Affine(160, 0, 500_000, 0, -160, 4_600_000)
        # By coordinates: the point in the middle of a tile of the scene is that tile's class in the map.
        for row, column in [(0, 0), (3, 5), (6, 8)]:
            point = UTM @ (column * 16 + 8, row * 16 + 8)
            assert next(tiff.sample([point]))[0] == labels[row, column] + 1
        assert [tiff.colormap(1)[i][:3] for i in (1, 2)] == [(0x3F, 0x90, 0xDA), (0xFF, 0xA9, 0x0E)]
        assert tiff.tags(1)["CLASS_2"] == "green"
    counts = np.bincount(labels.ravel(), minlength=3) * 256
    rows = list(csv.DictReader(open(tmp_path / "map/areas.csv")))
    assert [int(row["pixels"]) for row in rows] == counts.tolist()
    np.testing.assert_allclose([float(row["square_metres"]) for row in rows], counts * 100)
    assert [area["hectares"] for area in result.summary["areas"]] == pytest.approx(counts / 100)
    assert json.loads((tmp_path / "map/map.json").read_text()) == result.summary
    assert Image.open(tmp_path / "map/map.png").format == "PNG"
    assert not (tmp_path / "map/windows.bin").exists()


def test_cells_lie_in_the_middle_of_their_windows(model, tmp_path):
    labels = np.random.default_rng(7).integers(0, 3, (6, 8))
    scene = write(tmp_path / "scene.tif", mosaic(labels))
    for stride in (2, 4, 8):
        map_scene(model, scene, tmp_path / f"map{stride}", stride=stride)
        with rasterio.open(tmp_path / f"map{stride}/classes.tif") as tiff:
            # Every tile's middle is the middle of a cell, and that cell says what the tile is.
            points = [UTM @ (16 * column + 8, 16 * row + 8) for row, column in np.ndindex(labels.shape)]
            np.testing.assert_array_equal([value[0] - 1 for value in tiff.sample(points)], labels.ravel())
            cells = np.array([~tiff.transform @ point for point in points])
            np.testing.assert_allclose(cells % 1, 0.5)
            left, bottom, right, top = tiff.bounds
            assert left <= 500_000 and right >= 500_000 + 1280 and top >= 4_600_000 and bottom <= 4_600_000 - 960
            assert (tiff.read(1) > 0).all()  # the whole scene has a class


def test_what_a_killed_call_left_is_removed_and_another_s_rows_are_not(model, tmp_path):
    scene = write(tmp_path / "scene.tif", mosaic(np.zeros((3, 3), int)))
    whole = map_scene(model, scene, tmp_path / "map", stride=8)
    for name in (".classes.tif.ab12.tif", ".map.png.x1y2", "windows.bin"):
        (tmp_path / "map" / name).write_bytes(b"half")
    (tmp_path / "map/windows.json").write_text('{"another": "map"}')
    assert map_scene(model, scene, tmp_path / "map", stride=8).summary == whole.summary
    assert not list((tmp_path / "map").glob(".*.tif")) and not (tmp_path / "map/.map.png.x1y2").exists()
    assert (tmp_path / "map/windows.bin").read_bytes() == b"half"


@pytest.mark.parametrize("shape", [(16, 16), (16, 61), (45, 17), (53, 70)])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_odd_sizes_against_brute_force(model, tmp_path, shape, stride):
    image = np.random.default_rng(shape[1]).integers(0, 256, (-(-shape[0] // 7), -(-shape[1] // 7), 3), np.uint8)
    image = np.repeat(np.repeat(image, 7, axis=0), 7, axis=1)[: shape[0], : shape[1]]
    map_scene(model, write(tmp_path / "scene.tif", image), tmp_path / "map", stride=stride)
    classes, confidence = brute_force(model, image, np.ones(shape, bool), stride)
    np.testing.assert_array_equal(read(tmp_path / "map/classes.tif"), classes)
    np.testing.assert_allclose(read(tmp_path / "map/confidence.tif"), confidence, rtol=1e-4)


@pytest.mark.parametrize("kind", ["value", "alpha", "mask", "nan"])
def test_no_data_stays_no_data(model, tmp_path, kind):
    random = np.random.default_rng(1)
    image = mosaic(random.integers(0, 3, (5, 6)))[:77, :90]
    known = np.ones((77, 90), bool)
    known[:20, :30] = known[40:, 70:] = known[50:58, 10:20] = False
    known[random.random(known.shape) < 0.02] = False
    path = tmp_path / "scene.tif"
    if kind == "value":
        write(path, np.where(known[:, :, None], image, 255), nodata=255)
    elif kind == "alpha":
        write(path, image, alpha=np.where(known, 255, 0).astype(np.uint8))
    elif kind == "mask":
        write(path, image)
        with rasterio.open(path, "r+") as tiff:
            tiff.write_mask(known)
    else:
        write(path, np.where(known[:, :, None], image, np.nan).astype(np.float32))
    value_range = (0, 255) if kind == "nan" else None
    result = map_scene(model, path, tmp_path / "map", stride=8, value_range=value_range)
    classes, confidence = brute_force(model, image, known, 8)
    np.testing.assert_array_equal(read(tmp_path / "map/classes.tif"), classes)
    np.testing.assert_allclose(read(tmp_path / "map/confidence.tif"), confidence, rtol=1e-4)
    assert (classes == 0).sum() > 8
    known_in_given = known & (np.repeat(np.repeat(classes, 8, axis=0), 8, axis=1)[4:81, 4:94] > 0)
    assert sum(area["pixels"] for area in result.summary["areas"]) == known_in_given.sum()
    assert result.summary["no_data_pixels"] == known.size - known_in_given.sum()
    assert sum(area["share"] for area in result.summary["areas"]) == pytest.approx(1)  # of what is known


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_other_bands_do_not_say_what_is_no_data(tmp_path, dtype):
    """An elevation without gaps, an alpha band among five, and no-data values of one band are all heeded rightly."""
    image = np.full((6, 7, 5), 100, dtype)
    image[:, :, 3], image[:, :, 4] = 50, 255  # elevation, alpha
    image[0, :, :3] = 0  # no data in all three
    image[1, :, 0] = 0  # in one: a dark pixel of whole numbers, none of fractions
    image[2, :, 3] = 0  # in the elevation alone
    image[3, :, 4] = 0  # transparent
    path = write(tmp_path / "scene.tif", image, photometric="MINISBLACK", nodata=0)
    with rasterio.open(path, "r+") as tiff:
        tiff.colorinterp = [*tiff.colorinterp[:4], rasterio.enums.ColorInterp.alpha]
    with scenes.open_scene(path, (1, 2, 3), (0, 255)) as scene:
        known = scene.rows(0, 6)[1]
    rows = [False, dtype is np.uint8, True, False, True, True]
    np.testing.assert_array_equal(known, np.repeat(np.array(rows)[:, None], 7, axis=1))


def test_a_georeference_that_came_later_is_not_overlooked(model, tmp_path):
    Image.fromarray(mosaic(np.zeros((2, 2), int))).save(tmp_path / "scene.png")
    assert map_scene(model, tmp_path / "scene.png", tmp_path / "map").summary["crs"] is None
    (tmp_path / "scene.pgw").write_text("10\n0\n0\n-10\n500005\n4599995\n")
    with pytest.raises(UserError, match="holds the map of another scene, model or options"):
        map_scene(model, tmp_path / "scene.png", tmp_path / "map")
    assert json.loads((tmp_path / "map" / "map.json").read_text())["crs"] is None  # nothing of it is lost
    placed = map_scene(model, tmp_path / "scene.png", tmp_path / "placed")
    assert placed.computed and placed.summary["transform"][0] == 40
    assert not map_scene(model, tmp_path / "scene.png", tmp_path / "placed").computed


def test_infrared_that_gdal_calls_alpha_is_no_mask(model, tmp_path):
    image = mosaic(np.random.default_rng(3).integers(0, 3, (3, 4)))
    infrared = np.random.default_rng(4).integers(0, 120, image.shape[:2]).astype(np.uint8)
    scene = write(tmp_path / "scene.tif", image, alpha=infrared)
    with scenes.open_scene(scene) as opened:
        assert opened.dataset.colorinterp[3].name == "alpha" and "is no mask" in opened.reading
        pixels, known = opened.rows(0, 48)
    assert known.all() and (infrared == 0).any()
    np.testing.assert_array_equal(pixels, image)
    with rasterio.open(scene, "r+") as tiff:
        tiff.nodata = 30
    with scenes.open_scene(scene) as opened:
        assert opened.rows(0, 48)[1].all()  # in one band only: a dark pixel, no gap
    soft = np.full(image.shape[:2], 255, np.uint8)
    soft[:4], soft[4] = 0, 100
    with scenes.open_scene(write(tmp_path / "soft.tif", image, alpha=soft)) as opened:
        np.testing.assert_array_equal(opened.rows(0, 48)[1], soft > 0)


def test_a_black_border_is_no_data_if_the_user_says_so(model, tmp_path):
    image = mosaic(np.zeros((4, 4), int))
    image[:16] = 0
    scene = write(tmp_path / "scene.tif", image)
    with pytest.warns(UserWarning, match="25% of scene.tif is 0 in all three bands and counts as data"):
        counted = map_scene(model, scene, tmp_path / "counted", stride=16)
    assert counted.summary["no_data_pixels"] == 0
    told = map_scene(model, scene, tmp_path / "told", stride=16, no_data=0)
    assert told.summary["no_data_pixels"] == 16 * 64
    with pytest.raises(UserError, match="another scene, model or options"):
        map_scene(model, scene, tmp_path / "told", stride=16)


@pytest.mark.parametrize("value, dtype", [(65_535, np.uint16), (-9999, np.int16), (-3.4028235e38, np.float32)])
def test_a_border_of_any_value_is_told_before_the_range_is_read(tmp_path, value, dtype):
    image = mosaic(np.random.default_rng(6).integers(0, 3, (4, 4))).astype(dtype)
    image[:16] = value
    image[16:18] = 30  # a value in between, however frequent, is none
    path = write(tmp_path / "scene.tif", image, photometric="MINISBLACK")
    number = np.format_float_positional(dtype(value), trim="-")
    with pytest.warns(UserWarning) as told, scenes.open_scene(path):
        pass
    border, stretched = (str(warning.message) for warning in told)
    assert f"25% of scene.tif is {number} in all three" in border and f"`--nodata {number}`" in border
    assert "--value-range LOW HIGH" in stretched
    with pytest.warns(UserWarning) as told, scenes.open_scene(path, no_data=float(number)) as opened:
        assert opened.rows(0, 64)[1].mean() == 0.75
    assert len(told) == 1 and opened.value_range == (30, 200)


def test_the_range_of_a_deep_scene_is_to_be_given(model, tmp_path, recwarn):
    path = write(tmp_path / "scene.tif", mosaic(np.zeros((2, 2), int)).astype(np.uint16), photometric="MINISBLACK")
    given = map_scene(model, path, tmp_path / "given", value_range=(0, 2750))
    assert not recwarn and "percentile" not in given.summary["reading"]
    with pytest.warns(UserWarning, match="scene.tif has uint16 pixels and no value range was given, so 30 and 200"):
        taken = map_scene(model, path, tmp_path / "taken")
    assert "the network depends on absolute brightness" in taken.summary["reading"]
    assert "--value-range LOW HIGH" in taken.summary["reading"]


@pytest.mark.parametrize(
    "transform, crs, told",
    [
        (Affine(3, 0, 500_000, 0, -3, 4_600_000), "EPSG:32631", "covers 3 m"),
        (Affine(20e-5, 0, 3, 0, -20e-5, 0.5), "EPSG:4326", "covers 22.* m"),
        (Affine(10, 0, 0, 0, -10, 8_400_000), "EPSG:3857", "covers (4.9|5)[0-9.]* m"),  # Mercator, at 60 degrees north
        (UTM, "EPSG:32631", None),
        (Affine(10, 0, 0, 0, -10, 0), 'LOCAL_CS["a site",UNIT["metre",1]]', None),
        (Affine.identity(), None, None),
    ],
)
def test_pixels_of_another_size_than_the_model_knows_are_told(model, tmp_path, recwarn, transform, crs, told):
    scene = write(tmp_path / "scene.tif", mosaic(np.zeros((2, 2), int)), transform, crs)
    map_scene(dataclasses.replace(model, card={"data": {"name": "eurosat"}}), scene, tmp_path / "a")
    map_scene(dataclasses.replace(model, card={"metres_per_pixel": 10}), scene, tmp_path / "b")
    map_scene(model, scene, tmp_path / "c")  # of which it is not known
    found = [str(warning.message) for warning in recwarn if "was trained on pixels of 10 m" in str(warning.message)]
    assert len(found) == (2 if told else 0)
    assert all(re.search(told, text) for text in found)
    with pytest.raises(UserError, match="says 'ten' metres per pixel") as error:
        map_scene(dataclasses.replace(model, card={"metres_per_pixel": "ten"}), scene, tmp_path / "d")
    assert one_sentence(error)


def test_a_map_does_not_abstain(model, tmp_path):
    scene = write(tmp_path / "scene.tif", mosaic(np.zeros((2, 2), int)))
    maps = [map_scene(dataclasses.replace(model, card=card), scene, tmp_path / name)
            for name, card in (("all", {}), ("sure", {"abstain_below": 1.0}))]  # fmt: skip
    assert maps[0].summary["areas"] == maps[1].summary["areas"]


def test_files_of_others_are_not_overwritten(model, tmp_path):
    scene = write(tmp_path / "map.tif", mosaic(np.zeros((2, 2), int)))
    Image.fromarray(mosaic(np.zeros((2, 2), int))).save(tmp_path / "map.png")
    before = (tmp_path / "map.png").read_bytes()
    with pytest.raises(UserError, match="map.png would be overwritten by the map's map.png") as error:
        map_scene(model, tmp_path / "map.png", tmp_path)
    assert one_sentence(error)
    with pytest.raises(UserError, match="holds map.png, which no map.json tells to be a map's") as error:
        map_scene(model, scene, tmp_path)
    assert one_sentence(error) and (tmp_path / "map.png").read_bytes() == before
    with pytest.raises(UserError, match="map.png is no folder, which the map's files need") as error:
        map_scene(model, scene, tmp_path / "map.png")
    assert one_sentence(error) and (tmp_path / "map.png").read_bytes() == before


def test_a_map_whose_writing_was_interrupted_goes_on(model, tmp_path, monkeypatch):
    scene = write(tmp_path / "scene.tif", mosaic(np.zeros((2, 2), int)))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(mapping, "_write_picture", lambda *_: exec("raise KeyboardInterrupt"))
        map_scene(model, scene, tmp_path / "map")
    assert (tmp_path / "map/classes.tif").exists() and not (tmp_path / "map/map.json").exists()
    assert map_scene(model, scene, tmp_path / "map").computed == 0


def test_a_name_with_dollars(model, tmp_path):
    scene = write(tmp_path / "$x_$ $.tif", mosaic(np.zeros((2, 2), int)))
    assert map_scene(model, scene, tmp_path / "map").computed


def test_a_scene_without_any_data(model, tmp_path):
    image = np.full((40, 40, 3), 9, np.uint8)
    result = map_scene(model, write(tmp_path / "s.tif", image, nodata=9), tmp_path / "map")
    assert not read(tmp_path / "map/classes.tif").any()
    assert result.summary["no_data_pixels"] == 1600


def test_going_on_after_an_interruption_ends_with_the_same_bytes(model, tmp_path, monkeypatch):
    image = np.random.default_rng(2).integers(0, 256, (60, 75, 3), np.uint8)
    scene = write(tmp_path / "scene.tif", image)
    whole = map_scene(model, scene, tmp_path / "whole", stride=4)
    rows_of_windows = whole.computed // whole.summary["windows"] * len(Grid(60, 75, 16, 16, 4).tops)

    read_rows, calls = scenes.Scene.rows, []

    def failing(self, start, stop):
        calls.append(start)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read_rows(self, start, stop)

    monkeypatch.setattr(scenes.Scene, "rows", failing)
    with pytest.raises(KeyboardInterrupt):
        map_scene(model, scene, tmp_path / "parts", stride=4)
    monkeypatch.setattr(scenes.Scene, "rows", read_rows)
    assert not (tmp_path / "parts/map.json").exists()
    record = (tmp_path / "parts/windows.bin").stat().st_size // 4
    with pytest.raises(UserError) as error:
        map_scene(model, scene, tmp_path / "parts", stride=8)
    assert "unfinished" in str(error.value) and one_sentence(error)
    # A power cut: a record half written, and one whose bytes never reached the disk.
    with open(tmp_path / "parts/windows.bin", "r+b") as file:
        file.seek(3 * record + 10)
        file.write(b"\xff" * 8)
        file.seek(0, 2)
        file.write(b"half a record")
    resumed = map_scene(model, scene, tmp_path / "parts", stride=4)
    assert resumed.computed == whole.computed * (rows_of_windows - 3) // rows_of_windows
    for name in ("classes.tif", "confidence.tif", "map.png", "areas.csv", "map.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    in_bfloat16 = saved_models.load(model.path, "mixed_bfloat16")
    for model_or_other, stride in ((in_bfloat16, 4), (model, 8)):  # hours of computing are not replaced unasked
        with pytest.raises(UserError, match="holds the map of another scene, model or options"):
            map_scene(model_or_other, scene, tmp_path / "parts", stride=stride)
    again = map_scene(model, scene, tmp_path / "parts", stride=4)
    assert again.computed == 0 and again.summary == whole.summary
    other = map_scene(model, scene, tmp_path / "other", stride=8)
    assert other.computed == other.summary["windows"]


def test_results_do_not_depend_on_how_much_is_done_at_once(model, tmp_path, monkeypatch):
    scene = write(tmp_path / "scene.tif", np.random.default_rng(3).integers(0, 256, (90, 75, 3), np.uint8))
    map_scene(model, scene, tmp_path / "a", stride=4)
    monkeypatch.setattr(mapping, "BLOCK_WINDOWS", 30)
    map_scene(model, scene, tmp_path / "b", stride=4, batch_size=3)
    np.testing.assert_array_equal(read(tmp_path / "a/classes.tif"), read(tmp_path / "b/classes.tif"))
    np.testing.assert_allclose(read(tmp_path / "a/confidence.tif"), read(tmp_path / "b/confidence.tif"), rtol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_without_georeference(model, tmp_path, suffix):
    labels = np.random.default_rng(4).integers(0, 3, (4, 5))
    Image.fromarray(mosaic(labels)).save(tmp_path / f"scene.{suffix}")
    result = map_scene(model, tmp_path / f"scene.{suffix}", tmp_path / "map", stride=16)
    np.testing.assert_array_equal(read(tmp_path / "map/classes.tif"), labels + 1)
    with rasterio.open(tmp_path / "map/classes.tif") as tiff:
        assert tiff.crs is None and tiff.transform.is_identity
    assert {area["square_metres"] for area in result.summary["areas"]} == {None}


def test_degrees_are_no_area_and_feet_are_feet(model, tmp_path):
    image = mosaic(np.zeros((2, 2), int))
    degrees = write(tmp_path / "a.tif", image, Affine(1e-4, 0, 5, 0, -1e-4, 50), "EPSG:4326")
    assert map_scene(model, degrees, tmp_path / "a").summary["areas"][0]["hectares"] is None
    # Mercator's, where a hectare in the north has four, equidistant cylindrical, Miller's.
    for number, code in enumerate(("EPSG:3857", "EPSG:4087", "EPSG:32662", "ESRI:54003")):
        unequal = map_scene(model, write(tmp_path / f"{number}.tif", image, crs=code), tmp_path / f"{number}")
        assert unequal.summary["areas"][0]["hectares"] is None
        assert "No hectares: the scene's projection does not keep areas" in unequal.to_text()
    own = write(tmp_path / "own.tif", image, crs='LOCAL_CS["a site",UNIT["metre",1]]')
    assert "No hectares: the scene's coordinates are of a system without a place" in map_scene(
        model, own, tmp_path / "own"
    ).to_text()
    unplaced = map_scene(model, write(tmp_path / "i.tif", image, transform=Affine.identity()), tmp_path / "i")
    assert "No hectares: the scene has no georeference" in unplaced.to_text()
    metres = map_scene(model, write(tmp_path / "u.tif", image), tmp_path / "u").summary["areas"][0]["square_metres"]
    assert metres == pytest.approx(32 * 32 * 100)
    feet = write(tmp_path / "b.tif", image, Affine(0, 3, 1000, 2, 0, 2000), "EPSG:2263")  # turned by a right angle too
    area = map_scene(model, feet, tmp_path / "b").summary["areas"][0]["square_metres"]
    assert area == pytest.approx(32 * 32 * 6 * 0.3048006096**2)
    with rasterio.open(tmp_path / "b/classes.tif") as tiff:
        assert tiff.transform == Affine(0, 12, 994, 8, 0, 1996)  # cells begin two pixels before the scene


@pytest.mark.parametrize("no_data", [np.nan, 256, -1, 0.5, np.inf])
def test_a_value_that_no_pixel_can_have_is_not_taken_for_no_data(model, tmp_path, no_data):
    scene = write(tmp_path / "a.tif", mosaic(np.zeros((2, 2), int)))
    with pytest.raises(UserError, match="no-data value is") as error:
        map_scene(model, scene, tmp_path / "a", no_data=no_data)
    assert one_sentence(error)


def test_a_scene_without_any_data_is_told(model, tmp_path):
    scene = write(tmp_path / "a.tif", np.full((32, 32, 3), np.nan, np.float32))
    with pytest.raises(UserError, match="no data wherever"):
        map_scene(model, scene, tmp_path / "a")


def test_bands_in_another_order_and_of_16_bits(model, tmp_path):
    labels = np.random.default_rng(5).integers(0, 3, (4, 5))
    deep = mosaic(labels).astype(np.uint16) * 10
    image = np.concatenate([np.full_like(deep[:, :, :1], 60_000), deep[:, :, ::-1]], axis=-1)  # infrared, B, G, R
    scene = write(tmp_path / "scene.tif", image, photometric="MINISBLACK")
    with pytest.raises(UserError) as error:
        map_scene(model, scene, tmp_path / "map")
    assert "4 bands" in str(error.value) and "`--bands 3 2 1` where they begin with blue" in str(error.value)
    assert one_sentence(error)
    with rasterio.open(scene, "r+") as tiff:
        tiff.descriptions = ("B8", "B2", None, "B4")
    with pytest.raises(UserError, match=r"\(B8, B2, undefined, B4\)"):
        map_scene(model, scene, tmp_path / "map")
    map_scene(model, scene, tmp_path / "map", stride=16, bands=(4, 3, 2))
    np.testing.assert_array_equal(read(tmp_path / "map/classes.tif"), labels + 1)
    with scenes.open_scene(scene, (4, 3, 2), (0, 2550)) as opened:
        np.testing.assert_array_equal(opened.rows(0, 64)[0], mosaic(labels))
    with scenes.open_scene(scene, (4, 3, 2)) as opened:
        assert "300 and 2000, the 2nd and 98th percentile" in opened.reading


def test_what_is_no_scene_is_one_sentence(model, tmp_path):
    image = mosaic(np.zeros((3, 3), int))
    scene = write(tmp_path / "scene.tif", image)
    (tmp_path / "text.tif").write_text("not an image")
    (tmp_path / "link.vrt").write_text('<VRTDataset rasterXSize="48" rasterYSize="48"></VRTDataset>')
    Image.fromarray(image[:, :, 0]).save(tmp_path / "grey.png")
    (tmp_path / "short.tif").write_bytes(scene.read_bytes()[:2000])
    with rasterio.open(tmp_path / "complex.tif", "w", driver="GTiff", count=3, height=48, width=48,
                       dtype="complex_int16"):  # fmt: skip
        pass
    cases = {
        "no.tif": {}, "text.tif": {}, "link.vrt": {}, "grey.png": {}, "short.tif": {},
        "/vsicurl/http://localhost/a.tif": {}, "scene.tif": {"stride": 5}, "./scene.tif": {"bands": (1, 2, 4)},
        "../" + tmp_path.name + "/scene.tif": {"views": 3}, ".//scene.tif": {"value_range": (0, float("inf"))},
        "complex.tif": {}, "././scene.tif": {"batch_size": 0}, "./././scene.tif": {"batch_size": -5},
        b"n\xff.tif".decode(errors="surrogateescape"): {},
    }  # fmt: skip
    (tmp_path / [*cases][-1]).write_bytes(scene.read_bytes())
    for i, (name, options) in enumerate(cases.items()):
        with pytest.raises(UserError) as error:
            map_scene(model, tmp_path / name, tmp_path / f"map{i}", **options)
        assert one_sentence(error), str(error.value)
    with pytest.raises(UserError, match="windows of 16x16"):
        map_scene(model, write(tmp_path / "small.tif", image[:15]), tmp_path / "map")


def test_two_at_once_in_a_directory_are_refused(model, tmp_path):
    from tfproject.training.run import held

    scene = write(tmp_path / "scene.tif", mosaic(np.zeros((2, 2), int)))
    with held(tmp_path / "map/.lock"), pytest.raises(UserError, match="in use"):
        map_scene(model, scene, tmp_path / "map")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [(1, 2, 3), (3, 1, 2)])
@pytest.mark.parametrize(
    "layout", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"tiled": False, "blockysize": 5}]
)
def test_a_sample_of_a_large_scene_has_the_pixels_that_gdal_would_take(tmp_path, monkeypatch, kind, bands, layout):
    monkeypatch.setattr(scenes, "STRIP", 8)
    values = np.random.default_rng(0).permutation(3 * 83 * 61).reshape(83, 61, 3).astype(kind)
    path = write(tmp_path / "scene.tif", values, photometric="MINISBLACK", **layout)
    for side in (7, 20, 50, 83):
        monkeypatch.setattr(scenes, "SAMPLE_SIDE", side)
        with rasterio.open(path) as dataset:
            shape = scenes._sample_shape(dataset)
            expected = dataset.read(bands, out_shape=(3, *shape))
            found = scenes._thinned(dataset, bands, shape)
        assert max(shape) == side and found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
