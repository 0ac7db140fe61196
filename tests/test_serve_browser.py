"""The page as a person uses it: driven in a headless Chromium."""

import io
import pathlib
import shutil
import time
import zlib

import keras
import numpy as np
import pytest
import toy
from PIL import Image
from test_serving import png_of, served

from tfproject.models import saved_models
from tfproject.report.attribution_figures import METHOD_NAMES
from tfproject.tools import serving
from tfproject.tools.heat_maps import METHOD

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser; pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine; install chromium")

CLASSES = ("red", "green", "<b>blue</b>")
PATIENCE = 60_000  # milliseconds
sync_api.expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    return saved_models.load(saved_models.save(toy.network((16, 16, 3), 3), path, CLASSES, title="the toy"))


@pytest.fixture(scope="module")
def address(model):
    return served(model)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(PATIENCE)
    said = []
    page.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    sync_api.expect(page.locator("#about")).to_contain_text("the toy")
    yield page
    page.close()
    assert not said  # no error in the page's program, nothing that its own policy forbids


def picture(seed=0, size=(16, 16)):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return image, buffer.getvalue()


def choose(page, content, name="tile.png", kind="image/png"):
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


def drop(page, content, kind="image/png"):
    page.evaluate(
        """([bytes, kind]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "tile.png", { type: kind }));
            const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));
        }""",
        [list(content), kind],
    )


def rows(page):
    page.locator("#result:visible").wait_for()
    return [row.locator("td").all_inner_texts()[:2] for row in page.locator("#classes tr").all()]


def expected(model, image):
    probabilities = model.model(image[None].astype(np.float32), training=False).numpy()[0]
    return [[CLASSES[i], f"{100 * probabilities[i]:.1f} %"] for i in np.argsort(-probabilities)]


@pytest.mark.parametrize("hand_over", [choose, drop])
def test_an_image_chosen_or_dropped_shows_classes_and_heat_map(page, model, hand_over):
    image, content = picture(1)
    hand_over(page, content)
    assert rows(page) == expected(model, image)  # the name with angle brackets is text, too
    for picture_id, side in (("#seen", 16), ("#heat", 320)):
        assert page.locator(picture_id).evaluate("image => image.complete && image.naturalWidth") == side
    assert page.locator("#heat").evaluate("image => getComputedStyle(image).opacity") == "0.6"
    said = f"heat map ({METHOD_NAMES[METHOD]}): where the method sees most for {expected(model, image)[0][0]}"
    assert page.locator("#caption").inner_text().strip() == page.locator("#heat").get_attribute("alt") == said
    page.locator("#strength").fill("10")
    assert page.locator("#heat").evaluate("image => getComputedStyle(image).opacity") == "0.1"


def test_where_there_is_no_heat_map_nothing_is_said_of_one(page):
    answer = {"classes": [{"class": "red", "probability": 1}], "abstains": False, "image": "data:,", "heat_map": None}
    page.evaluate("answer => show(answer)", answer)
    assert page.locator("#verdict").is_visible() and page.locator("#caption").is_hidden()


def test_what_is_refused_is_said_and_the_next_image_is_answered(page, model):
    huge = png_of(40_000, 40_000, zlib.compress(bytes(10_000)))
    for content, kind, words in [
        (b"no image", "image/png", "no image that can be read"),
        (b"<html></html>", "text/html", "no image"),
        (bytes(serving.MAX_BYTES + 1), "image/png", "at most 16 MB"),
        (huge, "image/png", "too many pixels"),
    ]:
        choose(page, content, kind=kind)
        sync_api.expect(page.locator("#status.error")).to_contain_text(words)
        assert page.locator("#result").is_hidden()
    image, content = picture(2)
    choose(page, content)
    assert rows(page) == expected(model, image)
    assert page.locator("#status").inner_text() == ""


def test_many_uploads_at_once_are_answered_or_told_to_wait(page, model):
    _, content = picture(3)
    statuses = page.evaluate(
        """(bytes) => {
            const ask = () => fetch("classify", {
                method: "POST", body: new Uint8Array(bytes), headers: { "Content-Type": "image/png" },
            }).then((answer) => answer.status);
            return Promise.all(Array.from({ length: 260 }, ask));
        }""",
        list(content),
    )
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 100
    time.sleep(1)
    image, content = picture(4)
    choose(page, content)
    assert rows(page) == expected(model, image)


def test_a_narrow_screen_needs_no_scrolling_sideways(page):
    page.set_viewport_size({"width": 360, "height": 740})
    choose(page, picture(5)[1])
    rows(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_no_address_but_its_own_is_asked(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    choose(page, picture(6)[1])
    rows(page)
    assert asked and all(url.startswith((address, "data:")) for url in asked)
    assert {pathlib.PurePosixPath(url).name for url in asked if url.startswith(address)} >= {"page.js", "classify"}
