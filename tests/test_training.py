import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import toy

from tfproject import models, training
from tfproject.data.image_set import Split
from tfproject.errors import UserError
from tfproject.training import Recipe, checkpoints
from tfproject.training.fitting import Diverged
from tfproject.training.optimization import WarmupThenDecay

RECIPE = Recipe(
    epochs=3, batch_size=40, optimizer="muon", learning_rate=0.005, weight_decay=0.1, label_smoothing=0.1,
    augment=("symmetries", "shift"), precision="float32", jit_compile=False, seed=5,
)  # fmt: skip


def weights_of(run):
    return keras.models.load_model(run.directory / "model.keras").get_weights()


def assert_identical(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole_run(toy_set, tmp_path_factory):
    return training.fit(toy.network, toy_set, RECIPE, tmp_path_factory.mktemp("run") / "whole", progress=False)


def test_a_run_says_what_it_was_made_of(whole_run, toy_set):
    assert whole_run.finished and whole_run.recipe == RECIPE
    assert whole_run.read("recipe.json")["data"]["sha256"] == toy_set.fingerprint
    environment = whole_run.read("environment.json")
    assert environment["packages"]["keras"] == keras.__version__ and environment["seed"] == 5
    assert environment["cores"] >= 1 and environment["processor"]["name"]
    history = whole_run.history
    assert history["epoch"] == [1, 2, 3] and history["loss"][-1] < history["loss"][0]
    final = whole_run.metrics["training"]["final"]
    assert final["val_accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert whole_run.metrics["training"]["parameters"] == whole_run.model.count_params()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 500}, "batch size 500 is larger"),
        ({"augment": ("rotate",)}, "Unknown augmentation 'rotate'"),
        ({"layer_rates": (("nowhere", 0.1),)}, "nowhere"),
        ({"frozen_until": "conv1", "augment": ("mixup",)}, "mixup"),
    ],
)
def test_what_cannot_be_trained_leaves_the_directory_free(toy_set, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        training.fit(toy.network, toy_set, dataclasses.replace(RECIPE, **changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.parametrize("name", ["model.keras", "metrics.json", "checkpoints"])
def test_files_of_others_are_not_replaced(toy_set, tmp_path, name):
    (tmp_path / name).write_text("of another")
    (tmp_path / "environment.json").write_text("{}")  # all that a run may have left before its recipe
    with pytest.raises(UserError, match=f"holds {name} and no recipe.json") as error:
        training.fit(toy.network, toy_set, RECIPE, tmp_path, progress=False)
    assert str(error.value).endswith(".") and (tmp_path / name).read_text() == "of another"


def test_names_that_are_no_utf_8(toy_set, tmp_path):
    names = (os.fsdecode(b"t\xff.png"), *toy_set.train.names[1:])
    odd = Split(toy_set.train.images, toy_set.train.labels, names)
    odd = dataclasses.replace(toy_set, splits={**toy_set.splits, "train": odd})
    run = training.fit(toy.network, odd, dataclasses.replace(RECIPE, epochs=1), tmp_path / "run", progress=False)
    assert run.finished


def test_images_too_small_for_a_network_are_told(toy_set, tmp_path):
    small = {name: Split(split.images[:, :6, :6], split.labels, split.names) for name, split in toy_set.splits.items()}
    recipe = dataclasses.replace(RECIPE, augment=())
    with pytest.raises(UserError, match=r"cannot be built for images of 6x6 pixels \(.*give larger images"):
        training.fit(models.custom_cnn, dataclasses.replace(toy_set, splits=small), recipe, tmp_path / "run")


def test_the_saved_model_scores_as_history_says(whole_run, toy_set):
    predicted = whole_run.model.predict(toy_set.val.images.astype("float32"), verbose=0).argmax(axis=1)
    assert (predicted == toy_set.val.labels).mean() == pytest.approx(whole_run.history["val_accuracy"][-1], abs=1e-6)


def test_the_logs_can_be_read_back(whole_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole_run.log_figure("tint", _png())
    tags = {}
    for part in ("train", "validation", "figures"):
        logs = EventAccumulator(str(whole_run.directory / "tensorboard" / part)).Reload()
        tags[part] = logs.Tags()
    assert {"epoch_loss", "epoch_accuracy"} <= set(tags["train"]["tensors"])
    assert tags["train"]["graph"]
    assert "epoch_accuracy" in tags["validation"]["tensors"]
    assert "tint" in tags["figures"]["tensors"]


def _png():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "png")
    return buffer.getvalue()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole_run, toy_set, tmp_path):
    again = training.fit(toy.network, toy_set, RECIPE, tmp_path / "again", progress=False)
    assert_identical(weights_of(whole_run), weights_of(again))
    other = dataclasses.replace(RECIPE, seed=6, epochs=1)
    other = training.fit(toy.network, toy_set, other, tmp_path / "other", progress=False)
    assert not np.array_equal(weights_of(whole_run)[0], weights_of(other)[0])


def test_one_step_of_the_real_network_repeats_bit_for_bit():
    """With TensorFlow's own choice of inter-op threads it does not, on processors for which oneDNN is used."""
    import tensorflow as tf

    model = models.land_cover_cnn((64, 64, 3), 10)
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(0, 255, (128, 64, 64, 3)).astype("float32"))
    labels = tf.one_hot(random.integers(10, size=128), 10)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, model(images, training=True)))
        return tape.gradient(loss, model.trainable_variables)

    first = [gradient.numpy() for gradient in gradients()]
    for _ in range(8):
        assert_identical(first, [gradient.numpy() for gradient in gradients()])


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "precision, jit_compile", [("float32", True), ("mixed_bfloat16", False), ("mixed_bfloat16", True)]
)
def test_other_precisions_and_xla_repeat_bit_for_bit_too(toy_set, tmp_path, precision, jit_compile):
    recipe = dataclasses.replace(RECIPE, precision=precision, jit_compile=jit_compile, epochs=1)
    runs = [training.fit(toy.network, toy_set, recipe, tmp_path / name, progress=False) for name in "ab"]
    assert_identical(weights_of(runs[0]), weights_of(runs[1]))
    assert {layer.dtype_policy.name for layer in runs[0].model.layers} == {"float32"}


