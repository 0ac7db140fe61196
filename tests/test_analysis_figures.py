"""Figures of the exploration and of the analyses: what they show, whole, legible, the same bytes every time."""

import matplotlib
import numpy as np
import pytest

from tfproject import exploration
from tfproject.evaluation import bias, calibration, confusions, robustness
from tfproject.report import analysis_figures, exploration_figures, figures, style

CLASSES = ("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "River", "a name longer than there is room for")
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 5, 300)  # the last class has no image
IMAGES = (RANDOM.integers(0, 120, (300, 16, 16, 3)) + 25 * LABELS[:, None, None, None]).astype(np.uint8)


def made_probabilities(seed):
    logits = 3 * np.random.default_rng(seed).normal(size=(300, 6)) + 6 * np.eye(6)[LABELS]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


MODELS = np.stack([made_probabilities(seed) for seed in range(3)])
PROBABILITIES = MODELS[0]
STATISTICS = exploration.image_statistics(IMAGES)
RATES = bias.class_rates(PROBABILITIES, LABELS, CLASSES)
GROUPS = bias.accuracy_by_groups(
    PROBABILITIES,
    LABELS,
    {
        "Brightness": bias.quantile_groups(STATISTICS["brightness"]),
        "Class size": bias.class_size_groups(LABELS, [2000, 3000, 3000, 2500, 2500, 2000], CLASSES),
    },
)
ROBUSTNESS = [
    {"corruption": name, "severity": severity, "strength": strength, "accuracy": 0.9 - 0.1 * severity,
     "low": 0.85 - 0.1 * severity, "high": 0.93 - 0.1 * severity}
    for name in ("none", *robustness.SEVERITIES)
    for severity, strength in ([(0, None)] if name == "none" else enumerate(robustness.SEVERITIES[name], start=1))
]  # fmt: skip
PAIRS = confusions.confused_pairs(PROBABILITIES, LABELS, CLASSES)
SPREAD = RANDOM.normal(size=(300, 8)) + 4 * np.eye(6, 8)[LABELS]
OUTLIERS = exploration.outliers(SPREAD, LABELS, CLASSES, count=7)
CLUSTERS = exploration.clusters(SPREAD, LABELS, CLASSES)
NOISE = confusions.label_noise(MODELS, np.where(np.arange(300) < 20, (LABELS + 1) % 5, LABELS), CLASSES)
SPECTRA = exploration.mean_log_spectra(IMAGES, LABELS, 6)
DISTINCT = {
    f"{CLASSES[a]} taken for {CLASSES[b]}": confusions.what_distinguishes(STATISTICS, PROBABILITIES, LABELS, a, b)
    for a, b in ((0, 1), (3, 4), (2, 0))
}
SCALING = calibration.temperature_scaling(PROBABILITIES, LABELS, MODELS[1], LABELS, CLASSES)
CURVE = calibration.risk_coverage(PROBABILITIES, LABELS)
THRESHOLDS = calibration.abstention_table(PROBABILITIES, LABELS, MODELS[1], LABELS, (0.9, 0.95))

DRAW = {
    "channels": lambda: exploration_figures.channel_statistics(
        exploration.channel_statistics(IMAGES, LABELS, CLASSES)
    ),
    "histograms": lambda: exploration_figures.colour_histograms(
        exploration.colour_histograms(IMAGES, LABELS, 6, 32), CLASSES
    ),
    "means": lambda: exploration_figures.mean_images(exploration.mean_images(IMAGES, LABELS, 6), CLASSES),
    "spectra": lambda: exploration_figures.mean_spectra(SPECTRA, CLASSES),
    "profiles": lambda: exploration_figures.radial_profiles(*exploration.radial_profiles(SPECTRA), CLASSES),
    "floor": lambda: exploration_figures.colour_confusion(CLUSTERS["table"], CLASSES),
    "class_accuracies": lambda: exploration_figures.class_accuracies(
        {"colours alone": [0.5, 0.6, 0.7, 0.4, 0.9, None], "network": [0.9, 1, 0.97, 0.96, 0.99, None]}, CLASSES
    ),
    "outliers": lambda: exploration_figures.outlier_sheet(IMAGES, OUTLIERS),
    "clusters": lambda: exploration_figures.cluster_tables({"Trained": CLUSTERS, "Untrained": CLUSTERS}, CLASSES),
    "reliability": lambda: analysis_figures.reliability_before_after(SCALING),
    "risk": lambda: analysis_figures.risk_coverage({"random split": CURVE, "spatial split": CURVE}, THRESHOLDS),
    "rates": lambda: analysis_figures.class_rates(RATES),
    "groups": lambda: analysis_figures.accuracy_by_groups(GROUPS),
    "robustness": lambda: analysis_figures.robustness(ROBUSTNESS),
    "corruptions": lambda: analysis_figures.corruption_sheet({"noise": IMAGES[:5], "JPEG": IMAGES[5:10]}),
    "hardest": lambda: analysis_figures.hardest_classes(
        confusions.hardest_classes(PROBABILITIES, LABELS, CLASSES)
    ),
    "pairs": lambda: analysis_figures.confused_pairs(PAIRS),
    "pair_sheet": lambda: analysis_figures.confused_pair_sheet(IMAGES, PROBABILITIES, LABELS, 3, 4, CLASSES),
    "distinguishing": lambda: analysis_figures.distinguishing_statistics(DISTINCT),
    "label_noise": lambda: analysis_figures.label_noise_sheet(IMAGES, NOISE["candidates"], 8),
}  # fmt: skip


