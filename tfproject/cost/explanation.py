"""Why a model costs what it costs: sentences made from its table, each said only where the numbers bear it out."""

import collections
import math

from tfproject.cost.figures import family
from tfproject.cost.memory import STEPPING
from tfproject.cost.text import number, percent, size

_TWO_GRADIENTS = (
    ": a layer with weights computes a gradient for its weights and one for its input, each as large as its forward "
    "pass."
)
CHEAP, FEW = 0.02, 0.1  # parts up to which something has "hardly any" or "few" of a total
_ONE_USE_A_POSITION = (
    "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
)  # fmt: skip


def explain(table, scaling=None):
    """The reasons behind a cost table.

    Args:
        table: a CostTable, measured or not.
        scaling: a growth.Scaling of the same network, or None.

    Returns:
        A list of paragraphs of plain text: activations, parameters, arithmetic, the layers that look free, a training
        step's memory, what was measured, growth, and what is not known; those of which there is nothing to say are left
        out.
    """
    paragraphs = [_activations(table), _parameters(table), _arithmetic(table)]
    paragraphs += [
        _cheap(table, "normalisation", _batch_statistics),
        _cheap(table, "activation"),
        _cheap(table, "pooling", _shrinking),
    ]
    paragraphs += [_training(table), _time(table), *(_growth(scaling) if scaling else ()), _unknown(table)]
    return [paragraph for paragraph in paragraphs if paragraph]


def _activations(table):
    """Which layers hold what is kept: those at one image size, early or late."""
    kept = table.totals["kept_bytes"]
    if not kept:
        return None if table.totals["gradient_bytes"] else "Training keeps no activation, as no layer is trained."
    stages = collections.defaultdict(list)  # by the positions of the output, in the order of the model
    for row in table.rows:
        if row.kept_bytes and len(row.output_shape) > 2:
            stages[row.output_shape[1:-1]].append(row)
    if not stages:
        row = max(table.rows, key=lambda row: row.kept_bytes)
        return (
            f"Training keeps {size(kept)} of activations for a batch of {table.batch_size}; most of it made by "
            f"{row.name} ({percent(row.kept_bytes / kept)}), {_times(row.output_shape[1:])} numbers for each example."
        )
    held = {positions: sum(row.kept_bytes for row in rows) for positions, rows in stages.items()}
    largest = max(held, key=held.get)
    rows, place = stages[largest], list(stages).index(largest)
    depth = "early" if place < len(stages) / 2 else "middle" if place < len(stages) - 1 else "last"
    text = (
        f"Of the {size(kept)} of activations that training keeps for a batch of {table.batch_size}, the {depth} layers "
        f"at {_times(largest)} positions ({_span([row for row in rows if row.parameters] or rows)}) hold "
        f"{percent(held[largest] / kept)}, {size(held[largest])}, with "
        f"{_part(table, rows, 'parameters')} of the parameters."
    )
    end = list(stages)[-1]
    fewer = math.prod(largest) / math.prod(end)
    more = max(row.output_shape[-1] for row in stages[end]) / max(row.output_shape[-1] for row in rows)
    if depth == "early" and fewer > max(1, more):
        channels = f"become {more:.3g} times more" if more > 1 else f"become {1 / more:.3g} times fewer"
        text += (
            f" An activation has a number for each position and channel: from there to the layers at {_times(end)} the "
            f"positions become {fewer:.0f} times fewer and the channels {channels if more != 1 else 'stay as many'}, "
            f"so an activation shrinks by a factor of {fewer / more:.0f}."
        )
    makers = collections.Counter()
    for row in rows:
        makers[family(row.type)] += row.kept_bytes
    if len(makers) > 1:
        parts = (f"{name} {percent(part / held[largest])}" for name, part in makers.most_common())
        text += f" By what made them, those tensors are of: {', '.join(parts)}."
    return text


