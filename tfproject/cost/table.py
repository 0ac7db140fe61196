"""The cost table: a row for each call of a layer, and their totals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

SHARES = ("parameters", "kept_bytes", "forward_flops", "step_flops")
FAMILIES = (
    ("convolution", ("Conv",)),
    ("dense", ("Dense", "Embedding")),
    ("normalisation", ("BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "UnitNorm")),
    ("activation", ("ReLU", "Activation", "ELU", "Softmax")),
    ("pooling", ("Pooling",)),
    ("other", ("",)),
)  # fmt: skip


def family(kind):
    """The family of a layer's type: convolution, dense, normalisation, activation, pooling or other."""
    return next(name for name, marks in FAMILIES if any(mark in kind for mark in marks))


@dataclasses.dataclass(frozen=True)
class Row:
    """What a call of a layer costs, for the whole batch.

    What is shared is counted once: parameters at the first call of the layer that has them, a kept tensor at the call
    that made it. FLOPs are None where the layer's type is not known.

    Attributes:
        name: path of names from the model to the layer; a layer's second call ends with "#2".
        type: the layer's class.
        known: whether the study knows the type.
        output_shape: with the batch.
        parameters: number of its parameters.
        trainable_parameters: those of them that are trained.
        parameter_bytes, gradient_bytes, optimizer_bytes: of its parameters, their gradients, the optimiser's state.
        activation_bytes: of its outputs; 0 where they are its input's memory.
        kept_bytes: of its outputs and of tensors inside it, what training keeps for the backward pass.
        needed_bytes: of all that its own backward pass reads, made by itself or by another layer; what two layers
            read is in both of their rows.
        multiply_adds: in convolutions and matrix products, forward.
        padding_multiply_adds: those of them that meet a convolution's own padding.
        forward_flops: in use.
        training_flops: what the forward pass has more in training.
        backward_multiply_adds, backward_flops: of the backward pass.
        beyond_profiler: FLOPs in `forward_flops` that TensorFlow's profiler does not count, by the rule of `RULES`.
        bytes_moved: inputs, outputs and parameters, each read or written once, forward.
        forward_ms: of the forward pass in use, measured by itself, milliseconds.
        step_ms: of forward and backward pass together in training, the like.
    """

    name: str
    type: str
    known: bool
    output_shape: tuple[int, ...]
    parameters: int
    trainable_parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    kept_bytes: int
    needed_bytes: int
    multiply_adds: int | None
    padding_multiply_adds: int | None
    forward_flops: int | None
    training_flops: int | None
    backward_multiply_adds: int | None
    backward_flops: int | None
    beyond_profiler: Mapping[str, int]
    bytes_moved: int
    forward_ms: float | None = None
    step_ms: float | None = None

    @property
    def backward_ms(self):
        """Milliseconds of the backward pass and of what the forward pass does more in training; None if not measured.

        A clock cannot tell the two apart.
        """
        return None if None in (self.forward_ms, self.step_ms) else max(0.0, self.step_ms - self.forward_ms)

    @property
    def step_flops(self):
        """FLOPs of a training step, forward and backward; None where not known."""
        return None if self.forward_flops is None else self.forward_flops + self.training_flops + self.backward_flops

    @property
    def intensity(self):
        """Arithmetic intensity of the forward pass: FLOPs for each byte moved; None where there is neither."""
        return None if self.forward_flops is None or not self.bytes_moved else self.forward_flops / self.bytes_moved

    @property
    def gflops(self):
        """Measured GFLOP/s of the forward pass, or None."""
        return self.forward_flops / self.forward_ms / 1e6 if self.forward_ms and self.forward_flops else None


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the machine could do when the layers were measured.

    Attributes:
        gflops: peak of a matrix product in float32, GFLOP/s.
        gigabytes_per_second: of a copy of a large tensor, bytes read and written.
        call_ms: milliseconds that the call of a function takes which does nothing; the layers' times are without it.
    """

    gflops: float
    gigabytes_per_second: float
    call_ms: float

    @property
    def ridge(self):
        """The arithmetic intensity, FLOPs per byte, at which the two roofs meet."""
        return self.gflops / self.gigabytes_per_second

    def roof(self, row):
        """Whose roof is over the row's layer, "memory" or "arithmetic"; None where it computes nothing known.

        It says what would bound a layer that reaches the roof, not what bounds this one: see `of_roof`.
        """
        if not row.intensity:
            return None
        return "arithmetic" if row.intensity >= self.ridge else "memory"

    def attainable(self, intensity):
        """GFLOP/s that the roofline allows at an intensity."""
        return min(self.gflops, self.gigabytes_per_second * intensity)

    def of_roof(self, row):
        """The row's measured speed as a part of what the roofline allows at its intensity; None without a speed."""
        return row.gflops / self.attainable(row.intensity) if row.gflops and row.intensity else None


