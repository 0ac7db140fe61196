"""A land-cover map of a large scene: a network's windows, overlapping, averaged on a grid of cells."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import sys
import tempfile
import time
import warnings
import zlib

import numpy as np
import scipy.sparse
import tqdm

from tfproject.errors import UserError
from tfproject.evaluation.prediction import predictor
from tfproject.files import mode_of, write_atomically
from tfproject.native_log import native_log_silenced
from tfproject.report import figures, map_figures, style
from tfproject.tools.scenes import open_scene
from tfproject.training.run import held

MOST_RATIO = 1.5  # of the scene's pixels to those that the model was trained on, without a warning
LEAST_KNOWN = 0.5  # share of known pixels from which a window is classified and a cell is given a class
# The power of a window's weight. Of 100 EuroSAT validation tiles side by side this one gave 99 their class back in the
# middle, 1 gave 96 and 16, which is the window around the cell alone, 98: a middle way, as so few tiles cannot tell
# these apart.
SHARPNESS = 3
BLOCK_WINDOWS = 2**18  # probabilities of so many windows are averaged at once: the second step's bound on memory
PICTURE_SIDE = 1600  # cells of the longer side of the picture, at most
NO_DATA = 0  # of the class map; class i of the model is i + 1
FILES = ("classes.tif", "confidence.tif", "map.png", "areas.csv", "map.json")
WINDOWS = ("windows.bin", "windows.json")  # in this order they are removed: what is in the first must always be known


@dataclasses.dataclass(frozen=True)
class SceneMap:
    """A finished land-cover map: a directory of files.

    classes.tif     uint8, 0 is no data and i the model's i-th class from 1; in the scene's CRS, a cell a pixel, with a
                    colour table and the class names as tags
    confidence.tif  float32, the averaged probability of that class; NaN is no data
    map.png         the classes in colour, with a legend
    areas.csv       a row per class: pixels of the scene, share, and m2 and hectares where the scene's CRS is projected
    map.json        all of that and what the map was made of

    Attributes:
        directory: pathlib.Path.
        summary: the contents of map.json: model, scene, reading, stride, views, windows, cells, areas, ...
        computed: windows that this call classified; the others were there already.
        seconds: that these windows took.
    """

    directory: pathlib.Path
    summary: dict
    computed: int
    seconds: float

    def to_text(self):
        """A table of the classes with their areas."""
        areas = self.summary["areas"]
        width = max(len("no data"), *(len(area["class"]) for area in areas))
        lines = [f"{'class':<{width}}  {'share':>7}  {'pixels':>14}  {'hectares':>12}"]
        for area in areas:
            hectares = "" if area["hectares"] is None else f"{area['hectares']:,.1f}"
            line = f"{area['class']:<{width}}  {area['share']:>7.2%}  {area['pixels']:>14,}  {hectares:>12}"
            lines.append(line.rstrip())
        lines.append(f"{'no data':<{width}}  {'':>7}  {self.summary['no_data_pixels']:>14,}")
        if self.summary["no_areas_because"]:
            lines.append(f"No hectares: {self.summary['no_areas_because']}.")
        return "\n".join(lines)


def map_scene(
    saved_model, scene_path, directory, *, stride=None, views=1, batch_size=128, bands=None, value_range=None,
    no_data=None, progress=True,
):  # fmt: skip
    """Classify a scene window by window and write a map of it.

    Windows of the model's image size are taken every `stride` pixels down and right; the last of each row and column
    is moved back inside the scene. The map's cells are squares of `stride` pixels that lie in the middle of windows, so
    that a cell is judged from what is around it on all sides alike; the first and last ones may reach beyond the scene.
    A cell's probabilities are the weighted mean of those of all windows over it; a window's weight falls from its
    middle to its edges as a triangle to the power SHARPNESS, so that the window around the cell counts most, and its
    neighbours take chance out of it. At the scene's edges, and where that window is unknown, the nearest others
    decide. The cell's class is the most probable one.

    A window is classified if half of its pixels or more are known, with the others in the mean colour of the known;
    a cell gets a class if half of its pixels or more are known and a classified window lies over it.

    The probabilities of every finished row of windows are kept in the directory until the map is whole. A call with
    the same model, scene and options goes on from there and ends with the same bytes as one without interruption; once
    the map is whole it only reads what is there. Memory depends on the scene's width alone.

    Every cell gets a class however unsure the model is, whatever its card says of abstaining: the confidence layer has
    its probability. Warned is of a scene whose pixels cover more or less ground than those that the model was trained
    on.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        scene_path: as `open_scene` takes it, at least as large as the model's images.
        directory: of the map, made if it is not there.
        stride: pixels from window to window, a divisor of both sides of the window; a quarter of the shorter if None.
        views: how many views of each window are averaged, see `tfproject.evaluation.prediction.VIEWS`.
        batch_size: the most windows a step.
        bands, value_range, no_data: as `open_scene` takes them.
        progress: show a progress bar on a terminal.

    Returns:
        SceneMap.

    Raises:
        UserError: if the scene or an option does not suit, a file cannot be read or written, or the directory holds a
            map of something else, or other files that have the names of a map's.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is no folder, which the map's files need; name another directory.")
    window = saved_model.image_size
    stride = _checked_stride(stride, window)
    class_count = len(saved_model.class_names)
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}; give 1 window or more.")
    if class_count > 255:
        raise UserError(f"The model has {class_count} classes and a map's pixels of 8 bits have room for 255.")
    with open_scene(scene_path, bands, value_range, no_data) as scene:
        if scene.height < window[0] or scene.width < window[1]:
            raise UserError(
                f"{scene.path} has {scene.height}x{scene.width} pixels and the model takes windows of "
                f"{window[0]}x{window[1]}; give a scene of that size at least, or classify it as one image."
            )
        _check_targets(directory, scene)
        _warn_of_scale(saved_model, scene)
        grid = Grid(scene.height, scene.width, *window, stride)
        identity = _identity(saved_model, scene, stride, views, batch_size)
        with held(directory / ".lock"):
            _remove_left_over(directory)
            finished = _finished(directory, identity)
            if finished:
                if _says(directory / "windows.json", identity):
                    _remove_windows(directory)  # killed between the last file and this
                return SceneMap(directory, finished, 0, 0.0)
            _check_foreign(directory)
            start = time.perf_counter()
            computed, windows = _classify_windows(
                directory, identity, saved_model, scene, grid, views, batch_size, progress
            )
            seconds = time.perf_counter() - start
            summary = _write_map(directory, identity, windows, scene, grid, saved_model.class_names)
            del windows
            _remove_windows(directory)
    return SceneMap(directory, summary, computed, seconds)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the windows and the cells of a scene lie.

    Attributes:
        height, width: of the scene, in pixels.
        window_height, window_width: in pixels.
        stride: in pixels.
    """

    height: int
    width: int
    window_height: int
    window_width: int
    stride: int

    @property
    def tops(self):
        """The first row of each row of windows."""
        return _starts(self.height, self.window_height, self.stride)

    @property
    def lefts(self):
        """The first column of each column of windows."""
        return _starts(self.width, self.window_width, self.stride)

    @property
    def origin(self):
        """(row, column) of the first cell's corner, in pixels: 0, or before the scene."""
        return tuple(_origin(window, self.stride) for window in (self.window_height, self.window_width))

    @property
    def shape(self):
        """(rows, columns) of cells; the first and last ones may reach beyond the scene."""
        return tuple(
            math.ceil((length - first) / self.stride) for length, first in zip((self.height, self.width), self.origin)
        )

    def rows_of_cells(self):
        """The first row of pixels of each row of cells within the scene, and the scene's end."""
        return np.clip(self.origin[0] + self.stride * np.arange(self.shape[0] + 1), 0, self.height)

    def columns_of_cells(self):
        """The like for columns."""
        return np.clip(self.origin[1] + self.stride * np.arange(self.shape[1] + 1), 0, self.width)

    def weights_down(self):
        """Sparse (rows of cells, rows of windows): how much a window says of a cell."""
        return _weights(self.tops, self.window_height, self.stride, self.origin[0], self.shape[0])

    def weights_right(self):
        """Sparse (columns of cells, columns of windows)."""
        return _weights(self.lefts, self.window_width, self.stride, self.origin[1], self.shape[1])


