"""Why a model costs what it costs: sentences made from its table, each said only where the numbers bear it out."""

import collections
import math

from tfproject.cost.growth import shown
from tfproject.cost.memory import STEPPING
from tfproject.cost.table import family
from tfproject.cost.text import number, percent, size
from tfproject.wording import joined

_TWO_GRADIENTS = (
    ": a layer with weights computes a gradient for its weights and one for its input, each as large as its forward "
    "pass."
)
CHEAP, FEW = 0.02, 0.1  # parts up to which something has "hardly any" or "few" of a total
# A layer is at the roof from half of it on, where nothing beside what the roof stands for can cost more than that does,
# up to a tenth over it, by which timings of the same thing differ.
AT_THE_ROOF = (0.5, 1.1)
FASTER = 1.5  # times from which on layers count as faster than others
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
    paragraphs += [_training(table), _time(table), *(_growth(scaling, table) if scaling else ()), _unknown(table)]
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
    channels, last_channels = (
        {row.output_shape[-1] for row in stage if family(row.type) != "other"} for stage in (rows, stages[end])
    )
    more = max(last_channels, default=0) / max(channels, default=1)
    alike = len(channels) == len(last_channels) == 1  # else which activation would be compared with which?
    if depth == "early" and alike and fewer > max(1, more):
        channels = f"become {more:.3g} times more" if more > 1 else f"become {1 / more:.3g} times fewer"
        text += (
            f" An activation has a number for each position and channel: from there to the layers at {_times(end)} the "
            f"positions become {fewer:.0f} times fewer and the channels {channels if more != 1 else 'stay as many'}, "
            f"so an activation shrinks by a factor of {fewer / more:.0f}."
        )
    makers = {name: sum(row.kept_bytes for row in made) for name, made in _by_family(rows).items()}
    if len(makers) > 1:
        shares = sorted(makers.items(), key=lambda item: -item[1])
        parts = (f"{name} {percent(part / held[largest])}" for name, part in shares)
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
    families = _by_family(row for row in table.rows if row.step_flops)
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
        intensity = forward / moved
        top = max((row for row in table.rows if row.intensity), key=lambda row: row.step_flops)
        text += f" It moves {size(moved)} for {number(forward)} FLOPs forward, {intensity:.2f} FLOPs a byte"
        if intensity < 2 and top.intensity > 10 * intensity:
            text += f", where {top.name} has {top.intensity:.0f}: {_moving(table, name, rows)}"
        text += "."
    return text + particular(rows)


def _moving(table, name, rows):
    """How fast layers with little arithmetic move their bytes, and what that says of what they wait for."""
    rate = _gigabytes_per_second(rows)
    if not table.machine or rate is None:
        return "its bytes take longer to move than its FLOPs to compute"
    peak, moved = table.machine.gigabytes_per_second, sum(row.bytes_moved for row in rows)
    others = _by_family(row for row in table.rows if row.forward_ms and row.bytes_moved)
    alike = [
        (_gigabytes_per_second(theirs), other) for other, theirs in others.items()
        if 0.5 <= sum(row.bytes_moved for row in theirs) / moved <= 2
    ]  # fmt: skip
    fastest, other = max(alike, default=(0, ""))
    text = f"measured, it moves {rate:.0f} GB/s"
    if fastest > FASTER * rate:
        text += f" where {other} moves {fastest:.0f}, so these bytes, each moved once, do not explain its time"
        return text + _PASSES if name == "normalisation" else text
    if rate > AT_THE_ROOF[1] * peak:
        return f"{text}, more than the {peak:.0f} GB/s of a copy, as what it reads still lies in the processor's cache"
    text += f" of the {peak:.0f} GB/s that the machine copies"
    if rate < AT_THE_ROOF[0] * peak:
        return f"{text}, so what it waits for are neither these bytes nor these FLOPs alone"
    return f"{text}, so it waits for memory more than for arithmetic"


_PASSES = ": its separate operations make more passes over memory than one over its inputs and outputs"


def _gigabytes_per_second(rows):
    """At which layers move their inputs, outputs and parameters forward; None where one was not timed."""
    if any(not row.forward_ms for row in rows):
        return None
    return sum(row.bytes_moved for row in rows) / sum(row.forward_ms for row in rows) / 1e6


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
        f"A training step with {table.optimizer} is predicted to take {'at least' if memory.at_least else 'about'} "
        f"{size(memory.total)} at its peak, in the {memory.when}: {size(more)} "
        f"({percent(more / memory.total)}) of it {what}, {size(less)} {other}."
    )
    if stepping:
        return text + (" A smaller batch would not help." if table.batch_size > 1 else "")
    return text + (" A smaller batch would take nearly proportionally less." if moment > 0.8 * memory.total else "")


def _time(table):
    """Where a training step's measured time goes, and how near to the roof the layers come."""
    total = table.totals["step_ms"] if table.machine else 0
    if not total:
        return None
    machine, families = table.machine, _by_family(table.rows)
    spent = {name: sum(row.step_ms or 0 for row in rows) for name, rows in families.items()}
    parts = (
        f"{name} {percent(spent[name] / total)} of the time for {_part(table, families[name], 'step_flops')} of FLOPs"
        for name in sorted(spent, key=spent.get, reverse=True)
        if spent[name] >= 0.005 * total
    )
    text = f"Measured layer by layer, forward and backward in training take {total:.1f} ms: {', '.join(parts)}."
    if table.step_ms is not None and not table.unknown:  # a model of another's making is among its own layers
        rest = table.step_ms - total
        text += (
            f" The whole model at once takes {table.step_ms:.1f} ms, {abs(rest):.1f} ms ({percent(abs(rest) / total)}) "
            f"{'more' if rest >= 0 else 'less'} than the layers by themselves."
        )
    text += (
        f" The machine reached {machine.gflops:.0f} GFLOP/s in a matrix product and "
        f"{machine.gigabytes_per_second:.1f} GB/s in a copy: the roof over what does fewer than {machine.ridge:.1f} "
        f"FLOPs a byte is memory's, over the rest arithmetic's.{_under(machine, 'memory', table.rows)}"
        f"{_under(machine, 'arithmetic', table.rows)}"
    )
    fast = [row for row in table.rows if row.gflops]
    return text + _fastest(max(fast, key=lambda row: row.gflops), machine) if fast else text


