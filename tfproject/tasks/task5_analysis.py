"""What is looked at before Task 5's trainings, and after them: the tiles, and what the final networks make of them."""

import numpy as np

from tfproject.errors import UserError
from tfproject.experiments.analysis import to_csv
from tfproject.files import write_atomically

PAIRS = 3  # of classes that are looked into
GROWN = 8  # confusions listed that grow from one split to the other
OUTLIERS = 20
DIRECTIONS = 4  # errors whose attributions are shown, in rows of as many


class Findings:
    """Collects what a part draws and writes: numbers, figures and tables."""

    def __init__(self, task, part):
        self.task, self.part = task, part
        self.numbers, self.figures, self.files = {}, [], []

    def draw(self, name, figure, caption):
        from tfproject.report import figures

        self.figures.append((f"figures/{self.part}-{name}.png", caption))
        figures.save(figure, self.task.directory / self.figures[-1][0])

    def table(self, name, rows):
        """Write rows, dicts of plain values, as CSV; of nested ones only the names are kept."""
        flat = [{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in rows]
        if flat:
            self.files.append(f"{name}.csv")
            write_atomically(self.task.directory / self.files[-1], to_csv(flat))

    def to_json(self):
        return {**self.numbers, "figures": self.figures, "files": self.files}


def explore(task):
    """The tiles before any training; in their splits they are only counted and compared.

    Returns:
        A dict for the part's finding: audit, colour_floor, channels, spectral_slopes; figures and files.
    """
    from tfproject import evaluation, exploration
    from tfproject.data import audit
    from tfproject.exploration.spectra import spectral_slopes
    from tfproject.report import exploration_figures, figures

    tiles, found = task.tiles("random"), Findings(task, "exploration")
    train, val, names = tiles.train, tiles.val, tiles.class_names
    checked = audit.audit(tiles)
    found.draw("samples", figures.sample_sheet(train.images, train.labels, names), "Training tiles of each class.")
    counts = {name: [by_class[c] for c in names] for name, by_class in checked["counts"].items()}
    found.draw("counts", figures.class_counts(counts, names), "Tiles of each class in each split.")

    channels = exploration.channel_statistics(train.images, train.labels, names)
    found.table("channels", channels)
    found.draw("channels", exploration_figures.channel_statistics(channels),
               "Mean of each channel by class; the thick line is the spread between tiles, the thin one that of all "
               "pixels.")  # fmt: skip
    found.draw(
        "histograms",
        exploration_figures.colour_histograms(exploration.colour_histograms(train.images, train.labels, len(names)),
                                              names),
        "How the values of each channel are spread in each class.",
    )  # fmt: skip
    means = exploration.mean_images(train.images, train.labels, len(names))
    found.draw("mean-images", exploration_figures.mean_images(means, names),
               "The mean tile of each class, and the same with its contrast stretched.")  # fmt: skip
    spectra = exploration.mean_log_spectra(train.images, train.labels, len(names))
    found.draw("spectra", exploration_figures.mean_spectra(spectra, names),
               "The mean power spectrum of each class: low frequencies in the middle.")  # fmt: skip
    frequencies, profiles = exploration.radial_profiles(spectra)
    found.draw("profiles", exploration_figures.radial_profiles(frequencies, profiles, names),
               "The power of each class by frequency, all directions together.")  # fmt: skip

    floor = exploration.colour_floor(train.images, train.labels, val.images, len(names))
    scores = evaluation.scores(floor, val.labels, names).to_json()
    found.draw("colour-confusion", exploration_figures.colour_confusion(scores["confusion"], names),
               "How a linear model on colours alone confuses the classes, on validation.")  # fmt: skip
    found.numbers = {
        "audit": {key: checked[key] for key in ("images", "totals", "imbalance_ratio", "bad_image_count")}
        | {"exact_duplicates": checked["exact_duplicates"]["groups"],
           "near_duplicates": checked["near_duplicates"]["pairs"],
           "near_duplicates_across_splits": checked["near_duplicates"]["across_splits"]},
        "audit_text": audit.to_text(checked),
        "colour_floor": {key: scores[key] for key in ("count", "accuracy", "accuracy_interval", "per_class",
                                                      "confusion")},
        "channels": channels,
        "spectral_slopes": dict(zip(names, np.asarray(spectral_slopes(frequencies, profiles)).round(3).tolist())),
    }  # fmt: skip
    return found.to_json()


def analyse(task):
    """What the final networks do on tiles that they have not seen; no training.

    Returns:
        A dict for the part's finding: tests, calibration, abstention, hardest, pairs, distinguishing, label_noise,
        rates, groups, robustness, embedding, attribution; one_view, a dict from each split to how sure its network is
        with one view, as the tool takes it; drop and spatial where there is a run on the spatial split; and vgg16, a
        dict from each split where both are there to the paired difference to VGG16's accuracy.

    Raises:
        UserError: if there is no finished run on the random split, or its model is not there.
    """
    runs = [task.run(name) for name in task.names("random") if task.scored(name)]
    if not runs:
        raise UserError(
            "The part 'analysis' needs a finished network of the part 'random'; run that first, or both together."
        )
    if not runs[0].model_path.exists():
        raise UserError(
            f"The model of {runs[0].directory} is not there, only its numbers; remove the folder to train it anew."
        )
    tiles, found = task.tiles("random"), Findings(task, "analysis")
    views = _chosen_views(runs)
    on_val, on_test = ([run_predictions(run, split, views) for run in runs] for split in ("validation", "test"))
    found.numbers = {"views": views, "runs": [run.directory.name for run in runs]}
    found.numbers["tests"] = [with_intervals(p, tiles.test.labels) for p in on_test]
    _calibration(found, tiles, on_val[0], on_test[0])
    _confusions(found, tiles, on_test)
    _biases(found, task, tiles, on_test[0])
    _robustness(found, task, tiles, runs[0].model)
    _embeddings(found, tiles, runs[0].model)
    _attributions(found, task, tiles, runs[0].model, on_test[0])
    spatial = [task.run(name) for name in task.names("spatial") if task.scored(name)]
    found.numbers["one_view"] = {
        kind: _sureness(task.tiles(kind), *(run_predictions(own[0], split, 1) for split in ("validation", "test")))
        for kind, own in (("random", runs), ("spatial", spatial)) if own
    }  # fmt: skip
    if spatial:
        on_spatial = [run_predictions(spatial[0], split, views) for split in ("validation", "test")]
        _drop(found, task, on_test[0], on_spatial[1])
        _on_spatial(found, task, *on_spatial)
    found.numbers["vgg16"] = _against_vgg16(task)
    return found.to_json()


def _chosen_views(runs):
    """How many views are averaged: what does best on validation, in the mean of the runs."""
    from tfproject.tasks.task5_eurosat import VIEWS

    def accuracy(count):
        key = "validation" if count == 1 else f"validation_{count}_views"
        return np.mean([run.metrics[key]["accuracy"] for run in runs]), -count

    return max(VIEWS, key=accuracy)


def run_predictions(run, split, views):
    """What a scored run said of a split ("validation" or "test") with so many views: float32 (n, c)."""
    with np.load(run.directory / "predictions.npz") as file:
        return file[split if views == 1 else f"{split}_{views}_views"]


def with_intervals(probabilities, labels, seed=0):
    """Accuracy, kappa and macro F1, each with a 95 % interval: Wilson's, and percentiles of a bootstrap."""
    from tfproject import evaluation

    names = [str(i) for i in range(probabilities.shape[1])]
    scores = evaluation.scores(probabilities, labels, names)
    resampled = evaluation.bootstrap(scores.confusion, seed)
    return {
        "accuracy": scores.accuracy, "accuracy_interval": scores.accuracy_interval,
        "kappa": scores.kappa, "kappa_interval": resampled["kappa_interval"],
        "macro_f1": scores.macro_f1, "macro_f1_interval": resampled["macro_f1_interval"],
        "log_loss": scores.log_loss, "calibration_error": scores.calibration_error,
    }  # fmt: skip


def _calibration(found, tiles, on_val, on_test):
    from tfproject.evaluation import calibration
    from tfproject.report import analysis_figures

    arguments = (on_val, tiles.val.labels, on_test, tiles.test.labels)
    scaled = calibration.temperature_scaling(*arguments, tiles.class_names)
    found.draw("reliability", analysis_figures.reliability_before_after(scaled),
               "How often the network is right, by how sure it is, before and after temperature scaling.")  # fmt: skip
    table = calibration.abstention_table(*arguments)
    curve = calibration.risk_coverage(on_test, tiles.test.labels)
    found.draw("coverage", analysis_figures.risk_coverage({"test": curve}, table),
               "The share of errors among the tiles answered when the least sure are left out; the marks are "
               "thresholds chosen on validation.")  # fmt: skip
    found.table("reliability", [{"scaling": kind} | row for kind in ("before", "after")
                                for row in scaled[kind]["reliability"]])  # fmt: skip
    found.numbers |= {"calibration": scaled, "abstention": table,
                      "risk_coverage": {key: float(curve[key]) for key in ("aurc", "best_aurc")}}  # fmt: skip


def _confusions(found, tiles, on_test):
    """The hardest classes and pairs, what distinguishes the confused, and tiles whose label is doubtful."""
    from tfproject import exploration
    from tfproject.evaluation import confusions
    from tfproject.report import analysis_figures

    test, names, first = tiles.test, tiles.class_names, on_test[0]
    hardest = confusions.hardest_classes(first, test.labels, names)
    pairs = confusions.confused_pairs(first, test.labels, names)
    found.table("hardest-classes", hardest)
    found.table("confused-pairs", pairs)
    found.draw("hardest", analysis_figures.hardest_classes(hardest), "Recall of each class, the hardest on top.")
    found.draw("pairs", analysis_figures.confused_pairs(pairs), "The most confused pairs of classes, errors each way.")
    statistics = exploration.image_statistics(test.images)
    distinguishing, sentences = {}, []
    for pair in [pair for pair in pairs if pair["errors"]][:PAIRS]:
        ways = ((pair["first"], pair["second"]), (pair["second"], pair["first"]))
        counts = (pair["first_as_second"]["hits"], pair["second_as_first"]["hits"])
        true, said = (names.index(name) for name in ways[int(np.argmax(counts))])
        rows = confusions.what_distinguishes(statistics, first, test.labels, true, said)
        distinguishing[f"{names[true]} taken for {names[said]}"] = rows
        sentences.append(confusions.describe_confusion(rows, names[true], names[said], exploration.WORDS))
        sheet = analysis_figures.confused_pair_sheet(test.images, first, test.labels, true, said, names)
        found.draw(f"pair{len(sentences)}", sheet,
                   f"{names[true]} taken for {names[said]}, between right tiles of both.")  # fmt: skip
    if any(distinguishing.values()):
        found.draw("distinguishing", analysis_figures.distinguishing_statistics(distinguishing),
                   "In what the confused tiles differ from the right ones of their class (Cliff's delta).")  # fmt: skip
        found.table("distinguishing", [{"confusion": k} | row for k, rows in distinguishing.items() for row in rows])
    noise = confusions.label_noise(np.stack(on_test), test.labels, names)
    found.table("label-noise", [{"name": test.names[row["index"]]} | row for row in noise["candidates"]])
    if noise["candidates"]:
        found.draw("label-noise", analysis_figures.label_noise_sheet(test.images, noise["candidates"]),
                   "Test tiles whose label is most probably wrong: the label above, what the networks say "
                   "below.")  # fmt: skip
    found.numbers |= {"hardest": hardest, "pairs": pairs, "distinguishing": sentences, "label_noise": {
        "share": noise["share"], "models": noise["models"], "candidates": noise["candidates"][:20]}}  # fmt: skip


def _biases(found, task, tiles, on_test):
    from tfproject import exploration
    from tfproject.evaluation import bias
    from tfproject.report import analysis_figures

    test = tiles.test
    rates = bias.class_rates(on_test, test.labels, tiles.class_names)
    found.table("class-rates", rates["classes"])
    found.draw("rates", analysis_figures.class_rates(rates),
               "How much more or less often each class is predicted than it is true.")  # fmt: skip
    statistics = exploration.image_statistics(test.images)
    sizes = np.bincount(tiles.train.labels, minlength=len(tiles.class_names))
    groupings = {
        "training tiles of the class": bias.class_size_groups(test.labels, sizes, tiles.class_names),
        "brightness": bias.quantile_groups(statistics["brightness"]),
        "haze": bias.quantile_groups(statistics["haze"]),
    }
    if places := _places(task, test.names):
        groupings["place"] = places
    groups = bias.accuracy_by_groups(on_test, test.labels, groupings)
    found.table("groups", [{"grouping": k} | row for k, each in groups.items() for row in each["groups"]])
    found.draw("groups", analysis_figures.accuracy_by_groups(groups),
               "Accuracy of groups of test tiles with 95 % intervals.")  # fmt: skip
    found.numbers |= {"rates": rates, "groups": groups}


def _places(task, names):
    """Of each tile, which list of the spatial split has it, as these lie apart in longitude; None without places."""
    from tfproject.tasks.task5_eurosat import SPLITS

    if task.data not in SPLITS:
        return None
    kinds = {"train": "the spatial training area", "val": "its validation area", "test": "its test area"}
    of_name = {name: i for i, kind in enumerate(kinds) for name in task.tiles("spatial").splits[kind].names}
    return np.array([of_name.get(name, -1) for name in names]), list(kinds.values())


def _robustness(found, task, tiles, model):
    from tfproject.evaluation.prediction import predictor
    from tfproject.evaluation.robustness import MEANING, SEVERITIES, corrupt, robustness
    from tfproject.report import analysis_figures

    count = min(task.size.corrupted_images, len(tiles.test))
    test = tiles.test.take(np.linspace(0, len(tiles.test) - 1, count).round().astype(int))
    batch_size = min(256, count)
    rows = robustness(predictor(model, test.image_shape[:2], batch_size), test.images, test.labels,
                      batch_size=batch_size)  # fmt: skip
    found.table("robustness", rows)
    found.draw("robustness", analysis_figures.robustness(rows),
               f"Accuracy on {count:,} test tiles made worse, one view; the dashed line is that of the tiles as they "
               "are.")  # fmt: skip
    shown = {kind: np.concatenate([corrupt(test.images[:1], kind, severity) for severity in range(1, 6)])
             for kind in SEVERITIES}  # fmt: skip
    found.draw("corruptions", analysis_figures.corruption_sheet(shown), "A tile under each corruption and severity.")
    kept = [{k: v for k, v in row.items() if k != "class_accuracy"} for row in rows]
    found.numbers |= {"robustness": kept, "corruptions": dict(MEANING)}


def _embeddings(found, tiles, model):
    """Clusters of what the network's last layer is given, untrained and trained; tiles far from their class."""
    import keras

    from tfproject import exploration
    from tfproject.report import exploration_figures

    keras.utils.set_random_seed(0)
    networks = {"untrained": keras.models.clone_model(model), "trained": model}
    tables, names = {}, tiles.class_names
    for kind, network in networks.items():
        features = exploration.penultimate_features(network, tiles.val.images)
        tables[kind] = exploration.clusters(features, tiles.val.labels, names)
    found.draw("clusters", exploration_figures.cluster_tables(tables, names),
               "Which classes fall into which clusters of the last layer's features, on validation.")  # fmt: skip
    features = exploration.penultimate_features(model, tiles.train.images)
    rows = exploration.outliers(features, tiles.train.labels, names, count=OUTLIERS)
    found.table("outliers", [{"name": tiles.train.names[row["index"]]} | row for row in rows])
    found.draw("outliers", exploration_figures.outlier_sheet(tiles.train.images, rows),
               "The training tiles farthest from their own class in the trained network's features, by how much "
               "distances in that class vary.")  # fmt: skip
    found.numbers["embedding"] = {
        kind: {key: table[key] for key in ("adjusted_rand", "normalised_mutual_information", "matched_accuracy")}
        for kind, table in tables.items()
    }


def _attributions(found, task, tiles, model, on_test):
    """Where the network looks: at a right tile of each class and at its surest errors; Task 3's tools if asked."""
    from tfproject import interpret
    from tfproject.report import attribution_figures
    from tfproject.tasks import interpretation, interpretation_page

    test, names = tiles.test, tiles.class_names
    said, sure = on_test.argmax(1), on_test.max(1)
    right = [i for i in (_surest((test.labels == c) & (said == c), sure) for c in range(len(names))) if i is not None]
    wrong = np.flatnonzero(said != test.labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][: 2 * DIRECTIONS]
    methods = ("gradients", "smoothgrad", "gradcam", "layercam")
    doubted = {row["index"] for row in found.numbers["label_noise"]["candidates"]}
    for kind, chosen in (("classes", right), ("errors", wrong.tolist())):
        if chosen:
            maps = interpret.attribute(model, test.images[chosen], said[chosen], methods, samples=10)
            titles = [
                f"{names[test.labels[i]]}\nsaid:\n{names[said[i]]}{chr(10) + 'label doubted' if i in doubted else ''}"
                for i in chosen
            ]
            caption = "the surest right tile of each class" if kind == "classes" else "the surest errors"
            found.draw(f"attribution-{kind}", attribution_figures.attribution_sheet(test.images[chosen], maps, titles),
                       f"Maps for the class that the network says: {caption}.")  # fmt: skip
    found.numbers["attribution"] = {"methods": list(methods), "errors": len(wrong), "story": []}
    if task.size.extent is not None:
        place = task.directory / "interpretation" / "network"
        summary = interpretation.interpret_network(
            model, tiles, place, task.size.extent, split="val", progress=task.progress
        )  # not by test tiles, as one may choose a method by it
        checked = summary.get("faithfulness", {})
        verdicts = {method: row["verdict"] for method, row in checked.get("methods", {}).items()}
        found.numbers["attribution"] |= {
            "story": summary["story"], "verdicts": verdicts, "checked_images": checked.get("images"),
        }  # fmt: skip
        report = place.parent / "report.html"
        interpretation_page.write_page(report, "What the land-cover network has learnt", {"network": place})
        found.files.append("interpretation/report.html")
        found.files += sorted(str(path.relative_to(task.directory)) for path in place.glob("*.csv"))


def _against_vgg16(task):
    """By how much the first network from scratch is right more often than the first VGG16, one view, on each split."""
    from tfproject.statistics import paired_difference, share

    found = {}
    for kind in ("random", "spatial"):
        runs = [task.run(f"{name}-seed0") for name in (kind, f"vgg16-{kind}")]
        if all(task.scored(run.directory.name) for run in runs):
            labels = task.tiles(kind).test.labels
            ours, its = (run_predictions(run, "test", 1).argmax(1) == labels for run in runs)
            found[kind] = paired_difference(int((ours & ~its).sum()), int((its & ~ours).sum()), len(labels))
            found[kind] |= {"ours": share(int(ours.sum()), len(labels)), "vgg16": share(int(its.sum()), len(labels))}
    return found


def _surest(chosen, sure):
    return int(np.argmax(np.where(chosen, sure, -1))) if chosen.any() else None


def _drop(found, task, on_random, on_spatial):
    """From the random to the spatial split, class by class: recall, confusions that grow, and the shift of colours."""
    from scipy import stats

    from tfproject.statistics import difference_of_shares, share

    kinds = {"random": (task.tiles("random"), on_random), "spatial": (task.tiles("spatial"), on_spatial)}
    names = task.tiles("random").class_names
    classes, rates = [{"class": name} for name in names], {}
    for kind, (tiles, probabilities) in kinds.items():
        labels, said = tiles.test.labels, probabilities.argmax(1)
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (labels, said), 1)
        rates[kind] = counts
        shift = colour_shift(tiles)
        for c, row in enumerate(classes):
            row[f"{kind}_recall"] = share(int(counts[c, c]), int(counts[c].sum()))
            row[f"{kind}_shift"] = None if shift[c] is None else round(shift[c], 3)
    for row in classes:
        both = [row[f"{kind}_recall"]["share"] for kind in kinds]
        row["drop"] = None if None in both else both[0] - both[1]
    grown = []
    for true in range(len(names)):
        for said in range(len(names)):
            both = [share(int(counts[true, said]), int(counts[true].sum())) for counts in rates.values()]
            if true != said and None not in (both[0]["share"], both[1]["share"]):
                grown.append({"true": names[true], "said": names[said], "random": both[0], "spatial": both[1],
                              "growth": both[1]["share"] - both[0]["share"]})  # fmt: skip
    known = [(row["drop"], row["spatial_shift"]) for row in classes if None not in (row["drop"], row["spatial_shift"])]
    correlation = stats.spearmanr(*zip(*known)) if len({d for d, _ in known}) > 1 else None
    flat = [
        {"class": row["class"], "drop": row["drop"]}
        | {f"{kind}_{key}": row[f"{kind}_recall"][key] for kind in kinds for key in ("share", "low", "high", "count")}
        | {f"{kind}_shift": row[f"{kind}_shift"] for kind in kinds}
        for row in classes
    ]
    found.table("random-to-spatial", flat)
    from tfproject.report import exploration_figures

    recalls = {kind: [row[f"{kind}_recall"]["share"] for row in classes] for kind in kinds}
    intervals = {
        kind: [(row[f"{kind}_recall"]["low"], row[f"{kind}_recall"]["high"]) for row in classes] for kind in kinds
    }
    found.draw("random-to-spatial", exploration_figures.class_accuracies(recalls, names, intervals),
               "Recall of each class on the random and on the spatial split's test tiles, with 95 % intervals.")
    accuracy = {kind: share(int(np.trace(counts)), int(counts.sum())) for kind, counts in rates.items()}
    chosen_by = {name for split in task.choices.splits.values() for name in split.names}
    drops = [row["drop"] for row in classes if row["drop"] is not None]
    found.numbers["drop"] = {
        "views": found.numbers["views"],
        "training_tiles": {kind: len(tiles.train) for kind, (tiles, _) in kinds.items()},
        "seen_in_choosing": share(sum(name in chosen_by for name in kinds["spatial"][0].test.names),
                                  len(kinds["spatial"][0].test)),
        "difference": difference_of_shares(accuracy["random"], accuracy["spatial"]),
        "mean_recall_drop": float(np.mean(drops)) if drops else None,
        "classes": classes,
        "grown": sorted(grown, key=lambda row: -row["growth"])[:GROWN],
        "accuracy": accuracy,
        "same_tiles": _same_tiles(kinds, names),
        "shift_correlation": None if correlation is None else [float(correlation.statistic), float(correlation.pvalue)],
    }


