"""The whole study: every task in turn, each run once, and a page that leads to all of them."""

import pathlib

SECTIONS = {"task5": "Task 5: land use and land cover from EuroSAT"}


def run_study(data, profile, directory, **options):
    """Run what is missing of the study.

    Args:
        data: "real" or "synthetic".
        profile: "quick" or "cpu".
        directory: where the runs and the page go.
        **options: passed on to every task.

    Returns:
        The pathlib.Path of the study's page.
    """
    from tfproject.report import page
    from tfproject.tasks import task5_eurosat

    directory = pathlib.Path(directory)
    if data == "real" and options.get("split_method") is None and options.get("split_files") is None:
        options["split_files"] = "eurosat-random"
    run = task5_eurosat.run_task(data, profile, directory / "task5", **options)
    test = run.metrics["test"]
    low, high = test["accuracy_interval"]
    report = directory / "report.html"
    page.write(
        report,
        "tfproject: a study of convolutional networks",
        [
            page.Section(
                SECTIONS["task5"],
                text=(
                    f"{run.model.name}: {test['accuracy']:.2%} of {test['count']:,} test tiles right "
                    f"(95 % interval {low:.2%} to {high:.2%}).",
                ),
                figures=(((run.directory / "figures" / "confusion_matrix.png").read_bytes(), "Confusion matrix."),),
                links=(("task5/report.html", "The whole report"),),
            )
        ],
    )
    return report
