"""A batch that cannot fit is answered with the predicted memory and one that would fit, before training starts."""

import dataclasses
import re
import resource

import keras
import processes
import pytest
import toy
import victims

from tfproject import training
from tfproject.cost.memory import peak_training_memory
from tfproject.errors import UserError
from tfproject.training import memory_guard


@pytest.fixture(scope="module")
def model():
    model = toy.network((16, 16, 3), 3)
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    return model


def needed(model, batch):
    predicted = peak_training_memory(model, batch, "adam")
    return predicted.total - predicted.parameters - predicted.optimizer


@pytest.mark.parametrize("largest", [1, 7, 100, 999])
def test_the_batch_that_is_named_is_the_largest_that_fits(model, tally, largest):
    room = needed(model, largest)
    memory_guard.check(model, largest, room)
    with tally.fault(), pytest.raises(UserError) as error:
        memory_guard.check(model, 1000, room)
    assert f"a batch of {largest:,} would fit" in str(error.value)
    total = peak_training_memory(model, 1000, "adam").total
    assert f"a batch of 1,000 needs {memory_guard._in_words(total)} of memory" in str(error.value)


def test_where_not_even_one_image_fits_no_batch_is_named(model, tally):
    with tally.fault(), pytest.raises(UserError, match="not even one image would fit"):
        memory_guard.check(model, 8, needed(model, 1) - 1)


def test_a_run_is_refused_before_its_first_step(tally, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_guard, "available_memory", lambda: 200_000)
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("training has started"))
    recipe = dataclasses.replace(victims.RECIPE, batch_size=100)
    with tally.fault(), pytest.raises(UserError, match=r"needs \d MB of memory .* a batch of \d+ would fit") as error:
        training.fit(toy.network, toy.image_set(), recipe, tmp_path / "run", progress=False)
    fits = int(re.search(r"a batch of (\d+) would fit", str(error.value)).group(1))
    monkeypatch.undo()
    monkeypatch.setattr(memory_guard, "available_memory", lambda: 200_000)
    fitting = dataclasses.replace(recipe, batch_size=fits, epochs=1)
    assert training.fit(toy.network, toy.image_set(), fitting, tmp_path / "run", progress=False).finished


def test_what_there_is_is_what_the_system_says(tmp_path, monkeypatch):
    import psutil

    monkeypatch.setattr(memory_guard, "CGROUP", tmp_path)
    assert memory_guard.available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.05)
    for name, text in (("max", "3000000\n"), ("current", "2900000\n"), ("stat", "anon 7\ninactive_file 50000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory_guard.available_memory() == 150_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_guard.available_memory() > 10**8


def big_batch(directory):
    """Training with more than can be had: a gigabyte beyond what the process has when training is about to start."""
    import numpy as np

    from tfproject.data.image_set import ImageSet, Origin, Split

    check = memory_guard.check

    def check_with_a_limit(*arguments):
        taken = memory_guard._numbers("/proc/self/status")["VmSize:"] * 1024
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, taken + 2**30))
        check(*arguments)

    memory_guard.check = check_with_a_limit

    def split(name, count):
        labels = np.arange(count) % 3
        return Split(np.zeros((count, 64, 64, 3), np.uint8), labels, tuple(f"{name}{i}" for i in range(count)))

    images = ImageSet("zeros", ("a", "b", "c"), {"train": split("t", 20_000), "val": split("v", 3)}, Origin("zeros"))
    recipe = dataclasses.replace(victims.RECIPE, batch_size=20_000, epochs=1, augment=())
    training.fit(toy.network, images, recipe, directory, progress=False)


def test_a_process_with_a_limit_of_its_own_is_told_and_not_killed(child, tally, tmp_path):
    with tally.fault():
        process = child(big_batch, tmp_path / "run")
        assert process.end() == 2 and processes.one_sentence(process.said), process.said[-2000:]
        assert "would fit" in process.said
        assert not (tmp_path / "run" / "history.csv").exists()


def test_it_is_told_before_precisions_are_measured(tally, toy_set, tmp_path, monkeypatch):
    monkeypatch.setenv("TFPROJECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory_guard, "available_memory", lambda: 1000)
    recipe = dataclasses.replace(victims.RECIPE, precision="auto", jit_compile="auto", augment=())
    with tally.fault(), pytest.raises(UserError, match="as predicted from its layers"):
        training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "recipe.json").exists() and not (tmp_path / "cache").exists()


def test_memory_that_runs_out_all_the_same_is_one_sentence(tally):
    import tensorflow as tf

    with tally.fault(), pytest.raises(UserError, match="Memory ran out in a training step with a batch of 64"):
        with memory_guard.shortage_told(64):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
