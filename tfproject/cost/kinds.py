"""The kinds of layers that the study knows: for each, its arithmetic and what its backward pass needs.

One FLOP is an addition, a multiplication, a division, a comparison or an elementary function (exp, tanh, erf, ...); a
multiply-add in a convolution or matrix product is two. Forward is a model in use, as TensorFlow's own profiler sees it;
what a layer does in training only (batch statistics, the drawing of a dropout mask) is apart.

What the backward pass keeps is what TensorFlow's gradients read:

- a convolution or dense layer keeps its input, for the gradient of its kernel; frozen, it keeps nothing;
- ReLU, sigmoid, tanh and softmax keep their output; LeakyReLU, SiLU and softplus their input; GELU three tensors in
  between. As an activation inside a convolution or dense layer, the same;
- BatchNorm keeps its input and a few numbers per channel; frozen, only these. LayerNorm also keeps a tensor of its
  input's size (the scale of each element); GroupNorm keeps its input;
- max pooling keeps its input and its output, average pooling nothing;
- a product or maximum of tensors keeps them; a sum, a concatenation, padding, cropping, upsampling, and arithmetic with
  constants keep nothing; Flatten and Reshape do not even make a new tensor;
- dropout keeps its mask, a byte for an element.

A tensor that several layers keep is one tensor: `study` counts it once, with the layer that made it.
"""

import dataclasses
import math

import keras
from keras.src.models.functional import Functional

from tfproject.cost import activations

