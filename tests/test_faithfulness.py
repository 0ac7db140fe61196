"""The checks of attribution maps, on networks and maps of which it is known what they must say."""

import csv
import pathlib

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy import ndimage, stats

from tfproject.errors import UserError
from tfproject.interpret import faithfulness, words
from tfproject.interpret.attribution import METHODS, attribute
from tfproject.interpret.faithfulness import deletion_insertion, sanity_check, table, verdict
from tfproject.interpret.network import lay_open
from tfproject.report import attribution_figures, figures, style

SIDE, PATCH, CLASSES = 24, 6, 3
NOT_SHOWN = "not shown to be better than moved and other images' maps"


def planted(count, seed):
    """Noise with a patch whose colour is the class, and a brighter white one that says nothing.

    Returns images uint8, labels, and masks of the decisive and of the other patch, each with a pixel around it.
    """
    random = np.random.default_rng(seed)
    images = random.integers(40, 160, (count, SIDE, SIDE, 3)).astype(np.uint8)
    labels, masks = np.arange(count) % CLASSES, np.zeros((2, count, SIDE, SIDE), bool)
    for i in range(count):
        quarters = random.permutation(4)[:2]  # two different ones, so that the patches never touch
        for quarter, mask, colour in zip(quarters, masks, (60, 250)):
            top, left = random.integers(1, SIDE // 2 - PATCH, 2) + SIDE // 2 * np.array(divmod(quarter, 2))
            patch = images[i, top : top + PATCH, left : left + PATCH]
            patch[...] = colour
            if colour == 60:
                patch[..., labels[i]] = 200
            mask[i, top - 1 : top + PATCH + 1, left - 1 : left + PATCH + 1] = True
    return images, labels, *masks


def small_network():
    image = keras.Input((SIDE, SIDE, 3))
    x = L.Rescaling(1 / 127.5, offset=-1)(image)
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(x)
    x = L.MaxPooling2D()(x)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="conv2")(x)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="conv3")(x)
    x = L.GlobalMaxPooling2D()(x)
    return keras.Model([image], L.Dense(CLASSES, activation="softmax", name="classes")(x))


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = small_network()
    images, labels, *_ = planted(600, seed=0)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=50, epochs=6, verbose=0)
    test, test_labels, *_ = planted(60, seed=1)
    assert model.evaluate(test, test_labels, verbose=0)[1] > 0.95
    return model


@pytest.fixture(scope="module")
def unseen():
    return planted(36, seed=2)


@pytest.fixture(scope="module")
def sanity(trained, unseen):
    return sanity_check(trained, unseen[0], levels=3, draws=2, samples=5)


def mass(maps, mask):
    return (maps * mask).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))


def edges(images):
    grey = images.mean(axis=-1)
    found = np.hypot(ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=2))
    return (found / found.max()).astype(np.float32)


def broken(network, methods):
    """Maps that show the image, and maps that show nothing at all."""
    random = np.random.default_rng(0)

    def maps(images, classes):
        return {"edges": edges(images), "random": random.random(images.shape[:3], np.float32)}

    return maps


@pytest.fixture(scope="module")
def rows(trained, unseen, sanity):
    images = unseen[0]
    broken_sanity = sanity_check(trained, images, levels=2, draws=1, explain=broken)
    broken_maps = broken(None, None)(images, None)
    maps = attribute(trained, images, samples=5)
    ours = table(sanity, deletion_insertion(trained, images, maps))
    theirs = table(broken_sanity, deletion_insertion(trained, images, broken_maps))
    return {row["method"]: row for row in ours + theirs}


def test_methods_that_pass_find_the_planted_patch(trained, unseen, rows):
    images, _, decisive, other = unseen
    maps = attribute(trained, images, samples=5)
    assert all(rows[method]["passes"] for method in METHODS)
    for method, found in maps.items():
        on_patch = mass(found, decisive).mean()
        assert on_patch > 2 * decisive.mean() and on_patch > 3 * mass(found, other).mean(), method
        assert rows[method]["deletion_gain_low"] > 0.02, method
        assert rows[method]["verdict"] in (
            "passes", "better than moved and other images' maps by deletion, left open by insertion",
        ), method  # fmt: skip


def test_a_map_of_the_image_alone_fails_the_sanity_check(rows):
    assert rows["edges"]["sanity_correlation"] == pytest.approx(1) == rows["edges"]["sanity_ssim"]
    assert not rows["edges"]["passes"] and rows["edges"]["verdict"].startswith("fails the sanity check")


