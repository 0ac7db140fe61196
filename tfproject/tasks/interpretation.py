"""One network looked into, stage by stage, from its filters to whether the maps of what it looks at are true."""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import re

import numpy as np

from tfproject.errors import UserError
from tfproject.files import write_atomically

GROUPS = (  # of the classes of known image sets
    {
        "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
        "vehicle": ("airplane", "automobile", "ship", "truck"),
    },
    {
        "built": ("Highway", "Industrial", "Residential"),
        "fields": ("AnnualCrop", "Pasture", "PermanentCrop", "HerbaceousVegetation"),
        "water": ("River", "SeaLake"),
    },
)
SEED = 0  # of everything that is drawn
SHOWN_SAMPLES = 9  # of a unit's top samples, on sheets and in the table
SHEET_UNITS = 8  # the most selective of a layer, on its sheet; the table holds all


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is looked at, and how closely.

    Attributes:
        images: of the split, drawn at random; None for all.
        samples: images kept for each unit, from which its meaning is told.
        layers: of a network, evenly spread over its depth, that are shown in figures and whose units are silenced.
        maximised: units of each of these layers whose favourite image is made.
        steps: of gradient ascent for it.
        activity_images: for dead and saturated units.
        perplexity: of t-SNE.
        projector_images: in TensorBoard's projector.
        attributed: images whose attribution maps are shown.
        checked: images on which the maps are checked.
        smoothgrad_samples: noisy copies of an image.
        channels: that Score-CAM looks at; None for all.
        draws: of random weights, in the sanity check.
        levels: numbers of randomised layers there.
        curve_steps: of deletion and insertion.
        silenced: units of each of these layers that are silenced, one at a time; None for all units of all layers.
        silenced_images: on which accuracy is measured then.
        set_images: on which it is measured while a set of units is silenced, which is done for one layer only.
        compared_images: by which the units of two seeds are matched.
    """

    images: int | None = None
    samples: int = 50
    layers: int = 5
    maximised: int = 12
    steps: int = 200
    activity_images: int = 2000
    perplexity: float = 30
    projector_images: int = 2000
    attributed: int = 6
    checked: int = 96
    smoothgrad_samples: int = 20
    channels: int | None = 32
    draws: int = 2
    levels: int = 4
    curve_steps: int = 16
    silenced: int | None = 48
    silenced_images: int = 500
    set_images: int = 500
    compared_images: int = 2000


EXTENTS = {
    "quick": Extent(
        images=150, samples=20, layers=2, maximised=2, steps=8, activity_images=100, perplexity=15,
        projector_images=100, attributed=2, checked=3, smoothgrad_samples=3, channels=4, draws=1, levels=2,
        curve_steps=6, silenced=3, silenced_images=60, set_images=60, compared_images=100,
    ),
    "cpu": Extent(),
}  # fmt: skip


def interpret_network(model, image_set, directory, extent, *, split="test", other=None, progress=True):
    """Do everything for one network: filters, activations, top samples, meanings, t-SNE, attribution, and its checks.

    Each stage keeps what it found in `stages/`, and a second call goes on with the first one that is missing. Figures
    go to `figures/`, the tables behind them beside it as CSV, `tensorboard/` shows figures and embeddings.

    Args:
        model: any keras.Model that `tfproject.interpret.lay_open` takes.
        image_set: an ImageSet with images of its size and classes.
        directory: where everything goes.
        extent: an Extent.
        split: the split that is looked at.
        other: the same network from another seed, to see whether it found the same units; None for none.
        progress: show a bar.

    Returns:
        The summary that metrics.json holds: a dict from stage to its numbers, with `told`, paragraphs made from these;
        and `story`, all of these, and `conclusions`, how units change with depth and which attribution methods pass.

    Raises:
        UserError: if the network or images do not suit, or the directory holds what was found of another network.
    """
    from tqdm import tqdm

    chosen = getattr(image_set, split)
    directory = pathlib.Path(directory)
    for folder in ("figures", "stages", "tensorboard"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    _check_same(directory, model, chosen, extent)
    images = _some(chosen, extent.images)
    subject = _Subject(model, images, split, image_set.class_names, extent, directory, other)
    with tqdm(STAGES.items(), desc=directory.name, unit="stage", disable=not progress) as bar:
        for name, stage in bar:
            bar.set_postfix_str(name)
            if name == "similarity" and (other is None or subject.finding(name).get("other") == _digest(other)):
                continue
            if name == "similarity" or not subject.stage_path(name).exists():
                write_atomically(subject.stage_path(name), to_json(stage(subject)))
    summary = {name: subject.finding(name)["numbers"] for name in STAGES if subject.stage_path(name).exists()}
    told = _story(subject)
    for name, texts in told.items():
        summary[name]["told"] = texts
    summary["story"] = [text for texts in told.values() for text in texts]
    summary["conclusions"] = _conclusions(subject)
    write_atomically(directory / "metrics.json", to_json(summary))
    return summary


def known_groups(class_names):
    """The groups of GROUPS whose classes are all among these; {} if there are none."""
    for groups in GROUPS:
        if set(sum(groups.values(), ())) <= set(class_names):
            return groups
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class _Subject:
    """A network under study: what every stage is given, and where it leaves what it finds."""

    model: object
    split: object
    split_name: str
    class_names: tuple
    extent: Extent
    directory: pathlib.Path
    other: object

    @functools.cached_property
    def network(self):
        from tfproject import interpret

        return interpret.lay_open(self.model)

    @property
    def groups(self):
        return known_groups(self.class_names)

    @functools.cached_property
    def hidden(self):
        """The layers of units but the one that gives the classes."""
        return [layer for layer in self.network.unit_layers if layer.output is not self.network.logits]

    @functools.cached_property
    def samples(self):
        """What the stage "samples" found, a dict from layer to TopSamples."""
        from tfproject.interpret import TopSamples

        with np.load(self.directory / "stages" / "samples.npz") as arrays:
            fields = [field.name for field in dataclasses.fields(TopSamples) if field.name != "name"]
            return {
                layer.name: TopSamples(layer.name, *(arrays[f"{number}_{field}"] for field in fields))
                for number, layer in enumerate(self.network.unit_layers)
            }

    @functools.cached_property
    def unit_rows(self):
        return self.finding("semantics")["units"]

    def stage_path(self, name):
        return self.directory / "stages" / f"{name}.json"

    def finding(self, name):
        """What a stage found that was run before; {} for one that was not."""
        path = self.stage_path(name)
        return json.loads(path.read_text()) if path.exists() else {}

    def few(self, count):
        return _some(self.split, count)

    def draw(self, name, figure, caption):
        """Save a figure, show it in TensorBoard, and return where it is and its caption."""
        import tensorflow as tf

        from tfproject.report import figures

        path = f"figures/{_plain(name)}.png"
        png = figures.save(figure, self.directory / path)
        with tf.summary.create_file_writer(str(self.directory / "tensorboard")).as_default():
            tf.summary.image(_plain(name), tf.io.decode_png(png, channels=3)[None], step=0)
        return path, caption

    def write_table(self, name, rows):
        """Write rows, dicts with the same keys, as CSV; returns the file's name."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
        write_atomically(self.directory / f"{name}.csv", text.getvalue())
        return f"{name}.csv"


