"""Images/s of the training step: ours, Keras as a tutorial writes it, PyTorch eager and compiled.

The course's custom CNN (32x32) and the land-cover CNN (64x64), the same architecture, batch, loss and optimiser (Adam)
for all, made-up images. Each contestant lives in a process of its own and waits while another one is measured; the
rounds alternate. Keras' defaults get the same batches from tf.data as ours, without its tuner: the end of a short `fit`
waits for that one, up to seconds, and it is the step that is compared. Ours trains in the precision that it finds to be
the fastest here, and where that is not float32, in float32 too, so that like can be compared with like; PyTorch does
the same (channels_last, autocast). The machine's matrix-product peak in float32 is measured in every round, and the
share of it is that of the step's arithmetic as `tfproject.cost` counts it.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = {"custom_cnn": 32, "land_cover_cnn": 64}
CLASSES = 10
# Patterns of the profiler's names, "layer/operation:its kernel". BatchNorm is known by its layers, as Keras makes many
# operations of one.
KINDS = {"convolution": r":\w*Conv2D", "BatchNorm": r"_norm\w*/", "ReLU": r":\w*Relu", "pooling": r":\w*MaxPool"}
TORCH = pathlib.Path(__file__).with_name("training_step_torch.py")


def made_up(batch_size, size):
    import numpy as np

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch_size, size, size, 3)).astype("float32")
    return images, np.eye(CLASSES, dtype="float32")[random.integers(CLASSES, size=batch_size)]


def ours(network, batch_size, precision="auto"):
    """(function of a number of steps, parameters, how): what `training.fit` trains with on this machine."""
    import tensorflow as tf

    from tfproject import models
    from tfproject.data import pipeline
    from tfproject.training import Recipe, acceleration

    build, shape = getattr(models, network), (NETWORKS[network],) * 2 + (3,)
    recipe = Recipe(
        batch_size=batch_size, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant",
        precision=precision,
    )  # fmt: skip
    recipe = acceleration.resolve(recipe, build, shape, CLASSES)
    with acceleration.dtype_policy(recipe.precision):
        model = build(shape, CLASSES)
    acceleration.compile_for_training(model, recipe, 1)
    batches = pipeline.untuned(tf.data.Dataset.from_tensors(made_up(batch_size, shape[0])).repeat())

    def train(steps):
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    return train, model.count_params(), {"precision": recipe.precision, "jit_compile": recipe.jit_compile}


def keras_defaults(network, batch_size):
    """The same for `compile` and `fit` with nothing but the optimiser's and the loss's names, fed as ours."""
    import tensorflow as tf  # before tfproject, which chooses other kernels

    from tfproject import models
    from tfproject.data import pipeline

    size = NETWORKS[network]
    model = getattr(models, network)((size, size, 3), CLASSES)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    batches = pipeline.untuned(tf.data.Dataset.from_tensors(made_up(batch_size, size)).repeat())

    def train(steps):
        model.fit(batches, steps_per_epoch=steps, verbose=0)

    return train, model.count_params(), {"precision": "float32", "jit_compile": "auto"}


CONTESTANTS = {"ours": ours, "ours float32": functools.partial(ours, precision="float32"), "keras": keras_defaults}


def answer(train, parameters, how):
    """Train as many steps as each line of standard input says, and say how many seconds that took.

    A line "profile N" is answered by the share of the time of N steps that went into each kind of operation.
    """
    train(2)  # traces, compiles, warms up
    print(json.dumps({"parameters": int(parameters), "how": how}), flush=True)
    for line in sys.stdin:
        *profiled, steps = line.split()
        start = time.perf_counter()
        if profiled:
            print(json.dumps(profile(train, int(steps))), flush=True)
        else:
            train(int(steps))
            print(time.perf_counter() - start, flush=True)


def profile(train, steps, kinds=KINDS, by_the_clock=False):
    """Share of the time of a training with TensorFlow by kind of operation, a dict; the rest is everything else.

    Where operations run side by side it is the share of the sum of their times, which is then more than the training's,
    unless the share is to be that of the training's time by the clock.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        start = time.perf_counter()
        train(steps)
        seconds = time.perf_counter() - start
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        for path in pathlib.Path(folder).glob("**/*.xplane.pb"):
            space.MergeFromString(path.read_bytes())
    spent, operations = dict.fromkeys(kinds, 0.0), 0.0
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name = plane.event_metadata[event.metadata_id].name
            if re.fullmatch(r"\w*PartitionedCall/[^:]+:\w+", name):  # of the step, and not of the input beside it
                operations += event.duration_ps / 1e12
            for kind, pattern in kinds.items():
                if re.search(pattern, name):
                    spent[kind] += event.duration_ps / 1e12
                    break
    whole = seconds if by_the_clock else max(seconds, operations)
    return {kind: round(total / whole, 5) for kind, total in spent.items()}


