"""Numbers with units, and the cost table as text."""

import textwrap

_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def number(value):
    """A count in three digits: 15.5 G; "?" for None."""
    if value is None:
        return "?"
    for size, unit in _DECIMAL:
        if value >= 0.9995 * size:
            return f"{_three_digits(value / size)} {unit}"
    return str(value)


def size(value):
    """Bytes in three digits: 1.53 MiB; "?" for None."""
    if value is None:
        return "?"
    for bytes_, unit in _BINARY:
        if value >= 0.9995 * bytes_:
            return f"{_three_digits(value / bytes_)} {unit}"
    return f"{value} B"


def percent(part):
    """A part of one: 12.3 %; "?" for None."""
    if part is None:
        return "?"
    return "<0.1 %" if 0 < part < 0.0005 else f"{100 * part:.1f} %" if part else "0 %"


def _three_digits(value):
    return f"{value:.{max(0, 2 - (value >= 9.995) - (value >= 99.95))}f}"


def table_text(table):
    """See `CostTable.to_text`."""
    totals = table.totals
    least = "at least " if table.unknown else ""
    columns = _columns(table)
    lines = [list(columns)] + [[show(row) for show in columns.values()] for row in table.rows]
    widest = (24, 20, 13) if table.machine else (34, 22, 16)
    lines = [[_cut(cell, width) for cell, width in zip(line, widest, strict=False)] + line[3:] for line in lines]
    rows = aligned(lines, 3)
    shapes = ", ".join("x".join(map(str, shape[1:])) for shape in table.input_shapes)
    text = [f"{table.model}: batch of {table.batch_size}, input {shapes}, optimiser {table.optimizer}", ""]
    text += [rows[0], "-" * max(map(len, rows)), *rows[1:], ""]
    memory = table.training_memory
    text += [
        f"Parameters    {totals['parameters']:,} ({totals['trainable_parameters']:,} trained), "
        f"{size(totals['parameter_bytes'])}; gradients {size(totals['gradient_bytes'])}, "
        f"optimiser {size(totals['optimizer_bytes'])}",
        f"Activations   {size(totals['activation_bytes'])}; training keeps {least}{size(totals['kept_bytes'])}",
        f"Forward       {least}{number(totals['multiply_adds'])} multiply-adds, "
        f"{number(totals['forward_flops'])} FLOPs",
        f"Training step {least}{number(totals['step_flops'])} FLOPs: backward {number(totals['backward_flops'])}, "
        f"batch statistics and the like {number(totals['training_flops'])}",
        f"Peak memory   predicted to be {'at least' if memory.at_least else 'about'} {size(memory.total)} in a "
        f"training step, in the {memory.when}:",
        f"              parameters {size(memory.parameters)}, optimiser {size(memory.optimizer)}, "
        f"batch {size(memory.batch)}, kept {size(memory.kept)},",
        f"              gradients {size(memory.gradients)}, for the moment {size(memory.transient)}, "
        f"larger blocks than asked for {size(memory.rounding)}",
    ]
    if table.machine:
        machine = table.machine
        text += [
            f"Machine       {machine.gflops:.0f} GFLOP/s in a matrix product, "
            f"{machine.gigabytes_per_second:.1f} GB/s in a copy: "
            f"below {machine.ridge:.1f} FLOPs per byte the roof is memory's",
            f"Measured      {totals['forward_ms']:.1f} ms forward, {totals['backward_ms']:.1f} ms backward with what "
            "the forward pass takes more in training, each layer by itself"
            + ("" if table.step_ms is None else f"; {table.step_ms:.1f} ms at once"),
        ]
    if table.unknown:
        names = ", ".join(f"{name} ({kind})" for name, kind in table.unknown)
        text += textwrap.wrap(f"Not known, so not in the totals of FLOPs and kept activations: {names}", 130)
    return "\n".join(text)


def _columns(table):
    """Column titles, and of each the function from a row to its cell."""
    columns = {
        "layer": lambda row: row.name,
        "type": lambda row: row.type if row.known else f"{row.type}: unknown",
        "output": lambda row: "x".join(map(str, row.output_shape[1:])) or "-",
        "params": lambda row: _or_dash(number, row.parameters),
        "optim.": lambda row: _or_dash(size, row.optimizer_bytes),
        "activation": lambda row: _or_dash(size, row.activation_bytes),
        "kept": lambda row: _or_dash(size, row.kept_bytes),
        "forward": lambda row: _or_dash(number, row.forward_flops),
        "backward": lambda row: _or_dash(number, row.backward_flops),
        "F/byte": lambda row: "-" if not row.intensity else f"{row.intensity:.1f}",
        "of FLOPs": lambda row: _or_dash(percent, table.share(row, "step_flops")),
    }
    if table.machine:
        for title in ("optim.", "activation", "backward"):
            del columns[title]  # 140 columns do not hold everything
        columns |= {
            "fwd ms": lambda row: "-" if row.forward_ms is None else f"{row.forward_ms:.2f}",
            "bwd ms": lambda row: "-" if row.backward_ms is None else f"{row.backward_ms:.2f}",
            "GFLOP/s": lambda row: "-" if row.gflops is None else f"{row.gflops:.1f}",
            "of roof": lambda row: "-" if row.gflops is None else percent(table.machine.of_roof(row)),
            "roof": lambda row: table.machine.roof(row) or "-",
        }
    return columns


def _or_dash(show, value):
    return "-" if value == 0 else show(value)


def _cut(text, width):
    # The end of a path tells more than its beginning.
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def aligned(lines, left):
    """Lines of cells as text in columns, two spaces apart; the first `left` columns start at the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for line in lines:
        cells = zip(line, widths, strict=True)
        texts.append("  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)).rstrip())
    return texts