def _finding(numbers, text=(), table=(), figures=(), files=(), **kept):
    """What a stage found: numbers for metrics.json; texts, a table's rows with their head, figures, and CSV files."""
    return {"numbers": numbers, "text": list(text), "table": list(table), "figures": list(figures),
            "files": list(files)} | kept  # fmt: skip


def _scores(subject):
    """How well the network does on these images."""
    numbers = {
        "network": subject.model.name, "image_shape": subject.network.image_shape,
        "parameters": subject.model.count_params(), "split": subject.split_name, "images": len(subject.split),
        "units": {layer.name: layer.units for layer in subject.network.unit_layers},
    }  # fmt: skip
    text = f"{subject.model.count_params():,} parameters, {sum(numbers['units'].values()):,} units in "
    text += f"{len(numbers['units'])} layers."
    if subject.network.class_count == len(subject.class_names) > 1:
        from tfproject import evaluation

        scores = evaluation.evaluate(subject.model, subject.split, subject.class_names).to_json()
        numbers |= {"accuracy": scores["accuracy"], "accuracy_interval": scores["accuracy_interval"]}
        low, high = scores["accuracy_interval"]
        text += f" {scores['accuracy']:.2%} of {len(subject.split):,} images of the split {subject.split_name} right "
        text += f"(95 % interval {low:.2%} to {high:.2%})."
    return _finding(numbers, [text])


