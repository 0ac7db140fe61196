"""Downloads from a server on this machine: only the right file arrives, and a bad source is left for the next."""

import fcntl
import functools
import hashlib
import http.server
import threading
import time

import pytest

from tfproject.data import archives
from tfproject.data.archives import Archive, DownloadFailed
from tfproject.errors import UserError

CONTENT = bytes(range(256)) * 5000
RIGHT = Archive(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path's last part."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        getattr(self, self.path.strip("/").split("/")[-1])()

    def _send(self, content, kind="application/zip", length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not False:
            self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def good(self):
        self._send(CONTENT)

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "/good")
        self.end_headers()

    def other(self):
        self._send(CONTENT[:-1] + b"x")

    def page(self):
        self._send(b"<html>we have moved</html>", "text/html; charset=utf-8")

    def shorter(self):
        self._send(CONTENT[:1000])

    def gone(self):
        self._send(b"", status=404)

    def truncated(self):
        self._send(CONTENT[:3000], length=len(CONTENT))

    def endless(self):
        self._send(CONTENT + CONTENT, length=False)

    def silent(self):
        self.server.stop.wait(20)

    def stalling(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        self.server.stop.wait(20)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.stop, server.daemon_threads = [], threading.Event(), True
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


def sources(server, *names):
    return {server.url + name: RIGHT for name in names}


@pytest.mark.parametrize("name", ["good", "moved"])
def test_the_right_file_arrives(server, tmp_path, name):
    goal = tmp_path / "new" / "folder" / "a.zip"
    assert archives.download(sources(server, name), goal) == goal
    assert goal.read_bytes() == CONTENT
    assert [path.name for path in goal.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("other", f"expected is {RIGHT.sha256}"),
        ("page", "a web page"),
        ("shorter", "offers a file of 1,000 bytes, expected are 1,280,000"),
        ("gone", "answered 404"),
        ("truncated", "broke off"),
        ("endless", "more than the expected 1,280,000 bytes"),
        ("silent", "no "),
        ("stalling", "no data for 0.5 s"),
    ],
)
def test_a_wrong_file_never_arrives(server, tmp_path, name, reason):
    start = time.monotonic()
    with pytest.raises(DownloadFailed) as caught:
        archives.download(sources(server, name), tmp_path / "a.zip", answer_seconds=0.7, stall_seconds=0.5)
    assert time.monotonic() - start < 4
    assert reason in caught.value.attempts[server.url + name]
    assert list(tmp_path.iterdir()) == []


def test_the_next_source_is_tried(server, tmp_path):
    names = ("silent", "page", "other", "truncated", "good", "moved")
    goal = archives.download(sources(server, *names), tmp_path / "a.zip", answer_seconds=1, stall_seconds=0.5)
    assert goal.read_bytes() == CONTENT
    assert server.asked.count("/good") == 2 + 1  # asked and fetched; and once more where /moved led
    assert server.asked.count("/moved") == 1  # asked, and not needed


def test_no_server_at_all_fails_fast_and_names_every_source(server, tmp_path):
    server.shutdown()
    server.server_close()
    start = time.monotonic()
    with pytest.raises(DownloadFailed) as caught:
        archives.download(sources(server, "a", "b"), tmp_path / "a.zip")
    assert time.monotonic() - start < 4
    assert list(caught.value.attempts.values()) == ["no connection"] * 2


def test_a_part_that_an_interrupted_download_left_is_removed(server, tmp_path):
    for name in ("a.zip1x2y.part", "a.zip3z4w.part", "b.zip5.part"):
        (tmp_path / name).touch()
    with open(tmp_path / "a.zip3z4w.part") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another download that goes on
        archives.download(sources(server, "good"), tmp_path / "a.zip")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.zip3z4w.part", "b.zip5.part"}


def test_an_older_file_stays_when_the_download_fails(server, tmp_path):
    (tmp_path / "a.zip").write_text("older")
    with pytest.raises(DownloadFailed):
        archives.download(sources(server, "other"), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_text() == "older"


def test_a_goal_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        archives.download(sources(server, "good"), tmp_path / "file" / "a.zip")


def test_verify_gives_both_checksums(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    archives.verify(path, [RIGHT])
    path.write_bytes(CONTENT[1:])
    with pytest.raises(UserError) as caught:
        archives.verify(path, [RIGHT])
    assert hashlib.sha256(CONTENT[1:]).hexdigest() in str(caught.value) and RIGHT.sha256 in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        archives.verify(tmp_path / "none.zip", [RIGHT])


def test_data_home(monkeypatch, tmp_path):
    monkeypatch.setenv("TFPROJECT_DATA", str(tmp_path))
    assert archives.data_home() == tmp_path
    monkeypatch.delenv("TFPROJECT_DATA")
    assert archives.data_home().name == "tfproject-data"