class Contestant:
    """A process that trains when asked to."""

    def __init__(self, command, environment=None):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self.says = self._answer()

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        answer = self.process.stdout.readline()
        if answer:
            return json.loads(answer)
        self.process.wait()
        self.errors.seek(0)
        told = self.errors.read().strip().splitlines() or ["it said nothing"]
        raise SystemExit(f"This ended before it answered: {' '.join(map(str, self.process.args))}: {told[-1]}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(network, arguments):
    """All contestants on a network."""
    import machine

    from tfproject import cost, models

    options = [network, str(arguments.batch_size)]
    with contextlib.ExitStack() as stack:
        running = {}

        def start(name, command, environment=None):
            running[name] = Contestant(command, environment)
            stack.callback(running[name].close)

        def start_torch(precision):
            if arguments.torch_python:
                for variant in ("eager", "compile"):
                    name = f"torch {variant} {precision}"
                    start(name, [arguments.torch_python, TORCH, variant, precision, *options])

        def start_keras(name, environment=None):
            start(name, [sys.executable, __file__, "--contestant", name, *options], environment)

        start_keras("ours")
        start_keras("keras", machine.plain_environment())
        start_torch("float32")
        fastest = running["ours"].says["how"]["precision"]
        if fastest != "float32":
            start_keras("ours float32")
            start_torch(fastest.removeprefix("mixed_"))
        rates, peaks = {name: [] for name in running}, []
        told = {name: contestant.says for name, contestant in running.items()}
        for _ in range(arguments.rounds):
            peaks.append(machine.peak_gflops())
            for name, contestant in running.items():
                rates[name].append(arguments.steps * arguments.batch_size / contestant.ask(arguments.steps))
        profiles = {name: running[name].ask(f"profile {arguments.steps}") for name in CONTESTANTS if name in running}
    size = NETWORKS[network]
    model = getattr(models, network)((size, size, 3), CLASSES)
    trained = sum(w.shape.num_elements() for w in model.trainable_variables)
    for name, says in told.items():
        if says["parameters"] not in (model.count_params(), trained):
            raise SystemExit(f"{name}'s {network} has {says['parameters']} parameters, not {model.count_params()}.")
    flops = cost.study(model, arguments.batch_size, optimizer="adam").totals["step_flops"] / arguments.batch_size
    return {
        "images_per_second": rates, "matrix_product_gflops": peaks, "step_flops_an_image": flops,
        "how": {name: says["how"] for name, says in told.items()}, "share_of_time": profiles,
    }  # fmt: skip


def left_out(torch_python, earlier):
    """What is not measured, a list; where the earlier result (a path) has it, standard error says that it goes."""
    if torch_python:
        return []
    install = "pip install -r benchmarks/requirements.txt"
    if earlier.exists() and '"torch ' in earlier.read_text():
        print(f"PyTorch is not there, so {earlier} loses its rows: {install}, or --torch-python.", file=sys.stderr)
    return [f"PyTorch ({install})"]


def _shares(found, name):
    """Of the matrix-product peak, in each round, in percent."""
    return [
        100 * rate * found["step_flops_an_image"] / 1e9 / peak
        for rate, peak in zip(found["images_per_second"][name], found["matrix_product_gflops"], strict=True)
    ]


def limit(found, name, row):
    """What the profile tells, in words, and the ratio to a rival that would be left if only convolutions took time."""
    ours, keras = found["share_of_time"][name], found["share_of_time"]["keras"]
    if not ours["convolution"]:  # XLA compiles the whole step into one operation
        return ""
    return (
        f"{ours['convolution']:.0%} of ours is spent in convolutions and {ours['BatchNorm']:.0%} in BatchNorm, of "
        f"Keras' defaults {keras['convolution']:.0%} and {keras['BatchNorm']:.0%}; were all but convolutions free, "
        f"ours would be {row['ratio'] / ours['convolution']:.2f} times as fast as {row['against']}, and take "
        f"{statistics.median(_shares(found, name)) / ours['convolution']:.0f} % of the matrix-product peak"
    )


def claims_of(network, found):
    from claims import claim, measure

    rates, fastest = found["images_per_second"], found["how"]["ours"]["precision"]
    torch = {name: statistics.median(rates[name]) for name in rates if name.startswith("torch")}
    rows = []
    for precision in dict.fromkeys((fastest, "float32")):
        what = f"training step, {network}, {NETWORKS[network]}x{NETWORKS[network]}, in {precision}"
        name = "ours" if precision == fastest else f"ours {precision}"
        against = {"Keras' defaults": ("keras", 1.4)}
        # In float32 like with like, and the fastest of ours with the fastest of theirs.
        if rivals := [rival for rival in torch if precision == fastest or rival.endswith(f" {precision}")]:
            best = max(rivals, key=torch.get)
            against[f"PyTorch ({best.removeprefix('torch ')}, the fastest)"] = (best, 1.0)
        for rival, (of, target) in against.items():
            row = claim(what, rival, "images/s", rates[name], rates[of], target=target, rate=True)
            rows.append(row | {"remark": limit(found, name, row)})
        target = 50 if (network, precision) == ("land_cover_cnn", "float32") else None
        remark = "" if precision == "float32" else "the peak is that of float32, so it can be more than all"
        rows.append(measure(
            f"{what}: share of the matrix-product peak", "%", _shares(found, name), target=target, remark=remark
        ))  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="of a contestant in a round (default 8)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--torch-python",
        default=os.environ.get("TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None),
        help="interpreter that has PyTorch (default TORCH_PYTHON, or this one if it has; else PyTorch is left out)",
    )  # fmt: skip
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "NETWORK", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        name, network, batch_size = arguments.contestant
        return answer(*CONTESTANTS[name](network, int(batch_size)))
    import machine

    not_measured = left_out(arguments.torch_python, machine.RESULTS / "training_step.json")
    networks = {network: compare(network, arguments) for network in arguments.networks}
    machine.write(
        "training_step",
        {"batch_size": arguments.batch_size, "steps": arguments.steps, "not_measured": not_measured,
         "networks": networks,
         "claims": [row for network, found in networks.items() for row in claims_of(network, found)],
         "machine": machine.describe()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
