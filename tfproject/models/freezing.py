"""What of a model is trained: layers frozen up to one, a table of it, and a hash to see that they stood still."""

import difflib
import hashlib
from typing import NamedTuple

import keras

from tfproject.errors import UserError


class Row(NamedTuple):
    """A layer in the table of what is frozen.

    Attributes:
        layer: its name; "part/name" within a nested model.
        kind: its type's name.
        parameters: number of its weights' elements.
        frozen: whether training leaves it as it is.
    """

    layer: str
    kind: str
    parameters: int
    frozen: bool


def freeze_until(model, name):
    """Freeze a layer and everything that it is computed from; the rest of the model stays as it is.

    BatchNorm in the frozen part works with its learned statistics and does not change them. To be called before the
    model is compiled.

    Args:
        model: a functional or Sequential keras.Model, with nested ones if need be.
        name: the last frozen layer; within a nested model "part/name", or its own name where only one layer has it.

    Returns:
        The model given.

    Raises:
        UserError: if there is no such layer, or the model has no graph of layers.
    """
    path = _find(model, name)
    for container, layer in zip([model, *path], path):
        for ancestor in _ancestors(container, layer):
            ancestor.trainable = False
    path[-1].trainable = False
    return model


def freeze_all(model):
    """Freeze every layer, nested ones too. Returns the model given."""
    model.trainable = False
    return model


def unfreeze(model):
    """Let every layer be trained, nested ones too. Returns the model given."""
    model.trainable = False  # Keras passes over a value that the model has already, whatever its layers have
    model.trainable = True
    return model


def table(model):
    """What of a model is frozen: a Row for every layer in order, those of nested models instead of the model."""
    return [
        Row(path, type(layer).__name__, layer.count_params(), not layer.trainable)
        for path, layer in layers_in(model)
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def to_text(rows):
    """The table as text, with the sums below it."""
    names = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [
        f"{row.layer:{names[0]}}  {row.kind:{names[1]}}  {row.parameters:>12,}  {'frozen' if row.frozen else 'trained'}"
        for row in rows
    ]
    frozen = sum(row.parameters for row in rows if row.frozen)
    lines.append(f"{sum(row.parameters for row in rows):,} parameters, {frozen:,} of them frozen.")
    return "\n".join(lines)


def frozen_digest(model):
    """A SHA-256 (hex) of the frozen layers' weights, BatchNorm's statistics too: the same while they stand still."""
    digest = hashlib.sha256()
    for _, layer in layers_in(model):
        if not layer.trainable:
            for weight in layer.weights:
                digest.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
                digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()


def cut_layers(model):
    """The layers at which the model falls into two: all that its output depends on goes through each of them.

    Args:
        model: a functional or Sequential keras.Model.

    Returns:
        A dict, in order, from a layer's name to its output in the model, a KerasTensor. A layer within a branch (such
        as the convolutions of a residual block) or called several times is not among them.
    """
    nodes = _nodes(model)
    calls = [node.operation for node in nodes]
    # All of the model's paths go through a layer exactly if as many do as there are. Python's integers do not overflow.
    before = {}
    for node in nodes:
        before[id(node)] = sum(before[id(parent)] for parent in node.parent_nodes) or 1
    ends = {id(tensor) for tensor in model.outputs}
    after = {id(node): int(any(id(tensor) in ends for tensor in node.outputs)) for node in nodes}
    for node in reversed(nodes):
        for parent in node.parent_nodes:
            after[id(parent)] += after[id(node)]
    paths = sum(after[id(node)] for node in nodes if not node.parent_nodes)
    return {
        node.operation.name: node.outputs[0]
        for node in nodes
        if before[id(node)] * after[id(node)] == paths and len(node.outputs) == 1
        if isinstance(node.operation, keras.layers.Layer) and calls.count(node.operation) == 1
    }


def layers_in(model, prefix=""):
    """(name, layer) of every layer in order, those of nested models ("part/name") instead of the model, each once."""
    seen = set()
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        for found in layers_in(layer, f"{path}/") if isinstance(layer, keras.Model) else [(path, layer)]:
            if id(found[1]) not in seen:
                seen.add(id(found[1]))
                yield found


def no_such_layer(model, name, among=None):
    """The UserError for a layer that a model does not have; it lists those with names near to it."""
    known = list(among or dict(layers_in(model)))
    near = difflib.get_close_matches(name, known, n=6, cutoff=0.5) or known
    listed = ", ".join(near if len(near) <= 12 else [*near[:6], "...", *near[-6:]])
    return UserError(f"The model {model.name} has no layer '{name}'; choose one such as {listed}.")


def _find(model, name):
    """The layers that lead to a layer from the outside in: the nested models around it, then itself."""
    def matches(container, path):
        for layer in container.layers:
            here = [*path, layer]
            if name in (layer.name, "/".join(part.name for part in here)):
                yield here
            if isinstance(layer, keras.Model):
                yield from matches(layer, here)

    found = list(matches(model, []))
    if not found:
        raise no_such_layer(model, name)
    if len({id(path[-1]) for path in found}) > 1:
        paths = ", ".join("/".join(part.name for part in path) for path in found)
        raise UserError(f"The model {model.name} has several layers '{name}'; choose one of {paths}.")
    return found[0]


def _nodes(model):
    """The calls of layers that make up a functional or Sequential model, each after those that it depends on."""
    if not getattr(model, "inputs", None):
        raise UserError(f"The model {model.name} is no graph of layers; give a built functional or Sequential one.")
    # Keras has no public way to walk the graph.
    by_depth = keras.Model(model.inputs, model.outputs)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _ancestors(container, layer):
    """The layers of a model from which a layer can be reached, without itself."""
    reached, layers = set(), []
    for node in reversed(_nodes(container)):
        if node.operation is layer or id(node) in reached:
            reached.update(id(parent) for parent in node.parent_nodes)
            if node.operation is not layer and isinstance(node.operation, keras.layers.Layer):
                layers.append(node.operation)
    return layers
