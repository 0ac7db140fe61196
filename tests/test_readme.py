import pathlib

from tfproject.report import readme

ROOT = pathlib.Path(__file__).parents[1]


def test_the_results_are_those_of_the_artefacts():
    text = (ROOT / "README.md").read_text()
    assert text.split(readme.START)[1].split(readme.END)[0] == readme.results_table(ROOT)


def test_every_file_that_it_points_to_exists():
    import re

    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(targets) >= 2
    for target in targets:
        assert target.startswith("http") or (ROOT / target).exists(), target