def test_a_random_map_is_no_better_than_chance(rows):
    """It does change with the network, as with everything, so the sanity check alone does not find it out."""
    assert rows["random"]["passes"] and rows["random"]["verdict"] == NOT_SHOWN
    assert abs(rows["random"]["sanity_correlation"]) < 0.1
    assert rows["random"]["deletion_gain_low"] < 0 < rows["random"]["deletion_gain_high"]


def test_maps_of_another_class_are_found_out(trained, unseen):
    """The evidence for another class does not lie in the patch that decides for this one."""
    images, labels, decisive, _ = unseen
    wrong = attribute(trained, images, (labels + 1) % CLASSES, ("gradcam",))
    right = attribute(trained, images, labels, ("gradcam",))
    gains = [deletion_insertion(trained, images, maps, labels).gain("deletion", "gradcam") for maps in (wrong, right)]
    assert gains[0].high < gains[1].low


def test_randomisation_goes_from_the_top_down(trained, unseen):
    seen = []

    def watch(network, methods):
        def maps(images, classes):
            seen.append({layer.name: layer.get_weights() for layer in network.model.layers if layer.weights})
            return {"x": np.zeros(images.shape[:3], np.float32)}

        return maps

    before = trained.get_weights()
    check = sanity_check(trained, unseen[0][:2], levels=3, draws=2, explain=watch)
    assert check.layer_names == ("classes", "conv3", "conv2", "conv1") and check.randomised == (1, 2, 4)
    learnt = seen[0]
    for values in (seen[1:4], seen[4:]):  # the two draws
        for weights, number in zip(values, check.randomised, strict=True):
            for place, name in enumerate(check.layer_names):
                same = np.array_equal(weights[name][0], learnt[name][0])
                assert same == (place >= number), (name, number)
        assert not values[-1]["conv1"][1].any()  # biases start at 0
        assert values[-1]["conv2"][0].std() == pytest.approx((2 / (9 * 24)) ** 0.5, rel=0.1)  # Glorot
        np.testing.assert_array_equal(values[0]["classes"][0], values[-1]["classes"][0])
    assert not np.array_equal(seen[3]["conv1"][0], seen[6]["conv1"][0])
    for weight, kept in zip(trained.get_weights(), before):
        np.testing.assert_array_equal(weight, kept)
    np.testing.assert_array_equal(check.rank_correlation["x"], 1)  # never a change


def test_what_is_measured_of_the_data_stays():
    image = keras.Input((SIDE, SIDE, 3))
    normalization = L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    adapted = L.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(size=(9, SIDE, SIDE, 3)))
    x = L.Conv2D(4, 3, name="conv")(adapted(normalization(image)))
    x = L.DepthwiseConv2D(3, name="depthwise")(L.BatchNormalization(name="norm")(x))
    model = keras.Model([image], L.Dense(2, activation="softmax", name="classes")(L.Flatten()(x)))
    learnt, seen = lay_open(model), {}

    def watch(network, methods):
        def maps(images, classes):
            seen.update({layer.name: layer.get_weights() for layer in network.model.layers})
            return {}

        return maps

    check = sanity_check(learnt, np.zeros((2, SIDE, SIDE, 3)), levels=2, draws=1, explain=watch)
    assert check.layer_names == ("classes", "depthwise", "norm", "conv")
    for layer in learnt.model.layers:
        if isinstance(layer, L.Normalization):
            assert all(map(np.array_equal, seen[layer.name], layer.get_weights()))
    assert np.abs(seen["depthwise"][0] - learnt["depthwise"].layer.get_weights()[0]).min() > 0


def test_the_sanity_check_repeats_and_depends_on_its_seed(trained, unseen, sanity):
    images = unseen[0]
    again = sanity_check(trained, images, methods="gradcam", levels=3, draws=2)
    np.testing.assert_allclose(again.rank_correlation["gradcam"], sanity.rank_correlation["gradcam"], atol=1e-4)
    other = sanity_check(trained, images, methods="gradcam", levels=3, draws=2, seed=1)
    assert np.abs(other.rank_correlation["gradcam"] - again.rank_correlation["gradcam"]).max() > 0.01


