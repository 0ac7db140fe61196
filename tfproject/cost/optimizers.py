"""How much memory each optimiser takes beside the parameters."""

import dataclasses

from tfproject.errors import UserError


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimiser's memory, in tensors of a parameter's size.

    Attributes:
        name: as it is asked for.
        states: function from a variable to the number of tensors that stay from step to step.
        temporaries: number of tensors that it needs while it steps a variable, as measured with TensorFlow.
    """

    name: str
    states: object
    temporaries: int


_STATES = {
    "sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 1, "adagrad": 1, "lion": 1,
    "adam": 2, "adamw": 2, "adamax": 2, "nadam": 2, "adadelta": 2, "ftrl": 2, "lamb": 2,
}  # fmt: skip
NAMES = tuple(_STATES)


def find(optimizer):
    """The memory of an optimiser.

    Args:
        optimizer: one of `NAMES` ("sgd" has no momentum, "momentum" is SGD with it), or a keras.optimizers.Optimizer,
            Muon too, of whose options note is taken.

    Returns:
        Optimizer.

    Raises:
        UserError: for another one.
    """
    if isinstance(optimizer, str):
        name = optimizer.lower()
        if name in _STATES:
            return _plain(name, _STATES[name])
        raise UserError(f"The cost study does not know the optimiser '{optimizer}'; choose from {', '.join(NAMES)}.")
    import keras

    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss, for half precision
    if isinstance(optimizer, keras.optimizers.Muon):
        return Optimizer(
            optimizer.name, lambda variable: 1 + bool(optimizer._should_use_adamw(variable)), 5
        )  # fmt: skip
    name = type(optimizer).__name__.lower()
    if isinstance(optimizer, keras.optimizers.Optimizer) and name in _STATES:
        more = bool(getattr(optimizer, "amsgrad", False)) + bool(getattr(optimizer, "centered", False))
        if name in ("sgd", "rmsprop"):
            more += bool(optimizer.momentum)
        return _plain(name, _STATES[name] + more)
    raise UserError(
        f"The cost study does not know the optimiser {type(optimizer).__name__}; choose from {', '.join(NAMES)}."
    )


def _plain(name, states):
    return Optimizer(name, lambda variable: states, states)


def make(name):
    """The keras.optimizers.Optimizer of a name of `NAMES`."""
    import keras

    if name in ("momentum", "nesterov"):
        return keras.optimizers.SGD(momentum=0.9, nesterov=name == "nesterov")
    classes = {c.lower(): getattr(keras.optimizers, c) for c in dir(keras.optimizers) if c[0].isupper()}
    return classes[name]()
