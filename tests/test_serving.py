"""The page, asked rightly, wrongly and by many at once."""

import base64
import concurrent.futures
import io
import os
import socket
import struct
import tempfile
import threading
import time
import zlib

import httpx
import keras
import numpy as np
import pytest
import toy
from fastapi.testclient import TestClient
from PIL import Image

from tfproject.errors import UserError
from tfproject.interpret.attribution import CLASS_ACTIVATION_MAPS, attribute
from tfproject.models import saved_models
from tfproject.report.attribution_figures import METHOD_NAMES
from tfproject.tools import heat_maps, serving

CLASSES = ("red", "green", "<b>blue</b>")
SHOWN = ("gradients", "smoothgrad", "gradcam", "layercam")  # what heat_maps.METHOD may be


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    return saved_models.load(saved_models.save(toy.network((16, 16, 3), 3), path, CLASSES, title="the toy"))


@pytest.fixture(scope="module")
def app(model):
    return serving.build_app(model, max_bytes=300_000, max_pixels=1_000_000)


@pytest.fixture
def client(app, monkeypatch):
    with TestClient(app, base_url="http://localhost:8765") as client:
        yield client


@pytest.fixture(scope="module")
def address(model):
    return served(model)


def served(model, **options):
    """The address of a real server on a port of its own."""
    found = []
    here = threading.Event()

    def announce(url):
        found.append(url)
        here.set()

    options |= {"port": 0, "announce": announce}
    threading.Thread(target=serving.serve, args=(model,), kwargs=options, daemon=True).start()
    assert here.wait(60)
    for _ in range(100):
        try:
            httpx.get(found[0])
            return found[0]
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def picture(seed=0, size=(16, 16), kind="PNG"):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return image, buffer.getvalue()


def png_of(width, height, data):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def post(client, content, kind="image/png", **headers):
    return client.post("/classify", content=content, headers={"Content-Type": kind, **headers})


def refused(response, status):
    assert response.status_code == status, response.text
    sentence = response.json()["error"]
    return list(response.json()) == ["error"] and sentence.endswith(".") and "\n" not in sentence


def pixels_of(data_address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data_address.removeprefix("data:image/png;base64,")))))


def test_an_image_gets_the_model_s_probabilities_and_heat_map(model, client):
    image, content = picture()
    answer = post(client, content).json()
    expected = model.model(image[None].astype(np.float32), training=False).numpy()[0]
    order = np.argsort(-expected)
    assert [found["class"] for found in answer["classes"]] == [CLASSES[i] for i in order]
    np.testing.assert_allclose([found["probability"] for found in answer["classes"]], expected[order], atol=1e-5)
    np.testing.assert_array_equal(pixels_of(answer["image"]), image)
    assert answer["abstains"] is False


@pytest.mark.parametrize("method", SHOWN)
def test_the_heat_map_is_that_of_the_method(model, monkeypatch, method):
    monkeypatch.setattr(heat_maps, "METHOD", method)
    image, content = picture()
    answer = serving.explainer(model)(content, 1000)
    heat = attribute(model.model, image[None], methods=method)[method][0]
    shown = pixels_of(answer["heat_map"]).astype(int)
    # Inferno grows lighter from the least to the most important.
    small = np.asarray(Image.fromarray(shown.sum(axis=2).astype(np.float32)).resize((16, 16), Image.Resampling.BOX))
    assert np.corrcoef(small.ravel(), heat.ravel())[0, 1] > 0.9
    assert answer["method"] == METHOD_NAMES[method]


@pytest.mark.parametrize("method", SHOWN)
def test_a_network_without_convolutions_has_the_heat_maps_that_need_none(tmp_path, monkeypatch, method):
    monkeypatch.setattr(heat_maps, "METHOD", method)
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image)))
    dense = saved_models.load(saved_models.save(network, tmp_path / "dense.keras", CLASSES))
    answer = serving.explainer(dense)(picture()[1], 1000)
    assert len(answer["classes"]) == 3 and (answer["heat_map"] is None) == (method in CLASS_ACTIVATION_MAPS)