def _same_tiles(kinds, names):
    """The tiles that both tests have: how often each network is right on them, in all and class by class."""
    from tfproject.statistics import paired_difference, share

    (random, on_random), (spatial, on_spatial) = kinds.values()
    places = {name: i for i, name in enumerate(random.test.names)}
    both = [(places[name], i) for i, name in enumerate(spatial.test.names) if name in places]
    if not both:
        return None
    first, second = map(np.array, zip(*both))
    labels = spatial.test.labels[second]
    hits = {"random": on_random[first].argmax(1) == labels, "spatial": on_spatial[second].argmax(1) == labels}
    only = [int((hits[a] & ~hits[b]).sum()) for a, b in (("random", "spatial"), ("spatial", "random"))]
    return {kind: share(int(right.sum()), len(labels)) for kind, right in hits.items()} | {
        "difference": paired_difference(*only, len(labels)),
        "classes": [
            {"class": name, "count": int((labels == c).sum())}
            | {kind: int(right[labels == c].sum()) for kind, right in hits.items()}
            for c, name in enumerate(names)
        ],
    }


def _sureness(tiles, on_val, on_test):
    """How sure a network is beside how often it is right on test, and when it may abstain; chosen on validation."""
    from tfproject.evaluation import calibration
    from tfproject.statistics import share

    arguments = (on_val, tiles.val.labels, on_test, tiles.test.labels)
    scaled = calibration.temperature_scaling(*arguments, tiles.class_names)
    right = on_test.argmax(1) == tiles.test.labels
    return {
        "calibration": {"temperature": scaled["temperature"], "change": scaled["change"]}
        | {kind: scaled[kind]["calibration_error"] for kind in ("before", "after")}
        | {"confidence": {kind: scaled[kind]["confidence"] for kind in ("before", "after")},
           "right": share(int(right.sum()), len(right))},
        "abstention": calibration.abstention_table(*arguments),
    }  # fmt: skip