def test_curves_by_hand(trained, unseen):
    images = unseen[0][:2]
    classes = np.array([2, 1])
    maps = {"x": np.random.default_rng(0).permutation(2 * SIDE * SIDE).reshape(2, SIDE, SIDE) - 500.0}
    curves = deletion_insertion(trained, images, maps, classes, steps=3, blur=0.1, batch_size=5)
    np.testing.assert_allclose(curves.shares, [0, 1 / 3, 2 / 3, 1])
    for i, image in enumerate(images.astype(np.float32)):
        blurred = np.stack([ndimage.gaussian_filter(image[..., c], 0.1 * SIDE) for c in range(3)], axis=-1)
        order = np.argsort(-maps["x"][i].ravel())
        for step in range(4):
            mask = np.zeros(SIDE * SIDE, bool)
            mask[order[: step * SIDE * SIDE // 3]] = True
            mask = mask.reshape(SIDE, SIDE, 1)
            deleted = np.where(mask, image.mean(axis=(0, 1)), image)
            inserted = np.where(mask, image, blurred)
            expected = trained.predict(np.stack([deleted, inserted]), verbose=0)[:, classes[i]]
            assert curves.deletion["x"][i, step] == pytest.approx(expected[0], abs=1e-5)
            assert curves.insertion["x"][i, step] == pytest.approx(expected[1], abs=1e-5)
    p = curves.deletion["x"]
    np.testing.assert_allclose(curves.areas("deletion", "x"), (p[:, 0] / 2 + p[:, 1] + p[:, 2] + p[:, 3] / 2) / 3)


def test_the_control_is_the_map_elsewhere(trained, unseen):
    images, labels, decisive, _ = unseen
    curves = deletion_insertion(trained, images, {"patch": decisive.astype(float)}, labels)
    assert curves.gain("deletion", "patch").low > 0.2
    # The pixels of the patch alone are 11 %: with them gone the class is, with those of the moved patch mostly not.
    at = np.searchsorted(curves.shares, decisive[0].mean())
    assert curves.deletion["patch"][:, at].mean() < 0.7 < curves.deletion_control["patch"][:, at].mean()
    flat = deletion_insertion(trained, images, {"flat": np.zeros(decisive.shape)}, labels)
    gain = flat.gain("deletion", "flat")
    assert (gain.mean, gain.low, gain.high) == (0.0, 0.0, 0.0)


def middle(count):
    """The same map for every image, brightest in the middle."""
    rows, columns = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    return np.tile(np.exp(-(rows**2 + columns**2) / 50), (count, 1, 1))


def test_a_map_that_only_knows_where_subjects_are_does_not_pass(trained, unseen):
    """Moved, what is bright in the middle lies in a corner; another image's map is as bright in the middle."""
    images, labels, *_ = unseen
    centred = np.random.default_rng(5).integers(40, 160, images.shape).astype(np.uint8)
    subject = slice(SIDE // 2 - PATCH // 2, SIDE // 2 + PATCH // 2)
    centred[:, subject, subject] = 60
    centred[np.arange(len(labels))[:, None, None], subject, np.arange(SIDE)[subject, None], labels[:, None, None]] = 200
    curves = deletion_insertion(trained, centred, {"middle": middle(len(images))}, labels)
    assert curves.gain("deletion", "middle").low > 0.2
    assert curves.gain("deletion", "middle", "others").mean == 0
    depends = faithfulness.SanityCheck((1,), ("classes",), *2 * [{"middle": np.zeros((1, len(images)))}])
    (row,) = table(depends, curves)
    assert row["passes"] and row["verdict"] == NOT_SHOWN
    text = words.attribution_methods([row], len(images))
    assert "on 36 images, none is shown" in text and "middle is shown to be better than moved maps and not" in text


def test_every_image_is_given_another_ones_map(trained, unseen, monkeypatch):
    images = unseen[0][:7]
    numbered = np.arange(7.0)[:, None, None] + np.zeros((SIDE, SIDE))
    given = []

    def watch(image, shown, pixels, *_):
        assert (shown[0] == len(given[-1])).all()
        given[-1].append(int(shown[2, 0, 0]))
        return np.zeros((len(shown), 2, len(pixels)), np.float32)

    monkeypatch.setattr(faithfulness, "_ranks", lambda importance, ties: importance)
    monkeypatch.setattr(faithfulness, "_curves", watch)
    for seed in (0, 0, 1):
        given.append([])
        deletion_insertion(trained, images, {"x": numbered}, steps=1, seed=seed)
    assert given[0] == given[1] != given[2]
    assert all(sorted(others) == list(range(7)) and not np.any(np.arange(7) == others) for others in given)


def test_one_class_and_one_image():
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 255)(image)))
    model = keras.Model([image], L.Dense(1, activation="sigmoid")(x))
    images = planted(1, 0)[0]
    maps = attribute(model, images, samples=2)
    curves = deletion_insertion(model, images, maps, steps=4)
    assert curves.deletion["gradcam"][0, 0] == pytest.approx(model.predict(images, verbose=0)[0, 0], abs=1e-6)
    rows = table(sanity_check(model, images, levels=1, draws=1, samples=2), curves)
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(row["deletion_gain_low"] is None and "not shown" in row["verdict"] for row in rows)


