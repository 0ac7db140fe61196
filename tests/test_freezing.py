import keras
import numpy as np
import pytest
import toy

from tfproject.errors import UserError
from tfproject.models import freezing

IMAGES = np.random.default_rng(0).uniform(0, 2, (12, 16, 16, 3)).astype("float32")
LABELS = np.eye(3, dtype="float32")[np.arange(12) % 3]


def branched():
    """image - a - b - sum - mean - classes, with c beside b, and d beside all of it."""
    image = keras.Input((16, 16, 3), name="image")
    a = keras.layers.Conv2D(4, 3, padding="same", name="a")(image)
    b = keras.layers.Conv2D(4, 3, padding="same", name="b")(a)
    c = keras.layers.Conv2D(4, 3, padding="same", name="c")(a)
    x = keras.layers.Add(name="sum")([b, c])
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    d = keras.layers.Dense(2, name="d")(keras.layers.GlobalMaxPooling2D(name="maximum")(image))
    x = keras.layers.Concatenate(name="both")([x, d])
    return keras.Model([image], keras.layers.Dense(3, activation="softmax", name="classes")(x), name="branched")


def nested():
    """The toy network up to its mean as a part of another, something before and after it."""
    toy_network = toy.network((16, 16, 3), 3, dropout=0.0)
    part = keras.Model([toy_network.input], toy_network.get_layer("mean").output, name="part")
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(3, 1, name="before")(image)
    x = part(x)
    return keras.Model([image], keras.layers.Dense(3, activation="softmax", name="classes")(x), name="nested")


def sequential():
    return keras.Sequential([
        keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="a"), keras.layers.BatchNormalization(name="b"),
        keras.layers.Flatten(name="c"), keras.layers.Dense(3, activation="softmax", name="classes"),
    ])  # fmt: skip


def trained_layers(model):
    """Names of the layers whose weights, BatchNorm's statistics too, are others after three steps of training."""
    before = {name: layer.get_weights() for name, layer in freezing.layers_in(model)}
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    model.fit(IMAGES, LABELS, batch_size=4, verbose=0, shuffle=False)
    moved = set()
    for name, layer in freezing.layers_in(model):
        same = [np.array_equal(a, b) for a, b in zip(before[name], layer.get_weights(), strict=True)]
        assert len(set(same)) <= 1, f"some weights of {name} moved and some did not"
        moved |= {name} if False in same else set()
    return moved


@pytest.mark.parametrize(
    "build, until, moved",
    [
        (branched, "b", {"c", "d", "classes"}),
        (branched, "sum", {"d", "classes"}),
        (branched, "both", {"classes"}),
        (sequential, "b", {"classes"}),
        (nested, "conv1_relu", {"part/conv2", "part/conv2_norm", "classes"}),
        (nested, "part/conv1", {"part/conv1_norm", "part/conv2", "part/conv2_norm", "classes"}),
        (nested, "part", {"classes"}),
        (nested, "before", {"part/conv1", "part/conv1_norm", "part/conv2", "part/conv2_norm", "classes"}),
    ],
)
def test_a_layer_and_what_it_is_computed_from_stand_still_and_the_rest_is_trained(build, until, moved):
    model = freezing.freeze_until(build(), until)
    digest = freezing.frozen_digest(model)
    assert trained_layers(model) == moved
    assert freezing.frozen_digest(model) == digest
    assert {row.layer for row in freezing.table(model) if not row.frozen and row.parameters} == moved


def test_frozen_batch_norm_uses_its_learned_statistics_in_training_too():
    model = nested()
    trained = model(IMAGES, training=True)
    used = model(IMAGES, training=False)
    assert np.abs(trained - used).max() > 0.01
    freezing.freeze_until(model, "part")
    np.testing.assert_array_equal(model(IMAGES, training=True), used)


def test_all_and_nothing():
    model = nested()
    everything = {row.layer for row in freezing.table(model) if row.parameters}
    assert not freezing.freeze_all(model).trainable_variables
    assert all(row.frozen for row in freezing.table(model))
    assert trained_layers(freezing.unfreeze(model)) == everything


