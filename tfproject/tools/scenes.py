"""Large scenes read a few rows at a time, as RGB of 8 bits, with what is no data and where on Earth they lie."""

import contextlib
import dataclasses
import pathlib
import warnings
from typing import Any

import numpy as np

from tfproject.data.decoding import is_mask
from tfproject.errors import UserError

# The first bytes of what is read, as GDAL has other formats that fetch files or addresses of their own (VRT, WMS).
DRIVERS = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"\0\0\0\x0cjP": "JP2OpenJPEG",
}  # fmt: skip
CACHE_MEGABYTES = 256  # GDAL's own cache of decoded blocks; by default a share of the machine's memory
STRIP = 256  # rows that are read at once where pixels are left out
SAMPLE_SIDE = 1024  # pixels: of the reduced scene from which the range of values is read
PERCENTILES = (2, 98)
UNEQUAL = 0.02  # a pixel that covers so much more or less ground than its coordinates say has no area that can be told
EQUAL_AREA = "EPSG:6933"  # a projection of the whole earth that keeps areas
BORDER = 0.05  # share of pixels with one extreme value in all three bands from which on it is said that they are data
MOST_NAMES = 13  # of bands in a message: as many as Sentinel-2 has
RANGE_ADVICE = (
    "the network depends on absolute brightness, so give the values that 0 and 255 stand for with `--value-range LOW "
    "HIGH` (0 2750 for Sentinel-2 reflectances times 10,000, as EuroSAT's tiles were made)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An open scene.

    Attributes:
        path: its file.
        height, width: in pixels.
        bands: the numbers, from 1, of the bands taken as red, green and blue.
        value_range: the values that become 0 and 255; None where the scene has 8 bits and is taken as it is.
        crs: rasterio's CRS, or None.
        transform: from pixels to the CRS' coordinates, an affine.Affine, or None without a georeference.
        reading: a sentence that says which bands are taken and how they are scaled.
        dataset: rasterio's open dataset.
        no_data: the value that the user says is no data, or None.
        masks: the numbers of the bands that say, as alpha bands do, where there is data.
    """

    path: pathlib.Path
    height: int
    width: int
    bands: tuple[int, int, int]
    value_range: tuple[float, float] | None
    crs: Any
    transform: Any
    reading: str
    dataset: Any
    no_data: float | None = None
    masks: tuple[int, ...] = ()

    def rows(self, start, stop):
        """The rows from start to before stop.

        Returns:
            (pixels, known): uint8 (n, width, 3), 0 where there is no data, and bool (n, width), False there.

        Raises:
            UserError: if the file is damaged.
        """
        import rasterio

        window = rasterio.windows.Window(0, start, self.width, stop - start)
        try:
            values = self.dataset.read(self.bands, window=window)
            known = _known(self.dataset, self.bands, values, self.masks, self.no_data, window=window)
        except rasterio.errors.RasterioError as error:
            raise UserError(
                f"{self.path} is damaged: its rows {start} to {stop - 1} cannot be read; get it anew."
            ) from error
        pixels = values if self.value_range is None else _scaled(values, *self.value_range)
        return np.moveaxis(np.where(known, pixels, 0), 0, -1), known

    @property
    def files(self):
        """The scene's file, and that of its mask where it has one: pathlib.Paths."""
        return (self.path, *(pathlib.Path(name) for name in self.dataset.files if name.endswith(".msk")))

    def pixel_area(self):
        """Square metres of a pixel; None where `no_area_because` says why."""
        if self.no_area_because:
            return None
        return abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2

    def metres_per_pixel(self):
        """The side of a square as large as the ground that the middle pixel covers; None where that is not known."""
        if self.crs is None or self.transform is None or not (self.crs.is_geographic or self.crs.is_projected):
            return None
        ground = self._ground(0.5, 0.5)
        return float(np.sqrt(ground)) if 0 < ground < np.inf else None

    @property
    def no_area_because(self):
        """Why the areas of its pixels are not known, in words; None where they are."""
        if self.dataset.gcps[0] and (self.crs is None or self.transform is None):
            return "the scene is placed by ground control points, which a map does not keep; warp it first"
        if self.crs is None or self.transform is None:
            return "the scene has no georeference"
        if self.crs.is_geographic:
            return "the scene's coordinates are degrees; warp it to a projection in metres, such as UTM"
        if not self.crs.is_projected:
            return "the scene's coordinates are of a system without a place on the earth; warp it to UTM, say"
        claimed = abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2
        places = [(0.5, 0.5), *((x, y) for x in (0, 1) for y in (0, 1))]  # the middle and the corners
        if not all(abs(claimed / self._ground(x, y) - 1) < UNEQUAL for x, y in places):
            return "the scene's projection does not keep areas; warp it to another, such as UTM"
        return None

    def _ground(self, x, y):
        """Square metres of the earth that a pixel covers, the one that lies at so much of the width and the height."""
        import rasterio.warp

        a, b, c, d, e, f = self.transform[:6]
        columns = x * (self.width - 1) + np.array([0, 1, 1, 0])
        rows = y * (self.height - 1) + np.array([0, 0, 1, 1])
        corners = a * columns + b * rows + c, d * columns + e * rows + f
        try:
            east, north = map(np.asarray, rasterio.warp.transform(self.crs, EQUAL_AREA, *corners)[:2])
        except rasterio.errors.RasterioError:
            return np.nan
        return abs(np.dot(east - east[0], np.roll(north, -1) - np.roll(north, 1))) / 2


@contextlib.contextmanager
def open_scene(path, bands=None, value_range=None, no_data=None):
    """Open a scene for reading; a context manager.

    Args:
        path: a GeoTIFF, JPEG 2000, PNG or JPEG file with three bands or more. No-data may be said by a value, an alpha
            band, a mask or NaN.
        bands: the numbers, from 1, of red, green and blue; None takes those that the file calls so, or the three of
            a file that has three.
        value_range: (low, high), which become 0 and 255, linearly; what lies beyond is clipped. None takes 8 bits as
            they are, and from the 2nd to the 98th percentile of all three bands together of any other kind, with a
            warning: a network depends on absolute brightness.
        no_data: a value; pixels that have it in all three bands are no data, beside those that the file says are none.
            Where many pixels have the lowest or the highest value in all three and count as data, a warning says so.

    Yields:
        Scene.

    Raises:
        UserError: if it cannot be read, or its bands are not red, green and blue.
    """
    try:
        import rasterio
    except ImportError as error:
        raise UserError("Scenes are read with rasterio, which is missing; pip install 'tfproject[map]'.") from error
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}; give a scene as GeoTIFF, JPEG 2000, PNG or JPEG.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            dataset = stack.enter_context(rasterio.open(path.resolve(), driver=_driver(path)))
            crs = dataset.crs
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError, OSError, KeyError) as error:
            raise UserError(
                f"{path} cannot be read as a scene; give a whole GeoTIFF, JPEG 2000, PNG or JPEG file."
            ) from error
        except UnicodeEncodeError as error:
            raise UserError(f"{path!r} has a name that is no UTF-8, which GDAL cannot open; rename it.") from error
        bands = _bands(dataset, path, bands)
        names = {dataset.dtypes[band - 1] for band in bands}
        if complex_ones := [name for name in names if name.startswith("complex")]:  # NumPy knows no complex_int16
            raise UserError(f"{path} has pixels of kind {complex_ones[0]}; give real numbers.")
        kinds = {np.dtype(name) for name in names}
        if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
            raise UserError(f"The values {value_range[0]} to {value_range[1]} are no range; give a low and a high one.")
        _check_no_data(no_data, kinds, path)
        masks, found = _mask_bands(dataset, path), value_range
        values, known = _sample(dataset, bands, path, masks, no_data)
        _warn_of_border(values, known, path)
        if value_range is None and kinds != {np.dtype(np.uint8)}:
            found = _range(values[:, known], path)
        yield Scene(
            path=path, height=dataset.height, width=dataset.width, bands=bands, value_range=found,
            crs=crs, transform=None if dataset.transform.is_identity else dataset.transform,
            reading=_reading(bands, dataset, found, value_range, masks), dataset=dataset, no_data=no_data, masks=masks,
        )  # fmt: skip


