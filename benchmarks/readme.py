"""benchmarks/README.md from results/*.json: the machine, and one table of all claims."""

import argparse
import json
import pathlib
import re

import numpy as np
from claims import claim, measure, met

HERE = pathlib.Path(__file__).parent
HEAD = """# Benchmarks

What the project claims about speed, each figure from a script here. `make bench` runs them all; `python
benchmarks/readme.py` writes this page from `results/*.json`. Comparisons with PyTorch need `pip install -r
benchmarks/requirements.txt`, in this environment or in another one whose Python TORCH_PYTHON names: `make bench
TORCH_PYTHON=.../bin/python`.

Ours and theirs are measured in turn, several times unless a row says once. Ours and theirs are medians; the ratio is
the median of the rounds' ratios with the lowest and the highest in brackets, and above 1 ours is better.
"""
COLUMNS = "| what | against | ours | theirs | ratio, or spread | goal | from |\n|---|---|---|---|---|---|---|"


def page(results):
    """The page's Markdown.

    Args:
        results: a dict from a result's name to its JSON.
    """
    rows = [(name, row) for name, result in results.items() for row in claims_in(name, result)]
    without = [name for name, result in results.items() if not claims_in(name, result)]
    parts = [HEAD, machines(results)]
    if rows:
        parts.append("\n".join([COLUMNS, *(line(name, row) for name, row in rows)]) + "\n")
    remarks = [f"- {row['what']}: {row['remark']}." for _, row in rows if row.get("remark")]
    if remarks:
        parts.append("\n".join(remarks) + "\n")
    if without:
        listed = ", ".join(f"[`{name}`](results/{name}.json)" for name in without)
        parts.append(f"Measured without a claim about speed: {listed}.\n")
    for name, result in results.items():
        if lacking := result.get("not_measured"):
            parts.append(f"Not measured in [`{name}`](results/{name}.json): {', '.join(lacking)}.\n")
    if missing := not_run(results):
        parts.append(f"Not run yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def not_run(results):
    """The scripts of `make bench` that have left no result."""
    makefile = (HERE.parent / "Makefile").read_text().replace("\\\n", "")
    scripts = re.search(r"^BENCHMARKS \?= (.*)$", makefile, re.MULTILINE)[1].split()
    return [script for script in scripts if not any(name.startswith(script) for name in results)]


def machines(results):
    """For each machine that results are from which these are, and the range of its measured peak."""
    peaks = {}
    for name, result in results.items():
        found = result.get("machine")
        if found:
            packages = found.get("packages", {})
            processor = found.get("processor", {})
            known = [f"{of} {packages[of]}" for of in ("tensorflow", "keras", "numpy") if of in packages]
            name_of = processor.get("name", "an unknown processor")
            if "family" in processor:
                name_of += f" (family {processor['family']}, model {processor['model']})"
            key = ", ".join([name_of, f"{found['cores']} cores", *found["gpus"]])
            key += f"; {', '.join(known)}" if known else ""
            peaks.setdefault(key, {})[name] = found["matrix_product_gflops"]
    told = []
    for key, own in peaks.items():
        values = own.values()
        spread = f"{min(values):g}" if min(values) == max(values) else f"{min(values):g} to {max(values):g}"
        names = f"{', '.join(own)}: m" if len(peaks) > 1 else "M"
        told.append(f"{names}easured on {key}. Matrix product (float32), taken with each: {spread} GFLOP/s.\n")
    return "\n".join(told)


def claims_in(name, result):
    """The rows of a result: those it makes itself, or what is read out of a result that has none."""
    if "claims" in result:
        return result["claims"]
    return list(READ_OUT.get(name, lambda _: ())(result))


def _input_pipeline(result):
    rates = result["images_per_second"]
    against = "Keras' pipeline from JPEG files"
    remark = "Keras' layer turns by any angle up to a quarter turn and interpolates, ours makes quarter turns alone"
    yield claim("input pipeline", against, "images/s", rates["ours"], rates["keras"], rate=True, remark=remark)
    as_trained = rates.get("ours as trained", rates["ours"])
    making = 100 * max(result["training_step_images_per_second"].values()) / min(as_trained)
    remark = f"making the batches takes up to {making:.1f} % of the fastest training step's time, beside it"
    waits = [100 * share for share in result["waiting_share"]]
    yield measure("input wait during training", "%", waits, target=2, at_most=True, remark=remark)


def _frozen_prefix(result):
    for cut in result["cuts"]:
        measured = cut["as_keras_does_it_epochs_measured"]
        yield {
            "what": f"{cut['epochs']} epochs on {result['data']}, VGG16 frozen until {cut['frozen_until']}, "
            f"trained in {cut['trained_in']}{', the fastest here' if cut['precision'] == 'auto' else ''}",
            "against": "`trainable=False` in Keras", "unit": "s", "ours": cut["run_once_seconds"],
            "theirs": cut["as_keras_does_it_seconds"], "ratio": cut["times_faster"],
            # Only the mean of theirs is kept, and how far its two measurements are apart.
            "lowest": cut["times_faster"] * (1 - cut["as_keras_does_it_spread"] / 2),
            "highest": cut["times_faster"] * (1 + cut["as_keras_does_it_spread"] / 2),
            "rounds": measured, "target": 10, "remark": f"its arithmetic is {cut['times_less_arithmetic']} times less; "
            f"theirs is in float32, from {measured} epochs, of which the spread is; ours was measured once",
        }  # fmt: skip


def _top_samples(result):
    what = f"top images of {result['units']:,} units, {result['images']:,} images"
    # A number where it was measured once.
    ours, alone = (np.atleast_1d(result[name]).tolist() for name in ("seconds", "forward_seconds"))
    yield claim(what, "the forward pass alone", "s", ours, alone)
    yield measure(f"{what}: time", "s", ours, target=900, at_most=True)
    yield measure(f"{what}: peak memory", "MB", [result["peak_memory_mb"]], target=2_000, at_most=True)


FROM_FILES = "model.predict, from the files"
WITHOUT_WAIT = ("model.predict, tf.data's tuner off", "model.predict, same batches")


def _without_wait(rates, name, goal):
    """Why `model.predict` is slow, and whether the goal is met against one without that; "" if none was measured."""
    for other in WITHOUT_WAIT:
        if other in rates:
            waiting, without = (
                claim(name, against, "images/s", rates[name], rates[against], rate=True)["ratio"]
                for against in ("model.predict", other)
            )
            only = ", so that the goal is met only where it waits" if without < goal <= waiting else ""
            return (
                "`model.predict` makes batches of 32, and at its end waits for tf.data's tuner; against "
                f"`{other}` the ratio is {without:.2f}{only}"
            )
    return ""


def _inference(result):
    rates, goal = {name: row["rounds"] for name, row in result["images_per_second"].items()}, 1.5
    for name in rates:
        if name.split(" in ")[0] in ("predict", "map"):
            alike = result.get("tiles_seen_as_in_float32", {}).get(name, 1)
            remark = f"{100 * alike:.2f} % of the tiles get the class that they get in float32" if alike < 1 else ""
            limit = ""
            if " in " not in name and "at_the_peak_against_model_predict" in result:
                possible = np.atleast_1d(result["at_the_peak_against_model_predict"])
                limit = (
                    "at the machine's matrix-product peak the network alone, of images already decoded, would be "
                    f"{np.median(possible):.2f} ({min(possible):.2f} to {max(possible):.2f}) times as fast"
                )
            remark = "; ".join(filter(None, (remark, limit, _without_wait(rates, name, goal))))
            others = {"model.predict": goal, **dict.fromkeys((FROM_FILES, *WITHOUT_WAIT, "onnxruntime"))}
            for against, target in others.items():
                if against in rates:
                    yield claim(
                        name, f"`{against}`", "images/s", rates[name], rates[against], target=target, rate=True,
                        remark=remark if target else "",
                    )  # fmt: skip
    for name in rates:
        what, _, precision = name.partition(" in ")
        if what == "map_overlapping":
            suffix = f" in {precision}" if precision else ""
            yield measure(f"map{suffix}: windows", "a second", rates[name], target=300)
            right = [100 * result["tiles_right"][name]]
            yield measure(f"map{suffix} of a mosaic: tiles right in their middle", "%", right, target=97)


READ_OUT = {
    "inference": _inference,
    "input_pipeline": _input_pipeline, "frozen_prefix": _frozen_prefix, "interpret_top_samples": _top_samples,
}  # fmt: skip


def line(name, row):
    """A row of the table."""
    unit = f" {row['unit']}" if row["unit"] and row["unit"] != "exponent" else ""
    theirs = f"{number(row['theirs'])}{unit}" if "theirs" in row else ""
    spread = f" ({number(row['lowest'])} to {number(row['highest'])})" if row["rounds"] > 1 else ", measured once"
    middle = f"**{number(row['ratio'])}**{spread}" if "ratio" in row else spread.strip(" ,()")
    target = ""
    if row["target"] is not None:
        asked = f"at most {number(row['target'])}" if row.get("at_most") else number(row["target"])
        target = f"{asked}{'' if met(row) else ', **missed**'}"
    cells = (row["what"], row["against"], f"{number(row['ours'])}{unit}", theirs, middle, target)
    return f"| {' | '.join(cells)} | [{name}](results/{name}.json) |"


def number(value):
    """Three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help="a folder with JSON files")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "README.md")
    arguments = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in sorted(arguments.results.glob("*.json"))}
    arguments.output.write_text(page(results))


if __name__ == "__main__":
    main()
