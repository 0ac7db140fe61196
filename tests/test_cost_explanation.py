import dataclasses
import io
import json

import keras
import pytest
from keras import layers as L
from PIL import Image

from tfproject import cost, models
from tfproject.cost import growth
from tfproject.cost.table import Machine
from tfproject.errors import UserError
from tfproject.report.figures import to_png_bytes


@pytest.fixture(scope="module")
def table():
    return cost.study(models.custom_cnn((32, 32, 3), 10), 128)


def small_model(side=16, filters=8):
    image = keras.Input((side, side, 3), name="image")
    x = L.Conv2D(filters, 3, padding="same", name="conv")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    return keras.Model(image, L.Dense(4, activation="softmax", name="classes")(x), name="small")


@pytest.fixture(scope="module")
def measured():
    return cost.study(small_model(side=64, filters=32), 16, measure=True)  # long enough for the clock


def test_reasons_carry_the_tables_numbers(table):
    text = "\n".join(cost.explain(table))
    rows = {row.name: row for row in table.rows}
    early = sum(row.kept_bytes for row in table.rows if row.output_shape[1:3] == (32, 32))
    assert f"{early / table.totals['kept_bytes']:.1%}".replace("%", " %") in text
    assert "the early layers at 32x32" in text and "block1_conv1 to" in text
    assert "dense (Dense) holds 262 k" in text and "first dense layer" in text and "2,048 inputs" in text
    convolutions = sum(row.step_flops for row in table.rows if row.type == "Conv2D") / table.totals["step_flops"]
    assert f"convolutions do {convolutions:.1%}".replace("%", " %") in text
    assert "block1_conv2 is multiplied 1,024 times" in text
    for family in ("Normalisation (6 layers)", "Activation (7 layers)", "Pooling (3 layers)"):
        assert family in text
    assert rows["block1_conv2"].intensity == pytest.approx(72, abs=1) and "block1_conv2 has 72" in text


def test_nothing_is_said_of_what_is_not_there():
    image = keras.Input((16, 16, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="second")(L.Conv2D(4, 3, name="first")(image)))
    text = "\n".join(cost.explain(cost.study(keras.Model(image, x), 2)))
    assert "dense" not in text.lower() and "BatchNorm" not in text and "Activation (" not in text
    assert "second (Conv2D) holds" in text  # 4 channels in, not 3
    text = "\n".join(cost.explain(cost.study(keras.Sequential([keras.Input((8,)), L.Dense(4, name="only")]), 2)))
    assert "onvolution" not in text and "dense layers do 100.0 %" in text and "positions" not in text


def test_largest_holders_are_named_whatever_they_are():
    image = keras.Input((8, 8, 4))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="small")(image)
    x = L.Conv2D(64, 3, padding="same", activation="relu", name="wide")(L.UpSampling2D(2, name="up")(x))
    x = L.GlobalAveragePooling2D()(x)
    paragraphs = cost.explain(cost.study(keras.Model(image, L.Dense(2, name="classes")(x)), 2))
    assert "the last layers at 16x16 positions (wide)" in paragraphs[0] and "early" not in paragraphs[0]
    assert paragraphs[1].startswith("wide (Conv2D) holds") and "classes, has" in paragraphs[1]


def test_frozen_and_unknown_models_are_explained_as_such():
    model = small_model()
    model.trainable = False
    assert "no layer is trained" in cost.explain(cost.study(model))[0]

    class Mine(L.Layer):
        def call(self, x):
            return 2 * x

    image = keras.Input((4,))
    last = cost.explain(cost.study(keras.Model(image, L.Dense(3)(Mine(name="mine")(image)))))[-1]
    assert "mine (Mine)" in last and "lower bounds" in last


def test_growth_has_the_powers_that_theory_gives():
    found = cost.scaling()
    assert found.exponent("batch_size", "kept_bytes") == pytest.approx(1, abs=0.001)
    assert found.exponent("batch_size", "parameters") == pytest.approx(0, abs=1e-9)
    assert found.exponent("image_size", "forward_flops") == pytest.approx(2, abs=0.01)
    assert found.exponent("width", "parameters") == pytest.approx(2, abs=0.05)
    assert found.exponent("width", "kept_bytes") == pytest.approx(1, abs=0.02)
    assert 0.5 < found.exponent("depth", "kept_bytes") < 1
    assert all(len(points) >= 2 for points in found.points.values())
    json.dumps(found.to_json())
    text = "\n".join(cost.explain(cost.study(growth.course_cnn(), 8), found))
    assert "kept activations x4.00 (power 1.00)" in text and "grow with the square of the side" in text
    assert "image_size^2.00" in found.to_text()