def fit_two_epochs(network, images, recipe, directory, monkeypatch):
    """A training that is interrupted after its second checkpoint."""
    saved = checkpoints.save

    def save_then_stop(directory, model, history):
        saved(directory, model, history)
        if len(history) == 2:
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(checkpoints, "save", save_then_stop)
        training.fit(network, images, recipe, directory, progress=False)


@pytest.mark.parametrize("damage", [None, "truncated", "flipped"])
def test_an_interrupted_run_goes_on_to_the_same_weights(whole_run, toy_set, tmp_path, monkeypatch, damage):
    fit_two_epochs(toy.network, toy_set, RECIPE, tmp_path / "run", monkeypatch)
    newest = tmp_path / "run" / "checkpoints" / "epoch-0002.npz"
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF
        newest.write_bytes(content)
    (tmp_path / "run" / "checkpoints" / ".epoch-0003.npz.x1").write_bytes(b"half written")
    run = training.fit(toy.network, toy_set, RECIPE, tmp_path / "run", progress=False)
    assert_identical(weights_of(whole_run), weights_of(run))
    assert run.history["loss"] == whole_run.history["loss"]
    assert sorted(p.name for p in newest.parent.iterdir()) == ["epoch-0002.npz", "epoch-0003.npz"]


def test_interrupted_in_float16_it_goes_on_with_the_scale_of_its_loss(toy_set, tmp_path, monkeypatch):
    recipe = dataclasses.replace(RECIPE, precision="mixed_float16")
    whole = training.fit(toy.network, toy_set, recipe, tmp_path / "whole", progress=False)
    fit_two_epochs(toy.network, toy_set, recipe, tmp_path / "run", monkeypatch)
    run = training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False)
    assert_identical(weights_of(whole), weights_of(run))


def test_a_checkpoint_that_keeps_other_things_is_passed_over(toy_set, tmp_path, monkeypatch):
    fit_two_epochs(toy.network, toy_set, RECIPE, tmp_path / "run", monkeypatch)
    newest = tmp_path / "run" / "checkpoints" / "epoch-0002.npz"
    with np.load(newest) as file:
        fewer = {name: file[name] for name in file.files if name != "0000"}
    np.savez(newest, **fewer)
    model = toy.network((16, 16, 3), 3)
    training.acceleration.compile_for_training(model, RECIPE, 9)
    history, _ = checkpoints.restore_newest(newest.parent, model)
    assert len(history) == 1


def test_checkpoints_are_in_the_order_of_their_epochs(tmp_path):
    for epoch in (999, 9999, 10000, 20):
        (tmp_path / f"epoch-{epoch:04d}.npz").touch()
    assert [path.stem for path in checkpoints.written(tmp_path)] == [
        "epoch-0020", "epoch-0999", "epoch-9999", "epoch-10000"
    ]  # fmt: skip