def _check_no_data(no_data, kinds, path):
    """Refuse a value that no pixel can have: it would change nothing, and nobody would know."""
    if no_data is None:
        return
    if np.isnan(no_data):
        raise UserError("The no-data value is NaN, which is no data anyway; leave it out.")
    for kind in (kind for kind in kinds if kind.kind in "ui"):
        whole = np.isfinite(no_data) and no_data == int(no_data)
        if not whole or not np.iinfo(kind).min <= no_data <= np.iinfo(kind).max:
            raise UserError(
                f"The no-data value is {no_data:g}, and {path} has pixels of kind {kind}, which cannot be that; give "
                f"one from {np.iinfo(kind).min} to {np.iinfo(kind).max}."
            )


def _driver(path):
    with open(path, "rb") as file:
        beginning = file.read(8)
    return DRIVERS[next((start for start in DRIVERS if beginning.startswith(start)), beginning)]


def _bands(dataset, path, bands):
    if bands is not None:
        bands = tuple(bands)
        if len(bands) != 3 or not all(1 <= band <= dataset.count for band in bands):
            raise UserError(f"{path} has the bands 1 to {dataset.count}; give three of them, not {bands}.")
        return bands
    meaning = [colour.name for colour in dataset.colorinterp]
    if all(meaning.count(colour) == 1 for colour in ("red", "green", "blue")):
        return tuple(meaning.index(colour) + 1 for colour in ("red", "green", "blue"))
    if dataset.count == 3 and set(meaning) <= {"gray", "undefined"}:
        return 1, 2, 3
    names = [name or colour for name, colour in zip(dataset.descriptions, meaning)]
    advice = "give an RGB scene"
    if dataset.count > 2:
        usual = "3 2 1` where they begin with blue" if dataset.count < 5 else "4 3 2` where they are Sentinel-2's"
        advice = f"name the three, such as `--bands {usual}"
    raise UserError(
        f"{path} has {dataset.count} band{'s' * (dataset.count > 1)} ({', '.join(names[:MOST_NAMES])}"
        f"{', ...' * (len(names) > MOST_NAMES)}), which it does not call red, green and blue; {advice}."
    )