def test_a_point_of_two_axes_is_studied_once():
    built = []

    def build(**sizes):
        built.append(sizes)
        return growth.course_cnn(**sizes)

    base = {"image_size": 32, "width": 0.25, "depth": 1}
    found = cost.scaling(build, {"width": (0.25, 0.5), "depth": (1, 2)}, base)
    assert len(built) == 3 and found.points["width"][0] == {**found.points["depth"][0], "value": 0.25}


def test_growth_measured():
    sizes = {"axes": {"batch_size": (2, 128)}, "base": {"image_size": 32, "width": 0.25, "depth": 1}}
    found = cost.scaling(**sizes, measure=True)
    few, many = found.points["batch_size"]
    assert many["step_ms"] > few["step_ms"] > 0 and many["forward_ms"] > 0
    assert many["measured_memory"] == pytest.approx(many["training_memory"], rel=0.3)
    assert "measured time of a training step" in "\n".join(cost.explain(cost.study(small_model()), found))


def test_growth_needs_two_points():
    with pytest.raises(UserError, match="two"):
        cost.scaling(axes={"width": (1,)})
    with pytest.raises(UserError, match="base"):
        cost.scaling(axes={"colour": (1, 2)})


def test_network_of_the_growth_study_is_the_courses():
    ours, courses = cost.study(growth.course_cnn()), cost.study(models.custom_cnn((32, 32, 3), 10))
    assert ours.rows == courses.rows


def test_measured_table(measured):
    rows = {row.name: row for row in measured.rows}
    assert rows["conv"].forward_ms > 0 and rows["conv"].backward_ms >= 0
    assert rows["conv"].gflops == pytest.approx(rows["conv"].forward_flops / rows["conv"].forward_ms / 1e6)
    assert rows["image"].forward_ms is None
    machine = measured.machine
    assert machine.gflops > 1 and machine.gigabytes_per_second > 0.1
    assert machine.bound(rows["relu"]) == "memory" and machine.bound(rows["flat"]) is None
    result = json.loads(json.dumps(measured.to_json()))
    assert result["machine"]["ridge"] == pytest.approx(machine.gflops / machine.gigabytes_per_second)
    assert all(row["forward_ms"] is not None for row in result["rows"][1:])
    text = measured.to_text()
    assert "bound by" in text and max(map(len, text.splitlines())) <= 140
    assert "GFLOP/s in a matrix product" in "\n".join(cost.explain(measured))


def test_roofline_bounds():
    machine = Machine(gflops=100, gigabytes_per_second=10, call_ms=0)
    row = next(row for row in cost.study(small_model()).rows if row.name == "conv")
    assert machine.ridge == 10
    assert machine.attainable(2) == 20 and machine.attainable(50) == 100
    for intensity, bound in ((9, "memory"), (11, "arithmetic")):
        assert machine.bound(dataclasses.replace(row, bytes_moved=row.forward_flops // intensity)) == bound


@pytest.mark.parametrize("draw", ["roofline", "shares"])
def test_figures(draw, measured):
    figure = getattr(cost.figures, draw)(measured)
    with Image.open(io.BytesIO(to_png_bytes(figure))) as image:
        assert image.format == "PNG" and image.width > 700
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= -0.05 and drawn.x1 <= width + 0.05 and drawn.y0 >= -0.05 and drawn.y1 <= height + 0.05
    assert to_png_bytes(figure) == to_png_bytes(getattr(cost.figures, draw)(measured))


def test_shares_show_the_largest_and_the_rest(table):
    figure = cost.figures.shares(table, most=5)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "dense" in names and names[-1].endswith("others") and len(names) <= 6
    for axes in figure.axes:
        assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(1)


def test_roofline_needs_times(table):
    with pytest.raises(UserError, match="measure"):
        cost.figures.roofline(table)