def _parameters(table):
    """Which layer holds the parameters, and why so many."""
    total = table.totals["parameters"]
    if not total:
        return "The model has no parameters."
    row = max(table.rows, key=lambda row: row.parameters)
    dense = [r for r in table.rows if r.type == "Dense" and r.parameters]
    part, uses = percent(row.parameters / total), _uses(row, table)
    text = f"{row.name} ({row.type}) holds {number(row.parameters)} of the {number(total)} parameters, {part}."
    if row.type != "Dense":
        if uses and uses > 1:
            text += f" Its weights are shared by all positions: each is used {uses:,} times an example."
        if dense:
            most = max(dense, key=lambda r: r.parameters)
            text += f" The largest dense layer, {most.name}, has {percent(most.parameters / total)}."
        return text
    units, inputs = row.output_shape[-1], row.multiply_adds // math.prod(row.output_shape)
    text += (
        f" It is {'the first' if row is dense[0] else 'a'} dense layer: each of its {units:,} units has a weight for "
        f"each of {inputs:,} inputs, and no two units share one."
    )
    before = table.rows[table.rows.index(row) - 1]
    if before.type == "Flatten":
        text += (
            f" The inputs are so many because {before.name} lays out all {math.prod(before.output_shape[1:]):,} "
            "numbers of the feature map before it."
        )
    if uses == 1:
        flops = percent(table.share(row, "step_flops"))
        text += f" Each weight is used once an example, so with {part} of the parameters it does {flops} of the FLOPs."
    return text


def _arithmetic(table):
    """Which family of layers computes most, and why."""
    total = table.totals["step_flops"]
    if not total:
        return None
    families = collections.defaultdict(list)
    for row in table.rows:
        if row.step_flops:
            families[family(row.type)].append(row)
    name, rows = max(families.items(), key=lambda item: sum(row.step_flops for row in item[1]))
    top = max(rows, key=lambda row: row.step_flops)
    plural = {"convolution": "convolutions"}.get(name, f"{name} layers")
    text = (
        f"A training step takes {'at least ' if table.unknown else ''}{number(total)} FLOPs, of which {plural} do "
        f"{_part(table, rows, 'step_flops')} with {_part(table, rows, 'parameters')} of the parameters; most in "
        f"{top.name}, {number(top.step_flops)}."
    )
    uses = sorted((_uses(row, table), row.name) for row in rows if _uses(row, table))
    if name == "convolution" and uses and uses[-1][0] > 1:
        (few, seldom), (many, often) = uses[0], uses[-1]
        text += " A convolution applies the same weights at every position: "
        text += f"one of {often} is multiplied {many:,} times an example"
        text += f", one of {seldom} {few:,} times" if few < many else ""
        text += ", one of a dense layer once." if "dense" in families else "."
    backward = table.totals["backward_flops"] / table.totals["forward_flops"]
    if backward:
        text += f" The backward pass takes {backward:.1f} times the forward pass"
        text += _TWO_GRADIENTS if 1.6 < backward < 2.4 else "."
    return text


def _cheap(table, name, particular=lambda rows: ""):
    """What a family of layers costs that has few parameters: memory kept and moved, and what is particular to it."""
    rows = [row for row in table.rows if family(row.type) == name and row.step_flops]
    if not rows:
        return None
    totals = table.totals
    parameters = sum(row.parameters for row in rows) / (totals["parameters"] or 1)
    flops = sum(row.step_flops for row in rows) / totals["step_flops"]
    needed = sum(row.needed_bytes for row in rows)
    share = needed / totals["kept_bytes"] if needed else 0
    most = max(parameters, flops)
    few = "hardly any" if most <= CHEAP else "few" if most <= FEW else "part"
    weights = f"{few} of the parameters ({percent(parameters)})" if parameters else "no parameters"
    reads = f"reads {size(needed)} of activations ({percent(share)} of those kept)" if needed else "reads no activation"
    text = (
        f"{name.capitalize()} ({len(rows)} layer{'s' * (len(rows) > 1)}) has {weights} and {few} of the FLOPs "
        f"({percent(flops)}), {'but' if share > 3 * most else 'and'} its backward pass {reads}."
    )
    moved, forward = sum(row.bytes_moved for row in rows), sum(row.forward_flops for row in rows)
    if moved and forward:
        intensity, top = (
            forward / moved,
            max((row for row in table.rows if row.intensity), key=lambda row: row.step_flops),
        )
        text += f" It moves {size(moved)} for {number(forward)} FLOPs forward, {intensity:.2f} FLOPs a byte"
        if intensity < 2 and top.intensity > 10 * intensity:
            text += f", where {top.name} has {top.intensity:.0f}: {_waiting(table, rows, moved)}"
        text += "."
    return text + particular(rows)


