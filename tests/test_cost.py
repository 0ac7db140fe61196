import collections
import json
import math
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from tfproject import cost, models
from tfproject.cost import activations, kinds, optimizers, timing, tracing
from tfproject.cost.table import Machine
from tfproject.errors import UserError
from tfproject.training import batch_norm

# Of each family of keras.applications the smallest; all of them: benchmarks/cost_against_profiler.py.
APPLICATIONS = {
    "VGG16": 15.47, "ResNet50": 3.86, "ResNet50V2": 3.48, "MobileNet": 0.569, "MobileNetV2": 0.301,
    "MobileNetV3Small": 0.057, "EfficientNetB0": 0.386, "EfficientNetV2B0": 0.718, "DenseNet121": 2.83,
    "InceptionV3": 5.71, "Xception": 8.36, "NASNetMobile": 0.564, "ConvNeXtTiny": 4.46,
}  # fmt: skip


@pytest.fixture
def application(request):
    keras.backend.clear_session()
    yield cost.load_model(request.param)
    keras.backend.clear_session()


def shape_of(model):
    from tfproject.cost.loading import default_input_shape

    return default_input_shape(model)


@pytest.mark.parametrize("left_open", [(None, None, 3), (None, 64, 3), (64, 64, 3)])
def test_a_side_that_a_model_leaves_open_has_224_pixels(left_open):
    expected = None if None not in left_open else tuple(side or 224 for side in left_open)
    assert shape_of(keras.Sequential([keras.Input(left_open), L.Conv2D(2, 3)])) == expected


@pytest.mark.parametrize("application", APPLICATIONS, indirect=True, ids=str)
def test_applications_as_tensorflows_profiler_counts(application, request):
    name = request.node.callspec.params["application"]
    table = cost.study(application, input_shape=shape_of(application))
    profiled, all_operations = cost.profiled_flops(application, input_shape=shape_of(application))
    assert table.unknown == ()
    for row in table.rows:
        if row.type != "InputLayer":
            assert set(row.beyond_profiler) <= set(cost.RULES)
            assert row.forward_flops - sum(row.beyond_profiler.values()) == profiled[row.name], row
    assert sum(profiled.values()) == all_operations  # nothing is computed outside of the layers
    assert table.totals["parameters"] == application.count_params()
    assert table.totals["multiply_adds"] / 1e9 == pytest.approx(APPLICATIONS[name], rel=0.01)
    trained = sum(math.prod(v.shape) for v in application.trainable_weights)
    assert table.totals["trainable_parameters"] == trained


def test_vgg16_published_numbers_in_under_three_seconds():
    model = cost.load_model("vgg16")
    start = time.perf_counter()
    table = cost.study(model)
    text = table.to_text()
    assert time.perf_counter() - start < 3
    assert table.totals["parameters"] == 138_357_544
    assert table.totals["multiply_adds"] == 15_470_264_320
    rows = {row.name: row for row in table.rows}
    assert rows["fc1"].parameters == 102_764_544
    assert rows["block1_conv2"].output_shape == (1, 224, 224, 64)
    assert "138,357,544" in text and "15.5 G multiply-adds" in text
    assert max(map(len, text.splitlines())) <= 140


