"""The page under attack: it stays up, answers, and tells nothing."""

import concurrent.futures
import contextlib
import random
import socket
import subprocess
import threading
import time

import httpx
import processes
import psutil
import pytest
import test_serving
import toy

from tfproject.models import saved_models


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(address, process) of the command `tfproject serve` with a model of its own."""
    folder = tmp_path_factory.mktemp("page")
    saved_models.save(toy.network((16, 16, 3), 3), folder / "tiny.keras", ("red", "green", "blue"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = processes.Child(processes.command, folder / "work", "serve", folder / "tiny.keras", "--port", port)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        try:
            httpx.get(address + "about")
            break
        except httpx.HTTPError:
            assert process.process.is_alive(), process.said
            time.sleep(0.1)
    yield address, process
    process.process.kill()
    process.process.join()


def answers(address):
    """Whether an image gets its classes."""
    for _ in range(100):
        found = httpx.post(
            address + "classify", content=test_serving.picture()[1], headers={"Content-Type": "image/png"}, timeout=60
        )
        if found.status_code != 429:
            break
        time.sleep(0.2)
    return found.status_code == 200 and len(found.json()["classes"]) == 3


def test_it_listens_on_this_machine_alone(page, tally):
    listening = [c.laddr.ip for c in psutil.Process(page[1].process.pid).net_connections() if c.status == "LISTEN"]
    tally.assert_right(listening == ["127.0.0.1"], listening)
    port = int(page[0].rstrip("/").rpartition(":")[2])
    others = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    for other in [each for each in others if "." in each and not each.startswith("127.")][:2]:
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=2)


@pytest.mark.parametrize("side", [31_623, 65_536, 2**31 - 1])
def test_a_billion_pixels_are_refused_in_little_memory(page, tally, side):
    import zlib

    address, process = page
    before = psutil.Process(process.process.pid).memory_info().rss
    content = test_serving.png_of(side, side, zlib.compress(bytes(3_000_000), 9))
    with tally.fault():
        start = time.monotonic()
        found = httpx.post(address + "classify", content=content, headers={"Content-Type": "image/png"}, timeout=60)
        assert found.status_code == 413 and "too many pixels" in found.json()["error"]
        assert time.monotonic() - start < 5
        assert psutil.Process(process.process.pid).memory_info().rss - before < 200e6
        assert answers(address)


def test_paths_types_and_methods(page, tally):
    address, _ = page
    port = int(address.rstrip("/").rpartition(":")[2])
    paths = [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../../../../etc/passwd", "//etc/passwd",
        "/..%5c..%5cetc%5cpasswd", "/%00", "/page/index.html", "/.git/config", "/about/", "/classify?../../x",
    ]  # fmt: skip
    for path in paths:  # as bytes, as a client would tidy them up
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        status = int(said.split()[1])
        tally.assert_right(status in (307, 404, 405) and b"root:" not in said and b"Traceback" not in said, said[:300])
    image = test_serving.picture()[1]
    for kind in ("text/html", "application/json", "multipart/form-data; boundary=x", "image", ""):
        found = httpx.post(address + "classify", content=image, headers={"Content-Type": kind})
        tally.assert_right(found.status_code == 415, found.text)
    for kind in ("image/gif", "image/png; charset=x", "application/octet-stream"):  # the content decides
        found = httpx.post(address + "classify", content=image, headers={"Content-Type": kind})
        tally.assert_right(found.status_code == 200, found.text)
    assert answers(address)


def test_a_hundred_uploads_at_once_and_too_many_requests(page, tally):
    address, _ = page
    time.sleep(3)
    pictures = [test_serving.picture(seed)[1] for seed in range(100)]
    own = threading.local()  # a client that threads share now and then closes another's connection

    def begin():
        client = httpx.Client(timeout=90, limits=httpx.Limits(max_keepalive_connections=0), verify=False)
        own.client = stack.enter_context(client)

    def send(content):
        return own.client.post(address + "classify", content=content, headers={"Content-Type": "image/png"}).status_code

    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(100, initializer=begin) as pool:
        with tally.fault():
            codes = list(pool.map(send, pictures))
            assert set(codes) <= {200, 429} and codes.count(200) >= 50, codes
        with tally.fault():
            flood = list(pool.map(lambda _: own.client.get(address + "about").status_code, range(800)))
            assert set(flood) <= {200, 429, 503} and 429 in flood
    with tally.fault():
        assert answers(address)


def test_uploads_too_large_slow_or_broken_off(page, tally):
    address, process = page
    port = int(address.rstrip("/").rpartition(":")[2])
    before = psutil.Process(process.process.pid).memory_info().rss
    time.sleep(5)
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with tally.fault():
        for length in (b"99999999999", b"-1", b"abc", b"17000000"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(head + b"Content-Length: " + length + b"\r\n\r\n" + bytes(1000))
                assert int(connection.recv(4096).split()[1]) in (400, 413)
    with tally.fault():
        slow = []
        for _ in range(60):  # begun, and never ended
            slow.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            slow[-1].sendall(head + b"Content-Length: 100000\r\n\r\n" + bytes(100))
        for connection in slow[4:]:
            connection.close()
        for connection in slow[:4]:
            connection.close()
        assert answers(address)
        assert psutil.Process(process.process.pid).memory_info().rss - before < 300e6


@pytest.mark.long
def test_garbage_for_long(page, tally):
    address, process = page
    port = int(address.rstrip("/").rpartition(":")[2])
    chosen, image = random.Random(4), test_serving.picture()[1]
    whole = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    whole += b"Content-Length: %d\r\n\r\n" % len(image) + image
    for number in range(400):
        spoilt = bytearray(whole)
        for _ in range(chosen.randint(1, 8)):
            spoilt[chosen.randrange(len(spoilt))] = chosen.randrange(256)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            try:
                connection.sendall(bytes(spoilt[: chosen.randint(1, len(spoilt))]))
                connection.shutdown(socket.SHUT_WR)
                said = connection.recv(65536)
            except OSError:
                said = b""
        tally.assert_right(b"Traceback" not in said and process.process.is_alive(), said[:300])
        time.sleep(0.03)
    with tally.fault():
        assert answers(address)
    assert "Traceback" not in process.said
