"""A loss or a weight that is no number: noticed within the epoch, with the step, the cause and what is left."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import toy
import victims

from tfproject import training
from tfproject.training import checkpoints
from tfproject.training.fitting import Diverged

WILD = dataclasses.replace(
    victims.RECIPE, optimizer="sgd", schedule="constant", keep_epoch="last", learning_rate=1e20, augment=()
)


def diverged(tally, directory, recipe=WILD, network=toy.network):
    with tally.fault():
        with pytest.raises(Diverged) as error:
            training.fit(network, toy.image_set(), recipe, directory, progress=False)
        assert "\n" not in str(error.value)
        return str(error.value)


def test_a_learning_rate_beyond_all_is_noticed_at_the_step(tally, tmp_path):
    said = diverged(tally, tmp_path / "run")
    step = int(re.search(r"in epoch 1 at step (\d+) of 6 \(loss (?:nan|inf)\)", said).group(1))
    assert 1 < step <= 3 and "too high a learning rate (1e+20 here" in said and "no good checkpoint" in said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def spoilt(value, at):
    """The toy network with a weight that becomes `value` at the beginning of an epoch, from 0."""

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == at:
                weight = self.model.get_layer("conv2").kernel
                weight.assign(np.full(weight.shape, value, np.float32))

    return Spoil()


def test_the_last_good_checkpoint_is_named_and_good(tally, tmp_path, monkeypatch):
    fit = keras.Model.fit

    def with_spoilt_weight(self, *arguments, callbacks=(), **options):
        return fit(self, *arguments, callbacks=[*callbacks, spoilt(np.nan, at=2)], **options)

    tame = dataclasses.replace(WILD, learning_rate=0.05)
    monkeypatch.setattr(keras.Model, "fit", with_spoilt_weight)
    said = diverged(tally, tmp_path / "run", tame)
    monkeypatch.undo()
    assert "in epoch 3 at step" in said and f"last good checkpoint is {tmp_path}/run/checkpoints/epoch-0002.npz" in said
    with np.load(tmp_path / "run/checkpoints/epoch-0002.npz") as file:
        assert all(np.isfinite(file[name]).all() for name in file.files if name != "history")
    # It was not the recipe's fault: from the checkpoint the run goes on to the end as if nothing had been.
    run = training.fit(toy.network, toy.image_set(), tame, tmp_path / "run", progress=False)
    again = training.fit(toy.network, toy.image_set(), tame, tmp_path / "undisturbed", progress=False)
    tally.result(victims.result(run.directory), victims.result(again.directory))


def test_weights_that_are_no_numbers_never_become_a_checkpoint(tally, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints, "save", lambda *arguments, **options: saved.append(1))

    def dead(image_shape, class_count):  # a weight that nothing depends on hides from the loss
        model = toy.network(image_shape, class_count)
        model.get_layer("conv1_norm").moving_mean.assign(np.full(8, np.nan, np.float32))
        return model

    said = diverged(tally, tmp_path / "run", dataclasses.replace(WILD, learning_rate=0.01), dead)
    assert "in epoch 1" in said and not saved


def test_a_network_that_gives_no_numbers_is_not_blamed_on_the_learning_rate(tally, tmp_path):
    def broken(image_shape, class_count):
        model = toy.network(image_shape, class_count)
        kernel = model.get_layer("classes").kernel
        kernel.assign(np.full(kernel.shape, np.nan, np.float32))
        return model

    said = diverged(tally, tmp_path / "run", dataclasses.replace(WILD, learning_rate=0.01), broken)
    assert "in epoch 1 at step 1 of 6" in said and "the network itself" in said