MAPS, SERIES, VOLUME = (12, 12, 6), (20, 6), (8, 8, 8, 2)
LAYERS = [
    (MAPS, lambda: L.Conv2D(4, 3, dilation_rate=2)),
    (MAPS, lambda: L.Conv2D(4, 3, 2, padding="same", use_bias=False)),
    (MAPS, lambda: L.Conv2D(6, 3, groups=2, activation="relu")),
    (MAPS, lambda: L.Conv2DTranspose(5, 3, 2, padding="same")),
    (MAPS, lambda: L.Conv2DTranspose(5, 3, 2)),
    (MAPS, lambda: L.DepthwiseConv2D(3, depth_multiplier=2)),
    (MAPS, lambda: L.SeparableConv2D(7, 3, 2, depth_multiplier=2)),
    (MAPS, lambda: L.PReLU()),
    (MAPS, lambda: L.ELU()),
    (MAPS, lambda: L.LeakyReLU()),
    (MAPS, lambda: L.ReLU()),
    (MAPS, lambda: L.ReLU(6.0)),
    (MAPS, lambda: L.ReLU(negative_slope=0.1)),
    (MAPS, lambda: L.Softmax()),
    (MAPS, lambda: L.BatchNormalization(axis=1)),
    (MAPS, lambda: L.BatchNormalization(scale=False, center=False)),
    (MAPS, lambda: L.BatchNormalization(center=False)),
    (MAPS, lambda: L.LayerNormalization()),
    (MAPS, lambda: L.LayerNormalization(axis=(1, 2, 3))),
    (MAPS, lambda: L.GroupNormalization(3)),
    (MAPS, lambda: L.MaxPooling2D(3, 2, padding="same")),
    (MAPS, lambda: L.AveragePooling2D(2)),
    (MAPS, lambda: L.GlobalAveragePooling2D()),
    (MAPS, lambda: L.GlobalMaxPooling2D()),
    (MAPS, lambda: L.UpSampling2D(2)),
    (MAPS, lambda: L.Rescaling(2.0, 1.0)),
    (MAPS, lambda: L.Normalization(mean=[1.0] * 6, variance=[2.0] * 6)),
    (MAPS, lambda: L.Dropout(0.5)),
    (MAPS, lambda: L.SpatialDropout2D(0.5)),
    (MAPS, lambda: L.GaussianNoise(0.1)),
    (MAPS, lambda: L.Permute((2, 1, 3))),
    (MAPS, lambda: L.ZeroPadding2D(1)),
    (MAPS, lambda: L.Cropping2D(1)),
    (MAPS, lambda: L.Flatten()),
    (MAPS, lambda: L.Reshape((144, 6))),
    (MAPS, lambda: L.Dense(5)),
    (SERIES, lambda: L.Conv1D(4, 3, 2)),
    (SERIES, lambda: L.Conv1DTranspose(4, 3, 2)),
    (SERIES, lambda: L.DepthwiseConv1D(3)),
    (SERIES, lambda: L.SeparableConv1D(4, 3)),
    (SERIES, lambda: L.MaxPooling1D(2)),
    (SERIES, lambda: L.AveragePooling1D(3)),
    (SERIES, lambda: L.GlobalAveragePooling1D()),
    (SERIES, lambda: L.GlobalMaxPooling1D()),
    (VOLUME, lambda: L.Conv3D(4, 3)),
    (VOLUME, lambda: L.Conv3DTranspose(4, 3, 2)),
    (VOLUME, lambda: L.MaxPooling3D(2)),
    (VOLUME, lambda: L.AveragePooling3D(2)),
    *((MAPS, lambda name=name: L.Activation(name)) for name in activations.FUNCTIONS),
    *((MAPS, lambda name=name: L.Conv2D(4, 1, activation=name)) for name in ("gelu", "leaky_relu", "softmax")),
]


def agrees_with_profiler(model, batch_size=2):
    table = cost.study(model, batch_size)
    profiled, _ = cost.profiled_flops(model, batch_size)
    assert table.unknown == ()
    for row in table.rows[len(model.inputs) :]:
        assert row.forward_flops - sum(row.beyond_profiler.values()) == profiled[row.name], row
        assert row.forward_flops >= 0 and set(row.beyond_profiler) <= set(cost.RULES)
    assert table.totals["parameters"] == model.count_params()
    return table


def test_every_kind_of_layer_as_tensorflows_profiler_counts():
    for shape, make in LAYERS:
        x = keras.Input(shape)
        agrees_with_profiler(keras.Model(x, make()(x)))
    ids = keras.Input((7,), dtype="int32")
    assert agrees_with_profiler(keras.Model(ids, L.Embedding(10, 4)(ids))).totals["forward_flops"] == 0


