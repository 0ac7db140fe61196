"""Figures: what they show, that they are PNG files of the right size, and the same bytes every time."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tfproject.errors import UserError
from tfproject.evaluation import scores
from tfproject.report import figures, style

CLASSES = ("AnnualCrop", "Forest", "HerbaceousVegetation", "a name that is longer than there is room for")


def made_scores():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)  # the last class does not occur
    logits = 3 * generator.normal(size=(200, 4)) + 4 * np.eye(4)[labels]
    return scores(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels, CLASSES).to_json()


SCORES = made_scores()
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 16, 20, 3), dtype=np.uint8)
HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "accuracy": [0.4, 0.6, 0.8],
    "val_loss": [2.1, None, 0.9],
    "val_accuracy": [0.3, float("nan"), 0.7],
}
DRAW = {
    "sample_sheet": lambda: figures.sample_sheet(IMAGES, np.arange(23) % 3, CLASSES, per_class=5),
    "class_counts": lambda: figures.class_counts({"train": [9, 8, 7, 0], "val": [1, 2, 3, 0]}, CLASSES),
    "training_curves": lambda: figures.training_curves(HISTORY),
    "confusion_matrix": lambda: figures.confusion_matrix(SCORES["confusion"], CLASSES),
    "confusion_matrix_normalised": lambda: figures.confusion_matrix(SCORES["confusion"], CLASSES, normalise=True),
    "reliability_diagram": lambda: figures.reliability_diagram(SCORES),
    "per_class_scores": lambda: figures.per_class_scores(SCORES),
    "top_losses": lambda: figures.top_losses(np.resize(IMAGES, (200, 16, 20, 3)), SCORES["top_losses"][:7]),
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("name", DRAW)
def test_png_of_the_right_size_and_the_same_bytes_twice(name, tmp_path):
    figure = DRAW[name]()
    figures.save(figure, tmp_path / "once.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "pink", "savefig.dpi": 30}):  # a user's own style
        figures.save(DRAW[name](), tmp_path / "again.png")
    content = (tmp_path / "once.png").read_bytes()
    assert content == (tmp_path / "again.png").read_bytes() == figures.to_png_bytes(DRAW[name]())
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.size == pytest.approx(figure.get_size_inches() * 120, abs=1)
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
        assert set(image.info) <= {"dpi"}  # no date, no version


@pytest.mark.parametrize("name", DRAW)
def test_no_text_leaves_the_figure(name):
    figure = DRAW[name]()
    figures.to_png_bytes(figure)  # lays it out
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_drawing_leaves_no_state():
    before = dict(matplotlib.rcParams)
    figures.training_curves(HISTORY)
    figures.confusion_matrix([[1, 0], [0, 1]], ["a", "b"])
    assert dict(matplotlib.rcParams) == before
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


def test_sample_sheet_holds_the_images_of_each_class_in_its_row():
    labels = np.array([1, 0, 1, 1, 0])
    (shown,) = figures.sample_sheet(IMAGES[:5], labels, ["a", "b"], per_class=2).axes[0].images
    sheet = np.asarray(shown.get_array())
    np.testing.assert_array_equal(sheet[:16, :20], IMAGES[1])
    np.testing.assert_array_equal(sheet[-16:, :20], IMAGES[0])
    np.testing.assert_array_equal(sheet[-16:, -20:], IMAGES[2])


def test_class_counts_stack_the_splits():
    figure = figures.class_counts({"train": [1200, 8], "test": [34, 2]}, ["a", "b"])
    assert {"1,234", "10", "training (1,208)", "test (36)"} <= set(texts(figure))


def test_training_curves_leave_out_epochs_without_a_value():
    loss, accuracy = figures.training_curves(HISTORY).axes
    np.testing.assert_array_equal(loss.lines[1].get_xydata(), [[1, 2.1], [3, 0.9]])
    np.testing.assert_array_equal(accuracy.lines[0].get_xydata(), [[1, 0.4], [2, 0.6], [3, 0.8]])
    assert "70.00% in epoch 3" in accuracy.get_title(loc="left")


def test_training_curves_without_validation():
    loss, _ = figures.training_curves({"loss": [1.0], "accuracy": [0.5]}).axes
    assert len(loss.lines) == 1


def test_confusion_matrix_shows_counts_or_percent_and_no_zeros():
    counts = [[3, 1], [0, 0]]
    assert {"3", "1"} <= set(texts(figures.confusion_matrix(counts, ["a", "b"])))
    shown = texts(figures.confusion_matrix(counts, ["a", "b"], normalise=True))
    assert {"75.0", "25.0"} <= set(shown) and "0.0" not in shown and not any("nan" in text for text in shown)


def test_top_losses_show_the_image_and_name_both_classes():
    row = {"index": 4, "true": "River", "predicted": "Highway", "probability": 0.987, "loss": 4.321}
    figure = figures.top_losses(IMAGES, [row])
    assert {"River", "as Highway\n98.7%, loss 4.32"} <= set(texts(figure))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[4])


def test_dollars_in_class_names_are_no_mathematics():
    names = ("$0_$10", "low_$_to_$", "a_$b_$c", "plain")
    losses = [{"index": 3, "true": names[0], "predicted": names[1], "probability": 0.9, "loss": 3.0}]
    for figure in (
        figures.sample_sheet(IMAGES, np.arange(23) % 3, names, per_class=5),
        figures.class_counts({"train": [9, 8, 7, 0]}, names),
        figures.confusion_matrix(SCORES["confusion"], names), figures.top_losses(IMAGES, losses),
    ):  # fmt: skip
        assert figures.to_png_bytes(figure).startswith(b"\x89PNG")
        assert any(r"\$0_\$10" in text for text in texts(figure))


def test_class_colours_are_constant_and_all_different():
    names = [f"class {i}" for i in range(20)]
    colours = style.class_colours(names)
    assert style.class_colours(names[:7]) == {name: colours[name] for name in names[:7]}
    channels = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in colours.values()]
    assert min(np.abs(a - b).sum() for a, b in itertools.combinations(channels, 2)) > 20
    many = style.class_colours([f"class {i}" for i in range(255)]).values()
    assert len(set(many)) == 255
    assert min(sum(255 - int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in many) > 90  # none is near white


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        figures.save(figures.training_curves(HISTORY), tmp_path / "absent" / "x.png")