# Where TensorFlow's profiler (the "flops" of tensorflow/python/profiler/internal/flops_registry.py) counts otherwise.
RULES = {
    "activation functions": "The profiler has no count for Relu, Relu6, LeakyRelu, Elu, Sigmoid, Tanh, Erfc and the "
    "like: it takes them as free; here each has the FLOPs of cost.activations.",
    "maximum over an axis": "The profiler has no count for Max: here one comparison for each number of the input.",
    "elementary functions": "The profiler has no count for Sqrt and the like: here one FLOP a number.",
    "index arithmetic": "The profiler counts what is computed on sizes and indices (an upsampled image's size, an "
    "index's sign) like arithmetic on numbers: here it is none.",
    "grouped convolution": "Keras has XLA compile a convolution in groups on CPUs, and the profiler does not look into "
    "the compiled part: here it counts as any convolution, with its group's input channels.",
    "transposed convolution": "The profiler takes the output's size for the number of kernel applications, which is "
    "exact only where output = stride x input, and does not know the three-dimensional one: here it is the input's.",
    "three-dimensional pooling": "The profiler has no count for MaxPool3D and AvgPool3D: here the window's size for "
    "each number of the output, as it counts the two-dimensional ones.",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Backward:
    """A part of a layer's backward pass.

    Attributes:
        flops: its FLOPs.
        multiply_adds: those in convolutions and matrix products.
        reads: the tensors of the forward pass that it needs: "input", "output".
        inner: bytes of further tensors that the layer keeps for it, by name.
    """

    flops: int = 0
    multiply_adds: int = 0
    reads: tuple[str, ...] = ()
    inner: dict[str, int] = dataclasses.field(default_factory=dict)


NOTHING = Backward()


@dataclasses.dataclass(frozen=True)
class Work:
    """What a call of a layer computes and what its backward pass needs.

    Attributes:
        counted: FLOPs of the forward pass that TensorFlow's profiler counts too.
        others: further FLOPs of the forward pass, by the name in `RULES` of why it does not.
        multiply_adds: those of the forward pass in convolutions and matrix products.
        padding: those of them that meet a convolution's own padding.
        training: FLOPs that the forward pass has more in training.
        activation: the part of the backward pass that there is whenever there is one.
        to_inputs: its part that is there when something before the layer is trained.
        to_weights: its part that is there when the layer's weights are trained.
        scratch: (forward in training, backward) bytes needed for the moment beside inputs, outputs and their gradients.
        shares_gradient: True where the gradient of the inputs is that of the output itself.
    """

    counted: int = 0
    others: dict[str, int] = dataclasses.field(default_factory=dict)
    multiply_adds: int = 0
    padding: int = 0
    training: int = 0
    activation: Backward = NOTHING
    to_inputs: Backward = NOTHING
    to_weights: Backward = NOTHING
    scratch: tuple[int, int] = (0, 0)
    shares_gradient: bool = False

    @property
    def forward(self):
        """FLOPs of the forward pass."""
        return self.counted + sum(self.others.values())


def kind_of(operation):
    """The name of the operation's kind, or None where the study does not know it.

    Only Keras' own classes are known: one derived from them may compute anything.
    """
    cls = type(operation)
    if not cls.__module__.startswith("keras."):
        return None
    name = f"ops.{cls.__name__}" if cls.__module__.startswith("keras.src.ops.") else cls.__name__
    return name if name in _RULE_OF_KIND else None


def is_container(operation):
    """Whether the operation does nothing but call its layers: a functional or sequential model."""
    return getattr(type(operation), "call", None) in (Functional.call, keras.Sequential.call)


def work(call):
    """What a tracing.Call computes and keeps, or None where that is not known."""
    return None if call.kind is None else _RULE_OF_KIND[call.kind](call)


_RULE_OF_KIND = {}


def _rule(*kinds):
    def register(function):
        _RULE_OF_KIND.update(dict.fromkeys(kinds, function))
        return function

    return register


def _then(base, function, call):
    """The work of a layer whose last step is an activation function; None if that is not known."""
    if function is None:
        return None
    n, bytes_ = call.output.size, call.output.bytes
    inner = {f"between {i + 1}": bytes_ for i in range(function.inner)}
    reads = ("output",) if function.keeps == "output" else ()
    if function.keeps == "input":
        inner["before the activation"] = bytes_
    others = {**base.others, "activation functions": function.others * n} if function.others else base.others
    return dataclasses.replace(
        base,
        counted=base.counted + function.counted * n,
        others=others,
        activation=Backward(function.backward * n, 0, reads, inner),
        scratch=(base.scratch[0], base.scratch[1] + (0 if function.in_place else bytes_)),
    )


def _applied(function, call):
    """The work of an activation layer."""
    if function is None:
        return None
    n, bytes_ = call.output.size, call.output.bytes
    if function is activations.LINEAR:
        return Work()
    return Work(
        counted=function.counted * n,
        others={"activation functions": function.others * n} if function.others else {},
        to_inputs=Backward(
            function.backward * n, 0, (function.keeps,) if function.keeps else (),
            {f"between {i + 1}": bytes_ for i in range(function.inner)},
        ),
        scratch=(0, -bytes_ if function.in_place else 0),
    )  # fmt: skip


def _linear(call, products, uncounted=None, padding=0, inner=None, scratch=0):
    """The work of a layer of products with its weights, a bias and an activation function.

    Args:
        call: a tracing.Call.
        products: multiply-adds of the forward pass.
        uncounted: their FLOPs that the profiler does not count, by rule.
        padding: those of them that meet padding.
        inner, scratch: bytes that the gradient of the weights keeps inside, and that the backward pass needs.
    """
    uncounted, bias = uncounted or {}, call.output.size if call.operation.use_bias else 0
    base = Work(
        counted=bias + 2 * products - sum(uncounted.values()),
        others=uncounted,
        multiply_adds=products,
        padding=padding,
        to_inputs=Backward(2 * products, products),
        to_weights=Backward(2 * products + bias, products, ("input",), inner or {}),
        scratch=(0, scratch),
    )
    return _then(base, activations.find(call.operation.activation), call)


@_rule("Conv1D", "Conv2D", "Conv3D")
def _convolution(call):
    layer = call.operation
    products = call.output.size * math.prod(layer.kernel.shape[:-1])
    uncounted = {"grouped convolution": 2 * products} if layer.groups > 1 else {}
    return _linear(call, products, uncounted, padding=products - _within_image(call, products))


def _within_image(call, products):
    """Those of a convolution's multiply-adds that meet its image, not its padding."""
    layer = call.operation
    if layer.padding != "same":
        return products
    first = 1 if layer.data_format == "channels_last" else 2
    sizes = zip(call.inputs[0].shape[first:], layer.kernel_size, layer.strides, layer.dilation_rate, strict=False)
    for side, kernel, stride, dilation in sizes:
        places, reach = -(-side // stride), dilation * (kernel - 1)
        before = max(0, (places - 1) * stride + reach + 1 - side) // 2
        met = [i * stride - before + j * dilation for i in range(places) for j in range(kernel)]
        products = products * sum(0 <= x < side for x in met) // len(met)
    return products


@_rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed_convolution(call):
    layer = call.operation
    filters, channels = layer.kernel.shape[-2:]
    area = math.prod(layer.kernel.shape[:-2])
    products = call.inputs[0].size // channels * area * channels * filters
    known = int(2 * call.output.size * area * channels / math.prod(layer.strides))
    known = 0 if call.kind == "Conv3DTranspose" else known
    return _linear(call, products, {"transposed convolution": 2 * products - known})


@_rule("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise_convolution(call):
    return _linear(call, call.output.size * math.prod(call.operation.kernel.shape[:-2]))


@_rule("SeparableConv1D", "SeparableConv2D")
def _separable_convolution(call):
    layer, n = call.operation, call.output.size
    middle = n // layer.filters * math.prod(layer.depthwise_kernel.shape[-2:])
    products = middle * math.prod(layer.depthwise_kernel.shape[:-2]) + n * layer.pointwise_kernel.shape[-2]
    between = middle * call.output.itemsize
    return _linear(call, products, inner={"after the depthwise part": between}, scratch=between)


@_rule("Dense")
def _dense(call):
    return _linear(call, call.output.size * call.inputs[0].shape[-1])


@_rule("Embedding")
def _embedding(call):
    indices = 2 * call.inputs[0].size
    return Work(
        counted=indices, others={"index arithmetic": -indices}, to_weights=Backward(call.output.size, 0, ("input",))
    )


@_rule("BatchNormalization")
def _batch_normalization(call):
    layer, n = call.operation, call.output.size
    channels = call.inputs[0].shape[layer.axis]
    if layer.renorm:
        return None
    statistics = {"statistics": 4 * channels * 4}
    work = Work(counted=2 * n + (5 + bool(layer.scale)) * channels)
    if not layer.trainable:  # runs with the averages of before, so its gradient is a product per channel
        return dataclasses.replace(work, to_inputs=Backward(n, inner=statistics))
    # Mean, squared difference (2), mean of it; backward as TensorFlow's gradient of these: two sums, three products,
    # two quotients, a difference, a product, and a sum of three.
    return dataclasses.replace(
        work,
        training=4 * n,
        activation=Backward(11 * n, 0, ("input",), statistics),
        scratch=(call.output.bytes, 2 * call.output.bytes),
    )


@_rule("LayerNormalization")
def _layer_normalization(call):
    layer, n = call.operation, call.output.size
    axes = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    if layer.rms_scaling or not (layer.center and layer.scale):
        return None
    rows = n // math.prod(call.output.shape[axis] for axis in axes)
    return Work(
        counted=9 * n + 4 * rows,
        activation=Backward(
            17 * n, 0, ("input",), {"scale of each number": call.output.bytes, "statistics": 3 * rows * 4}
        ),
        scratch=(call.output.bytes, 3 * call.output.bytes),
    )


@_rule("GroupNormalization")
def _group_normalization(call):
    layer, n = call.operation, call.output.size
    if not (layer.center and layer.scale):
        return None
    channels, groups = call.output.shape[layer.axis], call.output.shape[0] * layer.groups
    scales = call.output.shape[0] * channels
    return Work(
        counted=6 * n + 4 * groups + 3 * scales,
        activation=Backward(14 * n, 0, ("input",), {"statistics": 3 * groups * 4, "scale of each channel": scales * 4}),
        scratch=(call.output.bytes, 3 * call.output.bytes),
    )


@_rule("Activation")
def _activation(call):
    return _applied(activations.find(call.operation.activation), call)


@_rule("ReLU")
def _relu(call):
    layer = call.operation
    return _applied(activations.relu(layer.negative_slope, layer.max_value, layer.threshold), call)


@_rule("LeakyReLU", "Softmax")
def _activation_layer(call):
    return _applied(activations.FUNCTIONS[{"LeakyReLU": "leaky_relu", "Softmax": "softmax"}[call.kind]], call)


@_rule("ELU")
def _elu(call):
    return _applied(activations.FUNCTIONS["elu"] if call.operation.alpha == 1 else None, call)


@_rule("PReLU")
def _prelu(call):
    n = call.output.size
    slopes = math.prod(call.operation.alpha.shape)
    inner = {"negative part": call.output.bytes, "positive part": call.output.bytes}
    return Work(
        counted=3 * n + slopes,
        others={"activation functions": 2 * n},
        to_inputs=Backward(4 * n, inner=inner),
        to_weights=Backward(2 * n, inner=inner),
        scratch=(0, call.output.bytes),
    )


@_rule(*(f"{kind}Pooling{d}D" for kind in ("Max", "Average") for d in (1, 2, 3)))
def _pooling(call):
    window = math.prod(call.operation.pool_size) * call.output.size
    largest = call.kind.startswith("Max")
    return Work(
        counted=0 if call.kind.endswith("3D") else window,
        others={"three-dimensional pooling": window} if call.kind.endswith("3D") else {},
        to_inputs=Backward(
            window + call.output.size if largest else 2 * window, 0, ("input", "output") if largest else ()
        ),
    )


@_rule(*(f"Global{kind}Pooling{d}D" for kind in ("Max", "Average") for d in (1, 2, 3)))
def _global_pooling(call):
    n = call.inputs[0].size
    if "Average" in call.kind:
        return Work(counted=n, to_inputs=Backward(n))
    return Work(others={"maximum over an axis": n}, to_inputs=Backward(3 * n, 0, ("input", "output")))


@_rule("Add", "ops.Add", "Subtract", "ops.Subtract")
def _sum(call):
    n = call.output.size
    return Work(counted=max(1, len(call.inputs) - 1) * n, shares_gradient=all(x.size == n for x in call.inputs))


@_rule("Average")
def _average(call):
    n = call.output.size
    return Work(counted=len(call.inputs) * n, to_inputs=Backward(n))


@_rule("Multiply", "ops.Multiply", "ops.Divide", "ops.TrueDivide")
def _product(call):
    n = call.output.size
    several = len(call.inputs) > 1
    if several and "Divide" in call.kind:
        return None
    inner = {f"product of the first {i}": call.output.bytes for i in range(2, len(call.inputs))}
    return Work(
        counted=max(1, len(call.inputs) - 1) * n,
        to_inputs=Backward(max(1, len(call.inputs)) * n, 0, ("input",) if several else (), inner),
        scratch=(0, call.output.bytes if several else 0),
    )


@_rule("Maximum", "Minimum")
def _extreme(call):
    n = call.output.size
    return Work(counted=(len(call.inputs) - 1) * n, to_inputs=Backward(2 * len(call.inputs) * n, 0, ("input",)))


@_rule("Rescaling")
def _rescaling(call):
    return Work(counted=2 * call.output.size, to_inputs=Backward(call.output.size))


@_rule("Normalization")
def _normalization(call):
    layer, n = call.operation, call.output.size
    if layer.invert:
        return None
    numbers = math.prod(layer.mean.shape)
    return Work(
        counted=2 * n + numbers,
        others={"elementary functions": numbers},
        to_inputs=Backward(n, inner={"scale": 4 * numbers}),
    )


@_rule("Dropout")
def _dropout(call):
    n = call.output.size
    if not call.operation.rate:
        return Work()
    # Scaled by 1/keep; a random number, a comparison and a choice for each.
    return Work(training=4 * n, to_inputs=Backward(2 * n, inner={"mask": n}), scratch=(call.output.bytes, 0))


@_rule("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
def _spatial_dropout(call):
    n, maps = call.output.size, call.output.shape[0] * call.output.shape[-1]
    if not call.operation.rate:
        return Work()
    return Work(training=2 * n + 2 * maps, to_inputs=Backward(2 * n, inner={"mask": maps}))


@_rule("GaussianNoise")
def _gaussian_noise(call):
    return Work(training=3 * call.output.size if call.operation.stddev else 0, shares_gradient=True)


@_rule("StochasticDepth")
def _stochastic_depth(call):
    return Work(
        training=2 * call.output.size,
        to_inputs=Backward(2 * call.output.size, inner={"mask": 4 * call.output.shape[0]}),
    )


@_rule("LayerScale")
def _layer_scale(call):
    n = call.output.size
    return Work(
        counted=n, to_inputs=Backward(n), to_weights=Backward(2 * n, 0, ("input",)), scratch=(0, call.output.bytes)
    )


@_rule("CustomScaleLayer")
def _scaled_sum(call):
    return Work(counted=2 * call.output.size, to_inputs=Backward(call.output.size))


@_rule(
    *(f"{kind}{d}D" for kind in ("ZeroPadding", "Cropping") for d in (1, 2, 3)),
    "UpSampling1D", "UpSampling3D", "Concatenate", "ops.Concatenate", "Permute", "RepeatVector", "ops.GetItem",
    "ops.Transpose", "Flatten", "Reshape", "ops.Reshape", "Identity", "InputLayer",
)  # fmt: skip
def _movement(call):
    return Work()


@_rule("UpSampling2D")
def _upsampling(call):
    if call.operation.interpolation != "nearest":
        return None
    return Work(counted=2, others={"index arithmetic": -2}, to_inputs=Backward(call.output.size))