def _filters(subject):
    """The kernels themselves, their norms, and what units respond to most by gradient ascent on the image."""
    from tfproject import interpret
    from tfproject.report import filter_figures

    network, extent, text, drawn = subject.network, subject.extent, [], []
    try:
        found = interpret.colour_kernels(network)
        figure = filter_figures.colour_kernels(found.images, found.layer, found.scale, found.channels)
        drawn.append(subject.draw("colour_kernels", figure, f"The kernels of {found.layer} as colours."))
    except UserError as error:  # no convolution, or one that does not read three channels
        text.append(str(error))
    for layer in [layer for layer in _spread(network.convolutions, extent.layers)[1:]][-2:]:
        found = interpret.kernel_slices(layer)
        figure = filter_figures.kernel_slices(
            found.mean, found.slices, found.units, found.channels, found.layer, found.scale
        )
        caption = f"The kernels of {layer.name} with the largest norms."
        drawn.append(subject.draw(f"kernels_{layer.name}", figure, caption))
    norms = interpret.norm_rows(network)
    if not norms:
        return _finding({"maximised": 0}, ["The network has no layer of units."])
    weak = sum(row["to_median"] is not None and row["to_median"] < 0.1 for row in norms)
    text.append(f"{weak:,} of {len(norms):,} units have weights of less than a tenth of their layer's median norm.")
    caption = (
        "How large each unit's weights are: under weight decay unused ones shrink, and before a BatchNorm the size "
        "alone says nothing of use."
    )
    drawn.append(subject.draw("norms", filter_figures.kernel_norms(norms), caption))

    maximised = []
    for layer in _spread(network.unit_layers, extent.layers):
        units = _spread(range(layer.units), extent.maximised)
        found = interpret.maximise_activation(network, layer.name, units, steps=extent.steps, seed=SEED)
        maximised += found.rows()
        classes = layer.output is network.logits and layer.units == len(subject.class_names)
        names = [subject.class_names[unit] if classes else f"unit {unit}" for unit in found.units]
        figure = filter_figures.maximised_activations(
            found.images, names, found.reached, found.on_noise, layer.name, extent.steps
        )
        caption = f"What units of {layer.name} respond to most, made by gradient ascent from noise."
        drawn.append(subject.draw(f"maximised_{layer.name}", figure, caption))
    more = sum(row["reached"] > row["on_noise"] for row in maximised)
    text.append(
        f"Of {len(maximised)} images made by activation maximisation {more} excite their unit more than noise does."
    )
    numbers = {"weak_units": weak, "units": len(norms), "maximised": len(maximised), "above_noise": more}
    files = [subject.write_table("norms", norms), subject.write_table("maximised", maximised)]
    return _finding(numbers, text, figures=drawn, files=files)


