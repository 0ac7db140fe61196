"""How long each layer takes by itself, and what the machine can do at best."""

import statistics
import time

import keras
import tensorflow as tf

from tfproject.cost.table import Machine

ROUNDS = 5  # how often a thing is timed; the median counts
SECONDS = (
    0.02  # a timing runs the thing again and again for so long, as a small layer is shorter than the clock's noise
)
SECONDS_FOR_LAYER = 1.0  # no further round when a layer has taken so long


def measure_machine(side=2048, copy_bytes=2**28):
    """The machine's float32 matrix-product peak and memory bandwidth through TensorFlow, best of several, now.

    Args:
        side: of the square matrices.
        copy_bytes: size of the tensor that is copied; far above the processor's caches.
    """
    a = tf.random.uniform((side, side))
    product = _in_graph(lambda: tf.reduce_sum(tf.matmul(a, a)[:1]))
    x = tf.random.uniform((copy_bytes // 4,))
    scaled = _in_graph(lambda: (x * 1.0000001)[:1])
    nothing = _in_graph(lambda: x[:1])
    return Machine(
        gflops=2 * side**3 / min(_times(product)) / 1e9,
        gigabytes_per_second=2 * copy_bytes / min(_times(scaled)) / 1e9,
        call_ms=1e3 * min(_times(nothing)),
    )


def measure_call(operation, arguments, backward, to_inputs=True, call_ms=0.0):
    """Time the call of a layer, or of a whole model, by itself on random input.

    Its own weights stay, but not what it changes itself in training, as BatchNorm's averages.

    Args:
        operation: a keras.layers.Layer, keras.Model or keras.Operation.
        arguments: (args, kwargs) that it is called with, a keras.KerasTensor for each tensor.
        backward: whether it has a backward pass.
        to_inputs: whether there is a gradient for its inputs in that, as for none of the first trained layer.
        call_ms: what the call of a function that does nothing takes, which is taken off.

    Returns:
        (milliseconds of the forward pass in use; milliseconds of forward and backward pass together in training). Both
        are None where it takes no tensor, the second one where TensorFlow has no gradient for it.
    """
    values = [_random(x) for x in keras.tree.flatten(arguments) if isinstance(x, keras.KerasTensor)]
    if not values:
        return None, None

    def run(training):
        left = iter(values)
        args, kwargs = keras.tree.map_structure(
            lambda x: next(left) if isinstance(x, keras.KerasTensor) else x, arguments
        )
        if isinstance(operation, keras.Layer):
            kwargs = {**kwargs, "training": training}
        return operation(*args, **kwargs)

    sources = [x for x in values if to_inputs and x.dtype.is_floating]
    sources += [variable.value for variable in getattr(operation, "trainable_weights", ())]

    def forward():
        return _first_numbers(run(False))

    def step():
        if not backward:
            return _first_numbers(run(True))
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = [y for y in keras.tree.flatten(run(True)) if y.dtype.is_floating]
        found = tape.gradient(outputs, sources, output_gradients=[tf.ones_like(y) for y in outputs])
        return _first_numbers([*outputs, *(g for g in found if g is not None)])

    def measured(function):
        return max(0.0, 1e3 * statistics.median(_times(_in_graph(function))) - call_ms)

    forward_ms = measured(forward)
    try:
        return forward_ms, measured(step)
    except LookupError:  # TensorFlow has no gradient for it
        return forward_ms, None


def milliseconds(function, *arguments):
    """Median milliseconds of a call of a tf.function."""
    function(*arguments)
    return 1e3 * statistics.median(_times(lambda: function(*arguments)))


def _in_graph(function):
    compiled = tf.function(function, autograph=False, jit_compile=False)
    compiled()
    return compiled


def _times(function):
    """Seconds of a call, several times."""
    start = time.perf_counter()
    function()
    repeats = max(1, round(SECONDS / max(1e-6, time.perf_counter() - start)))
    found, begun = [], time.perf_counter()
    while len(found) < ROUNDS and (not found or time.perf_counter() - begun < SECONDS_FOR_LAYER):
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        found.append((time.perf_counter() - start) / repeats)
    return found


def _first_numbers(structure):
    """Of each tensor the first number: enough for TensorFlow not to leave out its computing as unused."""
    return [tf.reshape(x, (-1,))[:1] for x in keras.tree.flatten(structure)]


def _random(spec):
    if tf.as_dtype(spec.dtype).is_floating:
        return tf.cast(tf.random.normal(spec.shape), spec.dtype)
    return tf.zeros(spec.shape, spec.dtype)  # an index that any table has
