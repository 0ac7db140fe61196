"""BatchNorm folded into the layer before it, which saves a pass over its output wherever nothing is trained."""

import functools
import inspect

import keras
import tensorflow as tf

FOLDED_INTO = (keras.layers.Conv2D, keras.layers.Dense)


def call_folded(model, images):
    """What a model gives in inference, each BatchNorm being part of the convolution or dense layer before it.

    In inference BatchNorm is a factor and an offset for each channel, so that (x * kernel) scale + offset is
    x * (kernel scale) + offset: one layer instead of two (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section
    3.2). The products of kernel and scale are made anew in each call, of the weights as they are then.

    Args:
        model: a keras.Model of one input; where its layers are no graph, or nothing can be folded, it is just called.
        images: a tensor, (b, h, w, c), as the model takes it.

    Returns:
        A tensor as `model(images, training=False)` gives it, up to rounding.
    """
    if not getattr(model, "inputs", None) or len(model.inputs) != 1 or len(model.outputs) != 1:
        return model(images, training=False)
    graph = keras.Model(model.inputs, model.outputs)  # of a Sequential model, too
    norms = _norms_by_layer(graph)
    folded = {id(norm) for norm in norms.values()}

    def called(operation):
        if id(operation) in norms:
            return functools.partial(_call_with_norm, operation, norms[id(operation)])
        if id(operation) in folded:
            return lambda x, **_: x
        if isinstance(operation, keras.Model):
            return lambda x, **_: call_folded(operation, x)
        if "training" in inspect.signature(operation.call).parameters:
            return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})
        return operation

    # Keras has no public way to run a graph with other operations.
    return graph._run_through_graph(tf.cast(images, graph.inputs[0].dtype), operation_fn=called)[0]


def _norms_by_layer(graph):
    """The BatchNorm layers that can be folded, by the id of the layer before.

    It can be if it follows a `FOLDED_INTO` layer without an activation, in the same precision, both are called once,
    and nothing else sees what is between them.
    """
    nodes = [node for depth in graph._nodes_by_depth.values() for node in depth]
    calls = [id(node.operation) for node in nodes]
    seen = [id(tensor) for node in nodes for tensor in node.input_tensors]
    found = {}
    for node in nodes:
        norm = node.operation
        if type(norm) is not keras.layers.BatchNormalization:
            continue
        before = node.input_tensors[0]._keras_history.operation
        last = norm.axis in (-1, len(node.input_tensors[0].shape) - 1)
        if (
            type(before) in FOLDED_INTO and before.activation is keras.activations.linear
            and last and getattr(before, "data_format", "channels_last") == "channels_last"
            and before.compute_dtype == norm.compute_dtype and node.arguments.kwargs.get("mask") is None
            and calls.count(id(before)) == calls.count(id(norm)) == seen.count(id(node.input_tensors[0])) == 1
        ):  # fmt: skip
            found[id(before)] = norm
    return found


def _call_with_norm(layer, norm, x):
    # Outside of a layer's own call Keras gives its weights in float32, whatever the layer computes in.
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon) * (norm.gamma if norm.scale else 1)
    offset = (norm.beta if norm.center else 0) - (norm.moving_mean - (layer.bias if layer.use_bias else 0)) * scale
    kernel, offset = (tf.cast(weights, layer.compute_dtype) for weights in (layer.kernel * scale, offset))
    x = tf.cast(x, layer.compute_dtype)
    x = keras.ops.matmul(x, kernel) if isinstance(layer, keras.layers.Dense) else layer.convolution_op(x, kernel)
    return tf.nn.bias_add(x, offset)  # not a sum, which TensorFlow would not fuse with the convolution