def _activations(subject):
    """Feature maps of some images, and which units are dead, saturated or always on."""
    from tfproject import interpret
    from tfproject.report import filter_figures

    network, drawn = subject.network, []
    if network.convolutions:
        shown = _of_each_class(subject.split, 2)
        of_layers = interpret.feature_maps(network, shown.images)
        for i, (image, label) in enumerate(zip(shown.images, shown.labels)):
            rows = [
                {"layer": m.layer, "units": m.units[i], "maps": m.maps[i], "low": m.low, "high": m.high}
                for m in of_layers
            ]
            caption = f"The feature maps of an image of {subject.class_names[label]}, on one scale for each layer."
            drawn.append(subject.draw(f"feature_maps_{i + 1}", filter_figures.feature_map_sheet(image, rows), caption))
    if not network.unit_layers:
        return _finding({"layers": []})
    found = interpret.activity(network, subject.few(subject.extent.activity_images))
    rows = [layer.row() for layer in found]
    caption = "Units that say nothing, or always the same, and how often units are silent."
    drawn.append(subject.draw("activity", filter_figures.dead_units(rows), caption))
    counts = {kind: sum(row[kind] for row in rows) for kind in ("dead", "saturated", "always_on")}
    units = sum(row["units"] for row in rows)
    text = (
        f"Of {units:,} units {counts['dead']:,} are dead on {rows[0]['images']:,} images, {counts['saturated']:,} "
        f"saturated and {counts['always_on']:,} always on."
    )
    table = [("layer", "units", "dead", "saturated", "always on", "outputs at or below 0")]
    table += [
        (row["layer"], row["units"], row["dead"], row["saturated"], row["always_on"], f"{row['sparsity']:.1%}")
        for row in rows
    ]
    files = [
        subject.write_table("activity", rows),
        subject.write_table("activity_of_units", [row for layer in found for row in layer.unit_rows()]),
    ]
    return _finding({"units": units, **counts, "layers": rows}, [text], table, drawn, files)


def _samples(subject):
    """For every unit the images that excite it most, in one pass."""
    from tfproject.interpret import samples

    if not subject.network.unit_layers:
        return _finding({"units": 0})
    found = samples.top_samples(
        subject.network, subject.split, k=subject.extent.samples, class_count=len(subject.class_names)
    )
    arrays = {
        f"{number}_{field.name}": getattr(layer, field.name)
        for number, layer in enumerate(found.values()) for field in dataclasses.fields(layer) if field.name != "name"
    }  # fmt: skip
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(subject.directory / "stages" / "samples.npz", content.getvalue())
    shown = {
        name: dataclasses.replace(
            layer, indices=layer.indices[:, :SHOWN_SAMPLES], values=layer.values[:, :SHOWN_SAMPLES],
            places=layer.places[:, :SHOWN_SAMPLES],
        )
        for name, layer in found.items()
    }  # fmt: skip
    samples.to_csv(subject.directory / "top_samples.csv", subject.network, shown, subject.split, subject.class_names)
    numbers = {
        "units": sum(len(layer.indices) for layer in found.values()), "images": len(subject.split),
        "kept": subject.extent.samples,
    }  # fmt: skip
    text = (
        f"The images that excite each of {numbers['units']:,} units most were looked for among all "
        f"{numbers['images']:,}; the table holds the first {SHOWN_SAMPLES} of each unit with the part that it sees."
    )
    return _finding(numbers, [text], files=["top_samples.csv"])


def _semantics(subject):
    """What each unit stands for, by the images that excite it most, and how that changes with depth."""
    from tfproject.interpret import semantics, words
    from tfproject.report import semantics_figures, unit_figures

    network, split, names = subject.network, subject.split, subject.class_names
    if not network.unit_layers:
        return _finding({}, units=[], layers=[], growth={}, untrained=[])
    rows = [
        row for layer in subject.samples.values()
        for row in semantics.unit_rows(network, layer, split, names, subject.groups, SEED)
    ]  # fmt: skip
    layers = semantics.layer_rows(rows)
    growth = semantics.growth(layers)
    drawn = [
        subject.draw(
            "selectivity",
            semantics_figures.selectivity_by_depth(rows, layers),
            "How selective for a class each layer's units are, from the first to the last layer.",
        ),
        subject.draw("kinds", semantics_figures.kinds_by_layer(layers), "What the units of each layer stand for."),
    ]
    for layer in subject.hidden[-1:]:
        own = [row for row in rows if row["layer"] == layer.name]
        figure = semantics_figures.class_preferences(
            subject.samples[layer.name].class_means_average,
            [np.nan if row["selectivity"] is None else row["selectivity"] for row in own], names, layer.name,
        )  # fmt: skip
        caption = f"What the units of {layer.name}, the last layer before the classes, say of each class."
        drawn.append(subject.draw(f"preferences_{layer.name}", figure, caption))
    for layer in _spread(subject.hidden, subject.extent.layers):
        of_layer = next(row for row in layers if row["layer"] == layer.name)
        figure = unit_figures.top_samples_sheet(_sheet(subject, layer.name, rows), f"{layer.name}: the most selective")
        drawn.append(subject.draw(f"samples_{layer.name}", figure, words.layer(of_layer)))
    table = [("layer", "units", "class-selective", "selectivity", "purity", "by chance")]
    table += [
        (row["layer"], row["units"], f"{row['class_selective_share']:.1%}",
         *("" if row[key] is None else form.format(row[key]) for key, form in
           (("selectivity", "{:.2f}"), ("purity", "{:.1%}"), ("purity_by_chance", "{:.1%}"))))
        for row in layers
    ]  # fmt: skip
    files = [subject.write_table("units", rows), subject.write_table("layers", layers)]
    numbers = {"layers": layers, "growth": growth}
    untrained = _untrained_rows(subject)
    return _finding(
        numbers, table=table, figures=drawn, files=files, units=rows, layers=layers, growth=growth, untrained=untrained
    )