def _waiting(table, rows, moved):
    """Whether layers with little arithmetic wait for memory: by their times, where those were measured."""
    if not table.machine or any(row.forward_ms is None for row in rows):
        return "with so little arithmetic, memory is what it has to wait for"
    seconds = sum(row.forward_ms for row in rows) / 1e3
    rate, peak = moved / max(seconds, 1e-9) / 1e9, table.machine.gigabytes_per_second
    if rate > peak:
        return (
            f"measured, it moves {rate:.0f} GB/s, more than the {peak:.0f} GB/s of a copy, as what it reads still "
            "lies in the processor's cache: it waits for that, not for arithmetic"
        )
    text = f"measured, it moves {rate:.0f} GB/s of the {peak:.0f} GB/s that the machine copies"
    if rate < 0.5 * peak:
        return f"{text}, so what it waits for are neither these bytes nor these FLOPs alone"
    return f"{text}: it waits for memory, not for arithmetic"


def _batch_statistics(rows):
    rows = [row for row in rows if row.type == "BatchNormalization"]
    training, backward, forward = (
        sum(getattr(row, field) for row in rows) for field in ("training_flops", "backward_flops", "forward_flops")
    )
    if not training:
        return ""
    return (
        f" In training BatchNorm also computes the batch's mean and variance ({number(training)} FLOPs) and their "
        f"gradients, {(training + backward) / forward:.1f} times its forward pass in use, and for these its input has "
        "to be kept."
    )


def _shrinking(rows):
    factor, name = max(
        ((row.bytes_moved / row.activation_bytes - 1, row.name) for row in rows), key=lambda pair: pair[0]
    )
    if factor <= 1:
        return ""
    return f" After {name} an activation is {factor:.0f} times smaller."


def _training(table):
    """What the peak memory of a training step is made of."""
    memory = table.training_memory
    moment = memory.kept + memory.transient + memory.rounding
    fixed = memory.parameters + memory.optimizer + memory.gradients
    if not memory.total:
        return None
    stepping = memory.moment == STEPPING
    parts = [
        (moment, "what the optimiser's arithmetic takes" if stepping else "activations and their gradients"),
        (fixed, "parameters, their gradients and the optimiser's state"),
    ]
    (more, what), (less, other) = sorted(parts, reverse=True)
    text = (
        f"A training step with {table.optimizer} takes {'at least' if memory.at_least else 'about'} "
        f"{size(memory.total)} at its peak, in the {memory.moment}: {size(more)} "
        f"({percent(more / memory.total)}) of it {what}, {size(less)} {other}."
    )
    if stepping:
        return text + " A smaller batch would not help."
    return text + (" A smaller batch would take nearly proportionally less." if moment > 0.8 * memory.total else "")


def _time(table):
    """Where the measured time goes, and what bounds it."""
    total = table.totals["forward_ms"] + table.totals["backward_ms"] if table.machine else 0
    if not total:
        return None
    machine, families = table.machine, collections.defaultdict(list)
    for row in table.rows:
        families[family(row.type)].append(row)
    spent = {name: sum((r.forward_ms or 0) + (r.backward_ms or 0) for r in rows) for name, rows in families.items()}
    parts = (
        f"{name} {percent(spent[name] / total)} of the time for {_part(table, families[name], 'step_flops')} of FLOPs"
        for name in sorted(spent, key=spent.get, reverse=True)
        if spent[name] >= 0.005 * total
    )
    bounds = collections.Counter(machine.bound(row) for row in table.rows if machine.bound(row))
    text = (
        f"Measured layer by layer, forward and backward take {total:.1f} ms: {', '.join(parts)}. The machine reached "
        f"{machine.gflops:.0f} GFLOP/s in a matrix product and {machine.gigabytes_per_second:.1f} GB/s in a copy, so "
        f"memory bounds what does fewer than {machine.ridge:.1f} FLOPs a byte: {bounds['memory']} of "
        f"{bounds.total()} layers."
    )
    fast = [row for row in table.rows if row.gflops]
    if fast:
        best = max(fast, key=lambda row: row.gflops)
        text += (
            f" The fastest, {best.name}, reaches {percent(best.gflops / machine.gflops)} of the matrix product's speed."
        )
        if best.gflops > machine.gflops:
            text += " It is more than all of it because padding is counted as arithmetic, and hardly computed."
    return text


