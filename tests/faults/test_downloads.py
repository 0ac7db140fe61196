"""Wrong downloads from a server on this machine: tried again with limits, never unpacked, the next source tried."""

import hashlib
import io
import time
import zipfile

import numpy as np
import pytest
import test_archives
from PIL import Image
from test_archives import server  # noqa: F401

from tfproject.data import archives, catalog, tfds_sets
from tfproject.data.archives import Archive, DownloadFailed
from tfproject.errors import UserError

KINDS = ("other", "page", "shorter", "gone", "truncated", "endless", "silent", "stalling", "disguised", "busy")


def disguised(handler):
    """A web page that says it is a zip, as long as the file should be."""
    page = b"<html><body>please log in</body></html>"
    handler._send(page + bytes(len(test_archives.CONTENT) - len(page)))


def busy(handler):
    handler._send(b"", status=503)


def shaky(handler):
    """Breaks off twice after it was asked, and then delivers."""
    if handler.server.asked.count("/shaky") in (2, 3):
        handler.truncated()
    else:
        handler.good()


@pytest.fixture(autouse=True)
def more_kinds(monkeypatch):
    for answer in (disguised, busy, shaky):
        monkeypatch.setattr(test_archives.Handler, answer.__name__, answer, raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_source_is_left_for_the_next_within_limits(server, tally, tmp_path, kind):  # noqa: F811
    sources = test_archives.sources(server, kind, "good")
    start = time.monotonic()
    with tally.fault():
        archives.download(sources, tmp_path / "a.zip", answer_seconds=0.7, stall_seconds=0.3)
        tally.result((tmp_path / "a.zip").read_bytes(), test_archives.CONTENT)
        assert time.monotonic() - start < 10 and server.asked.count(f"/{kind}") <= 2
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_source_that_breaks_off_is_tried_again_and_not_for_ever(server, tally, tmp_path):  # noqa: F811
    with tally.fault():
        archives.download(test_archives.sources(server, "shaky"), tmp_path / "a.zip", stall_seconds=0.3)
        tally.result((tmp_path / "a.zip").read_bytes(), test_archives.CONTENT)
        assert server.asked.count("/shaky") == 1 + 3
    with tally.fault(), pytest.raises(DownloadFailed, match="broke off"):
        archives.download(test_archives.sources(server, "truncated"), tmp_path / "b.zip", stall_seconds=0.3)
    assert server.asked.count("/truncated") == 1 + archives.TRIES
    with tally.fault(), pytest.raises(DownloadFailed, match="SHA-256"):  # a wrong file is wrong the next time too
        archives.download(test_archives.sources(server, "other"), tmp_path / "b.zip", stall_seconds=0.3)
    assert server.asked.count("/other") == 1 + 1 and not (tmp_path / "b.zip").exists()


@pytest.fixture(scope="module")
def eurosat():
    """A zip as EuroSAT's, with two tiles a class."""
    random, content = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in tfds_sets.EUROSAT_CLASSES:
            for number in (1, 2):
                tile = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tile, "PNG")
                archive.writestr(f"2750/{name}/{name}_{number}.png", tile.getvalue())
    return content.getvalue()


@pytest.mark.parametrize("kinds", [("other", "disguised", "truncated"), ("page", "gone", "good"), ("stalling", "good")])
def test_a_set_is_read_from_the_right_archive_or_not_at_all(server, tally, tmp_path, monkeypatch, eurosat, kinds):  # noqa: F811
    monkeypatch.setattr(test_archives, "CONTENT", eurosat)
    right = Archive(hashlib.sha256(eurosat).hexdigest(), len(eurosat))
    monkeypatch.setattr(tfds_sets, "EUROSAT_SOURCES", {server.url + kind: right for kind in kinds})
    monkeypatch.setattr(tfds_sets, "_prepared", lambda *_: None)
    monkeypatch.setenv("TFPROJECT_DATA", str(tmp_path))
    download = archives.download
    monkeypatch.setattr(archives, "download", lambda sources, goal: download(sources, goal, 0.7, 0.3))
    with tally.fault():
        if "good" in kinds:
            assert len(catalog.read("eurosat").splits["all"]) == 20
        else:
            with pytest.raises(UserError) as error:
                catalog.read("eurosat")
            assert "could not be downloaded (tried 127.0.0.1: " in str(error.value) and "\n" not in str(error.value)
        unpacked = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert unpacked == (["EuroSAT.zip"] if "good" in kinds else [])