def _sheet(subject, name, rows):
    """The rows of a sheet: a layer's most selective units, with what they see and what they stand for."""
    from tfproject import interpret
    from tfproject.interpret import words

    own = [row for row in rows if row["layer"] == name and row["kind"] != "silent"]
    own.sort(key=lambda row: (not row["class_selective"], -(row["selectivity"] or 0)))
    own = own[:SHEET_UNITS] or [row for row in rows if row["layer"] == name][:1]
    found = subject.samples[name]
    found = dataclasses.replace(found, indices=found.indices[:, :SHOWN_SAMPLES], places=found.places[:, :SHOWN_SAMPLES])
    crops = interpret.crops(subject.network, found, subject.split.images, [row["unit"] for row in own])
    return [
        (row["unit"], crop, row["meaning"] if row["selectivity"] is None else
         f"{row['meaning']}\n{words.selectivity_in_words(row)}, purity {row['purity']:.0%}")
        for row, crop in zip(own, crops)
    ]  # fmt: skip


def _untrained_rows(subject):
    """The layer rows of the last layer before the classes, of the same network with random weights throughout."""
    from tfproject import interpret
    from tfproject.interpret import semantics

    if not subject.hidden:
        return []
    network = interpret.lay_open(_untrained(subject.model, SEED))
    found = interpret.top_samples(
        network, subject.split, subject.extent.samples, [subject.hidden[-1].name], class_count=len(subject.class_names)
    )
    return semantics.layer_rows([
        row for layer in found.values()
        for row in semantics.unit_rows(network, layer, subject.split, subject.class_names, subject.groups, SEED)
    ])  # fmt: skip


def _untrained(model, seed):
    import keras

    keras.utils.set_random_seed(seed)
    untrained = keras.models.clone_model(model)
    for layer, copy in zip(model.layers, untrained.layers):
        if isinstance(layer, keras.layers.Normalization):  # the data's mean and spread are not learnt from the classes
            copy.set_weights(layer.get_weights())
    return untrained


