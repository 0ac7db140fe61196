"""The README's table of results, written from the artefacts so that it cannot say anything else."""

import dataclasses
import json
import pathlib

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.report.report_parts import epochs_of_stages
from tfproject.report.report_sections import COURSE_CIFAR10, COURSE_EUROSAT, NETWORKS
from tfproject.statistics import summarise

START, END = "<!-- results -->\n", "<!-- /results -->"
COPY = {True: " (a lossy copy, harder than the original)", False: ""}
OTHERS = {
    "custom_cnn": f"the course project {100 * COURSE_CIFAR10:.1f} % at its best of 10 epochs, on the lossless images",
    "whitened_cnn": "cifar10-airbench (Jordan 2024) 94.0 %, on the lossless images",
    "eurosat": "the course project "
    + " and ".join(f"{100 * accuracy:.1f} % ({name})" for name, accuracy in COURSE_EUROSAT.items())
    + ", Helber et al. 2019 98.57 % (ResNet-50 pretrained on ImageNet, 80 % of the data), both on other random splits; "
    "97.23 % the best published from scratch on RGB that we found; 96.6 % a Keras DenseNet121 on these very lists",
}
INTERVALS = (
    "Intervals are of the mean over the seeds (Student's t) where there are several, else over the test images "
    "(Wilson). The course project's numbers are single runs, the best epoch chosen by test; *another edition* is one "
    "with other photos and another split, so that its number is a guide and no comparison."
)


def results_table(root="."):
    """The Markdown between the markers: a row for each result that is there.

    Args:
        root: the repository.
    """
    results = pathlib.Path(root, "results")
    rows, remarks = [], []
    _add_task1(root, results / "task1-custom-cnn", rows, remarks)
    _add_task4(results / "task4-losses" / "metrics.json", rows, remarks)
    _add_task5(results / "open-project", rows, remarks)
    head = ("| task | data | test accuracy (95 % interval) | others |", "|---|---|---|---|")
    remarks = [INTERVALS, *remarks, *_not_run(results)]
    return "\n".join((*head, *rows, "", "\n\n".join(remarks), ""))


def _not_run(results):
    """A sentence about what of the study has no published results yet."""
    from tfproject.tasks.task2_experiments import EXPERIMENTS
    from tfproject.tasks.task5_eurosat import PARTS

    lacking = []
    for task, folder, key, wanted in (("2", "task2-experiments", "experiments", EXPERIMENTS),
                                      ("5", "open-project", "parts", PARTS)):  # fmt: skip
        path = results / folder / "metrics.json"
        there = json.loads(path.read_text()).get(key, {}) if path.exists() else {}
        if missing := [name for name in wanted if name not in there]:
            lacking.append(f"of Task {task}: {', '.join(missing)}")
    if lacking:
        yield f"Not run yet, {'; '.join(lacking)}."


def _add_task1(root, folder, rows, remarks):
    from tfproject.tasks.task1_custom_cnn import SAVED_AS

    for name, called in NETWORKS.items():
        runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-seed*/metrics.json"))]
        runs = [run for run in runs if "test" in run]
        if not runs:
            continue
        card = json.loads(pathlib.Path(root, "saved_models", f"{SAVED_AS[name]}.json").read_text())
        key, views = max(((key, found["views"]) for key, found in card["scores"].items()), key=lambda pair: pair[1])
        accuracy = dataclasses.asdict(summarise([run[key]["accuracy"] for run in runs]))
        images = f"CIFAR-10{COPY['compressed again' in card['data']['description']]}"
        rows.append(
            f"| {called}, from scratch | {images}, {runs[0][key]['count']:,} test images "
            f"| {_accuracy(accuracy, len(runs), runs[0][key]['accuracy_interval'], views)} | {OTHERS[name]} |"
        )
        training, seconds = runs[0]["training"], max(run["training"]["seconds"] for run in runs)
        remarks.append(
            f"{called[0].upper()}{called[1:]}: {training['parameters']:,} parameters, {training['epochs']} epochs over "
            f"{training['images']:,} training images, at most {seconds / 60:.0f} minutes a run on "
            f"{card['environment']['cores']} CPU cores. From "
            f"[`results/task1-custom-cnn`](results/task1-custom-cnn/{name}-seed0/metrics.json)."
        )


