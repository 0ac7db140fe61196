"""How the cost of a network grows with the batch, the image, its width and its depth."""

import dataclasses

from tfproject.errors import UserError

QUANTITIES = ("parameters", "kept_bytes", "forward_flops", "training_memory")
MEASURED = ("forward_ms", "step_ms", "measured_memory")
AXES = {"batch_size": (32, 64, 128), "image_size": (32, 64), "width": (0.5, 1, 2), "depth": (1, 2, 4)}
BASE = {"batch_size": 64, "image_size": 32, "width": 1, "depth": 2}


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What `scaling` found.

    Attributes:
        model: name of the network.
        base: the value that each axis has while another one is varied.
        points: for each axis a list of dicts: `value` and what the network costs there, numbers of `QUANTITIES` (bytes,
            FLOPs) and, where it was measured, of `MEASURED` (milliseconds, bytes).
    """

    model: str
    base: dict
    points: dict

    def exponent(self, axis, quantity):
        """p where the quantity grows as value^p along the axis (least squares in logarithms); None where not there."""
        import numpy as np

        pairs = [(p["value"], p[quantity]) for p in self.points[axis] if p.get(quantity)]
        if len(pairs) < 2:
            return None
        values, costs = np.log(np.array(pairs, dtype=float)).T
        return float(np.polyfit(values, costs, 1)[0])

    def to_json(self):
        """A plain dict, with the exponents."""
        exponents = {a: {q: self.exponent(a, q) for q in (*QUANTITIES, *MEASURED)} for a in self.points}
        return dataclasses.asdict(self) | {"exponents": exponents}

    def to_text(self):
        """A table: a line for each point, and the exponents under each axis."""
        from tfproject.cost.text import aligned, number, size

        shown = {
            "parameters": ("parameters", number), "kept_bytes": ("kept", size), "forward_flops": ("FLOPs", number),
            "training_memory": ("peak memory", size), "measured_memory": ("measured", size),
            "forward_ms": ("fwd ms", "{:.1f}".format), "step_ms": ("step ms", "{:.1f}".format),
        }  # fmt: skip
        there = [q for q in shown if any(q in p for points in self.points.values() for p in points)]
        lines = [["", *(shown[q][0] for q in there)]]
        for axis, points in self.points.items():
            for point in points:
                lines.append([f"{axis} {point['value']:g}", *(shown[q][1](point[q]) for q in there)])
            lines.append(["  grows as", *(f"{axis}^{self.exponent(axis, q):.2f}" for q in there)])
        return "\n".join(aligned(lines, 1))


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
            memory of the step in TensorFlow's allocator.

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
    point = {quantity: totals[quantity] for quantity in QUANTITIES[:3]} | {
        "training_memory": table.training_memory.total
    }
    return point | (_measured(model, batch_size, optimizer, table) if measure else {}), model.name


def _measured(model, batch_size, optimizer, table):
    import gc

    import tensorflow as tf

    from tfproject.cost import memory, optimizers, timing
    from tfproject.cost.tracing import as_model_input, input_specs

    inputs = [tf.cast(tf.random.uniform(spec.shape), spec.dtype) for spec in input_specs(model, batch_size, None)]
    step = memory.training_step(model, optimizers.make(optimizer))
    forward = tf.function(lambda *batch: model(as_model_input(model, batch), training=False))
    gc.collect()  # the network of the point before
    before = memory.bytes_in_use()
    peaks = memory.peaks_of(lambda: step(*inputs), 3)
    found = {"forward_ms": timing.milliseconds(forward, *inputs), "step_ms": timing.milliseconds(step, *inputs)}
    if before is not None:
        predicted = table.training_memory  # what was there before the step: the parameters, the state and the batch
        there = predicted.parameters + predicted.optimizer + predicted.batch
        found["measured_memory"] = max(peaks[1:]) - before + there
    return found
