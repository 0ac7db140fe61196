"""The page that tells of one network, or of several side by side."""

import json
import pathlib

from tfproject.tasks.interpretation import STAGES

HEADINGS = {
    "filters": "Filters: what the weights look for",
    "activations": "Activations: what images make of them",
    "samples": "The images that excite each unit most",
    "semantics": "What units stand for",
    "silencing": "What units are worth",
    "similarity": "Whether two seeds find the same units",
    "embedding": "What layers hold alike: t-SNE",
    "attribution": "Where the network looks",
    "faithfulness": "Whether these maps are true",
}


def write_page(path, title, directories, metrics=None):
    """One page that tells of one network, or of several side by side, stage by stage.

    Args:
        path: an .html file.
        title: its title.
        directories: a dict from a network's name to the directory in which `interpret_network` left what it found;
            below the page's folder, for its links.
        metrics: with `data` and for each of the `networks` a `subtitle`, as `run_task` makes it; None for none.

    Returns:
        The path.
    """
    from tfproject.report import page

    path = pathlib.Path(path)
    found = {
        name: {stage: json.loads((folder / "stages" / f"{stage}.json").read_text())
               for stage in STAGES if (folder / "stages" / f"{stage}.json").exists()}
        for name, folder in directories.items()
    }  # fmt: skip
    stories = {name: json.loads((folder / "metrics.json").read_text())["story"] for name, folder in directories.items()}
    sections = []
    if metrics:
        data = metrics["data"]
        text = [f"Data: {data['description']}. Split: {data['split']}."]
        if data["synthetic"]:
            text.append("These are generated images: the numbers say nothing about the real world.")
        sections.append(page.Section("Data", text=tuple(text)))
    for name, stages in found.items():
        subtitle = f"{name}: {metrics['networks'][name]['subtitle']}." if metrics else ""
        text = (*filter(None, [subtitle]), *stages["scores"]["text"], *stories[name])
        sections.append(page.Section(f"{name} in short", text=text))
    for stage, heading in HEADINGS.items():
        of_networks = {name: stages[stage] for name, stages in found.items() if stage in stages}
        tables = [(name, *row) for name, own in of_networks.items() for row in own["table"][1:]]
        head = next((own["table"][0] for own in of_networks.values() if own["table"]), None)
        if of_networks:
            sections.append(
                page.Section(
                    heading,
                    text=tuple(f"{name}: {text}" for name, own in of_networks.items() for text in own["text"]),
                    table=(("network", *head), *tables) if head else (),
                    figures=tuple(
                        ((directories[name] / file).read_bytes(), f"{name}: {caption}")
                        for name, own in of_networks.items() for file, caption in own["figures"]
                    ),
                    links=tuple(
                        ((directories[name] / file).relative_to(path.parent).as_posix(), f"{name}: {file}")
                        for name, own in of_networks.items() for file in own["files"]
                    ),
                )
            )  # fmt: skip
    page.write(path, title, sections)
    return path
