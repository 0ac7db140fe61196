"""Every kind of image file that a folder may hold is read correctly or refused with a reason."""

import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from tfproject.data import decoding
from tfproject.data.decoding import UnreadableImage, decode_image, decode_images
from tfproject.errors import UserError

RED, GREEN, BLUE, WHITE = (200, 30, 40), (30, 190, 50), (20, 60, 210), (255, 255, 255)


@pytest.fixture
def quarters():
    """A 40 x 60 image whose four quarters differ, so that every turn and flip shows."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = RED, GREEN, BLUE, (120, 120, 120)
    return pixels


def reason_of(path):
    with pytest.raises(UnreadableImage) as caught:
        decode_image(path)
    assert caught.value.reason == str(caught.value) and "\n" not in caught.value.reason
    return caught.value.reason


def png_header(width, height):
    """A PNG that consists of little more than its header, which claims the size given."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_are_read_exactly(tmp_path, quarters, name):
    Image.fromarray(quarters).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    image = decode_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert np.array_equal(image, quarters)


def test_path_and_bytes_give_the_same(tmp_path, quarters):
    path = tmp_path / "a.jpg"
    Image.fromarray(quarters).save(path, quality=95)
    assert np.array_equal(decode_image(str(path)), decode_image(path.read_bytes()))
    assert np.abs(decode_image(path).astype(int) - quarters).mean() < 3


