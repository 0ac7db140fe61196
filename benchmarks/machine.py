"""What the benchmarks share: the machine's description, and where results go."""

import json
import os
import pathlib
import time

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"


def describe():
    """The machine and its matrix-product peak in GFLOP/s (float32, NumPy, best of five), measured now."""
    from tfproject.training.run import environment

    a = np.random.default_rng(0).normal(size=(3000, 3000)).astype("float32")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    found = environment()
    return {
        "processor": found["processor"], "cores": found["cores"], "gpus": found["gpus"], "packages": found["packages"],
        "commit": found["commit"], "matrix_product_gflops": round(2 * 3000**3 / min(seconds) / 1e9),
    }  # fmt: skip


def plain_environment():
    """This process's environment for one that has TensorFlow's own threads and kernels, as a tutorial leaves them.

    Such a process must import tensorflow before tfproject, which chooses other ones.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    return environment | {"TF_NUM_INTEROP_THREADS": "0"}


def write(name, result):
    """Keep a benchmark's result as JSON, and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