@dataclasses.dataclass(frozen=True)
class CostTable:
    """What each layer of a model costs.

    Attributes:
        model: its name.
        batch_size: images in the batch; all but parameters, gradients and state is for so many.
        input_shapes: of the model's inputs, with the batch.
        optimizer: name of the optimiser.
        rows: a Row for each input and each call of a layer, in order.
        training_memory: the predicted peak of a training step, a memory.TrainingMemory.
        machine: a Machine where layers were measured.
        step_ms: milliseconds of forward and backward pass of the whole model in training, where that was measured.
    """

    model: str
    batch_size: int
    input_shapes: tuple[tuple[int, ...], ...]
    optimizer: str
    rows: tuple[Row, ...]
    training_memory: Any
    machine: Machine | None = None
    step_ms: float | None = None

    @property
    def unknown(self):
        """(name, type) of the rows whose type the study does not know."""
        return tuple((row.name, row.type) for row in self.rows if not row.known)

    @property
    def totals(self):
        """Sums over the rows by field; where `unknown` is not empty, those of FLOPs and kept bytes are "at least"."""
        fields = (
            "parameters", "trainable_parameters", "parameter_bytes", "gradient_bytes", "optimizer_bytes",
            "activation_bytes", "kept_bytes", "multiply_adds", "forward_flops", "training_flops",
            "backward_multiply_adds", "backward_flops", "step_flops", "bytes_moved",
        )  # fmt: skip
        if self.machine:
            fields += ("forward_ms", "backward_ms", "step_ms")
        return {field: sum(getattr(row, field) or 0 for row in self.rows) for field in fields}

    def share(self, row, field):
        """The row's part of the total of a field, 0 to 1; None where it is not known."""
        value, total = getattr(row, field), self.totals[field]
        return None if value is None else value / total if total else 0.0

    def to_json(self):
        """A plain dict of JSON values, numbers in bytes, FLOPs and milliseconds."""
        totals = self.totals
        rows = []
        for row in self.rows:
            values = dataclasses.asdict(row) | {"output_shape": list(row.output_shape), "intensity": row.intensity}
            values["step_flops"] = row.step_flops
            values["share"] = {f: _part(getattr(row, f), totals[f]) for f in SHARES}
            if self.machine:
                values |= {"backward_ms": row.backward_ms, "gflops": row.gflops}
                values |= {"roof": self.machine.roof(row), "of_roof": self.machine.of_roof(row)}
            else:
                del values["forward_ms"], values["step_ms"]
            rows.append(values)
        result = {
            "model": self.model, "batch_size": self.batch_size, "input_shapes": [list(s) for s in self.input_shapes],
            "optimizer": self.optimizer, "rows": rows, "totals": totals, "at_least": bool(self.unknown),
            "unknown": [{"name": name, "type": kind} for name, kind in self.unknown],
            "training_memory": self.training_memory.to_json(),
        }  # fmt: skip
        if self.machine:
            result["machine"] = dataclasses.asdict(self.machine) | {"ridge": self.machine.ridge}
            result["step_ms"] = self.step_ms
        return result

    def to_text(self):
        """The table in at most 140 columns, with units, its totals and the predicted memory."""
        from tfproject.cost.text import table_text

        return table_text(self)


def _part(value, total):
    return None if value is None else value / total if total else 0.0
