"""One network on one image set: trained, tested and described on a page."""

import dataclasses
import pathlib
import resource

from tfproject.data.tfds_sets import EUROSAT_ORIGIN
from tfproject.errors import UserError
from tfproject.tasks import task5_eurosat
from tfproject.tasks.task5_eurosat import LAND_COVER, SETS

RECIPES = {
    "quick": dataclasses.replace(LAND_COVER, epochs=6, batch_size=64, precision="float32", jit_compile=False),
    "cpu": LAND_COVER,
}


def train_network(
    data, profile, directory, *, seed=0, split_method=None, split_files=None, data_dir=None, on_bad_image="list",
    on_overlap="warn", image_size=None, network="land_cover_cnn", overrides=None, strategy="single", resume=True,
    trace=False,
):  # fmt: skip
    """Train, test and describe a classifier of image tiles.

    Args:
        data: "real" (EuroSAT RGB), "synthetic", or a set's name or folder as `tfproject.data.load` takes it.
        profile: a name from RECIPES.
        directory: the run directory; begun before, the run goes on where it stopped.
        seed: of the split, the weights and the order.
        split_method, split_files, data_dir, on_bad_image, on_overlap, image_size: see `tfproject.data.load`.
        network: a name from `tfproject.models.NAMES`.
        overrides: recipe fields to change, by name.
        strategy: "single" or "mirrored".
        resume: if False, a directory that already holds a run is refused.
        trace: record a TensorBoard profile.

    Returns:
        A finished Run, with `validation` and `test` scores in its metrics, figures/ and report.html.
    """
    from tfproject import data as image_sets
    from tfproject import evaluation, models, training
    from tfproject.data import audit
    from tfproject.data.catalog import warn_of_bad_images
    from tfproject.report import model_card

    recipe = dataclasses.replace(RECIPES[profile], seed=seed, **(overrides or {}))
    if recipe.views > 1 and not recipe.frozen_until:
        raise UserError(
            f"views is {recipe.views}, which only has a meaning with frozen_until, the last layer that is not trained; "
            "give that too, or leave views out."
        )
    training.Run(directory).check_free("report.html", "audit.json")
    tiles = image_sets.load(
        SETS.get(data, data), split=split_method, split_files=split_files, seed=seed, data_dir=data_dir,
        on_bad_image=on_bad_image, on_overlap=on_overlap, image_size=image_size,
    )  # fmt: skip
    if len(tiles.class_names) < 2:
        raise UserError(
            f"{tiles.name} has one class only, '{tiles.class_names[0]}'; give a folder that holds a folder for each "
            "class."
        )
    present = set(tiles.train.labels.tolist())
    if missing := [name for label, name in enumerate(tiles.class_names) if label not in present]:
        raise UserError(
            f"{tiles.name} has no training image that can be used of {', '.join(missing)}; add some, leave out those "
            "classes, or see with `tfproject data check` what cannot be used."
        )
    warn_of_bad_images(tiles)
    described = pathlib.Path(directory, "report.html").exists() and "test" in training.Run(directory).metrics
    checked = None if described else audit.audit(tiles)
    run = training.fit(
        getattr(models, network), tiles, recipe, directory,
        strategy=strategy, resume=resume, profile=trace,
    )  # fmt: skip
    if described:
        return run

    run.write("audit.json", checked)
    # The test tiles are looked at here and nowhere before.
    validation = evaluation.evaluate(run.model, tiles.val, tiles.class_names)
    test = evaluation.evaluate(run.model, tiles.test, tiles.class_names)
    run.record(
        validation=validation.to_json(),
        test=test.to_json(),
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )
    # By where they come from: a folder of anyone's may have a known name.
    licence = "MIT" if tiles.origin.synthetic or tiles.origin == EUROSAT_ORIGIN else "to be chosen by who trained it"
    model_card.save(run, tiles, {"validation": 1, "test": 1}, _limits(tiles), licence)
    _write_report(run, tiles, checked)
    return run


