"""BatchNorm folded into the layer before it, which saves a pass over its output wherever nothing is trained."""

import functools

import keras
import tensorflow as tf

FOLDED_INTO = (keras.layers.Conv2D, keras.layers.Dense)


def call_folded(model, images):
    """What a model gives in inference, each BatchNorm being part of the convolution or dense layer before it.

    In inference BatchNorm is a factor and an offset for each channel, so that (x * kernel) scale + offset is
    x * (kernel scale) + offset: one layer instead of two (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section
    3.2). The products of kernel and scale are made anew in each call, of the weights as they are then.

    Args:
        model: a keras.Model; where it is no graph of layers from one input to one output, or nothing can be folded, it
            is just called.
        images: a tensor, (b, h, w, c), as the model takes it.

    Returns:
        A tensor as `model(images, training=False)` gives it, up to rounding.
    """
    graph = _graph(model)
    if graph is None:
        return model(images, training=False)
    norms = _norms_by_layer(graph)
    folded = {id(norm) for norm in norms.values()}

    def called(operation):
        if id(operation) in norms:
            return functools.partial(_call_with_norm, operation, norms[id(operation)])
        if id(operation) in folded:
            return lambda inputs, **_: inputs
        if isinstance(operation, keras.Model):
            return functools.partial(_call_inner, operation)
        if isinstance(operation, keras.layers.Layer):
            return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})
        return operation

    # Keras has no public way to run a graph with other operations.
    return graph._run_through_graph(tf.cast(images, graph.inputs[0].dtype), operation_fn=called)[0]


def _graph(model):
    """The functional model of a model that is no more than its graph from one input to one output; None of others."""
    if not getattr(model, "inputs", None) or len(model.inputs) != 1 or len(model.outputs) != 1:
        return None
    graph = keras.Model(model.inputs, model.outputs)  # of a Sequential model, too
    return graph if type(model).call in (type(graph).call, keras.Sequential.call) else None


def _call_inner(model, *args, **kwargs):
    if len(args) == 1 and tf.is_tensor(args[0]) and not kwargs.keys() - {"training", "mask"}:
        return call_folded(model, args[0])
    return model(*args, **{**kwargs, "training": False})


def _norms_by_layer(graph):
    """The BatchNorm layers that can be folded, by the id of the layer before.

    It can be if it follows a `FOLDED_INTO` layer without an activation, in the same precision, both are called once,
    and nothing else sees what is between them. float16 is left out: products of kernel and scale may be too small for
    it.
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
            and before.compute_dtype == norm.compute_dtype != "float16" and before.quantization_mode is None
            and node.arguments.kwargs.get("mask") is None
            and calls.count(id(before)) == calls.count(id(norm)) == seen.count(id(node.input_tensors[0])) == 1
        ):  # fmt: skip
            found[id(before)] = norm
    return found


def _call_with_norm(layer, norm, inputs):
    if getattr(inputs, "_keras_mask", None) is not None:  # which only layers hand on
        return norm(layer(inputs), training=False)

    def weights(variable, use):  # exact, as Keras' BatchNorm computes, whatever precision they are kept in
        return tf.cast(variable, tf.float32) if use else 0.0

    scale = tf.math.rsqrt(weights(norm.moving_variance, True) + norm.epsilon)
    scale = scale * weights(norm.gamma, True) if norm.scale else scale
    mean = weights(norm.moving_mean, True) - weights(layer.bias, layer.use_bias)
    kernel, offset = weights(layer.kernel, True) * scale, weights(norm.beta, norm.center) - mean * scale
    kernel, offset, inputs = (tf.cast(x, layer.compute_dtype) for x in (kernel, offset, inputs))
    if isinstance(layer, keras.layers.Dense):
        outputs = keras.ops.matmul(inputs, kernel)
    else:
        outputs = layer.convolution_op(inputs, kernel)
    return tf.nn.bias_add(outputs, offset)  # not a sum, which TensorFlow would not fuse with the convolution