_AXES = {
    "batch_size": "the batch", "image_size": "the image's side", "width": "the width (channels of every layer)",
    "depth": "the depth (convolutions a block)",
}  # fmt: skip
_QUANTITIES = {
    "parameters": "parameters", "kept_bytes": "kept activations", "forward_flops": "FLOPs",
    "training_memory": "predicted peak memory", "measured_memory": "measured peak memory",
    "step_ms": "measured time of a training step", "forward_ms": "measured forward time",
}  # fmt: skip


def _growth(scaling):
    """How each axis makes the cost grow, and why."""
    for axis, points in scaling.points.items():
        first, last = points[0], points[-1]
        grown = []
        for quantity, name in _QUANTITIES.items():
            if first.get(quantity) and last.get(quantity):
                ratio = last[quantity] / first[quantity]
                same = quantity == "parameters" and ratio == 1
                power = scaling.exponent(axis, quantity)
                grown.append("parameters stay as they are" if same else f"{name} x{ratio:.2f} (power {power:.2f})")
        yield (
            f"Growing {_AXES.get(axis, axis)} from {first['value']:g} to {last['value']:g} "
            f"({len(points)} points): {', '.join(grown)}."
            + _growth_reason(axis, *(scaling.exponent(axis, q) for q in ("forward_flops", "kept_bytes", "parameters")))
        )


def _growth_reason(axis, flops, kept, parameters):
    """Why, where the powers are those that the reason gives."""
    if None in (flops, kept, parameters):
        return ""
    if axis == "batch_size" and abs(flops - 1) < 0.05 and abs(kept - 1) < 0.05:
        return " Every image is computed and kept by itself, with the same weights."
    if axis == "image_size" and abs(flops - 2) < 0.15 and abs(kept - 2) < 0.15:
        dense = "; convolutions' weights do not, those of the first dense layer do." if parameters > 0.1 else "."
        return (
            f" Work and activations are there for each position, and positions grow with the square of the side{dense}"
        )
    if axis == "width" and flops > 1.6 and parameters > 1.6 and abs(kept - 1) < 0.15:
        return (
            " A weight joins a channel in and a channel out, so weights and work grow with the square, activations "
            "with the first power."
        )
    if axis == "depth" and flops > 0.4 and kept > 0.4:
        faster = "; it has more channels in than the first of its block, so work grows faster." if flops > 1.2 else "."
        return (
            " Each further layer adds its own weights, work and activations; what does not repeat (first and dense "
            f"layers) stays{faster}"
        )
    return ""


def _unknown(table):
    if not table.unknown:
        return None
    names = ", ".join(f"{name} ({kind})" for name, kind in table.unknown)
    return f"What these cost is not known, as their types are not: {names}. All totals are therefore lower bounds."


def _uses(row, table):
    """How often each weight of a layer is multiplied for an example."""
    if not row.parameters or not row.multiply_adds:
        return None
    if row.type in _ONE_USE_A_POSITION:
        return math.prod(row.output_shape[1:-1])
    return max(1, round(row.multiply_adds / row.parameters / table.batch_size))


def _part(table, rows, field):
    return percent(sum(getattr(row, field) or 0 for row in rows) / (table.totals[field] or 1))


def _span(rows):
    return rows[0].name if len(rows) == 1 else f"{rows[0].name} to {rows[-1].name}"


def _times(shape):
    return "x".join(map(str, shape))