def unnamed(image_shape, class_count):
    image = keras.Input(image_shape)
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model([image], keras.layers.Dense(class_count, activation="softmax")(x))


def test_a_network_whose_layers_have_no_names_is_known_again(toy_set, tmp_path, monkeypatch):
    fit_two_epochs(unnamed, toy_set, RECIPE, tmp_path / "run", monkeypatch)
    run = training.fit(unnamed, toy_set, RECIPE, tmp_path / "run", progress=False)  # Keras names conv2d_7 and the like
    assert run.finished

    def wider(image_shape, class_count):
        image = keras.Input(image_shape)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(image))
        return keras.Model([image], keras.layers.Dense(class_count, activation="softmax")(x))

    with pytest.raises(UserError, match="another network"):
        training.fit(wider, toy_set, RECIPE, tmp_path / "run", progress=False)


def test_an_interrupted_run_does_not_go_on_with_the_images_in_another_order(toy_set, tmp_path, monkeypatch):
    fit_two_epochs(toy.network, toy_set, RECIPE, tmp_path / "run", monkeypatch)
    turned = toy_set.train.take(np.arange(len(toy_set.train))[::-1])
    turned = dataclasses.replace(toy_set, splits={**toy_set.splits, "train": turned})
    assert turned.fingerprint == toy_set.fingerprint
    with pytest.raises(UserError, match="another image set or split"):
        training.fit(toy.network, turned, RECIPE, tmp_path / "run", progress=False)


def run_python(code, *arguments, **options):
    """A new Python process that finds the tests' own modules."""
    path = str(pathlib.Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **options)


TRAIN = "import sys, toy, test_training as t; t.training.fit(toy.network, toy.image_set(), t.RECIPE, sys.argv[1])"


def test_killed_with_minus_9_and_begun_again_it_ends_the_same(whole_run, tmp_path):
    process = run_python(TRAIN, tmp_path / "run", stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-0001.npz"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and checkpoint.exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert run_python(TRAIN, tmp_path / "run", stderr=subprocess.DEVNULL).wait(timeout=200) == 0
    assert_identical(weights_of(whole_run), weights_of(training.Run(tmp_path / "run")))


MIRRORED = """
import dataclasses, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_training, toy
recipe = dataclasses.replace(test_training.RECIPE, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4)
assert len(tf.config.list_logical_devices("CPU")) == 2
for strategy in ("single", "mirrored"):
    directory = sys.argv[1] + "/" + strategy
    test_training.training.fit(toy.network_in_float64, toy.image_set(), recipe, directory, strategy=strategy)
"""


def test_two_devices_give_the_result_of_one(tmp_path):
    process = run_python(MIRRORED, tmp_path, stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-2000:]
    one, two = (training.Run(tmp_path / name) for name in ("single", "mirrored"))
    for a, b in zip(weights_of(one), weights_of(two)):
        np.testing.assert_allclose(a, b, atol=1e-7)
    np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-5)
    assert one.history["loss"][0] > 1.5 * one.history["loss"][-1]


def test_another_run_in_the_same_directory_is_refused(whole_run, toy_set):
    with pytest.raises(UserError, match="add --resume"):
        training.fit(toy.network, toy_set, RECIPE, whole_run.directory, resume=False)
    with pytest.raises(UserError, match="another recipe"):
        training.fit(toy.network, toy_set, dataclasses.replace(RECIPE, epochs=4), whole_run.directory)
    with pytest.raises(UserError, match="another network"):
        training.fit(toy.network_in_float64, toy_set, RECIPE, whole_run.directory)


def test_divergence_is_told(toy_set, tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=1e20, schedule="constant")
    with pytest.raises(UserError, match="diverged in epoch 1"):
        training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False)


def test_auto_is_resolved_by_measuring_once(toy_set, tmp_path, monkeypatch):
    from tfproject.training import acceleration

    monkeypatch.setattr(acceleration, "_instructions", lambda: "flags : avx2 amx_bf16")
    recipe = dataclasses.replace(RECIPE, precision="auto", jit_compile=False, epochs=1)
    resolved = acceleration.resolve(recipe, toy.network, (16, 16, 3), 3)
    assert resolved.precision in ("float32", "mixed_bfloat16", "mixed_float16")
    (measured,) = json.loads(acceleration.cache_path().read_text()).values()
    assert all(rate > 0 for rate in measured.values()) and len(measured) == 2
    # What was measured decides the next time too: a machine does not change its mind from run to run.
    forged = {key: dict.fromkeys(measured, 1.0) | {"mixed_bfloat16 plain": 9.0}
              for key in json.loads(acceleration.cache_path().read_text())}  # fmt: skip
    acceleration.cache_path().write_text(json.dumps(forged))
    assert acceleration.resolve(recipe, toy.network, (16, 16, 3), 3).precision == "mixed_bfloat16"
    monkeypatch.setattr(acceleration, "_instructions", lambda: "flags : avx2")
    assert acceleration.resolve(recipe, toy.network, (16, 16, 3), 3).precision == "float32"


