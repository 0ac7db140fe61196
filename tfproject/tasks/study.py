"""The whole study: every task in turn, each run once, and a page that leads to all of them."""

import json
import pathlib
import sys

from tfproject.errors import UserError
from tfproject.files import write_atomically


def run_study(data, profile, directory, *, only=None, **options):
    """Run what is missing of the study. A task that cannot be run, such as one without its images, stops no other.

    Args:
        data: "real" or "synthetic".
        profile: "quick" or "cpu".
        directory: where the runs and the page go.
        only: names of tasks (`TASKS`) to run; None for all.
        **options: `data_dir` and `on_bad_image` of every task.

    Returns:
        The pathlib.Path of the study's page, on which every task stands that was run so far.

    Raises:
        UserError: when all is done that can be, if a task could not be run.
    """
    from tfproject.report import page

    directory, failed = pathlib.Path(directory), {}
    directory.mkdir(parents=True, exist_ok=True)
    for name in only or TASKS:
        try:
            summary = TASKS[name](data, profile, directory / name, options)
        except UserError as error:
            failed[name] = str(error)
            print(f"tfproject: {name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        write_atomically(directory / name / "summary.json", json.dumps(summary, indent=1) + "\n")
    sections = [page.Section("Not run", text=tuple(f"{name}: {why}" for name, why in failed.items()))] if failed else []
    for folder in (directory / name for name in TASKS):
        if (folder / "summary.json").exists():
            summary = json.loads((folder / "summary.json").read_text())
            picture, caption = summary["figure"]
            sections.append(
                page.Section(
                    summary["heading"],
                    text=tuple(summary["text"]),
                    figures=(((folder / picture).read_bytes(), caption),),
                    links=((f"{folder.name}/{summary['report']}", "The whole report"),),
                )
            )
    page.write(directory / "report.html", "tfproject: a study of convolutional networks", sections)
    if failed:
        raise UserError(
            f"The study lacks {', '.join(failed)}, for the reasons above; the rest is in {directory / 'report.html'}."
        )
    return directory / "report.html"


def _task1(data, profile, directory, options):
    from tfproject.tasks import task1_custom_cnn

    report = task1_custom_cnn.run_task(data, profile, directory, **options)
    networks = json.loads((directory / "metrics.json").read_text())["networks"]
    return {
        "heading": "Task 1: custom CNNs, and what each layer costs",
        "text": [task1_custom_cnn.reading(name, summary) for name, summary in networks.items()],
        "figure": ("cost/custom_cnn-shares.png", "Each layer's share of parameters, activations and FLOPs."),
        "report": report.name,
    }


def _task2(data, profile, directory, options):
    from tfproject.tasks import task2_experiments

    report = task2_experiments.run_task(data, profile, directory, **options)
    analyses = json.loads((directory / "metrics.json").read_text())["experiments"]
    return {
        "heading": "Task 2: experiments",
        "text": [f"{name}: {' '.join(analysis['reading'])}" for name, analysis in analyses.items()],
        "figure": ("augmentation-accuracy.png", "What augmentation does."),
        "report": report.name,
    }


def _task3(data, profile, directory, options):
    from tfproject.tasks import task3_visualizations

    second = directory.parent / "task1" / "custom_cnn-seed1" / "model.keras"  # of the same network as the saved one
    if data == "real" and second.exists():
        options = options | {"second": second}
    report = task3_visualizations.run_task(data, profile, directory, **options)
    networks = json.loads((directory / "metrics.json").read_text())["networks"]
    return {
        "heading": "Task 3: what the networks have learnt",
        "text": [f"{name}: {text}" for name, found in networks.items() for text in found["conclusions"]],
        "figure": ("CustomCNN/figures/kinds.png", "What the units of each layer of the custom CNN stand for."),
        "report": report.name,
    }


def _task4(data, profile, directory, options):
    from tfproject.tasks import task4_page, task4_transfer

    report = task4_transfer.run_task(data, profile, directory, **options)
    return {
        "heading": "Task 4: transfer learning on buildings",
        "text": list(task4_page.reading(json.loads((directory / "metrics.json").read_text()))),
        "figure": ("figures/parts.png", "Accuracy of each part on test."),
        "report": report.name,
    }


def _task5(data, profile, directory, options):
    from tfproject.tasks import task5_eurosat, task5_page

    report = task5_eurosat.run_task(data, profile, directory, **options)
    return {
        "heading": "Task 5: land use and land cover from EuroSAT",
        "text": task5_page.reading(json.loads((directory / "metrics.json").read_text())["parts"]),
        "figure": ("figures/random-confusion.png", "Confusion matrix of the first network on the random split's test."),
        "report": report.name,
    }


TASKS = {"task1": _task1, "task2": _task2, "task3": _task3, "task4": _task4, "task5": _task5}
