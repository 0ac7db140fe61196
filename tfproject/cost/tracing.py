"""Which layers a model calls, in which order, on which tensors: found by tracing it, without computing anything."""

import contextlib
import dataclasses
import math
import re
import threading
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from tfproject.cost import kinds
from tfproject.errors import UserError

# TensorFlow operations that neither compute nor copy; a container of layers may use them and still cost nothing itself.
FREE_OPERATIONS = frozenset(
    "Const Identity IdentityN NoOp Placeholder ReadVariableOp Reshape Shape Squeeze ExpandDims StopGradient".split()
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that flows between layers.

    Attributes:
        storage: what tells its memory from other tensors'; a reshaped tensor has that of the one it was made from.
        origin: the storage that its numbers come from: another one only for a tensor cast to another precision.
        shape: with the batch size.
        itemsize: bytes of an element.
    """

    storage: str
    origin: str
    shape: tuple[int, ...]
    itemsize: int

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self):
        return self.size * self.itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer (or of one of `keras.ops`).

    Attributes:
        name: path of names from the model to the layer; a layer's second call ends with "#2".
        operation: the keras.layers.Layer or keras.Operation.
        kind: what `kinds.kind_of` says of it: its type's name, or None where the study does not know the type.
        inputs, outputs: Tensors.
        first, last: it made operations number first to last - 1 of the graph.
        arguments: (args, kwargs) with a keras.KerasTensor for each tensor, to call it again.
    """

    name: str
    operation: Any
    kind: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    first: int
    last: int
    arguments: tuple

    @property
    def output(self):
        return self.outputs[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What `trace` found.

    Attributes:
        inputs: the model's inputs, as (name, Tensor).
        calls: in the order in which the model makes them.
        outputs: the model's.
        graph: the tf.Graph.
    """

    inputs: tuple[tuple[str, Tensor], ...]
    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]
    graph: Any


def trace(model, batch_size=1, input_shape=None, training=True):
    """Call the model on tensors without values and note every call of a layer, whatever the model is built from.

    Args:
        model: a built keras.Model, or one that `input_shape` allows to build.
        batch_size: images in the batch.
        input_shape: shape of an input without the batch; a list of them for several inputs. Needed where the model
            leaves a size open.
        training: trace the model as in training or as in use.

    Returns:
        Trace.

    Raises:
        UserError: if the sizes of the inputs are not known, or the model does not take them.
    """
    specs = input_specs(model, batch_size, input_shape)
    recorder = _Recorder(model)

    def forward(*tensors):
        recorder.begin(tensors)
        with recorder.recording():
            return model(as_model_input(model, tensors), training=training)

    try:
        if not model.built:  # called on symbols, its layers make their weights
            symbols = [keras.KerasTensor(spec.shape, spec.dtype.name) for spec in specs]
            model(as_model_input(model, symbols))
        function = tf.function(forward, autograph=False).get_concrete_function(*specs)
    except Exception as error:  # whatever the model's own layers raise at sizes that they cannot take
        shapes = ", ".join(str(tuple(spec.shape)) for spec in specs)
        reason = _first_sentence(error)
        raise UserError(
            f"The model {model.name} does not take inputs of shape {shapes} ({reason}); give others."
        ) from error
    layers = [layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]
    names = layers if len(layers) == len(specs) else [spec.name or f"input{i}" for i, spec in enumerate(specs, start=1)]
    inputs = tuple(zip(names, (recorder.tensor(x) for x in recorder.inputs), strict=True))
    outputs = tuple(recorder.tensor(y) for y in recorder.result if y is not None)
    return Trace(inputs, tuple(recorder.finished()), outputs, function.graph)


def as_model_input(model, tensors):
    """A list of tensors, one for each input, in the structure (single, list or dict) that the model is called with."""
    tensors = list(tensors)
    structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    if structure is not None:
        return keras.tree.pack_sequence_as(structure, tensors)
    return tensors[0] if len(tensors) == 1 else tensors


def _first_sentence(error):
    """What Keras' message says, without the line that says where and without colours."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered")]
    return (lines or [type(error).__name__])[0].rstrip(".")


def input_specs(model, batch_size, input_shape):
    """What the model is called with.

    Args:
        model, batch_size, input_shape: see `trace`.

    Returns:
        A tf.TensorSpec for each input, its shape with the batch.

    Raises:
        UserError: if the sizes of the inputs are not known, or there are not so many inputs.
    """
    known = list(getattr(model, "inputs", None) or ())
    shapes = [tuple(x.shape[1:]) for x in known]
    dtypes = [tf.as_dtype(x.dtype) for x in known] or None
    if input_shape is not None:
        several = bool(input_shape) and isinstance(input_shape[0], list | tuple)
        shapes = [tuple(shape) for shape in input_shape] if several else [tuple(input_shape)]
        if known and len(shapes) != len(known):
            raise UserError(
                f"The model {model.name} has {len(known)} inputs, not {len(shapes)}; give a shape for each."
            )
    if not shapes or any(side is None for shape in shapes for side in shape):
        found = (
            f"inputs of shape {', '.join(map(str, shapes))}"
            if shapes
            else "inputs that are not known before it is built"
        )
        raise UserError(f"The model {model.name} has {found}; give the sizes as input_shape.")
    dtypes = dtypes or [tf.as_dtype(keras.config.floatx())] * len(shapes)
    return [tf.TensorSpec((batch_size, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


class _Recorder:
    """Notes the calls while the model runs, by standing between Keras' `__call__` and the layers' own `call`."""

    def __init__(self, model):
        self.model = model

    def begin(self, tensors):
        self.graph, self.thread = tf.compat.v1.get_default_graph(), threading.get_ident()
        self.inputs, self.result, self.notes = tensors, (), []
        self.path, self.inside = [], False

    @contextlib.contextmanager
    def recording(self):
        original = keras.Operation.__call__

        def noted(operation, *args, **kwargs):
            mine = threading.get_ident() == self.thread and tf.compat.v1.get_default_graph() is self.graph
            if self.inside or not mine:  # a loop's body is a graph of its own, and runs who knows how often
                return original(operation, *args, **kwargs)
            return self._note(original, operation, args, kwargs)

        with mock.patch.object(keras.Operation, "__call__", noted):
            yield

    def _note(self, original, operation, args, kwargs):
        kind, container = kinds.kind_of(operation), kinds.is_container(operation)
        first, children = self.graph.version, len(self.notes)
        self.path.append(operation.name)
        # A layer of Keras' own that calls others (an RNN its cell, TimeDistributed its layer) may do so in a loop.
        self.inside = not container and type(operation).__module__.startswith("keras.")
        try:
            result = original(operation, *args, **kwargs)
        finally:
            self.inside = False
            name = "/".join(self.path[1:] or self.path)
            self.path.pop()
        if operation is self.model:
            self.result = _tensors(result)
        if not container:
            last = self.graph.version
            own = set(range(first, last)).difference(*(range(c["first"], c["last"]) for c in self.notes[children:]))
            note = {"name": name, "operation": operation, "kind": kind, "arguments": (args, kwargs), "own": sorted(own)}
            note |= {"inputs": _tensors((args, kwargs)), "outputs": _tensors(result), "first": first, "last": last}
            note["has_children"] = len(self.notes) > children
            self.notes.append(note)
        return result

    def finished(self):
        """The notes as Calls; of a container of another's making only what it computes itself."""
        types = [operation.type for operation in self.graph.get_operations()]
        count = {}
        for note in self.notes:
            computes = any(types[i] not in FREE_OPERATIONS for i in note["own"] if i < len(types))
            if note["kind"] is None and note["has_children"] and not computes:
                continue
            number = count[id(note["operation"]), note["name"]] = (
                count.get((id(note["operation"]), note["name"]), 0) + 1
            )
            yield Call(
                name=note["name"] if number == 1 else f"{note['name']}#{number}",
                operation=note["operation"], kind=note["kind"],
                inputs=tuple(self.tensor(x) for x in note["inputs"]),
                outputs=tuple(self.tensor(y) for y in note["outputs"]),
                first=note["first"], last=note["last"],
                arguments=keras.tree.map_structure(_without_value, note["arguments"]),
            )  # fmt: skip

    def tensor(self, x):
        return Tensor(_root(x, _VIEWS), _root(x, (*_VIEWS, "Cast")), tuple(x.shape), x.dtype.size)


def _tensors(structure):
    return [x for x in keras.tree.flatten(structure) if tf.is_symbolic_tensor(x)]


_VIEWS = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient")


def _root(tensor, through):
    """The name of the tensor that this one was made from by operations of these types alone."""
    while tensor.op.type in through:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor.name


def _without_value(x):
    return keras.KerasTensor(x.shape, x.dtype.name) if tf.is_symbolic_tensor(x) else x