def test_layers_of_several_inputs_as_tensorflows_profiler_counts():
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    a, b, c = keras.Input((6, 6, 3)), keras.Input((6, 6, 3)), keras.Input((1, 1, 3))
    n = 2 * 6 * 6 * 3
    merges = [(L.Add, 2), (L.Average, 3), (L.Multiply, 2), (L.Maximum, 2), (L.Minimum, 2), (L.Concatenate, 0)]
    for layer, flops in merges:
        table = agrees_with_profiler(keras.Model([a, b], layer()([a, b, a])))
        assert table.totals["forward_flops"] == flops * n
    agrees_with_profiler(keras.Model([a, b], CustomScaleLayer(0.2)([a, b])))
    agrees_with_profiler(keras.Model([a, c], L.Multiply()([a, c])))  # as squeeze-and-excitation has it
    table = agrees_with_profiler(keras.Model([a, b], (a + b) * 3.0 / 2.0 - 1.0))
    assert [row.type for row in table.rows] == [
        "InputLayer",
        "InputLayer",
        "ops.Add",
        "ops.Multiply",
        "ops.TrueDivide",
        "ops.Subtract",
    ]
    assert table.totals["forward_flops"] == 4 * n


def block(x, name):
    x = L.Conv2D(8, 3, padding="same", name=f"{name}_conv")(x)
    x = L.BatchNormalization(name=f"{name}_norm")(x)
    return L.ReLU(name=f"{name}_relu")(x)


def without_names(table):
    rows = [row for row in table.to_json()["rows"] if row["type"] != "InputLayer"]
    return [{key: value for key, value in row.items() if key != "name"} for row in rows]


def test_nested_model_costs_what_the_flat_one_does():
    image = keras.Input((16, 16, 3))
    flat = keras.Model(image, L.Dense(3)(L.Flatten()(block(block(image, "a"), "b"))))
    inner_image = keras.Input((16, 16, 8))
    inner = keras.Model(inner_image, block(inner_image, "b"), name="inner")
    middle = keras.Sequential([inner, L.Flatten(name="flat")], name="middle")
    nested = keras.Model(image, L.Dense(3)(middle(block(image, "a"))))
    tables = [cost.study(model, 4, optimizer="sgd") for model in (flat, nested)]
    assert without_names(tables[0]) == without_names(tables[1])
    assert tables[0].totals == tables[1].totals
    assert tables[0].training_memory.total == tables[1].training_memory.total
    assert "middle/inner/b_conv" in [row.name for row in tables[1].rows]


def test_shared_layer_computes_twice_and_has_its_parameters_once():
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((16, 16, 3), name="right")
    shared = L.Conv2D(8, 3, name="shared")
    model = keras.Model([left, right], L.Concatenate(name="both")([shared(left), shared(right)]))
    first, second = (row for row in cost.study(model, 2).rows if row.type == "Conv2D")
    assert (first.name, second.name) == ("shared", "shared#2")
    assert first.parameters == model.count_params() == 3 * 3 * 3 * 8 + 8
    assert second.parameters == second.gradient_bytes == second.optimizer_bytes == 0
    assert first.multiply_adds == second.multiply_adds == 2 * 14 * 14 * 8 * 27
    table = cost.study(model, 2)
    assert [row.name for row in table.rows[:2]] == ["left", "right"]
    assert [row.kept_bytes for row in table.rows[:2]] == [2 * 16 * 16 * 3 * 4] * 2


@keras.saving.register_keras_serializable("tests")
class Swirl(keras.layers.Layer):
    """A layer of nobody's knowledge."""

    def build(self, shape):
        self.angle = self.add_weight(shape=(shape[-1],), name="angle")

    def call(self, x):
        return tf.sin(x) * self.angle


class Residual(keras.Model):
    """A model of one's own writing: layers that the study knows, and a sum of its own."""

    def __init__(self):
        super().__init__(name="residual")
        self.conv = L.Conv2D(3, 3, padding="same", name="conv")

    def call(self, x):
        return x + self.conv(x)