def _silencing(subject):
    """What accuracy is lost without a unit, and without all units for a class."""
    from tfproject.interpret import semantics, silencing
    from tfproject.report import semantics_figures

    if not subject.hidden:
        return _finding({}, units=[], sets=[])
    images, chosen = subject.few(subject.extent.silenced_images), None
    if subject.extent.silenced is not None:
        layers = _spread(subject.hidden, subject.extent.layers)
        chosen = {layer.name: list(_spread(range(layer.units), subject.extent.silenced)) for layer in layers}
    found = silencing.silence_units(subject.network, images, chosen)
    rows = []
    for name, layer in found.items():
        preferred = {row["unit"]: row["preferred"] for row in subject.unit_rows if row["layer"] == name}
        rows += layer.rows(subject.class_names, preferred)
    last = subject.hidden[-1].name
    sets = semantics.selective_sets([row for row in subject.unit_rows if row["layer"] == last])
    of_sets = subject.few(subject.extent.set_images)
    found = silencing.silence_sets(subject.network, last, sets, of_sets, seed=SEED)
    sets = silencing.set_rows(found, subject.class_names)
    caption = f"The accuracy lost by silencing single units, on {len(images):,} images."
    drawn = [subject.draw("silencing", semantics_figures.silencing_drops(rows), caption)]
    files = [subject.write_table("silencing", rows), *([subject.write_table("silenced_sets", sets)] if sets else [])]
    numbers = {
        "images": len(images), "units": len(rows), "largest_drop": max(row["drop"] for row in rows),
        "shown": sum(row["p_corrected"] < semantics.SIGNIFICANCE and row["drop_low"] > 0 for row in rows),
        "sets": [{key: row[key] for key in ("layer", "set", "units", "drop", "control_drop", "class_drop",
                                            "p_corrected")} for row in sets],
    }  # fmt: skip
    return _finding(numbers, figures=drawn, files=files, units=rows, sets=sets)


def _similarity(subject):
    """How many units two seeds have in common, and how many two networks without training."""
    from tfproject import interpret
    from tfproject.interpret import similarity
    from tfproject.report import semantics_figures

    if not subject.hidden:
        return _finding({}, trained=[], control=[])
    images = subject.few(subject.extent.compared_images).images
    found = similarity.compare_networks(subject.network, interpret.lay_open(subject.other), images, seed=SEED)
    ours, theirs = (interpret.lay_open(_untrained(subject.model, SEED + i)) for i in (1, 2))
    control = similarity.compare_networks(ours, theirs, images, seed=SEED)
    figure = semantics_figures.matched_correlations([
        {"layer": own.layer, "correlations": own.matching.correlations, "null": own.matching.null,
         "control": before.matching.correlations}
        for own, before in zip(found, control)
    ])  # fmt: skip
    rows, before = [layer.row() for layer in found], [layer.row() for layer in control]
    drawn = [subject.draw("similarity", figure, "How well each unit's partner in the other seed's network agrees.")]
    table = [("layer", "units", "with a partner", "by chance", "untrained", "CKA", "untrained CKA")]
    table += [
        (row["layer"], row["units"], f"{row['share']:.1%}", f"{row['null_share']:.1%}", f"{own['share']:.1%}",
         f"{row['cka']:.2f}", f"{own['cka']:.2f}")
        for row, own in zip(rows, before)
    ]  # fmt: skip
    files = [subject.write_table("similarity", rows), subject.write_table("similarity_untrained", before)]
    return _finding(
        {"layers": rows}, table=table, figures=drawn, files=files, trained=rows, control=before,
        other=_digest(subject.other),
    )  # fmt: skip


def _embedding(subject):
    """Every dense layer's t-SNE, and how far it can be believed."""
    from tfproject import interpret
    from tfproject.report import filter_figures

    if not subject.network.unit_layers:
        return _finding({"layers": []})
    split, names = subject.split, subject.class_names
    features = interpret.features(subject.network, split)
    embeddings = {
        name: interpret.tsne(rows, subject.extent.perplexity, SEED) for name, rows in features.items()
    }
    rows, drawn = interpret.neighbourhood_rows(features, embeddings, split.labels), []
    for row in rows:
        name, found = row["layer"], embeddings[row["layer"]]
        figure = filter_figures.embedding_scatter(
            found.points, split.labels, names, name, found.perplexity, row["embedding_accuracy"],
            row["trustworthiness"], row["neighbours"],
        )  # fmt: skip
        drawn.append(subject.draw(f"tsne_{name}", figure, f"What {name} says of each image, laid out by t-SNE."))
        figure = filter_figures.embedding_images(
            found.points, split.images, split.labels, names, name, found.perplexity
        )
        drawn.append(subject.draw(f"tsne_images_{name}", figure, f"The same layout of {name} with the images."))
    figure = filter_figures.neighbourhood_curve(rows)
    where = "the dense layers" if subject.network.dense else rows[0]["layer"]
    drawn.append(subject.draw("neighbourhoods", figure, f"How well the classes lie apart in {where}."))

    count = min(subject.extent.projector_images, len(split))
    kept = np.sort(np.random.default_rng(SEED).permutation(len(split))[:count])
    some = split.take(kept)
    interpret.write_projector(
        subject.directory / "tensorboard", {name: rows[kept] for name, rows in features.items()}, some.labels, names,
        some.names, some.images,
    )  # fmt: skip
    table = [("layer", "numbers", "class by neighbours", "in the t-SNE", "trustworthiness")]
    table += [
        (row["layer"], row["width"], f"{row['accuracy']:.1%}", f"{row['embedding_accuracy']:.1%}",
         f"{row['trustworthiness']:.3f}")
        for row in rows
    ]  # fmt: skip
    first, last = rows[0], rows[-1]
    text = f"By its {first['neighbours']} neighbours in {first['layer']} the class of {first['accuracy']:.1%} of "
    text += f"{first['images']:,} images is told right"
    text += f", in {last['layer']} of {last['accuracy']:.1%}." if last is not first else "."
    return _finding({"layers": rows}, [text], table, drawn, [subject.write_table("neighbourhoods", rows)])