def _on_spatial(found, task, on_val, on_test):
    """How sure the spatial split's network is, and in what the tiles of the confusions that grow differ."""
    from tfproject import exploration
    from tfproject.evaluation import confusions

    tiles = task.tiles("spatial")
    statistics, names, sentences = exploration.image_statistics(tiles.test.images), tiles.class_names, []
    for row in [row for row in found.numbers["drop"]["grown"] if row["growth"] > 0][:PAIRS]:
        true, said = names.index(row["true"]), names.index(row["said"])
        rows = confusions.what_distinguishes(statistics, on_test, tiles.test.labels, true, said)
        sentences.append(confusions.describe_confusion(rows, row["true"], row["said"], exploration.WORDS))
    found.numbers["spatial"] = _sureness(tiles, on_val, on_test) | {"distinguishing": sentences}


def colour_shift(tiles):
    """How far the colours of each class's test tiles lie from its training tiles'.

    Args:
        tiles: an ImageSet.

    Returns:
        For each class the largest, over the channels, of |mean of test - mean of train| of the tiles' mean values, in
        standard deviations of the training tiles' mean values; None for a class that lacks tiles.
    """
    means = {name: tiles.splits[name].images.mean((1, 2)) for name in ("train", "test")}
    shifts = []
    for c in range(len(tiles.class_names)):
        train, test = (means[name][tiles.splits[name].labels == c] for name in means)
        if len(train) < 2 or not len(test):
            shifts.append(None)
            continue
        shifts.append(float((np.abs(test.mean(0) - train.mean(0)) / np.maximum(train.std(0, ddof=1), 1e-9)).max()))
    return shifts
