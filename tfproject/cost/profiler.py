"""What TensorFlow's own profiler counts, for comparison."""

import contextlib
import logging

import tensorflow as tf

from tfproject.cost.tracing import trace


def profiled_flops(model, batch_size=1, input_shape=None):
    """Forward FLOPs of each layer call as `tf.compat.v1.profiler` counts them in the model's graph.

    Args:
        model: a keras.Model.
        batch_size: images in the batch.
        input_shape: see `tracing.trace`.

    Returns:
        (a dict from a call's name, as in `study`, to FLOPs; FLOPs of all operations, those outside of layers too).
    """
    traced = trace(model, batch_size, input_shape, training=False)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    with _quiet():
        profile = tf.compat.v1.profiler.profile(traced.graph, options=options, cmd="scope")
    place = {operation.name: i for i, operation in enumerate(traced.graph.get_operations())}
    flops = {}
    nodes = [profile]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        if node.float_ops and node.name in place:
            flops[place[node.name]] = node.float_ops
    by_call = {call.name: sum(flops.get(i, 0) for i in range(call.first, call.last)) for call in traced.calls}
    return by_call, profile.total_float_ops


@contextlib.contextmanager
def _quiet():
    """Without TensorFlow's warning that its profiler is of version 1; there is no other that counts."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