def _attribution(subject):
    """Where in some images the evidence for the predicted class lies, by every method."""
    from tfproject import interpret
    from tfproject.interpret import attribution
    from tfproject.report import attribution_figures

    shown = _of_each_class(subject.split, subject.extent.attributed)
    predicted = _predicted(subject.network, shown.images)
    maps = interpret.attribute(
        subject.network, shown.images, predicted if subject.network.class_count > 1 else None, _methods(subject),
        samples=subject.extent.smoothgrad_samples, seed=SEED, max_channels=subject.extent.channels,
    )  # fmt: skip
    titles = [
        f"{subject.class_names[label]}\nsaid: {subject.class_names[said]}"
        for label, said in zip(shown.labels, predicted)
    ]
    figure = attribution_figures.attribution_sheet(shown.images, maps, titles)
    caption = "The maps for the class that the network says, each from its own least value (dark) to its greatest."
    drawn, channels = [subject.draw("attribution", figure, caption)], subject.extent.channels
    told = "scorecam" in maps and channels
    text = [f"Of Score-CAM only the {channels} channels of each image that vary most, here and below."] if told else []
    measured = attribution.described(subject.network, tuple(maps))
    table = [("method", "what a place of the map says", "of", "cells")]
    table += [
        (attribution_figures.METHOD_NAMES[row["method"]], row["measures"], row["layer"],
         f"{row['rows']}x{row['columns']}{'' if row['layer'] == 'the image' else ', enlarged'}")
        for row in measured
    ]  # fmt: skip
    return _finding({"images": len(shown), "methods": list(maps), "maps": measured}, text, table, drawn)


def _faithfulness(subject):
    """Whether the maps depend on what was learnt, and whether the pixels that they name count."""
    from tfproject import interpret
    from tfproject.interpret import faithfulness, words
    from tfproject.report import attribution_figures

    extent, network, methods = subject.extent, subject.network, _methods(subject)
    images = subject.few(extent.checked).images
    options = {"samples": extent.smoothgrad_samples, "max_channels": extent.channels}
    sanity = interpret.sanity_check(
        network, images, methods=methods, levels=extent.levels, draws=extent.draws, seed=SEED, **options
    )
    maps = interpret.attribute(network, images, methods=methods, **options)
    curves = interpret.deletion_insertion(network, images, maps, steps=extent.curve_steps, seed=SEED)
    rows = faithfulness.table(sanity, curves)
    drawn = [
        subject.draw(
            "sanity_check",
            attribution_figures.sanity_curves(
                sanity.randomised, len(sanity.layer_names), sanity.rank_correlation, sanity.ssim, faithfulness.SIMILAR
            ),
            "How similar the maps stay while the layers are randomised: a method whose maps stay does not show what "
            "was learnt.",
        ),
        subject.draw(
            "deletion_insertion",
            attribution_figures.deletion_insertion_curves(
                curves.shares, curves.deletion, curves.insertion, curves.deletion_control, curves.insertion_control,
                curves.deletion_others, curves.insertion_others,
            ),
            "The class's probability while the pixels that a map names first are taken away or put in, and the same "
            "with the map moved and with another image's map.",
        ),
    ]
    named = attribution_figures.METHOD_NAMES
    table = [("method", "similarity after randomising", "deletion (moved, another's)", "insertion (moved, another's)",
              "verdict")]  # fmt: skip
    table += [
        (named[row["method"]], f"{row['sanity_correlation']:.2f}",
         *(f"{row[f'{kind}_auc']:.3f} ({row[f'{kind}_control']:.3f}, {row[f'{kind}_others']:.3f})"
           for kind in faithfulness.KINDS),
         row["verdict"])
        for row in rows
    ]  # fmt: skip
    numbers = {"images": len(images), "methods": {row["method"]: row for row in rows}}
    text = [words.attribution_methods([row | {"method": named[row["method"]]} for row in rows], len(images))]
    return _finding(numbers, text, table, drawn, [subject.write_table("faithfulness", rows)])


