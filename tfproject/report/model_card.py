"""A model card (Mitchell et al. 2019) from the JSON file beside a saved model."""


def to_markdown(card, file_name):
    """The card as Markdown.

    Args:
        card: the sidecar's content, as Task 5 writes it.
        file_name: of the model.
    """
    data, recipe, environment = card["data"], card["recipe"], card["environment"]
    rows = []
    for name, scores in card["scores"].items():
        low, high = scores["accuracy_interval"]
        rows.append(
            f"| {name} | {scores['count']:,} | {scores['accuracy']:.2%} ({low:.2%} to {high:.2%}) "
            f"| {scores['macro_f1']:.4f} | {scores['kappa']:.4f} | {scores['calibration_error']:.4f} |"
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
        "One network, one view of each image.",
        "",
        "| split | images | accuracy (95 % interval) | macro F1 | kappa | calibration error |",
        "|---|---|---|---|---|---|",
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