def test_another_size_and_kind_is_what_predict_says(model, client, tmp_path):
    from tfproject.evaluation import predict_files

    _, content = picture(1, (50, 30), "JPEG")
    (tmp_path / "image.jpg").write_bytes(content)
    expected = predict_files(model, [tmp_path / "image.jpg"]).probabilities[0]
    answer = post(client, content, "image/jpeg").json()
    np.testing.assert_allclose(
        [found["probability"] for found in answer["classes"]], np.sort(expected)[::-1], atol=1e-5
    )


def test_it_abstains_below_a_probability(model):
    def answer(abstain_below):
        app = serving.build_app(model, abstain_below=abstain_below)
        return post(TestClient(app, base_url="http://127.0.0.1"), picture()[1]).json()

    assert answer(0.999999)["abstains"] is True
    assert answer(answer(0)["classes"][0]["probability"])["abstains"] is False  # exactly as sure as is asked


def test_the_page_and_its_headers(client):
    for path, text in (("/", "<main>"), ("/page.js", "classify"), ("/page.css", "#drop")):
        response = client.get(path)
        assert response.status_code == 200 and text in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in client.get("/").headers["content-security-policy"]
    assert "innerHTML" not in client.get("/page.js").text  # class names come from a file
    about = client.get("/about").json()
    assert about["class_names"] == list(CLASSES) and about["model"] == "the toy" and about["max_bytes"] == 300_000


