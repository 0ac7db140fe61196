"""Any classifier laid open: one flat functional model in float32 in which every layer can be reached."""

import collections
import copy
import dataclasses
import functools
import inspect
import textwrap

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfproject.errors import UserError
from tfproject.models.precision import with_policy

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
NORMALIZATIONS = (
    layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization,
    layers.RMSNormalization,
)  # fmt: skip
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax)
# The same as operations of `keras.ops`, which Keras exports no classes of.
ACTIVATION_OPERATIONS = frozenset(
    "Relu Relu6 Sigmoid Softplus Softsign Silu LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu Tanh "
    "HardTanh Softmax LogSoftmax".split()
)
LINK_FUNCTIONS = frozenset(("softmax", "log_softmax", "sigmoid"))  # from logits to probabilities
LINK_OPERATIONS = frozenset(("Softmax", "LogSoftmax", "Sigmoid"))


@dataclasses.dataclass(frozen=True, eq=False)
class UnitLayer:
    """A layer of units: the filters of a convolution or the neurons of a dense layer.

    Attributes:
        name: unique in the network: the layer's own name; "part/name" where two nested parts share a name; with "#2"
            for the second call of a shared layer.
        kind: "convolution" or "dense".
        layer: the flat network's own Conv2D, DepthwiseConv2D, SeparableConv2D or Dense. Its activation is linear: an
            activation that was part of it is a layer of its own here.
        output: what the units say: the weighted sum after the normalisation and the activation that follow it directly;
            the logits for the layer that gives them. A KerasTensor of shape (None, h, w, units) or (None, units).
        raw: the weighted sum itself, of the same shape.
        units: how many.
    """

    name: str
    kind: str
    layer: keras.layers.Layer
    output: keras.KerasTensor
    raw: keras.KerasTensor
    units: int


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A classifier to look into; made by `lay_open`.

    Attributes:
        model: flat, `keras.Model([image], probabilities)`, float32, always as in use and not as in training.
        logits: KerasTensor (None, classes), what the final softmax or sigmoid is given; the model's output where it
            ends without one.
        unit_layers: the UnitLayers in the order in which the model calls them; none if it has none.
        image_shape: (height, width, channels).
        class_count: numbers that the model gives for an image; 1 for a single sigmoid.
    """

    model: keras.Model
    logits: keras.KerasTensor
    unit_layers: tuple[UnitLayer, ...]
    image_shape: tuple[int, int, int]
    class_count: int

    @property
    def convolutions(self):
        """The unit layers that are convolutions."""
        return tuple(unit_layer for unit_layer in self.unit_layers if unit_layer.kind == "convolution")

    @property
    def dense(self):
        """The unit layers that are dense."""
        return tuple(unit_layer for unit_layer in self.unit_layers if unit_layer.kind == "dense")

    def __getitem__(self, name):
        """The UnitLayer of this name.

        Raises:
            UserError: if there is none.
        """
        for unit_layer in self.unit_layers:
            if unit_layer.name == name:
                return unit_layer
        names = ", ".join(unit_layer.name for unit_layer in self.unit_layers)
        raise UserError(
            f"The network has no convolution or dense layer '{name}'; "
            + (f"give one of: {names}." if names else "it has none at all.")
        )

    def part(self, tensors):
        """The keras.Model from images to these KerasTensors of the network, a list of them."""
        return keras.Model(self.model.inputs, list(tensors))

    def function(self, tensors, batch_size):
        """A compiled function from images to the values of these tensors.

        Args:
            tensors: KerasTensors of the network.
            batch_size: the most images that a call may hold. Fewer are filled up to it, so that TensorFlow traces the
                network once.

        Returns:
            A function: images (n, h, w, channels), uint8 or float, n <= batch_size, to a list with a float32 array
            (n, ...) for each tensor.
        """
        part = self.part(tensors)

        @tf.function(input_signature=[tf.TensorSpec((batch_size, *self.image_shape), tf.float32)], autograph=False)
        def compiled(images):
            return keras.tree.flatten(part(images, training=False))

        compiled = compiled.get_concrete_function()  # TensorFlow warns of many functions that are traced at their call

        def values(images):
            if len(images) > batch_size:
                raise ValueError(f"{len(images)} images were given to a function for at most {batch_size}")
            padded = np.zeros((batch_size, *self.image_shape), np.float32)
            padded[: len(images)] = images
            return [value.numpy()[: len(images)] for value in compiled(tf.constant(padded))]

        return values

    def values(self, tensors, images, batch_size):
        """The values of these tensors for many images.

        Args:
            tensors: KerasTensors of the network.
            images: uint8 or float, shape (n, h, w, channels).
            batch_size: images a step.

        Returns:
            A list with a float32 array (n, ...) for each tensor.

        Raises:
            UserError: as `check_images`.
        """
        self.check_images(images)
        batch_size = max(1, min(batch_size, len(images)))
        run = self.function(tensors, batch_size)
        found = [np.empty((len(images), *tensor.shape[1:]), np.float32) for tensor in tensors]
        for start in range(0, len(images), batch_size):
            for rows, values in zip(found, run(images[start : start + batch_size])):
                rows[start : start + batch_size] = values
        return found

    def check_images(self, images):
        """Refuse images (n, h, w, channels) of another size.

        Raises:
            UserError: if they are.
        """
        if images.shape[1:] != self.image_shape:
            raise UserError(
                f"The images are {images.shape[1:]} and the network takes {self.image_shape}; load the images with the "
                "network's image_size."
            )


def lay_open(model):
    """Make any functional, nested or Sequential classifier one flat functional model in float32.

    Every layer is made anew with the same weights, so the model given stays as it is. Nested models are unrolled.
    What does nothing in use (dropout, augmentation, a change of precision) is left out, and an activation that is part
    of a convolution or dense layer becomes a layer of its own.

    Args:
        model: a built keras.Model from images (None, height, width, channels) to one output (None, classes).

    Returns:
        Network.

    Raises:
        UserError: if the model is not of this kind or holds a layer that cannot be made anew.
    """
    image_shape = _checked_image_shape(model)
    unrolling = _Unrolling(model)
    image = keras.Input(image_shape, dtype="float32", name=unrolling.free_name("image"))
    (output,) = keras.tree.flatten(unrolling.run(model, image))
    flat = keras.Model([image], output, name=model.name)
    logits = _logits(output)
    consumers = consumers_of(flat)
    unit_layers = tuple(
        UnitLayer(name, kind, layer, _activated(raw, consumers, logits), raw, raw.shape[-1])
        for name, kind, layer, raw in unrolling.unit_calls
    )
    return Network(flat, logits, unit_layers, image_shape, output.shape[-1])


def producer(tensor):
    """The node of the Keras graph that a KerasTensor comes from: its `operation`, `input_tensors` and `arguments`."""
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


class _Unrolling:
    """Calls a model's layers anew, those of nested models in the place of these.

    Attributes:
        unit_calls: (name, kind, layer, raw) of each call of a convolution or dense layer, in order; see UnitLayer.
    """

    def __init__(self, model):
        self.paths = _paths(model)
        self.taken = {path.replace("/", "_") for path in self.paths.values()}
        self.made = {}  # new layers by the id of the old: a shared layer stays one
        self.left_out = {}
        self.calls = collections.Counter()
        self.unit_calls = []

    def run(self, part, *args, **kwargs):
        """What a layer, operation or nested model gives for these arguments."""
        if isinstance(part, keras.Sequential):
            x = _first(args, kwargs)
            for layer in part.layers:
                x = self.run(layer, x)
            return x
        if isinstance(part, keras.Function):  # every functional model is one
            return part._run_through_graph(
                _first(args, kwargs), operation_fn=lambda operation: functools.partial(self.run, operation)
            )
        if not isinstance(part, layers.Layer):
            return self._run_operation(part, args, kwargs)
        return self._run_layer(part, args, kwargs)

    def free_name(self, name):
        """The name, with a number where it is taken; Keras wants each once and without slashes."""
        name = name.replace("/", "_")
        number = 1
        found = name
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found

    def _run_operation(self, operation, args, kwargs):
        # Everything is float32 here; an operation of `keras.ops` has no weights, so a copy is a new one.
        if type(operation).__name__ == "Cast" and "float" in operation.dtype:
            return _first(args, kwargs)
        if id(operation) not in self.made:
            new = copy.copy(operation)
            new.name, new._inbound_nodes, new._outbound_nodes = self._own_name(operation), [], []
            self.made[id(operation)] = new
        return self.made[id(operation)](*args, **kwargs)

    def _run_layer(self, layer, args, kwargs):
        takes_training = "training" in inspect.signature(layer.call).parameters
        # Random layers run as in training unless told otherwise.
        kwargs = {**kwargs, "training": False} if takes_training else kwargs
        new = self.made.get(id(layer))
        if new is None:
            try:
                new = _anew(layer, self._own_name(layer))
                y = new(*args, **kwargs)
                _copy_weights(layer, new)
            except Exception as error:  # whatever a layer of any making raises
                reason = textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[0], 150).rstrip(".")
                raise UserError(
                    f"The layer {self.paths.get(id(layer), layer.name)} of type {type(layer).__name__} cannot be made "
                    f"anew in float32 ({reason}); use a model of Keras' own layers in floating-point precision."
                ) from error
            self.made[id(layer)] = new
            self.left_out[id(layer)] = _does_nothing(new, args, kwargs, y)
        else:
            y = new(*args, **kwargs)
        if self.left_out[id(layer)]:
            return _first(args, kwargs)
        if kind := _kind(new, y):
            name = self.paths[id(layer)]
            self.calls[name] += 1
            number = f"#{self.calls[name]}" if self.calls[name] > 1 else ""
            self.unit_calls.append((name + number, kind, new, y))
        return self._activate(layer, y)

    def _activate(self, layer, y):
        if not _has_own_activation(layer) or layer.activation is keras.activations.linear:
            return y
        if isinstance(layer.activation, layers.Layer):
            return self._run_layer(layer.activation, (y,), {})
        if (id(layer), "activation") not in self.made:
            name = self.free_name(f"{self.made[id(layer)].name}_activation")
            self.made[id(layer), "activation"] = layers.Activation(layer.activation, dtype="float32", name=name)
        return self.made[id(layer), "activation"](y)

    def _own_name(self, operation):
        path = self.paths.get(id(operation))
        if path is None:  # an activation that is a layer inside a layer
            return self.free_name(operation.name)
        name = path.replace("/", "_")
        used = {new.name for new in self.made.values()}
        return name if name not in used else self.free_name(name)


def _paths(model):
    """The name of each operation by its id: its own where no other has it, else with the parts that it lies in."""
    places = {}

    def walk(part, path):
        for operation in part.layers if isinstance(part, keras.Sequential) else part.operations:
            if isinstance(operation, keras.Sequential | keras.Function):
                walk(operation, (*path, operation.name))
            elif not isinstance(operation, layers.InputLayer):
                places.setdefault(id(operation), (*path, operation.name))

    walk(model, ())
    count = collections.Counter(path[-1] for path in places.values())
    return {key: path[-1] if count[path[-1]] == 1 else "/".join(path) for key, path in places.items()}


def _checked_image_shape(model):
    if not isinstance(model, keras.Sequential | keras.Function):
        raise UserError(
            f"{getattr(model, 'name', model)!r} is a {type(model).__name__}, which does not show what is inside it; "
            "give a functional or Sequential keras.Model."
        )
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"{len(inputs)} inputs and {len(outputs)} outputs" if inputs else "not been built"
        raise UserError(f"The model {model.name} has {found}; give a built one with one input and one output.")
    given, made = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if len(given) != 4 or None in given[1:] or len(made) != 2 or made[1] is None:
        raise UserError(
            f"The model {model.name} goes from {given} to {made}; give one from images (None, height, width, channels) "
            "of a fixed size to (None, classes)."
        )
    return given[1:]


def _anew(layer, name):
    config = {**with_policy(layer.get_config(), "float32"), "name": name}
    if _has_own_activation(layer):
        config["activation"] = "linear"
    return type(layer).from_config(config)


def _copy_weights(layer, new):
    weights = layer.get_weights()
    if _has_own_activation(layer) and isinstance(layer.activation, layers.Layer):
        weights = weights[: len(new.weights)]  # those of the activation, which follow, are its own layer's now
    new.set_weights(weights)
    if hasattr(new, "finalize_state"):  # Normalization computes with what it makes of its weights
        new.finalize_state()


def _has_own_activation(layer):
    return isinstance(layer, (*CONVOLUTIONS, layers.Dense))


def _does_nothing(layer, args, kwargs, y):
    """Whether a layer without weights gives back what it is given: tried on numbers that no clipping lets pass."""
    x = _first(args, kwargs)
    alone = isinstance(x, keras.KerasTensor) and len(args) == 1 and isinstance(y, keras.KerasTensor)
    if layer.weights or not alone or x.shape != y.shape or None in x.shape[1:]:
        return False
    values = np.random.default_rng(0).normal(scale=300, size=(1, *x.shape[1:])).astype(np.float32)
    return np.array_equal(values, keras.ops.convert_to_numpy(layer(values, **kwargs)))


def _first(args, kwargs):
    return args[0] if args else next(iter(kwargs.values()))


def _kind(layer, y):
    if isinstance(layer, CONVOLUTIONS):
        return "convolution"
    # A Dense applied at every place of a map or to every token has no one value for an image.
    return "dense" if isinstance(layer, layers.Dense) and len(y.shape) == 2 else None


def _logits(output):
    """What the final softmax or sigmoid is given, or the output itself where there is none."""
    node = producer(output)
    operation = node.operation
    if isinstance(operation, layers.Activation):
        found = getattr(operation.activation, "__name__", "") in LINK_FUNCTIONS
    else:
        found = isinstance(operation, layers.Softmax) or type(operation).__name__ in LINK_OPERATIONS
    return node.input_tensors[0] if found else output


def consumers_of(model):
    """The nodes that read each tensor of the model, by the tensor's id."""
    found = collections.defaultdict(list)
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                found[id(tensor)].append(node)
    return found


def _activated(raw, consumers, logits):
    """The tensor after the normalisation and the activation that follow directly; never past the logits.

    A normalisation after the activation is not gone through: there 0 would no longer mean a unit that is silent.
    """
    x = raw
    while x is not logits and len(consumers[id(x)]) == 1:
        (node,) = consumers[id(x)]
        operation = node.operation
        activation = isinstance(operation, ACTIVATIONS) or type(operation).__name__ in ACTIVATION_OPERATIONS
        if not activation and not isinstance(operation, NORMALIZATIONS):
            break
        (x,) = node.outputs
        if activation:
            break
    return x