def _sample_shape(dataset):
    shrink = max(1, dataset.height / SAMPLE_SIDE, dataset.width / SAMPLE_SIDE)
    return max(1, int(dataset.height / shrink)), max(1, int(dataset.width / shrink))


def _alpha_bands(dataset):
    return [band for band, meaning in enumerate(dataset.colorinterp, start=1) if meaning.name == "alpha"]


def _mask_bands(dataset, path):
    """The alpha bands that are masks: GDAL calls the fourth of four bands alpha, be it near infrared."""
    import rasterio

    masks = []
    for band in _alpha_bands(dataset):
        try:
            values = dataset.read(band, out_shape=_sample_shape(dataset))
        except rasterio.errors.RasterioError as error:
            raise UserError(f"{path} is damaged: its pixels cannot be read; get it anew.") from error
        if is_mask(values):
            masks.append(band)
    return tuple(masks)


def _sample(dataset, bands, path, mask_bands, no_data):
    """The scene reduced to SAMPLE_SIDE: values (3, h, w), and where they are known, bool (h, w)."""
    import rasterio

    shape = _sample_shape(dataset)
    try:
        values = _thinned(dataset, bands, shape)
        known = _known(dataset, bands, values, mask_bands, no_data, out_shape=shape)
    except rasterio.errors.RasterioError as error:
        raise UserError(f"{path} is damaged: its pixels cannot be read; get it anew.") from error
    return values, known


