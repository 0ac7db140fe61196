import dataclasses
import io
import json
import os

import keras
import numpy as np
import pytest
from keras import layers as L
from matplotlib.text import Text
from PIL import Image

from tfproject import cost, models
from tfproject.cost import growth
from tfproject.cost.table import Machine, family
from tfproject.errors import UserError
from tfproject.report.figures import to_png_bytes


@pytest.fixture(scope="module")
def table():
    return cost.study(models.custom_cnn((32, 32, 3), 10), 128)


SPEEDS = {"convolution": 400, "dense": 300, "activation": 20, "normalisation": 8, "pooling": 10, "other": 8}


def timed(table, speeds=SPEEDS, step_ms=100.0):
    """The table as measured on a machine with a roof of 464 GFLOP/s and 44 GB/s, GFLOP/s by family of layers."""
    rows = []
    for row in table.rows:
        speed = speeds.get(row.name) or speeds[family(row.type)]
        times = None if row.type == "InputLayer" else (row.forward_flops or 1) / speed / 1e6
        rows.append(dataclasses.replace(row, forward_ms=times, step_ms=times and 3 * times))
    return dataclasses.replace(table, rows=tuple(rows), machine=Machine(464, 44, 0), step_ms=step_ms)


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
    for start in ("Normalisation (6 layers)", "Activation (7 layers)", "Pooling (3 layers)"):
        assert start in text
    assert rows["block1_conv2"].intensity == pytest.approx(72, abs=1) and "block1_conv2 has 72" in text


def paragraph(table, start):
    return next(text for text in cost.explain(table) if text.startswith(start))


def test_memory_is_waited_for_only_where_the_times_bear_it(table):
    slow, fast = (paragraph(timed(table), name) for name in ("Normalisation", "Activation"))
    assert "moves 32 GB/s where activation moves 80, so these bytes, each moved once, do not explain its time" in slow
    assert "make more passes over memory" in slow and "waits" not in slow
    assert "moves 80 GB/s, more than the 44 GB/s of a copy, as what it reads still lies in the" in fast
    alike = paragraph(timed(table, SPEEDS | {"activation": 8}), "Normalisation")
    assert "moves 32 GB/s of the 44 GB/s that the machine copies, so it waits for memory" in alike
    slowest = paragraph(timed(table, SPEEDS | {"activation": 2, "normalisation": 2, "pooling": 1}), "Normalisation")
    assert "neither these bytes nor these FLOPs alone" in slowest


def test_where_the_layers_lie_under_the_roof(table):
    table = timed(table, SPEEDS | {"classes": 9, "pooling": 11, "block3_conv1": 520})
    text = paragraph(table, "Measured")
    assert "of the 18 layers under memory's roof 7 reach half of it or more" in text  # normalisation and preprocessing
    assert "10 lie above it as what they read still lies in the processor's cache (activation 7, pooling 3)" in text
    assert "1 less than half, bound by neither roof (dense 1)" in text
    assert "of the 7 layers under arithmetic's roof 6 reach half of it or more and 1 lies above it (convol" in text
    total = sum(row.step_ms or 0 for row in table.rows)
    assert f"forward and backward in training take {total:.1f} ms" in text
    assert f"The whole model at once takes 100.0 ms, {100 - total:.1f} ms" in text


def test_a_speed_above_the_matrix_products_has_its_reason(table):
    for speed, reason in ((450, ""), (520, "16.0 % of its multiply-adds meet padding"), (600, "may do better")):
        text = paragraph(timed(table, SPEEDS | {"block3_conv1": speed}), "Measured")
        assert f"block3_conv1, reaches {speed / 4.64:.1f} %" in text and reason in text
        assert ("padding" in text, "may do better" in text) == (speed == 520, speed == 600)


def test_activations_are_compared_only_where_all_have_as_many_channels(table):
    assert "shrinks by a factor of 16" in cost.explain(table)[0]
    image = keras.Input((16, 16, 3))
    x = L.Conv2D(64, 3, padding="same")(L.Conv2D(16, 3, padding="same")(image))
    x = L.Conv2D(64, 3)(L.MaxPooling2D(4)(x))
    text = cost.explain(cost.study(keras.Model(image, L.Conv2D(64, 2)(x)), 2))[0]
    assert "the early layers at 16x16" in text and "shrinks" not in text


def test_a_batch_of_one_is_not_told_to_be_smaller():
    model = keras.Sequential([keras.Input((512,)), L.Dense(512), L.Dense(512)])
    one, two = (paragraph(cost.study(model, batch), "A training step with") for batch in (1, 2))
    assert "would not help" in two and "smaller" not in one
    assert "is predicted to take" in one and f"in the optimiser's step with {os.cpu_count()} threads" in one


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
    unknown = cost.study(keras.Model(image, L.Dense(3)(Mine(name="mine")(image))))
    last = cost.explain(unknown)[-1]
    assert "mine (Mine)" in last and "lower bounds" in last
    assert "at once" not in paragraph(timed(unknown), "Measured")


