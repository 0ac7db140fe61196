"""What is waited for before anything is trained: `tfproject --help`, the first training step, compiling.

Each in a fresh process, in turn, several times. A step is compiled anew in every process, as TensorFlow keeps no
compiled step on disk; what is kept is the answer which precision and compiler are the fastest here, told once with an
empty cache and once with it.
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
start = time.perf_counter()
import numpy as np
from tfproject import models, training
from tfproject.training import acceleration
import tensorflow
imported = time.perf_counter()
recipe = training.Recipe(batch_size=int(sys.argv[2]), optimizer="adam", learning_rate=1e-3)
if sys.argv[1] == "auto":
    recipe = acceleration.resolve(recipe, models.custom_cnn, (32, 32, 3), 10)
resolved = time.perf_counter()
model = models.custom_cnn((32, 32, 3), 10)
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=sys.argv[1] == "xla")
images, labels = np.zeros((recipe.batch_size, 32, 32, 3), "float32"), np.zeros(recipe.batch_size, int)
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
    found = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, how, str(batch_size)], check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"TFPROJECT_CACHE": cache},
    )  # fmt: skip
    return json.loads(found.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    import machine
    from claims import claim, measure

    helps, imports, steps = [], [], {name: [] for name in ("plain", "xla", "auto", "auto again")}
    for _ in range(arguments.rounds):
        helps.append(help_seconds())
        imports.append(import_seconds())
        with tempfile.TemporaryDirectory() as cache:
            for name, found in steps.items():
                found.append(first_step(name.split()[0], arguments.batch_size, cache))
    compiling = {name: [row["compile"] for row in steps[name]] for name in ("plain", "xla")}
    resolving = {name: [row["resolve"] for row in steps[name]] for name in ("auto", "auto again")}
    machine.write(
        "start_up",
        {
            "batch_size": arguments.batch_size, "help_seconds": helps, "import_tensorflow_seconds": imports,
            "first_step": steps, "compiled_step_kept_between_processes": False,
            "claims": [
                claim("`tfproject --help`", "`import tensorflow` alone", "s", helps, imports),
                measure("importing, building the custom CNN and its first step", "s",
                        [row["whole"] for row in steps["plain"]]),
                measure("tracing of the training step", "s", compiling["plain"]),
                measure("compiling of the training step by XLA", "s", compiling["xla"]),
                claim("choosing precision and compiler, remembered", "measured", "s", resolving["auto again"],
                      resolving["auto"]),
            ],
            "machine": machine.describe(),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