def test_unknown_layer_is_named_and_not_counted_as_zero():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(2, name="dense")(L.Flatten()(Swirl(name="swirl")(L.ReLU()(image)))))
    table = cost.study(model, 2)
    assert table.unknown == (("swirl", "Swirl"),)
    row = next(row for row in table.rows if row.name == "swirl")
    assert row.forward_flops is row.backward_flops is row.multiply_adds is row.step_flops is row.intensity is None
    assert row.parameters == 3 and table.totals["parameters"] == model.count_params()
    assert "at least" in table.to_text() and "swirl (Swirl)" in table.to_text()
    result = table.to_json()
    assert result["at_least"] and result["unknown"] == [{"name": "swirl", "type": "Swirl"}]
    assert table.training_memory.at_least
    assert not cost.study(models.custom_cnn((32, 32, 3), 10)).to_json()["at_least"]


def test_classes_derived_from_keras_own_are_unknown():
    class Convolution(L.Conv2D):
        def call(self, x):
            return super().call(x) * 2

    x = keras.Input((8, 8, 3))
    assert cost.study(keras.Model(x, Convolution(2, 3, name="mine")(x))).unknown == (("mine", "Convolution"),)
    assert cost.study(keras.Model(x, L.Activation(lambda x: x, name="mine")(x))).unknown == (("mine", "Activation"),)


def test_model_of_ones_own_writing():
    table = cost.study(Residual(), 2, input_shape=(8, 8, 3))
    rows = {row.name: row for row in table.rows}
    assert rows["conv"].multiply_adds == 2 * 8 * 8 * 3 * 27
    assert table.unknown == (("residual", "Residual"),)  # its own sum
    assert rows["conv"].parameters == table.totals["parameters"] == 84
    with pytest.raises(UserError, match="input_shape"):
        cost.study(Residual())


def test_model_that_only_chains_layers_is_known():
    class Chain(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.spare = L.Dense(4, activation="relu"), L.Dense(2), L.Dense(7)
            self.spare.build((None, 1))

        def call(self, x, training=False):
            return self.second(self.first(x))

    table = cost.study(Chain(), 3, input_shape=(5,))
    assert table.unknown == () and [row.type for row in table.rows] == ["InputLayer", "Dense", "Dense", "weights"]
    assert (table.rows[-1].name, table.rows[-1].parameters) == ("(no layer's call)", 14)
    assert table.totals["multiply_adds"] == 3 * (5 * 4 + 4 * 2)


def test_layers_in_a_loop_are_not_counted_as_called_once():
    x = keras.Input((6, 4))
    table = cost.study(keras.Model(x, L.LSTM(5, name="lstm")(x)))
    assert table.unknown == (("lstm", "LSTM"),)
    assert table.totals["parameters"] == 4 * (4 * 5 + 5 * 5 + 5)


def test_frozen_layers_keep_nothing_and_have_no_gradient():
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, L.Dense(3, name="dense")(L.Flatten()(block(block(image, "a"), "b"))))
    for layer in model.layers[:-1]:
        layer.trainable = False
    rows = {row.name: row for row in cost.study(model, 4).rows}
    assert [rows[name].gradient_bytes for name in ("a_conv", "a_norm")] == [0, 0]
    assert [rows[name].backward_flops for name in ("a_conv", "b_conv", "b_norm", "b_relu")] == [0] * 4
    assert [rows[name].kept_bytes for name in ("a_conv", "a_relu", "b_norm")] == [0] * 3
    assert rows["b_relu"].kept_bytes == 4 * 16 * 16 * 8 * 4  # the dense layer's input
    assert rows["dense"].backward_flops == rows["dense"].forward_flops  # no gradient for its input


def test_first_layer_computes_no_gradient_for_the_image():
    first, second = (
        row
        for row in cost.study(models.custom_cnn((32, 32, 3), 10)).rows
        if row.name in ("block1_conv1", "block1_conv2")
    )
    assert first.backward_multiply_adds == first.multiply_adds
    assert second.backward_multiply_adds == 2 * second.multiply_adds


