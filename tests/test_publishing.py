import base64

from tfproject.report import page
from tfproject.tasks.publishing import copy

ONE, OTHER = b"\x89PNG one", b"\x89PNG other"


def test_a_published_page_points_to_the_figures_that_lie_beside_it_and_keeps_the_others(tmp_path):
    source, goal = tmp_path / "run", tmp_path / "results"
    (source / "figures").mkdir(parents=True)
    (source / "figures" / "one.png").write_bytes(ONE)
    section = page.Section("Found", figures=((ONE, "the one"), (OTHER, "the other")))
    page.write(source / "report.html", "A page", [section])
    copy(source, goal, [source / "report.html", source / "figures" / "one.png"])
    text, before = ((folder / "report.html").read_text() for folder in (goal, source))
    one, other = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (ONE, OTHER))
    assert (goal / "figures" / "one.png").read_bytes() == ONE
    assert text == before.replace(one, "figures/one.png") and one in before and other in text


def test_a_file_under_another_name(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    copy(tmp_path, tmp_path / "there", [tmp_path / "a.txt"], "b.txt")
    assert (tmp_path / "there" / "b.txt").read_text() == "a"
