"""The documentation's pages are built without a warning and name every module; the figures keep to one style."""

import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest

from tfproject import cost, report
from tfproject.report import style

ROOT = pathlib.Path(__file__).parents[1]
DEUTERANOPIA = np.array([  # Viénot, Brettel and Mollon 1999, in linear RGB
    [0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0],
])  # fmt: skip
# Lab distances under deuteranopia. Lines and points of two classes must not look alike (about 2.3 is just noticeable
# side by side); splits and channels are few.
LEAST_OF_CLASSES, LEAST_OF_CHANNELS, LEAST_OF_SPLITS = 15, 15, 40


def test_the_pages_are_built_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="pip install tfproject[docs]")
    pytest.importorskip("mkdocstrings_handlers.python", reason="pip install tfproject[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    assert "WARNING" not in built.stderr
    for name, module in (("training", "fitting"), ("data", "catalog"), ("evaluation", "scores")):
        page = (tmp_path / "site" / "api" / f"{name}.html").read_text()
        source = importlib.import_module(f"tfproject.{name}.{module}")
        public = [
            function for function, _ in inspect.getmembers(source, inspect.isfunction)
            if not function.startswith("_") and inspect.getmodule(getattr(source, function)) is source
        ]  # fmt: skip
        assert public and all(f'id="tfproject.{name}.{module}.{function}"' in page for function in public)
        assert "Raises" in page and "Returns" in page


def modules(package):
    """The names of a package's modules and sub-packages."""
    return {name for _, name, _ in pkgutil.iter_modules([str(ROOT / "tfproject" / package)])}


def test_every_package_has_its_page():
    packages = {path.parent.name for path in (ROOT / "tfproject").glob("*/__init__.py")}
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "api").glob("*.md")}
    assert pages.keys() == packages
    assert all(text == f"::: tfproject.{name}\n" for name, text in pages.items())
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(f"api/{name}.md" in navigation for name in packages)


def figure_functions():
    """(name, function) of every public function of the figure modules."""
    names = [f"tfproject.report.{name}" for name in modules("report") if name.endswith("figures")]
    names += ["tfproject.cost.figures", "tfproject.report.final_report"]
    for module in map(importlib.import_module, sorted(names)):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}", function


def gives_a_figure(function):
    source = inspect.getsource(inspect.unwrap(function))
    return bool(re.search(r"^    return (figure|_\w*(figure|sheet|grid|rows)\w*\()", source, re.M))


def test_every_function_that_gives_a_figure_is_styled():
    found = dict(figure_functions())
    figures = {name: function for name, function in found.items() if gives_a_figure(function)}
    assert len(figures) >= 45
    assert [name for name, function in figures.items() if not is_styled(function)] == []


def is_styled(function):
    return hasattr(function, "__wrapped__") and function.__code__ is style.styled(lambda: None).__code__


def test_a_users_own_style_changes_no_figure():
    import matplotlib

    from tfproject.report import figures

    counts = [[3, 1], [0, 4]]
    plain = figures.to_png_bytes(figures.confusion_matrix(counts, ["a", "b"]))
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "image.cmap": "jet"}):
        assert figures.to_png_bytes(figures.confusion_matrix(counts, ["a", "b"])) == plain


def linear(colours):
    """Linear RGB (n, 3) of "#rrggbb"."""
    values = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE Lab (n, 3) of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = rgb @ to_xyz.T / to_xyz.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def least_distance(colours, seen=np.eye(3)):
    points = lab(np.clip(linear(colours) @ seen.T, 0, 1))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return distances[np.triu_indices(len(points), 1)].min()


def test_the_simulation_takes_red_and_green_for_each_other():
    assert least_distance(["#ff0000", "#00ff00"]) > 100
    alike = ["#b07000", "#6c8a00"]  # a brown and a green of like brightness
    assert least_distance(alike, DEUTERANOPIA) < 0.4 * least_distance(alike)
    np.testing.assert_allclose(lab(linear(["#ffffff", "#000000"])), [[100, 0, 0], [0, 0, 0]], atol=0.02)


def test_class_colours_stay_apart_for_those_who_do_not_tell_red_from_green():
    colours = list(style.class_colours([str(i) for i in range(10)]).values())
    assert least_distance(colours) >= 15
    assert least_distance(colours, DEUTERANOPIA) >= LEAST_OF_CLASSES
    assert least_distance(list(style.SPLIT_COLOURS.values()), DEUTERANOPIA) >= LEAST_OF_SPLITS


def test_a_class_has_its_colour_whatever_is_drawn():
    names = ["a", "b", "c"]
    assert style.class_colours(names)["b"] == style.class_colours(names[:2])["b"] == style.PALETTE[1]
    assert len(set(style.class_colours([str(i) for i in range(30)]).values())) == 30


def test_colours_stand_in_the_style_alone():
    """No figure brings colours of its own: neither "#rrggbb" nor matplotlib's default cycle."""
    own = re.compile(r"[\"']#[0-9a-fA-F]{6}[\"']|[\"']C\d[\"']|tab10|prop_cycle")
    for folder in (pathlib.Path(report.__file__).parent, pathlib.Path(cost.__file__).parent):
        for path in folder.glob("*.py"):
            if path.name != "style.py":
                lines = [line for line in path.read_text().splitlines() if own.search(line)]
                # Channels of an image are drawn in their own colours, whatever else is.
                assert [line for line in lines if not line.startswith("CHANNEL_COLOURS")] == [], path


def test_channels_stay_apart_for_those_who_do_not_tell_red_from_green():
    from tfproject.report.exploration_figures import CHANNEL_COLOURS

    assert least_distance(list(CHANNEL_COLOURS.values()), DEUTERANOPIA) >= LEAST_OF_CHANNELS