def test_what_is_no_image_is_refused(client):
    whole = picture(2)[1]
    for kind in ("text/html", "multipart/form-data; boundary=x", "application/json", ""):
        assert refused(post(client, whole, kind), 415)
    random = np.random.default_rng(3)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    for content in (b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", svg, whole[:60], whole[:-30], random.bytes(5000)):
        assert refused(post(client, content), 415)
    for _ in range(40):
        spoilt = bytearray(whole)
        spoilt[random.integers(0, len(spoilt))] ^= 1 << random.integers(0, 8)
        response = post(client, bytes(spoilt))
        assert response.status_code == 200 or refused(response, 413 if response.status_code == 413 else 415)
    assert post(client, whole).status_code == 200


def test_a_small_image_in_a_huge_tile_is_refused(client):
    entries = [(256, 3, 64), (257, 3, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1),
               (322, 4, 26_000), (323, 4, 26_000), (324, 4, 8), (325, 4, 100)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    with Image.open(io.BytesIO(tiff)) as image:
        assert image.size == (64, 64)
    assert refused(post(client, tiff, "image/tiff"), 413)


def test_what_is_too_large_is_refused(client):
    assert refused(post(client, b"x" * 300_001), 413)
    sent = []

    def endless():
        for _ in range(100):
            sent.append(1)
            yield b"x" * 10_000

    assert refused(post(client, endless()), 413)  # without a length in its header
    assert refused(post(client, b"x", **{"Content-Length": "9" * 40}), 413)
    start = time.perf_counter()
    for side in (1_100, 40_000, 2**31 - 1):
        assert refused(post(client, png_of(side, side, zlib.compress(bytes(10_000)))), 413)
    bomb = png_of(20_000, 20_000, zlib.compress(bytes(20_000 * 60_001 // 16), 9))
    assert len(bomb) < 300_000 and refused(post(client, bomb), 413)
    assert time.perf_counter() - start < 5


def test_other_addresses_methods_and_sites_are_refused(client):
    for path in (
        "/classify/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/index.html", "/docs", "/openapi.json",
        "/..%2fserving.py", "/page.js%00", "/static/../serving.py",
    ):  # fmt: skip
        assert refused(client.get(path), 404), path
    assert refused(client.get("/classify"), 405) and refused(client.put("/"), 405)
    image = picture()[1]
    assert refused(post(client, image, Host="evil.example"), 403)
    assert refused(post(client, image, Origin="http://evil.example"), 403)
    assert refused(post(client, image, Origin="null"), 403)
    assert post(client, image, Origin="http://localhost:8765").status_code == 200
    for site in ("cross-site", "same-site"):  # a picture or frame on another page, which names no origin
        for purpose in ("image", "iframe"):
            assert refused(client.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": purpose}), 403)
        assert client.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}).status_code == 200


def test_a_failure_is_a_sentence_and_the_next_image_is_answered(client, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(serving, "_decoded", fail)
    response = post(client, picture()[1])
    assert refused(response, 500) and "luck" not in response.text and "Traceback" not in response.text
    monkeypatch.undo()
    assert post(client, picture()[1]).status_code == 200


def test_no_file_is_written(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, content = picture(4, (300, 300))
    assert len(content) > 200_000 and post(client, content).status_code == 200
    assert not os.listdir(tmp_path)


def test_requests_of_one_address_are_limited():
    within = serving._rate_limit(burst=5, per_second=0.001)
    assert [within("a") for _ in range(7)] == [True] * 5 + [False] * 2
    assert within("b")
    many = serving._rate_limit(burst=1, per_second=0.001, addresses=2)
    assert [many(name) for name in "abcab"] == [True, True, True, True, True]  # who asked longest ago is forgotten


def test_a_hundred_uploads_at_once_are_answered(model, address):
    images = [picture(seed) for seed in range(100)]
    with concurrent.futures.ThreadPoolExecutor(100) as pool, httpx.Client(
        timeout=60, limits=httpx.Limits(max_connections=100)
    ) as client:
        def send(content):
            return client.post(address + "classify", content=content, headers={"Content-Type": "image/png"})

        answers = list(pool.map(send, [content for _, content in images]))
    assert {answer.status_code for answer in answers} == {200}
    expected = model.model(np.stack([image for image, _ in images]).astype(np.float32), training=False).numpy()
    for answer, probabilities in zip(answers, expected):  # nobody gets another's answer
        found = answer.json()["classes"][0]
        assert found["class"] == CLASSES[probabilities.argmax()]
        assert found["probability"] == pytest.approx(probabilities.max(), abs=1e-5)


def test_it_stays_up_under_garbage(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    random = np.random.default_rng(6)
    beginnings = [
        b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"POST /classify HTTP/1.1\r\nContent-Length: 99\r\n\r\nshort",
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b"GET //[ HTTP/1.1\r\nHost: [\r\n\r\n",
    ]  # fmt: skip
    for beginning in beginnings:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            try:
                connection.sendall(beginning + random.bytes(200))
            except OSError:
                pass  # hung up on in the middle
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]  # and twenty that never say anything
    answer = httpx.post(address + "classify", content=picture()[1], headers={"Content-Type": "image/png"}, timeout=30)
    assert answer.status_code == 200
    for connection in held:
        connection.close()


def test_another_spelling_of_the_loopback_address_is_no_way_around_the_check_of_names(model):
    address = served(model, host="127.1")
    assert address.startswith("http://127.0.0.1:")
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403


def test_who_says_nothing_is_hung_up_on(model, monkeypatch):
    monkeypatch.setattr(serving, "WAIT_SECONDS", 0.5)
    port = int(served(model).rstrip("/").rpartition(":")[2])
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(beginning)
            assert connection.recv(1) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:  # the second request of a connection
        connection.sendall(f"GET /missing HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 404"
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        while connection.recv(4096):  # the rest of the answer, then the end
            pass


def test_an_address_in_use_is_one_sentence(model, address):
    port = int(address.rstrip("/").rpartition(":")[2])
    cases = (("127.0.0.1", port), ("no.such.host.invalid", 8765), ("127.0..1", 8765), ("127.0.0.1", 70_000))
    for host, number in cases:
        with pytest.raises(UserError) as error:
            serving.serve(model, host, number)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
