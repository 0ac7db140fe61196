"""The README's table of results, written from the artefacts so that it cannot say anything else."""

import json
import pathlib

from tfproject.errors import UserError
from tfproject.files import write_atomically

START, END = "<!-- results -->\n", "<!-- /results -->"
OTHERS = {
    "eurosat": "the course project 68.0 % (own CNN) and 89.0 % (VGG16); on these very lists 82.8 % (a Keras CNN) and "
    "96.6 % (DenseNet121, pretrained)",
}


def results_table(root="."):
    """The Markdown between the markers.

    Args:
        root: the repository.
    """
    folder = pathlib.Path(root, "results", "open-project")
    metrics = json.loads((folder / "metrics.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    card = json.loads(pathlib.Path(root, "saved_models", "eurosat_best.json").read_text())
    test, training = metrics["test"], metrics["training"]
    low, high = test["accuracy_interval"]
    hardest = min(test["per_class"], key=lambda row: row["f1"])
    return (
        "| task | data | test accuracy (95 % interval) | others |\n"
        "|---|---|---|---|\n"
        f"| land cover, from scratch | EuroSAT RGB, {card['data']['split']}, {test['count']:,} test tiles "
        f"| **{test['accuracy']:.2%}** ({low:.2%} to {high:.2%}) | {OTHERS['eurosat']} |\n"
        "\n"
        f"One network with {training['parameters']:,} parameters, one view of each tile, a single run with seed "
        f"{environment['seed']}; {training['epochs']} epochs in {training['seconds'] / 60:.0f} minutes on "
        f"{environment['cores']} CPU cores with {training['peak_memory_mb'] / 1024:.1f} GiB of memory. Macro F1 "
        f"{test['macro_f1']:.4f}, kappa {test['kappa']:.4f}, calibration error {test['calibration_error']:.4f}; the "
        f"hardest class is {hardest['class']} (F1 {hardest['f1']:.3f}). From `results/open-project/metrics.json`. The "
        "split is random: tiles beside each other fall into training and test, and a region never seen would score "
        "lower.\n"
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