def texts(figure):
    figures.to_png_bytes(figure)  # sets the ticks' labels
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("name", DRAW)
def test_drawn_whole_legible_and_the_same_twice(name):
    figure = DRAW[name]()
    content = figures.to_png_bytes(figure)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "pink"}):  # a user's own style
        assert content == figures.to_png_bytes(DRAW[name]())
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    assert width <= style.WIDTH + 0.01
    found = figure.findobj(matplotlib.text.Text)
    assert min(text.get_fontsize() for text in found if text.get_text().strip() and text.get_visible()) >= 7


def test_channel_means_stand_where_they_are():
    rows = exploration.channel_statistics(IMAGES, LABELS, CLASSES)
    axes = DRAW["channels"]().axes[0]
    line = next(line for line in axes.lines if line.get_label() == "green")
    np.testing.assert_allclose(line.get_xdata(), [row["mean"] for row in rows if row["channel"] == "green"])


def test_a_peak_that_leaves_the_histogram_is_told():
    histograms = np.full((6, 3, 32), 1 / 32)
    histograms[0, 0] = np.eye(32)[5]
    assert "peaks:\nred 100%" in texts(exploration_figures.colour_histograms(histograms, CLASSES))


def test_outliers_are_shown_with_their_class_and_neighbours():
    figure = DRAW["outliers"]()
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[OUTLIERS[0]["index"]])
    found = texts(figure)
    assert OUTLIERS[0]["class"] in found and any(f"{OUTLIERS[0]['ratio']:.1f} × as far" in text for text in found)


def test_rates_show_the_difference_and_the_counts():
    row = RATES["classes"][0]
    assert any(f"(+{row['false_alarms']} −{row['misses']})" in text for text in texts(DRAW["rates"]()))


def test_groups_show_each_accuracy_and_what_the_classes_would_give():
    axes = DRAW["groups"]().axes[0]
    points = [line.get_xdata()[0] for line in axes.lines]
    rows = GROUPS["Brightness"]["groups"]
    assert points == [value for row in rows for value in (row["accuracy"], row["expected"])]


def test_robustness_has_a_panel_for_each_corruption_and_a_line_for_the_clean_accuracy():
    figure = DRAW["robustness"]()
    assert {"Noise", "JPEG", "Rotation", "0.18", "45"} <= set(texts(figure))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == len(robustness.SEVERITIES)
    np.testing.assert_allclose(shown[0].lines[0].get_ydata(), [0.8, 0.7, 0.6, 0.5, 0.4])
    np.testing.assert_allclose(shown[0].lines[1].get_ydata(), 0.9)


def test_the_pair_sheet_shows_the_surest_errors_in_its_middle_row():
    answers = PROBABILITIES.argmax(axis=1)
    wrong = np.flatnonzero((LABELS == 3) & (answers == 4))
    assert len(wrong)
    surest = wrong[PROBABILITIES[wrong].max(axis=1).argmax()]
    np.testing.assert_array_equal(DRAW["pair_sheet"]().axes[6].images[0].get_array(), IMAGES[surest])


def test_label_noise_names_the_label_and_the_suggestion():
    assert len(NOISE["candidates"]) >= 2
    row = NOISE["candidates"][1]
    found = texts(DRAW["label_noise"]())
    assert f"2. {row['given']}" in found and any(text.startswith(f"{row['suggested']}?") for text in found)


def test_nothing_to_show_is_drawn_too():
    for figure in (
        analysis_figures.confused_pairs([]),
        analysis_figures.distinguishing_statistics({"a": []}),
        analysis_figures.label_noise_sheet(IMAGES, []),
        exploration_figures.outlier_sheet(IMAGES, []),
        analysis_figures.hardest_classes(confusions.hardest_classes(np.eye(6)[LABELS], LABELS, CLASSES)),
    ):
        assert figures.to_png_bytes(figure)
