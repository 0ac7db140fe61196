"""The README's table of results, written from the artefacts so that it cannot say anything else."""

import json
import pathlib

from tfproject.errors import UserError
from tfproject.files import write_atomically

START, END = "<!-- results -->\n", "<!-- /results -->"
COPY = {True: " (a lossy copy, harder than the original)", False: ""}
OTHERS = {
    "custom_cnn": "the course project 84.7 % at its best, on the lossless images",
    "whitened_cnn": "cifar10-airbench 94.0 %, on the lossless images",
    "eurosat": "the course project 68.0 % (own CNN) and 89.0 % (VGG16); on these very lists 82.8 % (a Keras CNN) and "
    "96.6 % (DenseNet121, pretrained)",
}
NETWORKS = {"custom_cnn": "the course's custom CNN", "whitened_cnn": "a strong small CNN"}


def results_table(root="."):
    """The Markdown between the markers: a row for each result that is there.

    Args:
        root: the repository.
    """
    results = pathlib.Path(root, "results")
    rows, remarks = [], []
    if (results / "task1-custom-cnn" / "metrics.json").exists():
        _add_task1(json.loads((results / "task1-custom-cnn" / "metrics.json").read_text()), rows, remarks)
    _add_task5(root, results / "open-project", rows, remarks)
    head = ("| task | data | test accuracy (95 % interval) | others |", "|---|---|---|---|")
    return "\n".join((*head, *rows, "", "\n\n".join(remarks), ""))


def _add_task1(metrics, rows, remarks):
    data = metrics["data"]
    images = f"CIFAR-10{COPY['compressed again' in data['description']]}, {data['images']['test']:,} test images"
    for name, found in metrics["networks"].items():
        accuracy, runs = found["test_accuracy"], len(found["runs"])
        low, high = (accuracy["low"], accuracy["high"]) if runs > 1 else found["test_intervals"][0]
        views = f", {found['views']} views" if found["views"] > 1 else ""
        seeds = f"mean of {runs} seeds" if runs > 1 else "a single run"
        rows.append(
            f"| {NETWORKS[name]}, from scratch | {images} "
            f"| **{accuracy['mean']:.2%}** ({low:.2%} to {high:.2%}; {seeds}{views}) | {OTHERS[name]} |"
        )
        environment = found["environments"][0]
        remarks.append(
            f"{NETWORKS[name].capitalize()}: {found['trainable_parameters']:,} trained parameters, "
            f"{found['recipe']['epochs']} epochs over all {data['images']['train']:,} training images, at most "
            f"{max(found['seconds']) / 60:.0f} minutes a run on {environment['cores']} CPU cores. From "
            "[`results/task1-custom-cnn/metrics.json`](results/task1-custom-cnn/metrics.json)."
        )


def _add_task5(root, folder, rows, remarks):
    metrics = json.loads((folder / "metrics.json").read_text())
    parts = metrics.get("parts", {})
    if "random" not in parts:
        _add_single_run(root, folder, metrics, rows, remarks)
    names = {"random": "a random split", "spatial": "a split by place"}
    networks = {"land cover, from scratch": parts, "VGG16, fine-tuned": parts.get("vgg16", {})}
    for network, of_network in networks.items():
        for kind, words in names.items():
            if kind not in of_network:
                continue
            found = of_network[kind]
            test, runs = found["test"][str(found["views"])], len(found["runs"])
            accuracy = test["accuracy"]
            low, high = (accuracy["low"], accuracy["high"]) if runs > 1 else test["intervals"][0]
            seeds = f"mean of {runs} seeds" if runs > 1 else "a single run"
            views = f", {found['views']} views" if found["views"] > 1 else ""
            rows.append(
                f"| {network} | EuroSAT RGB, {words} ({found['split']}), {found['test_images']:,} test tiles "
                f"| **{accuracy['mean']:.2%}** ({low:.2%} to {high:.2%}; {seeds}{views}) "
                f"| {OTHERS['eurosat'] if kind == 'random' else ''} |"
            )
            environment = found["environments"][0]
            remarks.append(
                f"{network[0].upper()}{network[1:]}, {words}: {found['parameters']:,} parameters, {found['epochs']} "
                f"epochs over {found['images']:,} tiles, at most {max(found['seconds']) / 60:.0f} minutes a run on "
                f"{environment['cores']} CPU cores."
            )
    if "random" in parts:
        remarks.append(
            "From [`results/open-project/metrics.json`](results/open-project/metrics.json). Under a random split tiles "
            "beside each other fall into training and test, so it looks better than the split by place."
        )


def _add_single_run(root, folder, metrics, rows, remarks):
    environment = json.loads((folder / "environment.json").read_text())
    card = json.loads(pathlib.Path(root, "saved_models", "eurosat_best.json").read_text())
    test, training = metrics["test"], metrics["training"]
    low, high = test["accuracy_interval"]
    hardest = min(test["per_class"], key=lambda row: row["f1"])
    rows.append(
        f"| land cover, from scratch | EuroSAT RGB, {card['data']['split']}, {test['count']:,} test tiles "
        f"| **{test['accuracy']:.2%}** ({low:.2%} to {high:.2%}; a single run) | {OTHERS['eurosat']} |"
    )
    remarks.append(
        f"Land cover: one network with {training['parameters']:,} parameters, one view of each tile, a single run with "
        f"seed {environment['seed']}; {training['epochs']} epochs in {training['seconds'] / 60:.0f} minutes on "
        f"{environment['cores']} CPU cores with {training['peak_memory_mb'] / 1024:.1f} GiB of memory. Macro F1 "
        f"{test['macro_f1']:.4f}, kappa {test['kappa']:.4f}, calibration error {test['calibration_error']:.4f}; the "
        f"hardest class is {hardest['class']} (F1 {hardest['f1']:.3f}). From "
        "[`results/open-project/metrics.json`](results/open-project/metrics.json). The split is random: tiles beside "
        "each other fall into training and test, and a region never seen would score lower."
    )


def update(root="."):
    """Put the table into the README."""
    path = check(root)
    before, rest = path.read_text().split(START)
    _, after = rest.split(END)
    write_atomically(path, before + START + results_table(root) + END + after)


def check(root="."):
    """The README's path. Raises UserError if `root` is not the repository, or its README has no place for results."""
    path = pathlib.Path(root, "README.md")
    text = path.read_text() if path.is_file() else ""
    if text.count(START) != 1 or text.count(END) != 1:
        raise UserError(f"{path} has no place for results; publish from the folder of tfproject's own repository.")
    return path