def _thinned(dataset, bands, shape):
    """The bands with pixels left out, (bands, *shape), as GDAL chooses these.

    From a tiled file without overviews GDAL takes a third of a second for it, as the network does for some thousand
    windows.
    """
    import rasterio

    tiled = dataset.block_shapes[bands[0] - 1][1] < dataset.width
    if not tiled or dataset.overviews(bands[0]):
        return dataset.read(bands, out_shape=(len(bands), *shape))
    rows, columns = (
        (2 * np.arange(count) + 1) * length // (2 * count) for count, length in zip(shape, dataset.shape)
    )
    found = np.empty((len(bands), *shape), np.result_type(*(dataset.dtypes[band - 1] for band in bands)))
    for top in range(0, dataset.height, STRIP):
        window = rasterio.windows.Window(0, top, dataset.width, min(STRIP, dataset.height - top))
        wanted = (top <= rows) & (rows < top + STRIP)
        if wanted.any():
            found[:, wanted] = dataset.read(bands, window=window)[:, rows[wanted] - top][:, :, columns]
    return found


def _warn_of_border(values, known, path):
    """A warning where many pixels have the lowest or the highest value in all three bands: mostly they are no data."""
    if not known.any():
        return
    found = values[:, known]
    shares = {end: ((values == end).all(axis=0) & known).mean() for end in (found.min(), found.max())}
    value, share = max(shares.items(), key=lambda item: item[1])
    if share >= BORDER:
        number = np.format_float_positional(value, trim="-")  # -3.4e+38 would be taken for an option
        warnings.warn(
            f"{share:.0%} of {path.name} is {number} in all three bands and counts as data; if nothing is there, map "
            f"it with `--nodata {number}`.", stacklevel=2
        )  # fmt: skip


def _known(dataset, bands, values, mask_bands, no_data, out_shape=None, **place):
    """Where the three bands say something, whatever the file's other bands do: bool (h, w).

    A whole number that stands for no data may come by itself in a dark pixel, so of these one band that has another is
    enough; fractions must all have a value.
    """
    if _alpha_bands(dataset):  # GDAL heeds an alpha band only in files of two and of four bands, and there any
        masks = np.stack([_is_data(dataset.nodatavals[band - 1], layer) for band, layer in zip(bands, values)])
    else:
        shape = None if out_shape is None else (len(bands), *out_shape)
        masks = dataset.read_masks(bands, out_shape=shape, **place) > 0
    floats = values.dtype.kind == "f"
    known = (masks & np.isfinite(values)).all(axis=0) if floats else masks.any(axis=0)
    for band in mask_bands:
        known &= dataset.read(band, out_shape=out_shape, **place) > 0
    if no_data is not None:
        known &= (values != no_data).any(axis=0)
    return known


def _is_data(no_data, values):
    return np.ones(values.shape, bool) if no_data is None else values != no_data


def _range(values, path):
    if not values.size:
        raise UserError(f"{path} is no data wherever it was looked at; see to its no-data value, mask and alpha band.")
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if not low < high:
        raise UserError(f"{path} has nearly the same value everywhere, {low:g}; give the range that its values have.")
    warnings.warn(
        f"{path.name} has {values.dtype} pixels and no value range was given, so {low:g} and {high:g}, the 2nd and "
        f"98th percentile of this scene, become 0 and 255; {RANGE_ADVICE}.", stacklevel=2
    )  # fmt: skip
    return low, high


def _scaled(values, low, high):
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is no data and becomes 0 later; what overflows is clipped
        share = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        return np.rint(np.clip(np.nan_to_num(share), 0, 255)).astype(np.uint8)


def _reading(bands, dataset, value_range, given, mask_bands):
    kinds = ", ".join(sorted({dataset.dtypes[band - 1] for band in bands}))
    text = f"Bands {', '.join(map(str, bands))} of {dataset.count} are red, green and blue ({kinds})"
    if no_masks := sorted(set(_alpha_bands(dataset)) - set(mask_bands)):
        text += f"; band {no_masks[0]} is called alpha but is no mask by its values"
    if value_range is None:
        return text + "."
    low, high = value_range
    if given:
        return f"{text}; {low:g} and {high:g} become 0 and 255."
    return f"{text}; {low:g} and {high:g}, the 2nd and 98th percentile of the scene, become 0 and 255; {RANGE_ADVICE}."
