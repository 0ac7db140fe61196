"""Figures of what a classifier gets wrong, how sure it is, and for which images: plain rows and arrays in."""

import numpy as np

from tfproject.report import style
from tfproject.report.exploration_figures import _name_classes
from tfproject.report.figures import _figure, _percent, _short, captioned_sheet
from tfproject.report.style import styled

SIGNIFICANCE = 0.05


@styled
def reliability_before_after(found):
    """Accuracy against confidence before and after temperature scaling, and how many images have which confidence.

    Args:
        found: what `tfproject.evaluation.calibration.temperature_scaling` gives: temperature, before and after, each
            with reliability, calibration_error and log_loss.
    """
    figure, panels = _figure((style.WIDTH, 4.4), 2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    titles = {"before": "Before", "after": f"After, temperature {found['temperature']:.2f}"}
    for column, (key, title) in enumerate(titles.items()):
        scored = found[key]
        bins = [b for b in scored["reliability"] if b["count"]]
        middles = [(b["low"] + b["high"]) / 2 for b in bins]
        width = 0.94 * (bins[0]["high"] - bins[0]["low"])
        axes, below = panels[:, column]
        axes.bar(middles, [b["accuracy"] for b in bins], width, color=style.PALETTE[0], label="accuracy")
        confidences, accuracies = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axes.plot(confidences, accuracies, "o", color=style.INK, markersize=3.5, label="at the mean confidence")
        axes.plot([0, 1], [0, 1], "--", color=style.GREY, linewidth=1, label="perfect calibration")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(f"{title}\nerror {scored['calibration_error']:.2%}, log loss {scored['log_loss']:.3f}")
        below.bar(middles, [b["count"] for b in bins], width, color=style.GREY)
        below.set_yscale("log")
        below.set_ylim(bottom=0.7)
        below.set_xlabel("confidence")
        below.xaxis.set_major_formatter(_percent())
        axes.yaxis.set_major_formatter(_percent())
        for panel in (axes, below):
            panel.grid(axis="y")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("images")
    panels[0, 0].legend(loc="upper left")
    return figure


@styled
def risk_coverage(curves, chosen=()):
    """The share of errors among the images answered, by how many are answered.

    Args:
        curves: a dict from a name to {coverage, risk, area}, as `tfproject.evaluation.calibration.risk_coverage` gives.
        chosen: rows of `abstention_table`, whose test results are marked with their 95 % intervals; those without a
            threshold are left out.
    """
    figure, axes = _figure((style.WIDTH, 3.6))
    for i, (name, curve) in enumerate(curves.items()):
        coverage, risk = np.asarray(curve["coverage"]), np.asarray(curve["risk"])
        line = ("-", "--", "-.", ":")[i % 4]
        axes.plot(coverage, risk, line, color=style.PALETTE[2 * i % 10], label=f"{name}: AURC {curve['aurc']:.4f}")
    rows = [row for row in chosen if row["test"] and row["test"]["accuracy"]["share"] is not None]
    for i, row in enumerate(rows):
        answered, right = row["test"]["coverage"], row["test"]["accuracy"]
        error = 1 - right["share"]
        # Beside the points the texts would lie on each other: good thresholds answer nearly all.
        axes.errorbar(
            answered["share"], error, [[error - (1 - right["high"])], [1 - right["low"] - error]], fmt="osD^v"[i % 5],
            color=style.INK, markersize=4.5, linewidth=1, capsize=2.5,
            label=f"{row['wanted']:.1%} wanted, confidence ≥ {row['threshold']:.3f}: {right['share']:.1%} right of "
            f"{answered['share']:.1%} answered",
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), xlabel="coverage: images that are answered", ylabel="errors among them")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(_percent())
    axes.yaxis.set_major_formatter(_percent())
    axes.grid()
    axes.legend(loc="upper left")
    return figure


