import base64
import io

import numpy as np
from PIL import Image

from tfproject.report import figures, page
from tfproject.tasks.publishing import copy


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


ONE, OTHER = (png(np.full((8, 8, 3), grey, np.uint8)) for grey in (100, 200))
PHOTOGRAPH = png(np.repeat(np.random.default_rng(0).integers(100, 140, (64, 64, 1), np.uint8), 3, axis=2))


def test_a_published_page_points_to_the_figures_that_lie_beside_it_and_keeps_the_others(tmp_path):
    source, goal = tmp_path / "run", tmp_path / "results"
    (source / "figures").mkdir(parents=True)
    (source / "figures" / "one.png").write_bytes(ONE)
    section = page.Section("Found", figures=((ONE, "the one"), (OTHER, "the other"), (PHOTOGRAPH, "a photograph")))
    page.write(source / "report.html", "A page", [section])
    copy(source, goal, [source / "report.html", source / "figures" / "one.png"])
    text, before = ((folder / "report.html").read_text() for folder in (goal, source))
    one, other, photograph = (f"data:image/png;base64,{base64.b64encode(p).decode()}" for p in (ONE, OTHER, PHOTOGRAPH))
    smaller = figures.address(PHOTOGRAPH)
    assert (goal / "figures" / "one.png").read_bytes() == ONE
    assert text == before.replace(one, "figures/one.png").replace(photograph, smaller)
    assert one in before and other in text and smaller.startswith("data:image/jpeg;") and smaller in text
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(smaller.split(",")[1]))), float)
    assert np.abs(shown - np.asarray(Image.open(io.BytesIO(PHOTOGRAPH)))).mean() < 8


def test_a_file_under_another_name(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    copy(tmp_path, tmp_path / "there", [tmp_path / "a.txt"], "b.txt")
    assert (tmp_path / "there" / "b.txt").read_text() == "a"
