"""What is waited for before anything is trained: `tfproject --help`, the first training step, compiling.

Each in a fresh process, in turn, several times: the custom CNN as a tutorial compiles it, the same with XLA, and as
`training.fit` trains it ("auto"). The latter two run twice. Whether a compiled step is kept shows in XLA's second
process; what ours keeps is the answer which precision and compiler are the fastest here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

FIRST_STEP = """
import json, sys, time
how, batch_size = sys.argv[1], int(sys.argv[2])
start = time.perf_counter()
import numpy as np
if how != "auto":
    import tensorflow  # before tfproject, which chooses other kernels
from tfproject import models
if how == "auto":
    from tfproject.training import Recipe, acceleration
imported = resolved = time.perf_counter()
if how == "auto":
    recipe = Recipe(batch_size=batch_size, optimizer="adam", learning_rate=1e-3, schedule="constant")
    recipe = acceleration.resolve(recipe, models.custom_cnn, (32, 32, 3), 10)
    resolved = time.perf_counter()
    with acceleration.dtype_policy(recipe.precision):
        model = models.custom_cnn((32, 32, 3), 10)
    acceleration.compile_for_training(model, recipe, 1)
else:
    model = models.custom_cnn((32, 32, 3), 10)
    compiler = {"jit_compile": True} if how == "xla" else {}
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], **compiler)
images, labels = np.zeros((batch_size, 32, 32, 3), "float32"), np.eye(10, dtype="float32")[np.zeros(batch_size, int)]
built = time.perf_counter()
model.train_on_batch(images, labels)
first = time.perf_counter()
model.train_on_batch(images, labels)
second = time.perf_counter()
print(json.dumps({"import": imported - start, "resolve": resolved - imported, "build": built - resolved,
    "first_step": first - built, "compile": max(0.0, (first - built) - (second - first)), "whole": first - start}))
"""


def help_seconds():
    start = time.perf_counter()
    program = "from tfproject.cli import main; main(['--help'])"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return time.perf_counter() - start


def import_seconds():
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True)
    return time.perf_counter() - start


def first_step(how, batch_size, cache):
    """Seconds of each stage; `how` is plain, xla or auto."""
    import machine

    environment = os.environ if how == "auto" else machine.plain_environment()
    found = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, how, str(batch_size)], check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment | {"TFPROJECT_CACHE": cache},
    )  # fmt: skip
    return json.loads(found.stdout.splitlines()[-1])


def claims_of(helps, imports, steps):
    from claims import claim, measure

    whole, compiling, resolving = (
        {name: [row[stage] for row in found] for name, found in steps.items()}
        for stage in ("whole", "compile", "resolve")
    )
    return [
        claim("`tfproject --help`", "`import tensorflow` alone", "s", helps, imports),
        claim("importing, building the custom CNN and its first step", "Keras' defaults", "s", whole["auto again"],
              whole["plain"]),
        measure("the same, where precision and compiler are yet to be chosen", "s", whole["auto"]),
        measure("tracing of the training step in Keras' defaults", "s", compiling["plain"]),
        measure("tracing of our training step, and compiling where XLA is chosen", "s", compiling["auto again"]),
        claim("compiling of the training step by XLA, in a second process", "the first process", "s",
              compiling["xla again"], compiling["xla"],
              remark="about 1 where nothing is kept and every process compiles anew"),
        claim("choosing precision and compiler, remembered", "measured", "s", resolving["auto again"],
              resolving["auto"]),
    ]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    import machine

    helps, imports, steps = [], [], {name: [] for name in ("plain", "xla", "xla again", "auto", "auto again")}
    for _ in range(arguments.rounds):
        helps.append(help_seconds())
        imports.append(import_seconds())
        with tempfile.TemporaryDirectory() as cache:
            for name, found in steps.items():
                found.append(first_step(name.split()[0], arguments.batch_size, cache))
    machine.write(
        "start_up",
        {
            "batch_size": arguments.batch_size, "help_seconds": helps, "import_tensorflow_seconds": imports,
            "first_step": steps, "claims": claims_of(helps, imports, steps), "machine": machine.describe(),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
