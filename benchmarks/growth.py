"""How time and peak memory grow with the number of images, image size, batch, width, classes, and units times k.

Every size in a process of its own, the sizes in turn and that several times; memory is what the process takes more than
it had before the network was built. The exponent is p in cost ~ size^p. A constant part of the cost makes it smaller,
so sizes go up to where that is the lesser part, and what is claimed is the exponent between the two largest; that of
all, by least squares in logarithms, is told beside it. The image size is in
pixels, not in their side. Units are those of all convolutions; they and k grow together.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

UNITS, K = 112, 128  # of the shallowest network for top images
SIZES = {
    "images": (4096, 16_384, 65_536, 131_072),
    "pixels": (16**2, 32**2, 64**2, 96**2),
    "batch": (64, 128, 256, 512),
    "width": (0.25, 0.5, 1, 2),
    "classes": (1_000, 10_000, 50_000, 100_000),
    "units times k": tuple(depth * UNITS * depth * K for depth in (1, 2, 4, 8, 16)),
}
LINEAR = {"images": 1, "pixels": 1, "batch": 1, "width": 2, "classes": 1, "units times k": 1}  # of the arithmetic
TOLERANCE = 0.1  # of an exponent
TINY = {
    "images": (64, 128), "pixels": (16**2, 24**2), "batch": (4, 8), "width": (0.25, 0.5), "classes": (3, 6),
    "units times k": (UNITS * K, 4 * UNITS * K),
}  # fmt: skip


def exponent(sizes, costs):
    """p of cost ~ size^p; None where a cost is not above 0."""
    import numpy as np

    if min(costs) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(axis, value):
    """Seconds of a training step of the custom CNN in steady state, or of an epoch over so many images."""
    import numpy as np

    from tfproject import models, training
    from tfproject.data.image_set import Split
    from tfproject.training import acceleration

    given = {"images": 256, "pixels": 32**2, "batch": 64, "width": 0.5, "classes": 10} | {axis: value}
    side, before = round(given["pixels"] ** 0.5), memory_mb()
    model = models.custom_cnn((side, side, 3), given["classes"], width=given["width"])
    count, batch_size, epochs = given["images"], min(given["batch"], given["images"]), 1
    if axis != "images":
        count, epochs = 4 * batch_size, 3
    steps = epochs * (count // batch_size)
    recipe = training.Recipe(
        batch_size=batch_size, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant",
        precision="float32", jit_compile=False,
    )  # fmt: skip
    random = np.random.default_rng(0)
    acceleration.compile_for_training(model, recipe, steps)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    split = Split(images, random.integers(given["classes"], size=count), tuple(map(str, range(count))))
    batches = split.training_batches(given["classes"], batch_size, epochs=epochs)
    model.fit(batches.take(2), verbose=0, shuffle=False)
    start = time.perf_counter()
    model.fit(batches, verbose=0, shuffle=False)  # of so many steps that starting the pipeline does not count
    seconds = time.perf_counter() - start
    return {"seconds": seconds if axis == "images" else seconds / steps, "memory_mb": memory_mb() - before}


def top_samples(axis, value):
    """Seconds to find the top k images of every unit of a custom CNN; both grow as its depth, value as its square."""
    import numpy as np

    from tfproject import models
    from tfproject.data.image_set import Split
    from tfproject.interpret import samples
    from tfproject.interpret.network import lay_open

    depth, before = round((value / (UNITS * K)) ** 0.5), memory_mb()
    network = lay_open(models.custom_cnn((16, 16, 3), 10, width=0.5, depth=depth))
    layers = [conv.name for conv in network.convolutions]
    random, count = np.random.default_rng(0), 2048
    images = random.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    split = Split(images, np.arange(count) % 10, tuple(map(str, range(count))))
    samples.top_samples(network, split.take(range(64)), k=1, layers=layers)
    start = time.perf_counter()
    found = samples.top_samples(network, split, k=depth * K, layers=layers)
    seconds = time.perf_counter() - start
    assert sum(top.indices.size for top in found.values()) == value
    return {"seconds": seconds, "memory_mb": memory_mb() - before}


def measure(axis, value):
    """A size in a process of its own."""
    command = [sys.executable, __file__, "--part", axis, str(value)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(found.splitlines()[-1])


def grown(axis, sizes, rounds):
    points = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            points[size].append(measure(axis, size))
    found = {"sizes": list(sizes)}
    for quantity in ("seconds", "memory_mb"):
        rows = [[point[quantity] for point in points[size]] for size in sizes]
        medians = [statistics.median(row) for row in rows]
        found[quantity] = {
            "measured": rows, "exponent": exponent(sizes, medians),
            "exponents_of_rounds": [exponent(sizes, costs) for costs in zip(*rows)],
            "exponents_of_the_two_largest": [exponent(sizes[-2:], costs) for costs in zip(*rows[-2:])],
        }  # fmt: skip
    return found


def claims_of(axis, found):
    from claims import measure

    low, high = found["sizes"][-2:]
    for quantity, name in (("seconds", "time"), ("memory_mb", "peak memory")):
        exponents = [p for p in found[quantity]["exponents_of_the_two_largest"] if p is not None]
        if exponents:
            what, all_sizes = f"growth of {name} with {axis}, {low:,} to {high:,}", found[quantity]["exponent"]
            remark = "" if all_sizes is None else f"{all_sizes:.2f} over all sizes from {found['sizes'][0]:,}"
            yield measure(what, "exponent", exponents, target=LINEAR[axis] + TOLERANCE, at_most=True, remark=remark)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="two small sizes each, to try the script out")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        axis, value = arguments.part[0], float(arguments.part[1])
        part = top_samples if axis == "units times k" else train
        print(json.dumps(part(axis, value if axis == "width" else round(value))))
        return
    import machine

    sizes = TINY if arguments.tiny else SIZES
    axes = {axis: grown(axis, sizes[axis], arguments.rounds) for axis in arguments.axes}
    claims = [row for axis, found in axes.items() for row in claims_of(axis, found)]
    machine.write("growth", {"axes": axes, "claims": claims, "machine": machine.describe()})


if __name__ == "__main__":
    main()