def test_growth_has_the_powers_that_theory_gives():
    found = cost.scaling()
    assert found.exponent("batch_size", "kept_bytes") == pytest.approx(1, abs=0.001)
    assert found.exponent("batch_size", "parameters") == pytest.approx(0, abs=1e-9)
    assert found.exponent("image_size", "forward_flops") == pytest.approx(2, abs=0.01)
    assert found.exponent("width", "parameters") == pytest.approx(2, abs=0.05)
    assert found.exponent("width", "kept_bytes") == pytest.approx(1, abs=0.02)
    assert found.law("batch_size", "kept_bytes") == ("power", pytest.approx(1, abs=0.001))
    assert found.law("image_size", "forward_flops") == ("power", pytest.approx(2, abs=0.01))
    assert all(len(points) >= 2 for points in found.points.values())
    json.dumps(found.to_json())
    text = "\n".join(cost.explain(cost.study(growth.course_cnn(), 8), found))
    assert "kept activations x16.00 (power 1.00)" in text and "grow with the square of the side" in text
    assert "image_size^2.00" in found.to_text()
    assert "by itself, with the same weights; only BatchNorm's statistics join the images" in text
    without = "\n".join(cost.explain(cost.study(keras.Sequential([keras.Input((4,)), L.Dense(3)])), found))
    assert "by itself, with the same weights." in without


def test_what_grows_by_equal_steps_is_not_told_as_a_power():
    found = cost.scaling(axes={"depth": (1, 2, 3), "batch_size": (32, 64, 128)})
    steps = {q: np.diff([point[q] for point in found.points["depth"]]) for q in growth.COUNTED[:3]}
    for quantity, (first, second) in steps.items():
        assert first == second and found.law("depth", quantity) == ("each", pytest.approx(first))
    assert found.law("batch_size", "training_memory")[0] == "each"  # parameters and their like are there once
    depth = next(text for text in cost.explain(cost.study(growth.course_cnn()), found) if "depth" in text)
    assert "(+195 k for each further convolution a block)" in depth and "adds the same weights, work" in depth
    assert "power" not in depth and "faster" not in depth
    assert "+195 k each" in found.to_text() and "depth^" not in found.to_text()
    assert found.to_json()["laws"]["depth"]["parameters"] == {"each": pytest.approx(steps["parameters"][0])}


def law_of(counted, measured=None):
    points = [{"value": value, "forward_flops": amount} for value, amount in zip((1, 2, 4), counted)]
    for point, amount in zip(points, measured or ()):
        point["step_ms"] = amount
    return growth.Scaling("", {}, {"depth": points}).law("depth", "step_ms" if measured else "forward_flops")


def test_a_law_is_told_where_it_comes_near_to_all_points():
    assert law_of((3, 6, 12)) == ("power", pytest.approx(1))
    assert law_of((3, 3, 3)) == ("power", pytest.approx(0))
    assert law_of((2, 8, 32)) == ("power", pytest.approx(2))
    assert law_of((5, 7, 11)) == ("each", pytest.approx(2))
    assert law_of((5, 7, 20)) is law_of((5, 7)) is None
    assert law_of((3, 6, 12), (3.1, 6, 12)) == ("power", pytest.approx(1, abs=0.03))
    assert law_of((5, 7, 11), (10, 14.3, 22))[0] == "each"  # though a power would do as well
    assert law_of((3, 6, 12), (3, 6, 18)) is None and law_of((5, 7, 20), (3, 6, 12)) is None


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
    assert many["measured_memory"] == max(many["memory_steps"])
    assert "measured ms of a training step" in "\n".join(cost.explain(cost.study(small_model()), found))


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
    assert rows["conv"].backward_ms == rows["conv"].step_ms - rows["conv"].forward_ms > 0
    assert rows["conv"].forward_ms > 0 and measured.step_ms > rows["conv"].step_ms
    assert rows["conv"].gflops == pytest.approx(rows["conv"].forward_flops / rows["conv"].forward_ms / 1e6)
    assert rows["image"].forward_ms is None
    machine = measured.machine
    assert machine.gflops > 1 and machine.gigabytes_per_second > 0.1
    assert machine.roof(rows["relu"]) == "memory" and machine.roof(rows["flat"]) is None
    result = json.loads(json.dumps(measured.to_json()))
    assert result["machine"]["ridge"] == pytest.approx(machine.gflops / machine.gigabytes_per_second)
    assert all(row["forward_ms"] is not None for row in result["rows"][1:])
    text = measured.to_text()
    assert "of roof" in text and max(map(len, text.splitlines())) <= 140
    assert "GFLOP/s in a matrix product" in "\n".join(cost.explain(measured))


def test_the_roof_over_a_layer():
    machine = Machine(gflops=100, gigabytes_per_second=10, call_ms=0)
    row = next(row for row in cost.study(small_model()).rows if row.name == "conv")
    assert machine.ridge == 10
    assert machine.attainable(2) == 20 and machine.attainable(50) == 100
    for intensity, roof in ((9, "memory"), (11, "arithmetic")):
        assert machine.roof(dataclasses.replace(row, bytes_moved=row.forward_flops // intensity)) == roof
    row = dataclasses.replace(row, bytes_moved=row.forward_flops // 4, forward_ms=row.forward_flops / 20e6)
    assert machine.of_roof(row) == pytest.approx(20 / 40, rel=0.01)


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


def test_names_in_the_roofline_cover_nothing(table):
    figure = cost.figures.roofline(timed(table))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    points = np.concatenate([dots.get_offsets() for dots in axes.collections])
    points = axes.transData.transform(np.concatenate([points, axes.lines[0].get_xydata()]))
    assert len(boxes) >= 4 and all(box.count_contains(points) == 0 for box in boxes)
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


def test_roofline_needs_times(table):
    with pytest.raises(UserError, match="measure"):
        cost.figures.roofline(table)