def test_rank_correlation_is_spearmans():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 9, 8)).astype(np.float32)
    b[1] = -a[1]
    b[2] = np.round(b[2])  # ties
    found = faithfulness.rank_correlation(a, b)
    np.testing.assert_allclose(found, [stats.spearmanr(np.abs(x).ravel(), np.abs(y).ravel())[0] for x, y in zip(a, b)])
    assert found[1] == pytest.approx(1)  # the sign does not count
    flat = np.zeros_like(a)
    np.testing.assert_array_equal(faithfulness.rank_correlation(a, flat), 0)
    np.testing.assert_array_equal(faithfulness.rank_correlation(flat, b), 1)  # it said nothing from the beginning
    np.testing.assert_array_equal(faithfulness.rank_correlation(flat, flat), 1)


def test_structural_similarity_by_hand():
    """Even maps have no variance, so that Wang's formula needs no more than their means."""
    a, b = np.full((100, 5, 5), 0.2, np.float32), np.full((100, 5, 5), -0.6, np.float32)
    expected = (2 * 0.2 * 0.6 + 0.01**2) / (0.2**2 + 0.6**2 + 0.01**2)
    np.testing.assert_allclose(faithfulness.structural_similarity(a, b), np.full(100, expected), atol=1e-4)
    np.testing.assert_allclose(faithfulness.structural_similarity(a, a), 1, atol=1e-5)


def row_of(sanity, deletion, insertion, others=None):
    """A row of the table: (mean, low, high) of the sanity check's correlation and of the gains."""
    numbers = {"sanity_correlation": sanity, "deletion_gain": deletion, "insertion_gain": insertion}
    numbers |= {f"{kind}_gain_over_others": others or numbers[f"{kind}_gain"] for kind in faithfulness.KINDS}
    return {
        f"{name}{end}": value for name, values in numbers.items() for end, value in zip(("", "_low", "_high"), values)
    }


LOW, OPEN, HIGH = (0.2, 0.1, 0.3), (0.5, 0.3, 0.7), (0.8, 0.7, 0.9)
BETTER, EVEN, WORSE = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3), (-0.2, -0.3, -0.1)


@pytest.mark.parametrize(
    "row, told",
    [
        (row_of(LOW, BETTER, BETTER), "passes"),
        (row_of(OPEN, BETTER, BETTER),
         "left open by the sanity check, better than moved and other images' maps by deletion and insertion"),
        (row_of(HIGH, BETTER, BETTER),
         "fails the sanity check, better than moved and other images' maps by deletion and insertion"),
        (row_of(LOW, BETTER, EVEN), "better than moved and other images' maps by deletion, left open by insertion"),
        (row_of(LOW, WORSE, BETTER), "better than moved and other images' maps by insertion, worse than moved or other "
         "images' maps by deletion"),
        (row_of(LOW, EVEN, EVEN), NOT_SHOWN),
        (row_of(LOW, BETTER, BETTER, others=EVEN), NOT_SHOWN),
        (row_of(LOW, BETTER, BETTER, others=WORSE), "worse than moved or other images' maps by deletion and insertion"),
        (row_of(LOW, (1e-6, 1e-7, 1e-5), (0.005, 0.004, 0.006)), NOT_SHOWN),
        (row_of(HIGH, (0.1, None, None), (0.1, None, None)), f"fails the sanity check, {NOT_SHOWN}"),
    ],
)  # fmt: skip
def test_verdicts(row, told):
    assert verdict(row) == told
    assert verdict({name: "" if value is None else f"{value:.6g}" for name, value in row.items()}) == told