def test_recipes_go_to_json_and_back_and_say_what_is_wrong():
    assert Recipe.from_json(json.loads(json.dumps(RECIPE.to_json()))) == RECIPE
    for field, value, words in [
        ("epochs", 0, "epochs is 0; it must be at least 1"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("optimizer", "adamax", "one of sgd, adam, adamw, muon"),
        ("batch_size", "many", "must be of type int"),
        ("precision", "float8", "must be one of auto"),
    ]:
        with pytest.raises(UserError, match=words):
            Recipe(**{field: value})
    with pytest.raises(UserError, match="no 'momentun'"):
        Recipe.from_json({"momentun": 0.9})


def test_schedules_rise_to_the_peak_and_end_at_zero():
    for shape in ("one-cycle", "cosine"):
        schedule = WarmupThenDecay(0.4, steps=100, warmup=0.2, shape=shape)
        rates = [float(schedule(step)) for step in range(101)]
        assert rates[0] == 0 and rates[100] == pytest.approx(0, abs=1e-7)
        assert max(rates) == pytest.approx(0.4) and int(np.argmax(rates)) == 20
        assert rates[10] == pytest.approx(0.2)
        assert rates[60] == pytest.approx(0.2)
        assert rates[40] == pytest.approx({"one-cycle": 0.3, "cosine": 0.2 * (1 + math.sqrt(0.5))}[shape])


def test_optimizer_and_loss_are_the_recipe_s():
    from tfproject.training.optimization import make_loss, make_optimizer

    sgd = make_optimizer(dataclasses.replace(RECIPE, optimizer="sgd", momentum=0.8), 10)
    assert (sgd.momentum, sgd.nesterov) == (0.8, True)
    loss = make_loss(dataclasses.replace(RECIPE, label_smoothing=0.3))
    found = float(loss(np.array([[1.0, 0, 0]]), np.array([[0.5, 0.2, 0.3]])))
    assert found == pytest.approx(-(0.8 * math.log(0.5) + 0.1 * math.log(0.2) + 0.1 * math.log(0.3)))


def test_muon_steps_a_kernel_as_keras_steps_the_matrix():
    from tfproject.training.optimization import ConvolutionalMuon

    random = np.random.default_rng(0)
    start, gradients = (random.normal(size=(*n, 2, 2, 6, 16)).astype(np.float32) for n in ((), (3,)))
    kernel, matrix = keras.Variable(start, name="kernel"), keras.Variable(start.reshape(24, 16), name="matrix")
    for optimizer, variable in ((ConvolutionalMuon(0.1), kernel), (keras.optimizers.Muon(0.1), matrix)):
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([keras.ops.reshape(gradient, variable.shape)], [variable])
    np.testing.assert_allclose(kernel.numpy().reshape(24, 16), matrix.numpy(), atol=2e-3)
    assert abs(kernel.numpy() - start).max() > 0.02


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_weight_decay_leaves_biases_and_norms_alone(optimizer, toy_set):
    from tfproject.training.optimization import make_optimizer

    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=0.1, schedule="constant")
    model = models.custom_cnn((16, 16, 3), 3)
    before = {w.path: w.numpy() for w in model.trainable_weights}
    step = make_optimizer(recipe, 10)
    step.build(model.trainable_variables)
    step.apply([keras.ops.zeros(w.shape) for w in model.trainable_weights], model.trainable_weights)
    for weight in model.trainable_weights:
        moved = not np.allclose(weight.numpy(), before[weight.path])
        assert moved == (weight.path.endswith("kernel") and (optimizer != "muon" or len(weight.shape) == 4)), (
            weight.path
        )


@pytest.mark.parametrize("shape", [(288, 32), (48, 64), (32, 32)])
@pytest.mark.parametrize("decay", [0, 1, 4])
def test_muon_s_step_is_that_of_keras_own_iteration(shape, decay):
    from tfproject.training.optimization import ConvolutionalMuon

    random = np.random.default_rng(0)
    u, _, v = np.linalg.svd(random.normal(size=shape), full_matrices=False)
    matrix = (u * np.arange(1, min(shape) + 1.0) ** -decay @ v).astype("float32")  # singular values of many sizes
    theirs, ours = (
        keras.ops.convert_to_numpy(optimizer.zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(matrix), 5))
        for optimizer in (keras.optimizers.Muon(), ConvolutionalMuon())
    )
    assert ours.shape == shape
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())