def _limits(tiles):
    """What a network trained on these images is not for, in sentences."""
    if tiles.origin == EUROSAT_ORIGIN:
        by_place = "spatial" in tiles.split_method
        return (*task5_eurosat.LIMITS, task5_eurosat.SPLIT_LIMITS["spatial" if by_place else "random"])
    from tfproject.report import model_card

    return model_card.limits(tiles)


def _write_report(run, tiles, checked):
    from tfproject import evaluation
    from tfproject.data import audit
    from tfproject.report import figures, page

    test = run.metrics["test"]
    counts = {
        name: [int((split.labels == label).sum()) for label in range(len(tiles.class_names))]
        for name, split in tiles.splits.items()
    }
    drawn = {
        "samples": (
            figures.sample_sheet(tiles.train.images, tiles.train.labels, tiles.class_names),
            "Training tiles of each class.",
        ),
        "class_counts": (figures.class_counts(counts, tiles.class_names), "Tiles of each class in each split."),
        "training_curves": (figures.training_curves(run.history), "Loss and accuracy after each epoch."),
        "confusion_matrix": (
            figures.confusion_matrix(test["confusion"], tiles.class_names),
            "Test tiles by true class (rows) and predicted class (columns).",
        ),
        "per_class": (figures.per_class_scores(test), "Precision, recall and F1 of each class on the test tiles."),
        "reliability": (
            figures.reliability_diagram(test),
            "How often the network is right, by how sure it is: on the diagonal it is as sure as it should be.",
        ),
        "top_losses": (
            figures.top_losses(tiles.test.images, test["top_losses"]),
            "The test tiles on which the network is most wrong.",
        ),
    }
    (run.directory / "figures").mkdir(exist_ok=True)
    pngs = {}
    for name, (figure, caption) in drawn.items():
        pngs[name] = (figures.save(figure, run.directory / "figures" / f"{name}.png"), caption)
        run.log_figure(name, pngs[name][0])

    summary = []
    run.model.summary(line_length=100, print_fn=lambda line, **_: summary.append(line))
    low, high = test["accuracy_interval"]
    kappa = "undefined" if test["kappa"] is None else f"{test['kappa']:.4f}"  # where test has one class alone
    training = run.metrics["training"]
    source = (
        "These are generated images: the numbers say nothing about the real world." if tiles.origin.synthetic else ""
    )
    page.write(
        run.directory / "report.html",
        f"{run.model.name} on {tiles.name}",
        [
            page.Section(
                "Result",
                text=tuple(filter(None, (
                    f"{test['accuracy']:.2%} of {test['count']:,} test tiles are classified right "
                    f"(95 % interval {low:.2%} to {high:.2%}); macro F1 {test['macro_f1']:.4f}, "
                    f"Cohen's kappa {kappa}, calibration error {test['calibration_error']:.4f}.",
                    f"{training['parameters']:,} parameters, {training['epochs']} epochs over {training['images']:,} "
                    f"training tiles in {training['seconds'] / 60:.1f} minutes.",
                    source,
                ))),
                figures=(pngs["confusion_matrix"], pngs["per_class"], pngs["reliability"], pngs["top_losses"]),
                listing=evaluation.summary_text(evaluation.Scores.from_json(test)),
            ),
            page.Section(
                "Data",
                text=(f"{tiles.origin.description}. Licence: {tiles.origin.licence}. Split: {tiles.split_method}.",),
                figures=(pngs["samples"], pngs["class_counts"]),
                listing=audit.to_text(checked),
            ),
            page.Section("Training", figures=(pngs["training_curves"],), listing="\n".join(summary)),
            page.Section(
                "Recipe",
                table=(("field", "value"), *((key, value) for key, value in run.recipe.to_json().items())),
            ),
            page.Section("Limits", text=_limits(tiles)),
        ],
    )  # fmt: skip