def _under(machine, roof, rows):
    """How many of the layers under a roof are at it forward, how many above and how many far below."""
    parts = [(machine.of_roof(row), row) for row in rows if machine.roof(row) == roof and row.gflops]
    if not parts:
        return ""
    low, high = AT_THE_ROOF
    at, above, below = (
        [row for part, row in parts if condition(part)]
        for condition in (lambda part: low <= part <= high, lambda part: part > high, lambda part: part < low)
    )
    words = [f"{len(at)} reach{'es' * (len(at) == 1)} half of it or more"]
    if above:
        cache = "as what they read still lies in the processor's cache " * (roof == "memory")
        words.append(f"{len(above)} lie{'s' * (len(above) == 1)} above it {cache}({_counted(above)})")
    if below:
        words.append(f"{len(below)} less than half, bound by neither roof ({_counted(below)})")
    return f" Forward, of the {len(parts)} layers under {roof}'s roof {joined(words)}."


def _fastest(row, machine):
    """What the fastest layer reaches of a matrix product's speed, and why it may be more than all of it."""
    reached = row.gflops / machine.gflops
    text = f" The fastest, {row.name}, reaches {percent(reached)} of the matrix product's speed."
    if reached <= 1:
        return text
    padding = (row.padding_multiply_adds or 0) / (row.multiply_adds or 1)
    if reached * (1 - padding) <= 1:
        return (
            f"{text} It is more than all of it as {percent(padding)} of its multiply-adds meet padding: they are "
            "counted, and need not be computed."
        )
    return f"{text} The matrix product is one of one size, and other work may do better."


_AXES = {  # and what one more of it is
    "batch_size": ("the batch", "image"), "image_size": ("the image's side", "pixel of it"),
    "width": ("the width (channels of every layer)", "width of 1"),
    "depth": ("the depth (convolutions a block)", "convolution a block"),
}  # fmt: skip
_QUANTITIES = {
    "parameters": "parameters", "kept_bytes": "kept activations", "forward_flops": "FLOPs",
    "training_memory": "predicted peak memory", "measured_memory": "measured peak memory",
    "step_ms": "measured ms of a training step", "forward_ms": "measured ms forward",
}  # fmt: skip


def _growth(scaling, table):
    """How each axis makes the cost grow, and why."""
    for axis, points in scaling.points.items():
        first, last = points[0], points[-1]
        called, one = _AXES.get(axis, (axis, "1"))
        grown = []
        for quantity, name in _QUANTITIES.items():
            if first.get(quantity) and last.get(quantity):
                ratio = last[quantity] / first[quantity]
                same = quantity == "parameters" and ratio == 1
                law = _law(scaling.law(axis, quantity), quantity, one)
                grown.append("parameters stay as they are" if same else f"{name} x{ratio:.2f}{law}")
        yield (
            f"Growing {called} from {first['value']:g} to {last['value']:g} ({len(points)} points): {', '.join(grown)}."
            + _growth_reason(axis, scaling, any(row.type == "BatchNormalization" for row in table.rows))
        )


def _law(law, quantity, one):
    kind, amount = law or (None, None)
    if kind == "each":
        return f" ({shown(quantity, amount, sign=True)} for each further {one})"
    return "" if kind is None else f" (power {amount:.2f})"


def _growth_reason(axis, scaling, has_batch_norm):
    """Why, where the points are those that the reason gives."""
    counted = ("forward_flops", "kept_bytes", "parameters")
    if axis == "depth":
        if any(dict([scaling.law(axis, quantity) or ("", 0)]).get("each", 0) <= 0 for quantity in counted):
            return ""
        return (
            " Each further layer a block adds the same weights, work and activations; to these come those of what is "
            "there once: the first layer of each block, which has other channels in, and the dense ones."
        )
    flops, kept, parameters = (scaling.exponent(axis, quantity) for quantity in counted)
    if None in (flops, kept, parameters):
        return ""
    if axis == "batch_size" and abs(flops - 1) < 0.05 and abs(kept - 1) < 0.05:
        joined = "; only BatchNorm's statistics join the images of a batch" * has_batch_norm
        return f" Every image is computed and kept by itself, with the same weights{joined}."
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


def _by_family(rows):
    """A dict from a family's name to its rows, in their order."""
    families = collections.defaultdict(list)
    for row in rows:
        families[family(row.type)].append(row)
    return families


def _counted(rows):
    return ", ".join(f"{name} {len(own)}" for name, own in _by_family(rows).items())


def _part(table, rows, field):
    return percent(sum(getattr(row, field) or 0 for row in rows) / (table.totals[field] or 1))


def _span(rows):
    return rows[0].name if len(rows) == 1 else f"{rows[0].name} to {rows[-1].name}"


def _times(shape):
    return "x".join(map(str, shape))