def test_words_name_the_methods_that_pass():
    rows = [
        {"method": name, "verdict": verdict(row), **row} for name, row in {
            "a": row_of(LOW, BETTER, BETTER), "b": row_of(HIGH, BETTER, BETTER), "c": row_of(LOW, BETTER, BETTER),
        }.items()
    ]  # fmt: skip
    text = words.attribution_methods(rows, 9)
    assert text.startswith("Of 3 attribution methods, checked on 9 images, a and c are shown to depend on the weights")
    assert text.count(".") == 1 and words.attribution_methods([], 9) == ""


def test_an_interval_on_both_sides_of_the_limit_is_neither_passed_nor_failed():
    spread = {"low": [0.1, 0.2, 0.3], "high": [0.7, 0.8, 0.9], "both": [0.1, 0.5, 0.9]}
    sanity = faithfulness.SanityCheck((1,), ("classes",), *2 * [{k: np.array([v]) for k, v in spread.items()}])
    flat = {method: np.zeros((3, 2)) for method in spread}
    rows = table(sanity, faithfulness.PixelCurves(np.array([0, 1]), *6 * [flat]))
    assert [(row["passes"], row["verdict"].split(",")[0]) for row in rows] == [
        (True, NOT_SHOWN), (False, "fails the sanity check"), (False, "left open by the sanity check"),
    ]  # fmt: skip


PUBLISHED = sorted(pathlib.Path(__file__).parents[1].glob("results/**/faithfulness.csv"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_the_published_verdicts_are_those_of_the_published_numbers(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if "deletion_gain_over_others" not in rows[0]:
        pytest.skip("published with one control")
    assert [row["verdict"] for row in rows] == [verdict(row) for row in rows]
    assert [row["passes"] for row in rows] == [str(faithfulness.passes_sanity(row)) for row in rows]


def test_what_cannot_be(trained, unseen):
    images = unseen[0]
    with pytest.raises(UserError, match="shape"):
        deletion_insertion(trained, images, {"x": np.zeros((3, SIDE, SIDE))})
    with pytest.raises(UserError, match="at least one"):
        deletion_insertion(trained, images[:0], {"x": np.zeros((0, SIDE, SIDE))})
    with pytest.raises(UserError, match="no image"):
        sanity_check(trained, images[:0])
    unlearnt = keras.Model([image := keras.Input((8, 8, 3))], L.Softmax()(L.GlobalAveragePooling2D()(image)))
    with pytest.raises(UserError, match="no layer with weights"):
        sanity_check(unlearnt, np.zeros((1, 8, 8, 3)))


DRAWN_MAPS = {method: np.random.default_rng(1).random((2, 12, 16)) for method in METHODS}
DRAWN_CURVES = {method: np.random.default_rng(2).random((4, 5)) for method in (*METHODS, "edges")}
DRAW = {
    "sheet": lambda: attribution_figures.attribution_sheet(
        np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8), DRAWN_MAPS,
        ["HerbaceousVegetation\n99.9%", "b"],
    ),
    "sanity": lambda: attribution_figures.sanity_curves((1, 2, 4, 5, 9), 9, *2 * [
        {method: values.T for method, values in DRAWN_CURVES.items()}
    ], 0.5),
    "curves": lambda: attribution_figures.deletion_insertion_curves(np.linspace(0, 1, 5), *6 * [DRAWN_CURVES]),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_the_same_twice_and_hold_their_text(name):
    figure = DRAW[name]()
    assert figures.to_png_bytes(figure) == figures.to_png_bytes(DRAW[name]())
    drawn, (width, height) = style.styled(figure.get_tightbbox)(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_the_sheet_shows_each_map_on_one_scale():
    shown = [axes.images for axes in DRAW["sheet"]().axes]
    heat = [images[1] for images in shown if len(images) == 2]
    expected = [maps[row] for row in range(2) for maps in DRAWN_MAPS.values()]
    for image, values in zip(heat, expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (0, 1)


def test_curves_are_drawn_as_measured():
    axes = DRAW["sanity"]().axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), np.array([0, 1, 2, 4, 5, 9]) / 9)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, *DRAWN_CURVES["gradients"].mean(axis=0)])
    axes = DRAW["curves"]().axes[0]
    *controls, own = axes.lines
    assert [line.get_label() for line in controls] == ["the map moved", "another image's map"]
    np.testing.assert_allclose(own.get_ydata(), DRAWN_CURVES["gradients"].mean(axis=0))
    area = np.trapezoid(DRAWN_CURVES["gradients"].mean(axis=0), dx=0.25)
    assert f"{area:.3f}\n({area:.3f}, {area:.3f})" in axes.get_title(loc="left")
