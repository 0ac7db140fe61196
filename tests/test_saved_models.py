"""The models that come with the project: their cards are of their runs, and classes stand in the trained order."""

import json
import pathlib

import keras
import pytest

from tfproject.report import model_card

ROOT = pathlib.Path(__file__).parents[1]
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
EUROSAT = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
MODELS = {
    "cifar10_custom_cnn": ("task1-custom-cnn/custom_cnn-seed0", CIFAR10),
    "cifar10_best": ("task1-custom-cnn/whitened_cnn-seed0", CIFAR10),
    "eurosat_best": ("open-project/runs/random-seed0", EUROSAT),
    "eurosat_spatial": ("open-project/runs/spatial-seed0", EUROSAT),
}


def test_all_models_are_known():
    assert {path.stem for path in (ROOT / "saved_models").glob("*.keras")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_card_says_what_its_run_measured(name):
    run, class_names = MODELS[name]
    path = ROOT / "saved_models" / f"{name}.json"
    card = json.loads(path.read_text())
    measured = json.loads((ROOT / "results" / run / "metrics.json").read_text())
    assert card["class_names"] == class_names.split()
    assert "test" in card["scores"]
    for split, scores in card["scores"].items():
        for key in ("count", "accuracy", "accuracy_interval", "macro_f1", "kappa", "calibration_error"):
            assert scores[key] == measured[split][key], (split, key)
        assert measured[split]["class_names"] == card["class_names"]
    assert path.with_suffix(".md").read_text() == model_card.to_markdown(card, f"{name}.keras")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_shape_that_its_card_tells(name):
    path = ROOT / "saved_models" / f"{name}.keras"
    card = json.loads(path.with_suffix(".json").read_text())
    model = keras.models.load_model(path)
    assert model.input_shape == (None, *card["image_size"], 3)
    assert model.output_shape == (None, len(card["class_names"]))
    assert model.count_params() == card["parameters"]
    assert path.stat().st_size < 30e6
