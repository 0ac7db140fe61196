"""Forward FLOPs by the cost study and by TensorFlow's profiler, by layer type, for all of keras.applications.

Every network at its default size, a batch of one. Where the two differ, by which of `cost.RULES`; where no rule says
why, `unexplained` is not zero and the script fails.
"""

import argparse
import collections
import sys
import time

import keras
import machine

from tfproject import cost
from tfproject.cost.loading import default_input_shape


def compare(name):
    """The two counts for one network."""
    model = getattr(keras.applications, name)(weights=None)
    shape = default_input_shape(model)
    start = time.perf_counter()
    table = cost.study(model, input_shape=shape)
    seconds = time.perf_counter() - start
    profiled, all_operations = cost.profiled_flops(model, input_shape=shape)
    types = collections.defaultdict(lambda: {"layers": 0, "study": 0, "profiler": 0, "rules": collections.Counter()})
    unexplained = abs(all_operations - sum(profiled.values()))
    for row in table.rows:
        if row.type == "InputLayer":
            continue
        found = types[row.type]
        found["layers"] += 1
        found["study"] += row.forward_flops
        found["profiler"] += profiled[row.name]
        found["rules"].update(row.beyond_profiler)
        unexplained += abs(row.forward_flops - sum(row.beyond_profiler.values()) - profiled[row.name])
    return {
        "input": list(table.input_shapes[0][1:]),
        "parameters": table.totals["parameters"],
        "parameters_agree": table.totals["parameters"] == model.count_params(),
        "multiply_adds": table.totals["multiply_adds"],
        "flops": table.totals["forward_flops"],
        "profiler_flops": all_operations,
        "unexplained": unexplained,
        "unknown": [kind for _, kind in table.unknown],
        "study_seconds": round(seconds, 2),
        "by_layer_type": {kind: found | {"rules": dict(found["rules"])} for kind, found in sorted(types.items())},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks of keras.applications (default all)")
    arguments = parser.parse_args()
    names = arguments.names or sorted(n for n in dir(keras.applications) if n[0].isupper())
    networks = {}
    for name in names:
        networks[name] = compare(name)
        keras.backend.clear_session()
        print(f"{name}: unexplained {networks[name]['unexplained']}", file=sys.stderr, flush=True)
    wrong = [n for n, r in networks.items() if r["unexplained"] or r["unknown"] or not r["parameters_agree"]]
    result = {"networks": networks, "rules": cost.RULES, "wrong": wrong, "machine": machine.describe()}
    machine.write("cost_against_profiler", result)
    if wrong:
        raise SystemExit(f"Not as the profiler counts: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