def test_text_named_jpg(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<!DOCTYPE html><html>404 Not Found</html>")
    assert "not an image" in reason_of(path)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert "0 bytes" in reason_of(path)
    assert "0 bytes" in reason_of(b"")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif", "a.webp"])
@pytest.mark.parametrize("part", [0.3, 0.7])
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_whatever_another_library_asked_of_pillow(tmp_path, monkeypatch, name, part, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    assert reason_of(path)
    assert decode_images([path])[1].keys() == {0}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_broken_file_is_refused_wherever_it_is_broken(quarters):
    """Flipped bytes may leave an image readable, but never raise anything other than UnreadableImage."""
    generator = np.random.default_rng(1)
    for file_format in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF"):
        stream = io.BytesIO()
        Image.fromarray(quarters).save(stream, file_format)
        for _ in range(60):
            data = bytearray(stream.getvalue())
            for position in generator.integers(0, min(len(data), 400), 4):
                data[position] = generator.integers(0, 256)
            try:
                assert decode_image(bytes(data)).dtype == np.uint8
            except UnreadableImage:
                pass


def test_missing_and_not_a_file(tmp_path):
    assert "No such file" in reason_of(tmp_path / "none.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert "not a regular file" in reason_of(tmp_path / "folder.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in reason_of(tmp_path / "pipe.jpg")


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "cmyk.jpg"
    Image.new("RGB", (32, 32), RED).convert("CMYK").save(path, quality=95)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    assert np.abs(decode_image(path).astype(int) - RED).max() <= 4


def test_16_bit_grey_png(tmp_path):
    path = tmp_path / "deep.png"
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(values).save(path)
    with Image.open(path) as image:
        assert image.mode == "I;16"
    image = decode_image(path)
    assert np.array_equal(image, np.stack([values // 257] * 3, axis=-1))
    assert image.min() == 0 and image.max() == 255
    assert decode_image(path, (8, 8)).shape == (8, 8, 3)
    Image.fromarray(values // 7).save(path)
    assert "16-bit values that are all below a quarter" in reason_of(path)


def test_16_bit_grey_big_endian_tiff(tmp_path):
    path = tmp_path / "deep.tif"
    values = np.linspace(0, 65535, 24 * 16).astype(np.uint16).reshape(24, 16)
    image = Image.frombytes("I;16B", (16, 24), values.astype(">u2").tobytes())
    image.save(path)
    assert np.array_equal(decode_image(path)[..., 0], values // 257)


def test_georeferenced_tiffs_are_measurements(tmp_path):
    """Infrared that GDAL calls alpha is no transparency, and 16 bits hold values of any range."""
    import rasterio

    def write(name, bands):
        count, height, width = bands.shape
        place = {"crs": "EPSG:32631", "transform": rasterio.transform.from_origin(500_000, 4_600_000, 10, 10)}
        with rasterio.open(tmp_path / name, "w", driver="GTiff", count=count, height=height, width=width,
                           dtype=bands.dtype, **place) as tiff:  # fmt: skip
            tiff.write(bands)
        return tmp_path / name

    bands = np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint8)
    path = write("infrared.tif", bands)
    with Image.open(path) as image:
        assert image.mode == "RGBA"
    assert np.array_equal(decode_image(path), np.moveaxis(bands[:3], 0, -1))
    bands[3] = 255
    bands[3, :8] = 0
    assert (decode_image(write("mask.tif", bands))[:8] == 255).all()  # on white
    assert "16-bit grey values, whose range" in reason_of(write("deep.tif", bands[:1].astype(np.uint16) * 12))


def test_16_bit_colours(tmp_path):
    """A PNG file's run from 0 to 65535; a TIFF file's may be reflectances, which would come out black."""
    values = np.linspace(0, 65535, 6 * 5 * 3).astype(">u2").reshape(6, 5, 3)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    def png(values):
        rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
        header = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    assert np.array_equal(decode_image(png(values)), values >> 8)
    assert "16-bit values that are all below a quarter" in reason_of(png(values // 7))
    for planar in (1, 2):
        path = tmp_path / f"{planar}.tif"
        tifffile_like(path, values.astype("<u2"), planar)
        with Image.open(path) as image:
            assert image.mode == "RGB"  # Pillow sees nothing odd
        assert "16-bit colours, whose range is not known" in reason_of(path)


def tifffile_like(path, values, planar):
    """An uncompressed 16-bit RGB TIFF file, its colours together (1) or apart (2)."""
    height, width, _ = values.shape
    data = values.tobytes() if planar == 1 else np.ascontiguousarray(np.moveaxis(values, -1, 0)).tobytes()
    count = 1 if planar == 1 else 3
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2),
               (273, 4, count, 400 if count == 1 else 220), (277, 3, 1, 3), (278, 3, 1, height),
               (279, 4, count, len(data) if count == 1 else 240), (284, 3, 1, planar)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    content = bytearray(400)
    content[:8] = b"II*\0" + struct.pack("<I", 8)
    content[8 : 10 + len(directory)] = struct.pack("<H", len(entries)) + directory
    content[200:206] = struct.pack("<3H", 16, 16, 16)
    plane = len(data) // 3
    content[220:232] = struct.pack("<3I", *(400 + i * plane for i in range(3)))
    content[240:252] = struct.pack("<3I", plane, plane, plane)
    path.write_bytes(bytes(content) + data)


def test_a_tiff_file_of_many_bands_is_named_as_what_it_is(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 13, "dtype": "uint16"}
    with rasterio.open(tmp_path / "bands.tif", "w", **profile) as tiff:
        tiff.write(np.ones((13, 8, 8), np.uint16))
    assert "tfproject map" in reason_of(tmp_path / "bands.tif")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.new(mode, (8, 8), 1000).save(path)
    assert "range is not known" in reason_of(path)


def test_greyscale_and_bilevel(tmp_path):
    Image.new("L", (8, 6), 77).save(tmp_path / "grey.png")
    assert np.array_equal(decode_image(tmp_path / "grey.png"), np.full((6, 8, 3), 77))
    Image.new("1", (8, 6), 1).save(tmp_path / "bits.png")
    assert np.array_equal(decode_image(tmp_path / "bits.png"), np.full((6, 8, 3), 255))


def test_palette_with_alpha_lies_on_white(tmp_path):
    path = tmp_path / "palette.png"
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 0, 1, 1, 2, 2, 0, 1])
    image.save(path, transparency=bytes([255, 0, 255]))  # green is fully transparent
    with Image.open(path) as saved:
        assert saved.mode == "P"
    assert decode_image(path).tolist() == [
        [list(RED), list(RED), list(WHITE), list(WHITE)],
        [list(BLUE), list(BLUE), list(RED), list(WHITE)],
    ]


def test_alpha_lies_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (*BLUE, 0)).save(tmp_path / "clear.png")
    assert (decode_image(tmp_path / "clear.png") == 255).all()
    Image.new("LA", (4, 4), (0, 51)).save(tmp_path / "veil.png")  # a fifth of black on white
    assert np.array_equal(decode_image(tmp_path / "veil.png"), np.full((4, 4, 3), 204))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, quarters, orientation):
    upright_to_stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(upright_to_stored[orientation](quarters))).save(path, exif=exif)
    assert np.array_equal(decode_image(path), quarters)


def test_a_billion_pixels_are_refused_fast_and_in_little_memory(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(40_000, 25_000))
    program = (
        "import resource, sys, time\n"
        "from tfproject.data.decoding import UnreadableImage, decode_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = time.perf_counter()\n"
        "try:\n"
        "    decode_image(sys.argv[1])\n"
        "except UnreadableImage as error:\n"
        "    print(error.reason)\n"
        "print(time.perf_counter() - start)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    reason, seconds, megabytes = done.stdout.splitlines()
    assert "too large" in reason and "100 million" in reason
    assert float(seconds) < 1 and float(megabytes) < 30
    assert done.stderr == ""


@pytest.mark.parametrize("width", [9_500, 10_500, 20_000, 100_000])
def test_the_limit_holds_without_a_warning(width):
    """Pillow itself warns from 89 million pixels on and refuses from 179 million on; ours is 100 million."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.perf_counter()
        reason = reason_of(png_header(width, 10_000))
    assert time.perf_counter() - start < 5
    assert ("too large" in reason) == (width * 10_000 > decoding.MAX_PIXELS)


def test_other_warnings_pass_through():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_images([lambda: warnings.warn("from elsewhere") or b""])
    assert [str(w.message) for w in caught] == ["from elsewhere"]


def test_resize_gives_height_then_width_and_antialiases(tmp_path):
    path = tmp_path / "a.png"
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(path)
    small = decode_image(path, size=(10, 16))
    assert small.shape == (10, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 16  # sampling without antialiasing gives black or white


def test_many_images_in_order_with_the_bad_ones_named(tmp_path):
    paths = []
    for i in range(200):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (6, 5), (i, i, i)).save(path)
        paths.append(path)
    paths[70].write_text("not an image")
    paths[150].write_bytes(b"")
    readable = [i for i in range(200) if i not in (70, 150)]

    images, bad = decode_images(paths, (5, 6))
    assert images.shape == (198, 5, 6, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == readable
    assert list(bad) == [70, 150] and "not an image" in bad[70] and "0 bytes" in bad[150]

    each, bad = decode_images([lambda path=path: path.read_bytes() for path in paths])
    assert [image[0, 0, 0] for image in each] == readable and list(bad) == [70, 150]


def test_more_images_than_memory_are_told():
    with pytest.raises(UserError, match=r"1,000,000 images of 30000x30000 pixels take .* GB, more than this machine"):
        decode_images(["x.png"] * 1_000_000, (30_000, 30_000))


def test_no_images():
    assert decode_images([]) == ([], {})
    images, bad = decode_images([], (4, 5))
    assert images.shape == (0, 4, 5, 3) and bad == {}