def _starts(length, window, stride):
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _origin(window, stride):
    """Where cells begin that have the middle of a window at 0, stride, 2 stride, ... in theirs."""
    return -(-((window - stride) // 2) % stride)


def _weights(starts, window, stride, origin, cell_count):
    """The sum, over the pixels that window and cell share, of a triangle to the power SHARPNESS."""
    pixels = np.arange(window)
    peak = (np.minimum(pixels + 0.5, window - 0.5 - pixels) * (2 / window)) ** SHARPNESS
    cells = (np.asarray(starts)[:, None] + pixels - origin) // stride
    windows = np.broadcast_to(np.arange(len(starts))[:, None], cells.shape)
    values = np.broadcast_to(peak, cells.shape)
    return scipy.sparse.csr_array((values.ravel(), (cells.ravel(), windows.ravel())), shape=(cell_count, len(starts)))


def _checked_stride(stride, window):
    if stride is None:
        stride = max(s for s in range(1, max(1, min(window) // 4) + 1) if not any(side % s for side in window))
    if stride < 1 or any(side % stride for side in window):
        raise UserError(f"The stride is {stride}; give a divisor of the window's {window[0]}x{window[1]} pixels.")
    return stride


def _identity(saved_model, scene, stride, views, batch_size):
    """All that the window's probabilities depend on."""
    return {
        "model": str(saved_model.path.name), "model_sha256": _sha256(saved_model.path),
        "scene": str(scene.path.name), "scene_sha256": {path.name: _sha256(path) for path in scene.files},
        "georeference": [scene.crs and scene.crs.to_wkt(), scene.transform and list(scene.transform)[:6]],
        "no_data": list(map(str, scene.dataset.nodatavals)), "no_data_given": scene.no_data,
        "height": scene.height, "width": scene.width, "bands": list(scene.bands),
        "value_range": None if scene.value_range is None else list(scene.value_range), "reading": scene.reading,
        "window": list(saved_model.image_size), "stride": stride, "sharpness": SHARPNESS, "views": views,
        "batch_size": batch_size, "precision": saved_model.precision,
        "class_names": list(saved_model.class_names),
    }  # fmt: skip


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_left_over(directory):
    """What a call that was killed had begun to write and not yet named."""
    for name in (*FILES, "windows.json"):
        for path in directory.glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def _remove_windows(directory):
    for name in WINDOWS:
        (directory / name).unlink(missing_ok=True)


def _check_targets(directory, scene):
    """Refuse to write the map over the scene that it is made of."""
    for target in (directory / name for name in (*FILES, *WINDOWS)):
        if any(target.resolve() == path.resolve() for path in scene.files):
            raise UserError(f"{scene.path} would be overwritten by the map's {target.name}; name another directory.")


def _check_foreign(directory):
    """Refuse to overwrite what is not known to be a map's: there is no map.json and no beginning of a map."""
    there = [name for name in FILES if (directory / name).exists()]
    if there and "map.json" not in there and not (directory / "windows.bin").exists():
        raise UserError(
            f"{directory} holds {' and '.join(there)}, which no map.json tells to be a map's and which would be "
            "overwritten; name another directory, or move them."
        )


def _warn_of_scale(saved_model, scene):
    known, found = saved_model.metres_per_pixel, scene.metres_per_pixel()
    if known and found and max(known / found, found / known) > MOST_RATIO:
        warnings.warn(
            f"A pixel of {scene.path.name} covers {found:.3g} m and {saved_model.path.name} was trained on pixels of "
            f"{known:g} m, so that it sees everything in another size than it knows; bring the scene to {known:g} m "
            "first.", stacklevel=3
        )  # fmt: skip


def _finished(directory, identity):
    """The summary of the map if the directory holds this very one, whole; None if it holds none.

    Raises:
        UserError: if it holds another one.
    """
    try:
        summary = json.loads((directory / "map.json").read_text())
        same = {name: summary.get(name) for name in identity} == identity
    except (OSError, ValueError, AttributeError):
        return None
    if not same:
        raise UserError(
            f"{directory} holds the map of another scene, model or options; name another directory, or delete this one."
        )
    return summary if all((directory / name).is_file() for name in FILES) else None


def _classify_windows(directory, identity, saved_model, scene, grid, views, batch_size, progress):
    """(how many were classified now, the rows of windows): float32 (rows, columns, classes), 0 where not classified.

    The file has a record for each row of windows, with a checksum: after a power cut the end of a file can be anything.
    """
    tops, lefts = grid.tops, grid.lefts
    shape = (len(lefts), len(saved_model.class_names))
    record = np.dtype([("probabilities", "<f4", shape), ("checksum", "<u4")])
    path, about = directory / "windows.bin", directory / "windows.json"
    if path.exists() and not _says(about, identity):
        raise UserError(
            f"{directory} holds an unfinished map of another scene, model or options; name another directory, or "
            "delete this one."
        )
    write_atomically(about, json.dumps(identity, indent=1) + "\n")
    with _disk_errors(path), open(path, "a+b") as file:
        done = _whole_records(path, record, len(tops))
        file.truncate(done * record.itemsize)
        if done < len(tops):
            # As even as can be: every step is filled up to the size of the largest.
            per_step = math.ceil(len(lefts) / math.ceil(len(lefts) / batch_size))
            predict = predictor(saved_model.model, saved_model.image_size, per_step, views)
            classify = lambda pixels, known: _row_of_windows(pixels, known, grid, predict, per_step, shape)  # noqa: E731
        terminal = progress and sys.stderr.isatty()
        with tqdm.tqdm(
            total=len(tops) * len(lefts), initial=done * len(lefts), desc=scene.path.name, unit=" windows",
            disable=not terminal, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for pixels, known in _strips(scene, tops[done:], grid.window_height):
                row = np.zeros((), record)
                row["probabilities"] = classify(pixels, known)
                row["checksum"] = zlib.crc32(row["probabilities"].tobytes())
                file.write(row.tobytes())
                file.flush()
                os.fsync(file.fileno())
                bar.update(len(lefts))
    return (len(tops) - done) * len(lefts), np.memmap(path, record, "r")["probabilities"]


def _says(path, identity):
    try:
        return json.loads(path.read_text()) == identity
    except (OSError, ValueError):
        return False


def _whole_records(path, record, count):
    """How many records from the beginning are there and undamaged."""
    count = min(count, path.stat().st_size // record.itemsize)
    rows = np.memmap(path, record, "r", shape=count) if count else ()
    for i, row in enumerate(rows):
        if zlib.crc32(row["probabilities"].tobytes()) != row["checksum"]:
            return i
    return count


def _strips(scene, tops, height):
    """(pixels, known) of each row of windows; what two of them share is read once."""
    pixels, known = np.empty((0, scene.width, 3), np.uint8), np.empty((0, scene.width), bool)
    first = tops[0] if tops else 0
    for top in tops:
        pixels, known = pixels[top - first :], known[top - first :]
        more = scene.rows(top + len(pixels), top + height)
        pixels, known = np.concatenate([pixels, more[0]]), np.concatenate([known, more[1]])
        first = top
        yield pixels, known


def _row_of_windows(pixels, known, grid, predict, per_step, shape):
    """The probabilities of a strip's windows: float32 (columns, classes), 0 where too little is known."""
    probabilities = np.zeros(shape, np.float32)
    area = grid.window_height * grid.window_width
    columns = np.concatenate([[0], np.cumsum(known.sum(axis=0))])
    known_in_window = np.array([columns[left + grid.window_width] - columns[left] for left in grid.lefts])
    wanted = np.flatnonzero(known_in_window >= LEAST_KNOWN * area)
    for start in range(0, len(wanted), per_step):
        step = wanted[start : start + per_step]
        places = [slice(grid.lefts[i], grid.lefts[i] + grid.window_width) for i in step]
        images = np.stack([pixels[:, place] for place in places]).astype(np.float32)
        for image, place, i in zip(images, places, step):
            if known_in_window[i] < area:
                gaps = ~known[:, place]
                image[gaps] = image[~gaps].mean(axis=0)
        probabilities[step] = predict(images)
    return probabilities


def _write_map(directory, identity, windows, scene, grid, class_names):
    rows, columns = grid.shape
    transform = None
    if scene.transform is not None:
        first_row, first_column = grid.origin
        place = scene.transform.translation(first_column, first_row) @ scene.transform.scale(grid.stride)
        transform = scene.transform @ place
    place = {"driver": "GTiff", "height": rows, "width": columns, "count": 1, "crs": scene.crs, "transform": transform}
    place |= {"compress": "deflate", "BIGTIFF": "IF_SAFER"}
    pixels = np.zeros(len(class_names), np.int64)
    (directory / "map.json").unlink(missing_ok=True)  # until the new map is whole there is none
    with (
        _NewTiff(directory / "classes.tif", dtype="uint8", nodata=NO_DATA, **place) as classes_tiff,
        _NewTiff(directory / "confidence.tif", dtype="float32", nodata=np.nan, **place) as confidence_tiff,
    ):
        colours = style.class_colours(class_names)
        table = {NO_DATA: (0, 0, 0, 0)} | {i: _rgba(colours[name]) for i, name in enumerate(class_names, 1)}
        classes_tiff.tiff.write_colormap(1, table)
        classes_tiff.tiff.set_band_description(1, "land cover")
        classes_tiff.tiff.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(class_names, 1)})
        confidence_tiff.tiff.set_band_description(1, "probability of the class")
        for start, classes, confidence, counts in _cells(windows, scene, grid):
            classes_tiff.write(classes, start)
            confidence_tiff.write(confidence, start)
            pixels += np.bincount(classes.ravel(), counts.ravel(), len(class_names) + 1).astype(np.int64)[1:]
    areas = _areas(class_names, pixels, scene.pixel_area())
    _write_areas(directory / "areas.csv", areas)
    _write_picture(directory / "map.png", directory / "classes.tif", class_names, areas, scene.path.name)
    summary = identity | {
        "windows": len(grid.tops) * len(grid.lefts), "cells": [rows, columns], "cells_begin_at": list(grid.origin),
        "crs": scene.crs.to_string() if scene.crs else None,
        "transform": None if transform is None else list(transform)[:6],
        "areas": areas, "no_data_pixels": int(scene.height * scene.width - pixels.sum()),
        "no_areas_because": scene.no_area_because,
    }  # fmt: skip
    write_atomically(directory / "map.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _cells(windows, scene, grid):
    """Some rows of cells at a time: (first row, classes, confidence, known pixels), the last three (n, columns)."""
    down, right = grid.weights_down(), grid.weights_right()
    rows, columns = grid.shape
    heights, widths = np.diff(grid.rows_of_cells()), np.diff(grid.columns_of_cells())
    per_block = max(1, BLOCK_WINDOWS // columns)
    for start in range(0, rows, per_block):
        weights = down[start : start + per_block]
        used = np.unique(weights.indices)
        first, last = used[0], used[-1] + 1
        probabilities = np.asarray(windows[first:last], np.float64)
        total = np.stack([weights[:, first:last] @ layer @ right.T for layer in np.moveaxis(probabilities, -1, 0)])
        # The probabilities of a classified window sum to 1, those of another to 0: the total is the sum of weights.
        sums = total.sum(axis=0)
        counts = np.stack([_known_pixels(scene, grid, row) for row in range(start, start + len(sums))])
        full = heights[start : start + len(sums), None] * widths
        given = (counts >= LEAST_KNOWN * full) & (sums > 0)
        mean = total / np.where(given, sums, 1)
        yield (
            start,
            np.where(given, mean.argmax(axis=0) + 1, NO_DATA).astype(np.uint8),
            np.where(given, mean.max(axis=0), np.nan).astype(np.float32),
            counts,
        )


def _known_pixels(scene, grid, row):
    """How many pixels of each cell in a row of cells are known."""
    top, bottom = grid.rows_of_cells()[row : row + 2]
    _, known = scene.rows(int(top), int(bottom))
    return np.add.reduceat(known.sum(axis=0), grid.columns_of_cells()[:-1])


def _areas(class_names, pixels, pixel_area):
    total = max(1, pixels.sum())
    return [
        {
            "class": name,
            "pixels": int(count),
            "share": float(count / total),
            "square_metres": None if pixel_area is None else float(count * pixel_area),
            "hectares": None if pixel_area is None else float(count * pixel_area / 10_000),
        }
        for name, count in zip(class_names, pixels)
    ]


def _write_areas(path, areas):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(areas[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(areas)
    write_atomically(path, text.getvalue())


def _write_picture(path, classes_path, class_names, areas, title):
    import rasterio

    with rasterio.open(classes_path) as tiff:
        shrink = max(1, tiff.height / PICTURE_SIDE, tiff.width / PICTURE_SIDE)
        classes = tiff.read(1, out_shape=(max(1, int(tiff.height / shrink)), max(1, int(tiff.width / shrink))))
    shares = [area["share"] for area in areas]
    write_atomically(path, figures.to_png_bytes(map_figures.land_cover_map(classes, class_names, shares, title)))


def _rgba(colour):
    return (*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 255)


class _NewTiff:
    """A one-band GeoTIFF that is written some rows at a time; the file has its name only when it is whole.

    GDAL swallows what goes wrong when it writes the rest at closing, so the file is read again and compared.
    """

    def __init__(self, path, **profile):
        import rasterio

        self.path, self.written, self.places = path, hashlib.blake2b(), []
        handle, self.temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tif")
        os.close(handle)
        with self._errors():
            self.tiff = rasterio.open(self.temporary, "w", **profile)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind:  # what went wrong before is what is told
                with contextlib.suppress(Exception), native_log_silenced():
                    self.tiff.close()
                return
            with self._errors():
                self.tiff.close()
                self._check()
                with open(self.temporary, "rb") as file:
                    os.fsync(file.fileno())
                os.chmod(self.temporary, mode_of(self.path))
                os.replace(self.temporary, self.path)
        finally:
            pathlib.Path(self.temporary).unlink(missing_ok=True)

    def write(self, rows, start):
        """Write rows (n, columns) from row `start` on."""
        import rasterio

        place = rasterio.windows.Window(0, start, rows.shape[1], len(rows))
        with self._errors():
            self.tiff.write(rows, 1, window=place)
        self.written.update(rows.tobytes())
        self.places.append(place)

    def _check(self):
        import rasterio

        found = hashlib.blake2b()
        with rasterio.open(self.temporary) as tiff:
            for place in self.places:
                found.update(tiff.read(1, window=place).tobytes())
        if found.digest() != self.written.digest():
            raise OSError("what was written cannot be read again")

    @contextlib.contextmanager
    def _errors(self):
        import rasterio

        try:
            with native_log_silenced():  # libtiff says line by line what one sentence says here
                yield
        except (rasterio.errors.RasterioError, OSError) as error:
            raise UserError(
                f"{self.path} cannot be written; see that the folder may be written to and has room."
            ) from error


@contextlib.contextmanager
def _disk_errors(path):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); what is finished is kept, so make room and run the "
            "same command again."
        ) from error