def test_the_digest_sees_frozen_weights_alone():
    model = freezing.freeze_until(branched(), "b")
    digest = freezing.frozen_digest(model)
    model.get_layer("c").bias.assign_add(np.ones(4))
    assert freezing.frozen_digest(model) == digest
    kernel = model.get_layer("a").kernel.numpy()
    kernel.flat[0] = np.nextafter(kernel.flat[0], np.float32(1))  # the smallest change there is
    model.get_layer("a").kernel.assign(kernel)
    assert freezing.frozen_digest(model) != digest
    assert freezing.frozen_digest(freezing.freeze_until(branched(), "a")) != freezing.frozen_digest(branched())


def test_the_table_tells_layers_parameters_and_their_sums():
    rows = freezing.table(freezing.freeze_until(nested(), "before"))
    assert rows[0] == ("before", "Conv2D", 12, True)
    assert ("part/conv1_norm", "BatchNormalization", 32, False) in rows
    assert sum(row.parameters for row in rows) == nested().count_params()
    text = freezing.to_text(rows)
    assert text.splitlines()[0].split() == ["before", "Conv2D", "12", "frozen"]
    assert text.splitlines()[-1] == f"{nested().count_params():,} parameters, 12 of them frozen."


def test_cut_layers_are_those_that_everything_goes_through():
    assert list(freezing.cut_layers(branched())) == ["image", "both", "classes"]
    assert list(freezing.cut_layers(nested())) == ["image", "before", "part", "classes"]
    assert list(freezing.cut_layers(sequential()))[-4:] == ["a", "b", "c", "classes"]
    # Brute force on a larger graph: without the layer, the output cannot be reached from the image.
    model = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3))
    edges = {}
    for layer in model.operations:
        for node in layer._outbound_nodes:
            edges.setdefault(layer.name, set()).add(node.operation.name)
    first, last = model.operations[0].name, model.operations[-1].name

    def reachable_without(removed):
        reached, waiting = set(), [first]
        while waiting:
            name = waiting.pop()
            if name not in reached and name != removed:
                reached.add(name)
                waiting.extend(edges.get(name, ()))
        return last in reached

    expected = [layer.name for layer in model.layers if not reachable_without(layer.name)]
    assert 10 < len(expected) < len(model.layers) and set(freezing.cut_layers(model)) == set(expected)


def test_a_shared_layer_is_no_cut_and_freezes_with_all_that_it_is_used_on():
    image = keras.Input((16, 16, 3), name="image")
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    middle = keras.layers.Conv2D(3, 3, padding="same", name="middle")
    x = keras.layers.Flatten(name="flatten")(shared(middle(shared(image))))
    model = keras.Model([image], keras.layers.Dense(3, activation="softmax", name="classes")(x))
    assert list(freezing.cut_layers(model)) == ["image", "middle", "flatten", "classes"]
    assert trained_layers(freezing.freeze_until(model, "shared")) == {"classes"}


def test_names_that_do_not_exist_or_are_not_unique_are_told():
    with pytest.raises(UserError, match="nested has no layer 'part/conv_1'; choose one such as part/conv1"):
        freezing.freeze_until(nested(), "part/conv_1")
    parts = []
    for name in ("left", "right"):
        image = keras.Input((4,), name="image")
        parts.append(keras.Model([image], keras.layers.Dense(4, name="dense")(image), name=name))
    image = keras.Input((4,), name="image")
    twins = keras.Model([image], parts[1](parts[0](image)), name="twins")
    with pytest.raises(UserError, match="several layers 'dense'; choose one of left/dense, right/dense"):
        freezing.freeze_until(twins, "dense")
    freezing.freeze_until(twins, "left/dense")
    assert [row.frozen for row in freezing.table(twins)] == [True, False]


def test_what_was_frozen_in_part_is_trained_again():
    model = nested()
    everything = trained_layers(model)
    assert trained_layers(freezing.freeze_until(model, "part")) < everything
    assert trained_layers(freezing.unfreeze(model)) == everything