STAGES = {
    "scores": _scores, "filters": _filters, "activations": _activations, "samples": _samples, "semantics": _semantics,
    "silencing": _silencing, "similarity": _similarity, "embedding": _embedding, "attribution": _attribution,
    "faithfulness": _faithfulness,
}  # fmt: skip


def _story(subject):
    """What the stages found of the units, in sentences made from their numbers: a dict from stage to paragraphs."""
    from tfproject.interpret import words

    units, silenced, similar = (subject.finding(name) for name in ("semantics", "silencing", "similarity"))
    if not units.get("units"):
        return {}
    return words.describe_network(
        units["units"], units["layers"], units["growth"], silenced.get("units", ()), silenced.get("sets", ()),
        similar.get("trained", ()), similar.get("control", ()), units["untrained"],
    )  # fmt: skip


def _conclusions(subject):
    """How units change with depth, and which attribution methods pass, in a sentence or two each."""
    from tfproject.interpret import words

    units = subject.finding("semantics")
    texts = [words.depth_in_short(units["layers"], units["growth"]), *subject.finding("faithfulness")["text"]]
    return [text for text in texts if text]


def _check_same(directory, model, split, extent):
    """Refuse a directory that holds what was found of another network, other images or another extent."""
    images = hashlib.sha256(b"".join(split.digests) + split.labels.tobytes())
    own = {"weights": _digest(model), "images": images.hexdigest(), "extent": dataclasses.asdict(extent)}
    path = directory / "stages" / "of.json"
    if not path.exists():
        write_atomically(path, to_json(own))
    elif json.loads(path.read_text()) != json.loads(to_json(own)):
        raise UserError(
            f"{directory} holds what was found of another network, other images or to another extent; give another "
            "directory, or remove it."
        )


def _digest(model):
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _methods(subject):
    """The attribution methods that the network has a feature map for."""
    from tfproject.interpret import attribution

    try:
        attribution.feature_layer(subject.network)
    except UserError:  # no convolution with more than one place
        return ("gradients", "smoothgrad")
    return attribution.METHODS


def _predicted(network, images):
    (logits,) = network.function([network.logits], len(images))(images)
    return logits.argmax(axis=1) if network.class_count > 1 else (logits[:, 0] > 0).astype(int)


def _of_each_class(split, count):
    """The first image of each class, of at most so many classes, evenly spread."""
    labels, first = np.unique(split.labels, return_index=True)
    return split.take([first[i] for i in _spread(range(len(labels)), count)])


def _some(split, count):
    """So many images drawn at random, in their order; all of them if None or fewer."""
    if count is None or count >= len(split):
        return split
    return split.take(np.sort(np.random.default_rng(SEED).permutation(len(split))[:count]))


def _spread(items, count):
    """At most so many items, evenly spread from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def _plain(name):
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def to_json(content):
    """JSON text of plain values, NumPy's among them."""
    return json.dumps(content, indent=1, default=lambda value: value.item()) + "\n"