def _add_task4(path, rows, remarks):
    from tfproject.tasks.task4_reading import of_size
    from tfproject.tasks.task4_transfer import PUBLISHED, SVM

    if not path.exists():
        return
    metrics = json.loads(path.read_text())
    for row in metrics["test"]["parts"]:
        accuracy = row["distinct"]
        theirs = PUBLISHED.get(row["variation"])
        if theirs is None or row["variation"] == SVM:  # nothing to hold beside it, or the softmax's row has it
            continue
        said = "diverged" if accuracy["mean"] is None else _accuracy(accuracy, len(accuracy["values"]))
        rows.append(
            f"| buildings: {row['variation'][2:]} | Terrassa Buildings, {row['scored_distinct']:,} test photos "
            f"| {said} | the course project {100 * theirs:.1f} %, on another edition |"
        )
    remarks.append(" ".join((
        "Buildings: photos that also are in training are left out of the test.", *of_size(metrics),
        f"From [`{path.parent.name}`](results/task4-losses/metrics.json).",
    )))  # fmt: skip


def _accuracy(accuracy, runs, interval=(None, None), views=1):
    """A mean over runs with its interval, or that of a single run's test images, in words."""
    low, high = (accuracy["low"], accuracy["high"]) if runs > 1 else interval
    between = "" if low is None else f"{low:.2%} to {high:.2%}; "
    seeds = f"mean of {runs} seeds" if runs > 1 else "a single run"
    return f"**{accuracy['mean']:.2%}** ({between}{seeds}{f', {views} views' if views > 1 else ''})"


def _add_task5(folder, rows, remarks):
    from tfproject.tasks.task5_page import minutes_lack, vgg16_words

    if not (folder / "metrics.json").exists():
        return
    metrics = json.loads((folder / "metrics.json").read_text())
    parts = metrics.get("parts", {})
    names = {"random": "a random split", "spatial": "a split by place"}
    networks = {"land cover, from scratch": parts, "VGG16, fine-tuned": parts.get("vgg16", {})}
    for network, of_network in networks.items():
        for kind, words in names.items():
            if kind not in of_network:
                continue
            found = of_network[kind]
            test, runs = found["test"][str(found["views"])], len(found["runs"])
            rows.append(
                f"| {network} | EuroSAT RGB, {words} ({found['split']}), {found['test_images']:,} test tiles "
                f"| {_accuracy(test['accuracy'], runs, test['intervals'][0], found['views'])} "
                f"| {OTHERS['eurosat'] if kind == 'random' else ''} |"
            )
            environment = found["environments"][0]
            remarks.append(
                f"{network[0].upper()}{network[1:]}, {words}: {found['parameters']:,} parameters, "
                f"{epochs_of_stages(found)} epochs over {found['images']:,} tiles, at most "
                f"{max(found['seconds']) / 60:.0f} minutes a run on {environment['cores']} CPU cores"
                f"{minutes_lack(found)}."
            )
    if "random" in parts:
        remarks.append(
            "From [`results/open-project/metrics.json`](results/open-project/metrics.json). Under a random split tiles "
            "beside each other fall into training and test; the split by place keeps them apart."
        )
    if seen := parts.get("analysis", {}).get("drop", {}).get("seen_in_choosing"):
        remarks.append(
            f"Of the {seen['count']:,} test tiles of the split by place {seen['hits']:,} are training or validation "
            "tiles of the random one, by which the recipe was chosen; the networks scored on the split by place were "
            "not trained on them."
        )
    remarks += vgg16_words(parts)


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
