"""How the cost of a network grows with the batch, the image, its width and its depth."""

import dataclasses

import numpy as np

from tfproject.cost.text import aligned, number, size
from tfproject.errors import UserError

COUNTED = ("parameters", "kept_bytes", "forward_flops", "training_memory")
MEASURED = ("measured_memory", "forward_ms", "step_ms")
AXES = {
    "batch_size": (32, 64, 128, 256, 512), "image_size": (32, 48, 64), "width": (0.5, 1, 2), "depth": (1, 2, 4),
}  # fmt: skip
BASE = {"batch_size": 64, "image_size": 32, "width": 1, "depth": 2}
# Measurements scatter too much to tell one law from another: theirs is of the kind of what is counted.
COUNTED_AS = {"measured_memory": "training_memory", "forward_ms": "forward_flops", "step_ms": "forward_flops"}
MISSES = dict.fromkeys(COUNTED, 0.02) | dict.fromkeys(MEASURED, 0.1)  # parts by which a law may miss a point


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What `scaling` found.

    Attributes:
        model: name of the network.
        base: the value that each axis has while another one is varied.
        points: for each axis a list of dicts: `value` and what the network costs there, numbers of `COUNTED` (bytes,
            FLOPs) and, where it was measured, of `MEASURED` (milliseconds, bytes), with `memory_steps`, the peak of
            each step that `measured_memory` is the highest of.
    """

    model: str
    base: dict
    points: dict

    def exponent(self, axis, quantity):
        """p where the quantity grows as value^p along the axis (least squares in logarithms); None where not there."""
        values, costs = self._along(axis, quantity)
        return None if len(values) < 2 else float(np.polyfit(np.log(values), np.log(costs), 1)[0])

    def law(self, axis, quantity):
        """How the quantity grows along the axis, as far as three points or more show it.

        Returns:
            ("power", p) where it grows as value^p; ("each", a) where each further 1 of the value adds a to a part that
            is there besides and is too large to leave out; of the two the one that comes nearer to the points, or, of a
            measured quantity, that of the counted one. None where it does not come within `MISSES` of all points, or
            there are fewer than three.
        """
        values, costs = self._along(axis, quantity)
        if len(values) < 3:
            return None
        power, factor = np.polyfit(np.log(values), np.log(costs), 1)
        each, start = np.polyfit(values, costs, 1, w=1 / costs)
        laws = {"power": (power, np.exp(factor) * values**power), "each": (each, each * values + start)}
        if quantity in COUNTED_AS:
            kinds = (self.law(axis, COUNTED_AS[quantity]) or ())[:1]
        else:
            apart = min(abs(start), abs(each) * np.ptp(values)) > MISSES[quantity] * costs.min()
            kinds = ("power", "each") if apart else ("power",)
        misses = {kind: np.abs(laws[kind][1] / costs - 1).max() for kind in kinds}
        kind = min(misses, key=misses.get, default=None)
        return (kind, float(laws[kind][0])) if kind and misses[kind] <= MISSES[quantity] else None

    def _along(self, axis, quantity):
        """(values, costs), arrays of the points that have the quantity."""
        pairs = [(p["value"], p[quantity]) for p in self.points[axis] if p.get(quantity)]
        return np.array(pairs, dtype=float).reshape(-1, 2).T

    def to_json(self):
        """A plain dict, with the laws: {"power": p}, {"each": a} or None."""
        laws = {axis: {q: self.law(axis, q) for q in (*COUNTED, *MEASURED)} for axis in self.points}
        laws = {axis: {q: law and dict([law]) for q, law in own.items()} for axis, own in laws.items()}
        return dataclasses.asdict(self) | {"laws": laws}

    def to_text(self):
        """A table: a line for each point, and under each axis how the quantities grow, where they follow a law."""
        titles = ("parameters", "kept", "FLOPs", "peak memory", "measured", "fwd ms", "step ms")
        titles = dict(zip((*COUNTED, *MEASURED), titles, strict=True))
        there = [q for q in titles if any(q in p for points in self.points.values() for p in points)]
        lines = [["", *(titles[q] for q in there)]]
        for axis, points in self.points.items():
            for point in points:
                lines.append([f"{axis} {point['value']:g}", *(shown(q, point[q]) for q in there)])
            lines.append(["  grows as", *(self._law_text(axis, q) for q in there)])
        return "\n".join(aligned(lines, 1))

    def _law_text(self, axis, quantity):
        kind, amount = self.law(axis, quantity) or (None, None)
        if kind == "each":
            return f"{shown(quantity, amount, sign=True)} each"
        return "-" if kind is None else f"{axis}^{amount:z.2f}"


def shown(quantity, amount, sign=False):
    """An amount of a quantity of `COUNTED` or `MEASURED` as text, with a sign on demand."""
    text = f"{abs(amount):.3g}" if sign else f"{amount:.1f}"
    if not quantity.endswith("_ms"):
        text = (size if "memory" in quantity or "bytes" in quantity else number)(round(abs(amount)))
    return ("-" if amount < 0 else "+" if sign else "") + text


def course_cnn(image_size=32, width=1, depth=2, class_count=10):
    """`models.custom_cnn` by the names of the axes."""
    from tfproject import models

    return models.custom_cnn((image_size, image_size, 3), class_count, width=width, depth=depth)


def scaling(build_model=course_cnn, axes=None, base=None, optimizer="adam", measure=False):
    """Study a network at several sizes, one axis at a time.

    Args:
        build_model: function of the keyword arguments in `base` without `batch_size` to a keras.Model.
        axes: a dict from an axis to two or more values; `AXES` if None.
        base: a dict with the value of each axis while another one varies; `BASE` if None. Without `batch_size`, a
            batch of one.
        optimizer: see `study`.
        measure: also run the network at every point: milliseconds of a forward pass and of a training step, and the
            memory of a step as `measured_training_memory` finds it.

    Returns:
        Scaling.

    Raises:
        UserError: if an axis has fewer than two values, or is not in `base`.
    """
    axes, base = dict(axes or AXES), {"batch_size": 1} | dict(base or BASE)
    for axis, values in axes.items():
        if len(set(values)) < 2:
            raise UserError(f"The axis {axis} has {len(set(values))} value; growth is seen from two different ones on.")
        if axis not in base:
            raise UserError(f"The axis {axis} has no base value; give one, as for {', '.join(base)}.")
    points, known, name = {}, {}, ""
    for axis, values in axes.items():
        points[axis] = []
        for value in sorted(set(values)):
            sizes = {**base, axis: value}
            key = tuple(sizes.items())  # the base is a point of several axes, and measured once
            if key not in known:
                known[key], name = _point(build_model, sizes.pop("batch_size"), sizes, optimizer, measure)
            points[axis].append({"value": value} | known[key])
    return Scaling(name, base, points)


def _point(build_model, batch_size, sizes, optimizer, measure):
    from tfproject.cost.layer_costs import study

    model = build_model(**sizes)
    table = study(model, batch_size, optimizer=optimizer)
    totals = table.totals
    point = {quantity: totals[quantity] for quantity in COUNTED[:3]} | {"training_memory": table.training_memory.total}
    return point | (_measured(model, batch_size, optimizer) if measure else {}), model.name


def _measured(model, batch_size, optimizer):
    import tensorflow as tf

    from tfproject.cost import memory, optimizers, timing
    from tfproject.cost.tracing import as_model_input, input_specs

    inputs = [tf.cast(tf.random.uniform(spec.shape), spec.dtype) for spec in input_specs(model, batch_size, None)]
    step = memory.training_step(model, optimizers.make(optimizer))
    forward = tf.function(lambda *batch: model(as_model_input(model, batch), training=False))
    found = {"forward_ms": timing.milliseconds(forward, *inputs), "step_ms": timing.milliseconds(step, *inputs)}
    if memory.bytes_in_use() is not None:
        measured = memory.measured_training_memory(model, batch_size, optimizer)
        found |= {"measured_memory": measured["bytes"], "memory_steps": measured["steps"][1:]}
    return found
