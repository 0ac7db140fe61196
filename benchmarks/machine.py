"""What the benchmarks share: the machine's description, and where results go."""

import json
import os
import pathlib
import time

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"


def describe():
    """The machine, with its matrix-product peak as `peak_gflops` measures it now."""
    from tfproject.training.run import environment

    found = environment()
    return hardware(found) | {
        "packages": found["packages"], "commit": found["commit"], "matrix_product_gflops": round(peak_gflops()),
    }  # fmt: skip


def hardware(found):
    """What a time depends on most, of what `tfproject.training.run.environment` gives."""
    return {"processor": found["processor"] | _kind(), "cores": found["cores"], "gpus": found["gpus"]}


def check_runs(directory):
    """Refuse to go on with runs of another machine, whose times would be told as this one's.

    Args:
        directory: pathlib.Path of the runs, made if it is not there.

    Raises:
        SystemExit: if they are of another machine.
    """
    from tfproject.training.run import environment

    here, path = hardware(environment()), directory / "machine.json"
    directory.mkdir(parents=True, exist_ok=True)
    if path.exists() and (there := json.loads(path.read_text())) != here:
        raise SystemExit(f"{directory} holds runs of another machine ({there}); name another with --directory.")
    path.write_text(json.dumps(here) + "\n")


def peak_gflops(side=2048, rounds=5):
    """Of a float32 matrix product, best of several, by NumPy or by TensorFlow, whichever is faster.

    NumPy's library does not know every processor, and then takes kernels of half the width.
    """
    from tfproject.cost.timing import measure_machine

    a = np.random.default_rng(0).normal(size=(side, side)).astype("float32")
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return max(2 * side**3 / min(seconds) / 1e9, measure_machine(side).gflops)


def _kind():
    """The processor's family and model, as its makers number them: one name may stand for several."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    found = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    return {key: int(found[name]) for key, name in (("family", "cpu family"), ("model", "model")) if name in found}


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