@styled
def class_rates(found):
    """How much more or less often each class is predicted than it is true.

    Args:
        found: what `tfproject.evaluation.bias.class_rates` gives.
    """
    rows = found["classes"]
    names = [row["class"] for row in rows]
    figure, axes = _figure((style.WIDTH, 1.2 + 0.31 * len(rows)))
    for place, row in enumerate(rows):
        shown = row["p_corrected"] < SIGNIFICANCE
        colour = style.PALETTE[2] if shown else style.PALETTE[0]
        axes.hlines(place, 100 * row["low"], 100 * row["high"], color=colour, linewidth=2)
        axes.plot(100 * row["difference"], place, "D" if shown else "o", color=colour, markersize=5)
        text = f"{row['true_rate']:.2%} → {row['predicted_rate']:.2%}  (+{row['false_alarms']} −{row['misses']})"
        axes.text(1.01, place, text, va="center", fontsize=7.5, transform=axes.get_yaxis_transform())
    axes.axvline(0, color=style.INK, linewidth=0.8)
    _name_classes(axes, names)
    p = "below 0.001" if found["p"] < 0.001 else f"= {found['p']:.3f}"
    axes.set_title(f"All classes together: Stuart-Maxwell p {p}")
    axes.set_xlabel("predicted less true rate, percentage points; at the right both rates and false alarms, misses")
    axes.grid(axis="x")
    for colour, marker, label in ((style.PALETTE[2], "D", "biased (corrected p < 0.05)"),
                                  (style.PALETTE[0], "o", "no bias shown")):  # fmt: skip
        axes.plot([], [], marker, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def accuracy_by_groups(found):
    """The accuracy of groups of images, a panel per way of grouping.

    Args:
        found: a dict from a grouping's name to what `tfproject.evaluation.bias.accuracy_by_group` gives, with or
            without p_corrected.
    """
    heights = [len(part["groups"]) + 1.6 for part in found.values()]
    figure, panels = _figure(
        (style.WIDTH, 0.6 + 0.25 * sum(heights)), len(found), squeeze=False, sharex=True, height_ratios=heights
    )
    for axes, (name, part) in zip(panels[:, 0], found.items()):
        rows = part["groups"]
        for place, row in enumerate(rows):
            axes.hlines(place, row["low"], row["high"], color=style.PALETTE[0], linewidth=2)
            axes.plot(row["accuracy"], place, "o", color=style.PALETTE[0], markersize=5)
            if row["expected"] is not None:
                axes.plot(row["expected"], place, "|", color=style.INK, markersize=11, markeredgewidth=1.6)
        labels = _short([row["group"] for row in rows], 32)
        axes.set_yticks(range(len(rows)), [f"{label} ({row['count']:,})" for label, row in zip(labels, rows)])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        title = f"{name}: {_p(part)}"
        if part["within_classes"] and part["within_classes"]["degrees"]:
            title += f"; within classes {_p(part['within_classes'])}"
        axes.set_title(title, fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(_percent())
    panels[-1, 0].set_xlabel("accuracy, 95 % interval; bar: expected from the classes that the group holds")
    return figure


@styled
def robustness(rows):
    """The accuracy at five severities of each corruption; the dashed line is that of the images as they are.

    Args:
        rows: what `tfproject.evaluation.robustness.robustness` gives.
    """
    corruptions = list(dict.fromkeys(row["corruption"] for row in rows if row["severity"]))
    colour, clean = style.PALETTE[0], [row["accuracy"] for row in rows if not row["severity"]]
    columns = min(3, max(1, len(corruptions)))
    lines = max(1, -(-len(corruptions) // columns))
    figure, panels = _figure(
        (style.WIDTH, 0.9 + 1.6 * lines), lines, columns, squeeze=False, sharey=True
    )  # fmt: skip
    for axes in panels.flat[len(corruptions) :]:
        axes.set_visible(False)
    for axes, corruption in zip(panels.flat, corruptions):
        own = [row for row in rows if row["corruption"] == corruption]
        severity, accuracy, low, high = ([row[key] for row in own] for key in ("severity", "accuracy", "low", "high"))
        axes.fill_between(severity, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(severity, accuracy, color=colour, marker="o", markersize=3)
        axes.axhline(clean[0] if clean else np.nan, linestyle=(0, (4, 3)), color=colour, linewidth=0.8)
        strengths = [f"{row['strength']:g}" for row in own]
        axes.set_xticks(range(1, len(strengths) + 1), strengths)
        axes.set_title(corruption[0].upper() + corruption[1:], fontsize=9)
        axes.tick_params(labelsize=7.5)
        axes.yaxis.set_major_formatter(_percent())
        axes.grid()
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    figure.supxlabel("strength, severities 1 to 5; shaded: 95 % interval", fontsize=9)
    return figure


@styled
def corruption_sheet(images):
    """One image under each corruption and severity.

    Args:
        images: a dict from a corruption's name to its images at severities 1 to 5, uint8 (5, h, w, 3).
    """
    figure, panels = _figure((4.6, 0.3 + 0.72 * len(images)), len(images), 5, squeeze=False)
    for line, (name, row) in zip(panels, images.items()):
        for axes, image in zip(line, row):
            axes.imshow(image, interpolation="antialiased")
            axes.set(xticks=(), yticks=())
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for severity, axes in enumerate(panels[0], start=1):
        axes.set_title(f"{severity}", fontsize=8, loc="center", weight="normal")
    return figure


@styled
def hardest_classes(rows):
    """The recall of each class with its interval, the hardest on top, with what it is taken for.

    Args:
        rows: what `tfproject.evaluation.confusions.hardest_classes` gives.
    """
    figure, axes = _figure((style.WIDTH, 0.8 + 0.31 * len(rows)))
    for place, row in enumerate(rows):
        axes.hlines(place, row["low"], row["high"], color=style.PALETTE[0], linewidth=2)
        axes.plot(row["recall"], place, "o", color=style.PALETTE[0], markersize=5)
        taken = [f"{_short([name], 17)[0]} {count}" for name, count in list(row["taken_for"].items())[:2]]
        text = ", ".join(taken) if taken else "no error"
        axes.text(1.01, place, text, va="center", fontsize=7.5, transform=axes.get_yaxis_transform())
    names = _short([row["class"] for row in rows])
    _name_classes(axes, [f"{name} ({row['count']:,})" for name, row in zip(names, rows)], width=40)
    axes.xaxis.set_major_formatter(_percent())
    axes.set_xlabel("recall, 95 % interval; at the right what the errors were taken for")
    axes.grid(axis="x")
    return figure


@styled
def confused_pairs(rows, most=12):
    """The most confused pairs of classes, errors each way.

    Args:
        rows: what `tfproject.evaluation.confusions.confused_pairs` gives.
        most: how many pairs.
    """
    rows = rows[:most]
    figure, axes = _figure((style.WIDTH, 1.0 + 0.31 * max(1, len(rows))))
    for place, row in enumerate(rows):
        there, back = row["first_as_second"]["hits"], row["second_as_first"]["hits"]
        axes.barh(place, there, 0.7, color=style.PALETTE[0])
        axes.barh(place, back, 0.7, there, color=style.PALETTE[1])
        text = f"{row['rate']:.2%} ({row['low']:.2%} to {row['high']:.2%})"
        axes.annotate(text, (there + back, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    _name_classes(axes, [])
    names = [" / ".join(_short((row["first"], row["second"]), 21)) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7.5)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.set_xlim(0, 1.45 * max((row["errors"] for row in rows), default=1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("images taken for the other class; at the bars the share of both, 95 % interval")
    for colour, label in ((style.PALETTE[0], "first taken for second"), (style.PALETTE[1], "second taken for first")):
        axes.barh(0, 0, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=2)
    axes.grid(axis="x")
    return figure


@styled
def confused_pair_sheet(images, probabilities, labels, true, predicted, class_names, columns=6):
    """Images of a class that are taken for another, above right ones of the first and, below, of the other class.

    Args:
        images: uint8 (n, h, w, 3).
        probabilities: float (n, c).
        labels: int (n,).
        true, predicted: indices of the class and of the one that it is taken for.
        class_names: c names.
        columns: images a row: the surest errors; the right ones are the surest too.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    answers = probabilities.argmax(axis=1)
    first, second = _short((class_names[true], class_names[predicted]), 16)
    kinds = (
        (f"{first},\nright", (labels == true) & (answers == true)),
        (f"{first}\ntaken for\n{second}", (labels == true) & (answers == predicted)),
        (f"{second},\nright", (labels == predicted) & (answers == predicted)),
    )
    height, width = images.shape[1:3]
    side = (style.WIDTH - 1.3) / columns
    figure, panels = _figure((style.WIDTH, 3 * (side * height / width + 0.2) + 0.1), 3, columns, squeeze=False)
    for line, (name, chosen) in zip(panels, kinds):
        own = np.flatnonzero(chosen)
        own = own[np.argsort(-probabilities[own].max(axis=1), kind="stable")][:columns]
        for axes in line:
            axes.set(xticks=(), yticks=())
            axes.spines[:].set_visible(False)
        for axes, i in zip(line, own):
            axes.imshow(images[i], interpolation="antialiased")
            axes.set_title(f"{probabilities[i].max():.1%}", fontsize=7, loc="center", pad=2, weight="normal")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure


@styled
def distinguishing_statistics(found):
    """By which statistics the confused images differ from the right ones of their class: Cliff's delta.

    Args:
        found: a dict from a title such as "River taken for Highway" to rows of
            `tfproject.evaluation.confusions.what_distinguishes`; titles without rows are left out.
    """
    found = {title: rows for title, rows in found.items() if rows}
    names = list(dict.fromkeys(row["statistic"] for rows in found.values() for row in sorted(
        rows, key=lambda row: row["statistic"])))  # fmt: skip
    figure, axes = _figure((style.WIDTH, 1.3 + 0.36 * max(1, len(found))))
    for place, rows in enumerate(found.values()):
        for row in rows:
            shown = row["p_corrected"] < SIGNIFICANCE
            colour = _diverging(row["effect"])
            column = names.index(row["statistic"])
            axes.add_patch(_rectangle(column, place, colour))
            axes.text(
                column, place, f"{row['effect']:+.2f}{'*' if shown else ''}", ha="center", va="center", fontsize=7.5,
                color=style.INK, weight="bold" if shown else "normal",
            )  # fmt: skip
    axes.set_xlim(-0.5, max(1, len(names)) - 0.5)
    _name_classes(axes, [])
    axes.set_yticks(range(len(found)), [f"{t} ({rows[0]['confused']})" for t, rows in found.items()], fontsize=7.5)
    axes.set_ylim(max(1, len(found)) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle("Confused against right images: Cliff's delta (* corrected p < 0.05)", fontsize=9)
    return figure


@styled
def label_noise_sheet(images, candidates, most=20):
    """The images whose label is most probably wrong: the label above, what the models say below.

    Args:
        images: uint8 (n, h, w, 3), all that were looked at.
        candidates: those of `tfproject.evaluation.confusions.label_noise`.
        most: how many.
    """
    shown = candidates[:most]
    captions = [
        (f"{row['rank']}. {row['given']}",
         f"{_short([row['suggested']], 21)[0]}?\n{row['models']} models, {row['probability_suggested']:.1%}")
        for row in shown
    ]  # fmt: skip
    return captioned_sheet(images, [row["index"] for row in shown], captions)


def _p(test):
    value = test.get("p_corrected", test["p"])
    return ("corrected p " if "p_corrected" in test else "p ") + ("< 0.001" if value < 0.001 else f"= {value:.3f}")


def _diverging(value):
    """White at 0 towards orange at 1 and blue at -1."""
    end = np.array([int(style.PALETTE[6 if value > 0 else 0][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return tuple(1 - min(1, abs(value)) * (1 - end))


def _rectangle(column, row, colour):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1)
