import dataclasses

import keras
import numpy as np
import pytest
import toy

from tfproject import training
from tfproject.errors import UserError
from tfproject.training import Recipe, layer_rates, stages
from tfproject.training.optimization import make_optimizer

RECIPE = Recipe(
    epochs=2, batch_size=40, optimizer="sgd", learning_rate=0.05, schedule="constant", precision="float32",
    jit_compile=False, frozen_until="conv1_relu",
)  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_a_layers_steps_and_weight_decay_are_scaled(optimizer, toy_set):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=0.01, weight_decay=0.3)
    steps = {}
    for rates in ((), (("conv1*", 0.25), ("conv*", 0.0))):
        keras.utils.set_random_seed(0)
        model = toy.network((16, 16, 3), 3)
        model.compile(make_optimizer(recipe, 10), "categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
        layer_rates.scale_rates(model, rates)
        before = [v.numpy() for v in model.trainable_variables]
        x, y = next(iter(toy_set.train.training_batches(3, 40)))
        model.train_on_batch(x, y)
        steps[rates] = {
            v.path: v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)
        }  # fmt: skip
        assert model.optimizer.weight_decay == 0.3
    plain, scaled = steps.values()
    assert len(plain) == 8
    for path, step in plain.items():
        factor = 0.25 if path.startswith("conv1") else 0.0 if path.startswith("conv2") else 1.0
        assert np.abs(step).max() > 0
        np.testing.assert_allclose(scaled[path], factor * step, rtol=1e-3, atol=1e-7)


def test_in_half_precision_the_loss_is_scaled_and_rates_are_too(toy_set, tmp_path, monkeypatch):
    seen = []
    fit = keras.Model.fit

    def watched(model, *args, **options):
        before = {v.path: v.numpy() for v in model.trainable_variables}
        result = fit(model, *args, **options)
        moved = {v.path for v in model.trainable_variables if not np.array_equal(before[v.path], v.numpy())}
        seen.append((type(model.optimizer).__name__, before.keys() - moved))
        return result

    monkeypatch.setattr(keras.Model, "fit", watched)
    recipe = dataclasses.replace(RECIPE, precision="mixed_float16", epochs=1, layer_rates=(("conv2", 0.0),))
    for until in ("conv1_relu", ""):
        training.fit(toy.network, toy_set, dataclasses.replace(recipe, frozen_until=until), tmp_path / (until or "all"))
    assert seen == [("LossScaleOptimizer", {"conv2/kernel"})] * 2


def test_factors_fall_towards_the_image():
    rates = layer_rates.rates_by_depth(("block3_*", "block4_*", "block5_*"), decay=2)
    assert rates == (("block3_*", 1 / 8), ("block4_*", 1 / 4), ("block5_*", 1 / 2))
    assert layer_rates.rates_by_depth(("a", "b"), decay=2, last=0.1) == (("a", 0.05), ("b", 0.1))
    assert Recipe.from_json(Recipe(layer_rates=rates).to_json()) == Recipe(layer_rates=rates)
    with pytest.raises(UserError, match="pairs of a layer's name and a factor"):
        Recipe(layer_rates=("block3",))


def test_a_rate_for_a_layer_that_is_not_trained_is_refused(toy_set, tmp_path):
    recipe = dataclasses.replace(RECIPE, layer_rates=(("conv1", 0.1),))
    with pytest.raises(UserError, match="no layer 'conv1'; choose one such as conv2"):
        training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False, features_dir=tmp_path)


def test_recipes_of_stages():
    recipe = dataclasses.replace(RECIPE, augment=("flip",), views=2)
    head, rest = stages.head_first(recipe, "mean", head_epochs=5, head_rate=0.3)
    assert rest is recipe and (head.frozen_until, head.epochs, head.learning_rate) == ("mean", 5, 0.3)
    assert (head.augment, head.views) == ((), 1)
    found = stages.gradual_unfreezing(RECIPE, ("mean", "conv2_relu", "conv1_relu"), epochs=1)
    assert [(r.frozen_until, r.epochs) for r in found] == [("mean", 1), ("conv2_relu", 1), ("conv1_relu", 2)]


def test_each_stage_goes_on_from_the_weights_of_the_one_before(toy_set, tmp_path):
    options = {"progress": False, "features_dir": tmp_path / "features"}
    recipes = stages.head_first(dataclasses.replace(RECIPE, epochs=1), "mean", head_epochs=1, head_rate=0.3)
    run = stages.fit_stages(toy.network, toy_set, recipes, tmp_path / "run", **options)
    assert run.directory == tmp_path / "run" and run.finished
    first, last = stages.stages_of(tmp_path / "run")
    alone = training.fit(toy.network, toy_set, recipes[0], tmp_path / "alone", **options)
    for a, b in zip(first.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    def weights_of(name):
        return [run.model.get_layer(name).get_weights() for run in (first, last)]

    np.testing.assert_array_equal(*(weights[0] for weights in weights_of("conv1")))  # frozen in both stages
    assert not np.array_equal(*(weights[0] for weights in weights_of("conv2")))  # in the first alone
    # A last stage whose steps are nothing ends where the stage before did.
    still = (recipes[0], dataclasses.replace(recipes[1], learning_rate=1e-30, weight_decay=0.0, frozen_until="mean"))
    unmoved = stages.fit_stages(toy.network, toy_set, still, tmp_path / "still", **options)
    for a, b in zip(unmoved.model.get_weights(), first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Begun again, nothing is trained again.
    changed = (first.directory / "history.csv").stat().st_mtime_ns
    stages.fit_stages(toy.network, toy_set, recipes, tmp_path / "run", **options)
    assert (first.directory / "history.csv").stat().st_mtime_ns == changed