def weights_after(run, epoch, toy_set, directory):
    """The weights that a run would have ended with had it been so many epochs long; needs a constant schedule."""
    recipe = dataclasses.replace(run.recipe, epochs=epoch, keep_epoch="last", early_stopping=0)
    return weights_of(training.fit(toy.network, toy_set, recipe, directory, progress=False))


def test_the_best_epoch_is_kept_and_training_stops_early_also_after_an_interruption(toy_set, tmp_path, monkeypatch):
    recipe = dataclasses.replace(
        RECIPE, epochs=30, optimizer="sgd", learning_rate=0.1, schedule="constant", keep_epoch="best", early_stopping=3
    )
    run = training.fit(toy.network, toy_set, recipe, tmp_path / "whole", progress=False)
    accuracies = run.history["val_accuracy"]
    best = int(np.argmax(accuracies)) + 1
    assert len(accuracies) == best + 3 < 30
    measured = run.metrics["training"]
    assert measured["kept_epoch"] == best and measured["epochs"] == best + 3
    assert measured["kept"]["val_accuracy"] == max(accuracies)
    assert measured["final"]["val_loss"] == pytest.approx(run.history["val_loss"][-1])
    assert_identical(weights_of(run), weights_after(run, best, toy_set, tmp_path / "shorter"))
    assert not np.array_equal(weights_of(run)[0], weights_after(run, best + 3, toy_set, tmp_path / "longer")[0])

    # Interrupted after the best epoch, and again when nothing but the end is left to do.
    saved = checkpoints.save

    def save_then_stop(directory, model, history, best=()):
        saved(directory, model, history, best)
        if len(history) in stops:
            raise Stop

    monkeypatch.setattr(checkpoints, "save", save_then_stop)
    for stops in ({best + 1}, {best + 3}, set()):
        try:
            again = training.fit(toy.network, toy_set, recipe, tmp_path / "again", progress=False)
        except Stop:
            assert stops
    assert again.history["val_loss"] == run.history["val_loss"]
    assert_identical(weights_of(run), weights_of(again))


def test_a_second_process_in_the_same_directory_is_refused(toy_set, tmp_path):
    process = run_python(TRAIN, tmp_path / "run", stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "recipe.json").exists() and process.poll() is None:
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"is in use by process {process.pid} on .*; wait until that is done"):
        training.fit(toy.network, toy_set, RECIPE, tmp_path / "run", progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with training.Run(tmp_path / "run").lock():  # the system has freed it
        pass


def test_a_run_from_before_a_field_was_added_goes_on(toy_set, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1)
    run = training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False)
    content = run.read("recipe.json")
    del content["asked"]["early_stopping"]
    run.write("recipe.json", content)
    assert training.fit(toy.network, toy_set, recipe, tmp_path / "run", progress=False).finished


def test_other_threads_that_draw_random_numbers_change_nothing(whole_run, toy_set, tmp_path):
    import random
    import threading

    over = threading.Event()

    def draw():
        while not over.is_set():
            random.random()
            time.sleep(0)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        run = training.fit(toy.network, toy_set, RECIPE, tmp_path / "run", progress=False)
    finally:
        over.set()
        thread.join()
    assert_identical(weights_of(whole_run), weights_of(run))


def test_without_validation_images_nothing_is_chosen_by_them(toy_set, tmp_path):
    everything = toy_set.with_validation_in_training()
    recipe = dataclasses.replace(RECIPE, epochs=2)
    run = training.fit(toy.network, everything, recipe, tmp_path / "run", progress=False)
    assert set(run.history) == {"epoch", "accuracy", "loss", "learning_rate", "seconds", "images_per_second"}
    assert run.metrics["training"]["images"] == 150
    assert run.metrics["training"]["final"] == {key: run.history[key][-1] for key in ("loss", "accuracy")}
    for change in ({"keep_epoch": "best"}, {"early_stopping": 3}):
        with pytest.raises(UserError, match="no split 'val' to choose an epoch by"):
            training.fit(toy.network, everything, dataclasses.replace(recipe, **change), tmp_path / "other")
    with pytest.raises(Diverged, match=r"at step \d of 3 \(.*(nan|inf|not finite)\)"):
        wild = dataclasses.replace(recipe, learning_rate=1e30)
        training.fit(toy.network, everything, wild, tmp_path / "wild", progress=False)