def kept_in_gradient_graph(model, batch_size):
    """Bytes of the tensors that the graph's backward part takes from its forward part, each storage once."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        step.forward = tf.compat.v1.get_default_graph().version
        return tape.gradient(loss, model.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec((batch_size, *model.input_shape[1:]))).graph
    operations = graph.get_operations()
    place = {operation.name: i for i, operation in enumerate(operations)}
    found = {}
    for operation in operations[step.forward :]:
        for tensor in operation.inputs:
            while tensor.op.type in ("Identity", "Reshape", "Squeeze", "StopGradient"):
                tensor = tensor.op.inputs[0]
            if place[tensor.op.name] < step.forward and tensor.op.type not in ("ReadVariableOp", "Const"):
                if operation.type not in ("ShapeN", "Shape", "Reshape"):
                    found[tensor.name] = math.prod(tensor.shape) * tensor.dtype.size
    return sum(found.values())


def small_resnet():
    image = keras.Input((16, 16, 3))
    x = block(image, "a")
    y = block(x, "b")
    x = L.Add()([x, y])
    gate = L.Dense(8, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Dropout(0.3)(L.Multiply()([x, gate]))
    x = L.MaxPooling2D(2)(L.Activation("silu")(x))
    x = L.SeparableConv2D(12, 3)(x)
    x = L.Dense(16, activation="gelu")(L.LayerNormalization()(x))
    return keras.Model(image, L.Dense(4, activation="softmax")(L.Flatten()(x)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.custom_cnn((32, 32, 3), 10, dropout=0.2),
        small_resnet,
        lambda: models.land_cover_cnn((64, 64, 3), 10),
    ],
)
def test_kept_activations_are_those_that_the_gradient_reads(make):
    model = make()
    assert cost.study(model, 8).totals["kept_bytes"] == pytest.approx(kept_in_gradient_graph(model, 8), rel=0.01)


def test_a_kept_tensor_counts_once():
    image = keras.Input((8, 8, 3))
    x = L.ReLU(name="relu")(L.Conv2D(4, 3, padding="same", name="conv")(image))
    model = keras.Model(image, [L.Conv2D(2, 1, name="left")(x), L.Conv2D(2, 1, name="right")(x)])
    table = cost.study(model)
    rows = {row.name: row for row in table.rows}
    n = 8 * 8 * 4 * 4
    assert rows["relu"].kept_bytes == n and rows["conv"].kept_bytes == 0  # ReLU keeps its output
    assert rows["left"].needed_bytes == rows["right"].needed_bytes == n  # the same tensor
    assert table.totals["kept_bytes"] == n + 8 * 8 * 3 * 4


def test_mixed_precision_halves_activations_and_not_parameters():
    before = keras.config.dtype_policy()
    full = cost.study(models.custom_cnn((32, 32, 3), 10), 8)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = cost.study(models.custom_cnn((32, 32, 3), 10), 8)
    finally:
        keras.config.set_dtype_policy(before)
    assert half.totals["parameter_bytes"] == full.totals["parameter_bytes"]
    assert half.totals["activation_bytes"] == pytest.approx(full.totals["activation_bytes"] / 2, rel=0.05)
    assert half.totals["forward_flops"] == full.totals["forward_flops"]


def test_all_of_it_grows_with_the_batch_but_the_parameters():
    model = models.custom_cnn((32, 32, 3), 10)
    one, eight = (cost.study(model, batch).totals for batch in (1, 8))
    assert eight["multiply_adds"] == 8 * one["multiply_adds"]
    assert eight["activation_bytes"] == 8 * one["activation_bytes"]
    assert eight["parameter_bytes"] == one["parameter_bytes"] == 4 * model.count_params()


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_optimizer_state_is_what_keras_makes(name):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(16, 3), L.Flatten(), L.Dense(10)])
    optimizer = optimizers.make(name)
    optimizer.build(model.trainable_variables)
    state = sum(4 * math.prod(v.shape) for v in optimizer.variables if len(v.shape))
    assert cost.study(model, optimizer=name).totals["optimizer_bytes"] == state
    assert cost.study(model, optimizer=optimizer).totals["optimizer_bytes"] == state


def test_optimizer_state_of_muon():
    from tfproject.training.optimization import ConvolutionalMuon

    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(16, 3), L.Flatten(), L.Dense(10)])
    for optimizer in (keras.optimizers.Muon(), ConvolutionalMuon()):
        optimizer.build(model.trainable_variables)
        state = sum(4 * math.prod(v.shape) for v in optimizer.variables if len(v.shape))
        assert cost.study(model, optimizer=optimizer).totals["optimizer_bytes"] == state


def test_json_is_json_and_its_shares_add_up():
    result = json.loads(json.dumps(cost.study(models.custom_cnn((32, 32, 3), 10), 4).to_json()))
    assert result["batch_size"] == 4 and result["input_shapes"] == [[4, 32, 32, 3]]
    for field in ("parameters", "kept_bytes", "forward_flops", "step_flops"):
        assert sum(row["share"][field] for row in result["rows"]) == pytest.approx(1)
    assert result["training_memory"]["total"] > result["totals"]["kept_bytes"]
    assert "forward_ms" not in result["rows"][0]


def test_text_is_aligned_and_has_units():
    lines = cost.study(models.custom_cnn((32, 32, 3), 10), 128).to_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    conv = next(line for line in lines if line.startswith("block1_conv2 "))
    end = lines[head].index("forward") + len("forward")
    assert conv[:end].endswith("  2.42 G") and "16.0 MiB" in conv and "32x32x32" in conv
    assert max(map(len, lines)) <= 140


def test_open_sizes_need_a_shape():
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()])
    with pytest.raises(UserError, match="input_shape"):
        cost.study(model)
    assert cost.study(model, input_shape=(10, 12, 3)).totals["multiply_adds"] == 8 * 10 * 4 * 27


def test_users_mistakes():
    model = models.custom_cnn((32, 32, 3), 10)
    for call, match in (
        (lambda: cost.study(model, 0), "at least 1"),
        (lambda: cost.study(model, optimizer="newton"), "newton"),
        (lambda: cost.study(model, input_shape=(32, 32, 4)), "does not take"),
        (lambda: cost.study(model, input_shape=[(32, 32, 3), (2,)]), "1 inputs"),
        (lambda: cost.load_model("VGG17"), "VGG17"),
        (lambda: cost.load_model("absent.keras"), "absent.keras"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


def test_models_by_name_and_from_a_file(tmp_path):
    assert cost.load_model("custom_cnn").count_params() == 552_362
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model.save(tmp_path / "model.keras")
    assert cost.load_model(str(tmp_path / "model.keras")).count_params() == 15
    (tmp_path / "model.keras").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot load"):
        cost.load_model(str(tmp_path / "model.keras"))


def test_tracing_changes_nothing():
    model = models.custom_cnn((32, 32, 3), 10, dropout=0.5)
    before = [np.array(v) for v in model.variables]
    call = keras.Operation.__call__
    cost.study(model, 2)
    with pytest.raises(UserError):
        cost.study(model, 2, input_shape=(3, 3, 3))
    assert keras.Operation.__call__ is call
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))


def operations_run(function):
    """How many TensorFlow operations of each type what the function gives depends on."""
    graph = tf.function(function, autograph=False).get_concrete_function().graph
    left, seen = [tensor.op for tensor in graph.outputs], {}
    while left:
        operation = left.pop()
        if operation.name not in seen:
            seen[operation.name] = operation.type
            left += [tensor.op for tensor in operation.inputs]
    return collections.Counter(seen.values())


def test_measuring_changes_nothing_and_times_what_a_training_step_computes(monkeypatch):
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", name="first")(image)
    x = L.Dropout(0.5)(L.BatchNormalization(name="norm")(x))
    model = keras.Model(image, L.Conv2D(4, 3, padding="same", name="second")(x))
    before = [np.array(v) for v in model.variables]
    timed, in_graph = [], timing._in_graph

    def noted(function):
        timed.append(operations_run(function))
        return in_graph(function)

    monkeypatch.setattr(timing, "measure_machine", lambda: Machine(100, 10, 0))
    monkeypatch.setattr(timing, "_in_graph", noted)
    table = cost.study(model, 2, measure=True)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))
    assert table.step_ms > 0 and all(row.step_ms > 0 for row in table.rows[1:])
    first, norm, dropout, second, whole = zip(timed[::2], timed[1::2], strict=True)  # of each in use and its step
    for used, step in (first, second, whole):
        convolutions = 2 if used is whole[0] else 1
        assert used["Conv2D"] == step["Conv2D"] == step["Conv2DBackpropFilter"] == convolutions
        assert used["Conv2DBackpropFilter"] == 0
    assert [step["Conv2DBackpropInput"] for _, step in (first, second, whole)] == [0, 1, 1]  # none for the image
    assert norm[0]["SquaredDifference"] == 0 and norm[1]["SquaredDifference"] == 1  # the batch's variance
    assert dropout[0]["RandomUniform"] == 0 and sum(dropout[1].values()) > sum(dropout[0].values())


def test_what_a_caller_put_in_place_of_keras_own_is_timed_and_counted_alike(monkeypatch):
    model = models.custom_cnn((32, 32, 3), 10)
    plain = cost.study(model, 2)
    batch_norm.fuse(model)
    assert cost.study(model, 2) == plain
    call = next(call for call in tracing.trace(model, 2).calls if call.kind == "BatchNormalization")
    timed = []
    monkeypatch.setattr(timing, "_in_graph", lambda function: timed.append(operations_run(function)) or function)
    timing.measure_call(call.operation, call.arguments, True)
    used, step = timed
    assert used["FusedBatchNormV3"] == 0 and step["FusedBatchNormV3"] == step["FusedBatchNormGradV3"] == 1


@pytest.mark.parametrize(
    ("layer", "training", "backward"),
    [
        # 2 x 6 x 6 x 4 numbers of 27 products, two FLOPs each, for the kernel and again for the input; the bias's sum.
        (lambda: L.Conv2D(4, 3, padding="same"), 0, 2 * 2 * 288 * 27 + 288),
        (lambda: L.Conv2D(4, 3, padding="same", use_bias=False), 0, 2 * 2 * 288 * 27),
        (lambda: L.Dense(5), 0, 2 * 2 * 360 * 3 + 360),
        # The mean; difference, square and mean of it. Backward as TensorFlow differentiates these.
        (lambda: L.BatchNormalization(), 4 * 216, 11 * 216),
        (lambda: L.BatchNormalization(trainable=False), 0, 216),  # a product with the scale
        (lambda: L.LayerNormalization(), 0, 17 * 216),
        (lambda: L.MaxPooling2D(2), 0, 4 * 54 + 54),  # which of the four it was, and its gradient there
        (lambda: L.ReLU(), 0, 216),
        (lambda: L.Dropout(0.5), 4 * 216, 2 * 216),  # drawn, compared, chosen and scaled; chosen and scaled
    ],
)  # fmt: skip
def test_flops_of_training_by_hand(layer, training, backward):
    image = keras.Input((6, 6, 3))
    x = L.Conv2D(3, 1)(image)  # trained, so that there is a gradient for the layer's input
    row = cost.study(keras.Model(image, layer()(x)), 2).rows[-1]
    assert (row.training_flops, row.backward_flops) == (training, backward)
    assert row.step_flops == row.forward_flops + training + backward


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"}, {"padding": "same", "strides": 2}, {"padding": "same", "dilation_rate": 2},
        {"padding": "same", "kernel_size": (2, 5)}, {"padding": "valid"},
    ],
)  # fmt: skip
def test_multiply_adds_that_meet_padding(options):
    layer = L.Conv2D(**{"filters": 2, "kernel_size": 3, "kernel_initializer": "ones", **options})
    image = keras.Input((7, 8, 3))
    model = keras.Model(image, layer(image))
    row = cost.study(model, 2).rows[-1]
    met = model(np.ones((2, 7, 8, 3), "float32")).numpy().sum()  # of ones, a sum of products is their number
    assert row.multiply_adds - row.padding_multiply_adds == met
    assert (row.padding_multiply_adds > 0) == (options["padding"] == "same")


def test_rules_are_all_used_and_told():
    used = set()
    for shape, make in LAYERS:
        x = keras.Input(shape)
        for call in tracing.trace(keras.Model(x, make()(x))).calls:
            used |= set(kinds.work(call).others)
    assert used == set(cost.RULES) and all(len(text) > 40 for text in cost.RULES.values())
