"""What each activation function computes and what its gradient needs, per element."""

import dataclasses
import inspect


@dataclasses.dataclass(frozen=True)
class Function:
    """An activation function, as Keras has TensorFlow compute it.

    An elementary function (exp, log, tanh, erf) is one FLOP, and so is a comparison.

    Attributes:
        counted: FLOPs of an element that TensorFlow's profiler counts too.
        others: FLOPs of an element in operations that it has no count for.
        backward: FLOPs of an element of its gradient.
        keeps: what the gradient reads: "input", "output" or nothing.
        inner: tensors of the same size in between that the gradient reads.
        in_place: whether the result can take its argument's memory, forward and backward.
    """

    counted: int
    others: int
    backward: int
    keeps: str = ""
    inner: int = 0
    in_place: bool = False


LINEAR = Function(0, 0, 0, in_place=True)
FUNCTIONS = {
    "linear": LINEAR,
    "relu": Function(0, 1, 1, "output", in_place=True),
    "relu6": Function(0, 2, 2, "output", in_place=True),
    "leaky_relu": Function(0, 2, 2, "input"),
    "elu": Function(0, 3, 2, "output"),
    "selu": Function(0, 4, 2, "output"),
    "sigmoid": Function(0, 4, 3, "output"),
    "tanh": Function(0, 1, 3, "output"),
    "exponential": Function(0, 1, 1, "output"),
    "softplus": Function(0, 3, 4, "input"),
    "softsign": Function(0, 3, 4, "input"),
    "softmax": Function(5, 0, 4, "output"),
    "log_softmax": Function(0, 5, 4, "output"),
    "silu": Function(2, 4, 11, "input"),
    "gelu": Function(4, 1, 9, inner=3),
    "hard_sigmoid": Function(2, 2, 3, inner=1),
    "hard_silu": Function(3, 2, 5, "input", inner=2),
}
FUNCTIONS["swish"], FUNCTIONS["hard_swish"] = FUNCTIONS["silu"], FUNCTIONS["hard_silu"]


def find(function):
    """The Function of a Keras activation (None is the linear one), or None for a function that is not known."""
    if function is None:
        return LINEAR
    if not inspect.isfunction(function) or not function.__module__.startswith("keras."):
        return None
    return FUNCTIONS.get(function.__name__)


def relu(negative_slope=0.0, max_value=None, threshold=0.0):
    """The Function of Keras' ReLU with its options, or None for a combination that is not known."""
    if threshold:
        return None
    if negative_slope:
        return FUNCTIONS["leaky_relu"] if max_value is None else None
    return {None: FUNCTIONS["relu"], 6: FUNCTIONS["relu6"]}.get(max_value)
