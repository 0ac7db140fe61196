"""A model card (Mitchell et al. 2019): the JSON file beside a saved model, and the Markdown made from it."""

import json
import pathlib

from tfproject.files import write_atomically

KEPT = ("count", "accuracy", "accuracy_interval", "macro_f1", "kappa", "calibration_error")


def save(run, image_set, views, limits, licence="MIT"):
    """The run's model again, with a sidecar that says what it was made of and how good it is.

    Args:
        run: a finished Run.
        image_set: what it was trained and scored on.
        views: a dict from the name of scores in the run's metrics to how many views of an image they average.
        limits: sentences on what the model is not for.
        licence: of the weights.
    """
    from tfproject.models import saved_models

    measured = run.metrics
    saved_models.save(
        run.model,
        run.model_path,
        image_set.class_names,
        title=f"{run.model.name} on {image_set.name}",
        parameters=run.model.count_params(),
        data={
            "name": image_set.name, "description": image_set.origin.description, "licence": image_set.origin.licence,
            "citation": image_set.origin.citation, "synthetic": image_set.origin.synthetic,
            "split": image_set.split_method,
            "images": {name: len(split) for name, split in image_set.splits.items()}, "sha256": image_set.fingerprint,
        },
        recipe=run.recipe.to_json(),
        training_seconds=measured["training"]["seconds"],
        scores={
            name: {"views": count} | {key: measured[name][key] for key in KEPT} for name, count in views.items()
        },
        limits=list(limits),
        environment=run.read("environment.json"),
        licence=licence,
    )  # fmt: skip


def publish(run, folder, name, **known):
    """Copy the run's model with its card to a folder as name.keras, name.json and name.md; returns the first's path.

    Args:
        run: a finished Run with a card.
        folder: made if it is not there.
        name: of the files.
        **known: what the card shall say anew, as what was found out after the training; JSON values. A run that was
            taken from what is published has a card that says what was known then.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    goal = folder / f"{name}.keras"
    write_atomically(goal, run.model_path.read_bytes())
    card = run.read("model.json") | known
    write_atomically(goal.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    write_atomically(goal.with_suffix(".md"), to_markdown(card, goal.name))
    return goal


def limits(images):
    """What a network trained on images of which no more is known is not for, in sentences.

    Args:
        images: an ImageSet.
    """
    height, width, _ = images.image_shape
    return (
        f"For RGB images of {height}x{width} pixels such as those of {images.name}; from elsewhere none were tested.",
        f"Every image gets one of the {len(images.class_names)} classes, whatever it shows.",
    )


def to_markdown(card, file_name):
    """The card as Markdown.

    Args:
        card: the sidecar's content, as `save` writes it.
        file_name: of the model.
    """
    data, recipe, environment = card["data"], card["recipe"], card["environment"]
    rows = []
    for name, scores in card["scores"].items():
        low, high = scores["accuracy_interval"]
        kappa = "undefined" if scores["kappa"] is None else f"{scores['kappa']:.4f}"
        rows.append(
            f"| {name.split('_')[0]} | {scores['count']:,} | {scores['views']} "
            f"| {scores['accuracy']:.2%} ({low:.2%} to {high:.2%}) | {scores['macro_f1']:.4f} | {kappa} "
            f"| {scores['calibration_error']:.4f} |"
        )
    height, width = card["image_size"]
    processor = environment["processor"]
    return "\n".join([
        f"# {card['title']}",
        "",
        f"`{file_name}`: RGB images of {height}x{width} pixels in 0..255 to one probability for each of "
        f"{len(card['class_names'])} classes; {card['parameters']:,} parameters. Preprocessing is inside; "
        "`keras.models.load_model` needs nothing else.",
        "",
        f"Classes, in order: {', '.join(card['class_names'])}.",
        "",
        "## Data",
        "",
        f"{data['description']}. Licence: {data['licence']}. {data['citation']}.",
        "",
        f"Split: {data['split']}. Images: " + ", ".join(f"{n:,} {name}" for name, n in data["images"].items()) + ".",
        "",
        "## Scores",
        "",
        "One network; where there are several views of an image, its probabilities are their mean.",
        "",
        "| split | images | views | accuracy (95 % interval) | macro F1 | kappa | calibration error |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in card["limits"]),
        "",
        "## Recipe",
        "",
        f"Trained from scratch for {recipe['epochs']} epochs in {card['training_seconds'] / 60:.1f} minutes on "
        f"{environment['cores']} cores ({processor['name']}; {', '.join(processor['instructions'])})"
        + (f" and {', '.join(environment['gpus'])}" if environment["gpus"] else "") + ".",
        "",
        "| field | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in recipe.items()),
        "",
        f"Licence of the weights: {card['licence']}.",
        "",
    ])  # fmt: skip
