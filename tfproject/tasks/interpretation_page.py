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

LEADS = {  # what the terms of a section mean
    "filters": "A unit is a filter of a convolution or a neuron of a dense layer. Filters of the first layer read the "
    "image's colours and can be shown as pictures. What units of deeper layers respond to is made by gradient ascent "
    "from noise: the pattern that the weights add up to, not a photograph.",
    "activations": "A unit is dead if it says the same of every image, or is never above 0 behind an activation "
    "function that rectifies, such as ReLU. It is saturated if nearly all of its outputs lie near a bound of its "
    "activation function, which a sigmoid has and ReLU has not; and always on if the function never cuts it off, so "
    "that it is no more than a linear unit.",
    "samples": "For each unit all images are put in order by its greatest output over the places of its map. What is "
    "shown of an image is the part that the unit sees from that place, its receptive field.",
    "semantics": "The selectivity index of a unit is (m - r) / (m + r), with m its mean output on the images of the "
    "class that it prefers and r the mean of the other classes' means: 0 for a unit that says the same of all classes, "
    "1 for one that speaks of one class alone, and by chance a little above 0, as the preferred class is the one that "
    "came out highest. Purity is the share of the most frequent class among the images that excite a unit most; by "
    "chance it is what as many random images give. Class-selective are units with a purity of at least 50 % that is "
    "not chance (corrected for the number of the layer's units).",
    "silencing": "To silence a unit is to set what it says to 0 at every place; what counts is the accuracy that is "
    "lost by it. A unit may stand for a class and not be needed for it. p-values are corrected for the number of the "
    "layer's units, and sets of units are compared with random sets of as many.",
    "similarity": "Two networks have their units in another order, so each unit is matched, one to one, with the one "
    "of the other network whose greatest output correlates most with its own over the images. Linear CKA asks nothing "
    "of single units but whether all of a layer together tell the images apart alike: 1 if so up to rotation and "
    "scale, near 0 if they have nothing in common. Untrained networks are the measure of both: the greatest output of "
    "a random filter tends to grow with an image's contrast, so that such units resemble each other and partners are "
    "easily found, with nothing learnt.",
    "embedding": "t-SNE lays images out in the plane so that neighbours by a layer's outputs stay neighbours; the "
    "sizes of clusters and the distances between them mean nothing. Trustworthiness is how far neighbours in the plane "
    "are neighbours in the layer, 1 if all are. Class by neighbours is how often the ten nearest images vote for an "
    "image's class.",
    "attribution": "An attribution map says of each place of an image what it has to do with the network's answer, "
    "each method in a sense of its own. Every map is scaled from its own least to its own greatest value, so that "
    "brightness compares places of one map and never two maps; a map that is dark everywhere has no differences.",
    "faithfulness": "Similarity after randomising is the rank correlation of the map's pixels with those of the map "
    "that the same network gives once all its weights are drawn anew: near 0 for a map that depends on what was "
    "learnt, and a method fails where it lies above 0.5. Deletion is the area under the curve of the class's "
    "probability while the pixels that the map names first are taken away, small for a true map; insertion the same "
    "while they are put in, large for a true map. Two controls stand in brackets: the map moved to another place of "
    "its image, and another image's map, which is as bright in the middle. A method passes if it is shown to beat "
    "both, by deletion and by insertion.",
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
    summaries = {name: json.loads((folder / "metrics.json").read_text()) for name, folder in directories.items()}
    sections = []
    if metrics:
        data = metrics["data"]
        text = [f"Data: {data['description']}. Split: {data['split']}."]
        if data["synthetic"]:
            text.append("These are generated images: the numbers say nothing about the real world.")
        sections.append(page.Section("Data", text=tuple(text)))
    for name, stages in found.items():
        subtitle = f"{name}: {metrics['networks'][name]['subtitle']}." if metrics else ""
        text = (*filter(None, [subtitle]), *stages["scores"]["text"], *summaries[name]["conclusions"])
        sections.append(page.Section(f"{name} in short", text=text))
    for stage, heading in HEADINGS.items():
        of_networks = {name: stages[stage] for name, stages in found.items() if stage in stages}
        tables = [(name, *row) for name, own in of_networks.items() for row in own["table"][1:]]
        head = next((own["table"][0] for own in of_networks.values() if own["table"]), None)
        if of_networks:
            sections.append(
                page.Section(
                    heading,
                    text=(LEADS[stage], *(
                        f"{name}: {text}" for name, own in of_networks.items()
                        for text in (*own["text"], *summaries[name][stage].get("told", ()))
                    )),
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
