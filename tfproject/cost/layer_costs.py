"""From a model to its cost table."""

import dataclasses
import math

import keras

from tfproject.cost import memory, optimizers
from tfproject.cost.retention import retention
from tfproject.cost.table import CostTable, Row
from tfproject.cost.tracing import as_model_input, input_specs, trace


def study(model, batch_size=1, input_shape=None, optimizer="adam", measure=False):
    """What each layer of a Keras model costs: parameters, memory, arithmetic, and on request time.

    Works on any Keras model, as the model is traced: functional, sequential or of one's own writing, nested, with
    shared layers (arithmetic for each call, parameters once) and several inputs. A layer of a type that `kinds` does
    not know has a row that says so, without FLOPs.

    Args:
        model: a keras.Model.
        batch_size: images in the batch.
        input_shape: shape of the input without the batch, such as (224, 224, 3); a list of shapes for several inputs.
            Needed where the model leaves a size open.
        optimizer: a name of `optimizers.NAMES` or a Keras optimiser.
        measure: also time every layer by itself, the whole model, and the machine. On the machine's devices, as it is
            loaded now, and with the operations that the layers run as they are: what a caller has put in place of
            Keras' own is timed, while arithmetic and memory are counted as those of Keras' own.

    Returns:
        CostTable.

    Raises:
        UserError: if the model does not take the shape, the batch is not positive, or the optimiser is not known.
    """
    from tfproject.errors import UserError

    if batch_size < 1:
        raise UserError(f"A batch of {batch_size} images cannot be studied; give at least 1.")
    chosen = optimizers.find(optimizer)
    traced = trace(model, batch_size, input_shape)
    kept = retention(traced)
    seen = set()
    rows = [_input_row(name, tensor, kept) for name, tensor in traced.inputs]
    rows += [_row(number, call, kept, chosen, seen) for number, call in enumerate(traced.calls)]
    left = [variable for variable in model.weights if id(variable) not in seen]
    if left:
        rows.append(_row_of_unused(left, chosen, seen))
    machine = step_ms = None
    if measure:
        machine, times, step_ms = _measure(model, traced, kept, input_specs(model, batch_size, input_shape))
        for number, (forward, step) in enumerate(times, start=len(traced.inputs)):
            rows[number] = dataclasses.replace(rows[number], forward_ms=forward, step_ms=step)
    return CostTable(
        model=model.name, batch_size=batch_size, input_shapes=tuple(tensor.shape for _, tensor in traced.inputs),
        optimizer=chosen.name, rows=tuple(rows), training_memory=memory.predict(traced, kept, model, chosen),
        machine=machine, step_ms=step_ms,
    )  # fmt: skip


def _measure(model, traced, kept, specs):
    """(the Machine; milliseconds of each call, forward and step; milliseconds of the whole model's step)."""
    from tfproject.cost import timing

    machine = timing.measure_machine()
    before = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    times = []
    for call in traced.calls:
        backward, to_inputs = (any(x.origin in kept.trained for x in side) for side in (call.outputs, call.inputs))
        times.append(timing.measure_call(call.operation, call.arguments, backward, to_inputs, machine.call_ms))
    arguments = (as_model_input(model, [keras.KerasTensor(x.shape, x.dtype.name) for x in specs]),), {}
    _, step_ms = timing.measure_call(model, arguments, bool(model.trainable_weights), False, machine.call_ms)
    for variable, value in before:  # BatchNorm's averages, which timing its training has moved
        variable.assign(value)
    return machine, times, step_ms


def _row(number, call, kept, optimizer, seen):
    work, parts = kept.works[number], kept.backwards[number]
    made = {y.storage: y.bytes for y in call.outputs if kept.makers[y.storage] == number}
    moved = {x.storage: x.bytes for x in call.inputs} | {y.storage: y.bytes for y in call.outputs}
    weights = getattr(call.operation, "weights", ())
    known = work is not None
    return Row(
        name=call.name,
        type=call.kind or type(call.operation).__name__,
        known=known,
        output_shape=call.output.shape if call.outputs else (),
        **_parameters(call.operation, weights, optimizer, seen),
        activation_bytes=sum(made.values()),
        kept_bytes=sum(size for storage, size in made.items() if storage in kept.keepers)
        + sum(kept.inner[number].values()),
        needed_bytes=kept.needs[number],
        multiply_adds=work.multiply_adds if known else None,
        padding_multiply_adds=work.padding if known else None,
        forward_flops=work.forward if known else None,
        training_flops=work.training if known else None,
        backward_multiply_adds=sum(part.multiply_adds for part in parts) if known else None,
        backward_flops=sum(part.flops for part in parts) if known else None,
        beyond_profiler=dict(work.others) if known else {},
        bytes_moved=sum(moved.values()) + sum(map(memory.variable_bytes, weights)) if made else 0,
    )


def _parameters(layer, weights, optimizer, seen):
    new = [variable for variable in weights if id(variable) not in seen]
    seen.update(id(variable) for variable in new)
    trainable = {id(variable) for variable in getattr(layer, "trainable_weights", ())}
    trained = [variable for variable in new if id(variable) in trainable]
    return {
        "parameters": sum(math.prod(v.shape) for v in new),
        "trainable_parameters": sum(math.prod(v.shape) for v in trained),
        "parameter_bytes": sum(map(memory.variable_bytes, new)),
        "gradient_bytes": sum(map(memory.variable_bytes, trained)),
        "optimizer_bytes": sum(memory.variable_bytes(v) * optimizer.states(v) for v in trained),
    }


_NO_WORK = dict.fromkeys(
    (
        "multiply_adds",
        "padding_multiply_adds",
        "forward_flops",
        "training_flops",
        "backward_multiply_adds",
        "backward_flops",
        "bytes_moved",
        "needed_bytes",
    ),
    0,
)
_NO_PARAMETERS = dict.fromkeys(
    ("parameters", "trainable_parameters", "parameter_bytes", "gradient_bytes", "optimizer_bytes"), 0
)


def _input_row(name, tensor, kept):
    return Row(
        name=name, type="InputLayer", known=True, output_shape=tensor.shape, activation_bytes=tensor.bytes,
        kept_bytes=tensor.bytes if tensor.storage in kept.keepers else 0, beyond_profiler={},
        **_NO_PARAMETERS, **_NO_WORK,
    )  # fmt: skip


def _row_of_unused(variables, optimizer, seen):
    """Parameters that the model owns and no call of a layer uses."""
    trainable = [v for v in variables if v.trainable]
    layer = type("Unused", (), {"trainable_weights": trainable})
    return Row(
        name="(no layer's call)", type="weights", known=True, output_shape=(), activation_bytes=0, kept_bytes=0,
        beyond_profiler={}, **_parameters(layer, variables, optimizer, seen), **_NO_WORK,
    )  # fmt: skip
