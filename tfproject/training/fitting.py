"""One fit: a network, an image set and a recipe in, a run directory out."""

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import resource
import sys
import time

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfproject.data import augmentation, pipeline
from tfproject.errors import UserError
from tfproject.models import freezing, saved_models
from tfproject.models.architecture import architecture
from tfproject.training import acceleration, checkpoints, frozen_prefix, memory_guard
from tfproject.training.layer_rates import scale_rates
from tfproject.training.run import Run, environment

VALIDATION_PIXELS = 2**20  # validated at once, at most; more would take more memory than the training step
STRATEGIES = ("single", "mirrored")
REPORTED = ("loss", "accuracy", "val_loss", "val_accuracy")


class Diverged(UserError):
    """The loss or a weight is not a finite number.

    Attributes:
        reason: when, on what and why most likely, without the paths that the message tells.
    """

    def __init__(self, reason, left):
        super().__init__(f"{reason} {left}")
        self.reason = reason


def fit(
    build_model, image_set, recipe, directory, *,
    strategy="single", resume=True, profile=False, progress=True, features_dir=None,
):  # fmt: skip
    """Train a network and leave a run directory; begun before in the same directory, it goes on where it stopped.

    An interrupted and resumed run ends with the weights of an uninterrupted one, bit for bit: a checkpoint after every
    epoch holds all that the next step depends on, and batches are drawn from the seed and their number.

    Args:
        build_model: function (image_shape, class_count) to an uncompiled functional keras.Model that takes RGB images
            in 0..255 and gives class probabilities. A function, so that the recipe's seed, precision and devices
            hold for its variables.
        image_set: an ImageSet with a split `train`, and a `val` unless all that could be chosen by it is chosen.
        recipe: a Recipe.
        directory: the run directory. It is known again by the recipe, the images and the network's architecture; a
            network that begins with other weights needs a directory of its own.
        strategy: "single" or "mirrored" (all GPUs, or all of TensorFlow's virtual CPUs, with equal weights).
        resume: if False, a directory that already holds a run is refused.
        profile: record a TensorBoard profile of ten steps of the first epoch.
        progress: show a progress bar with images/s and the time left.
        features_dir: where what comes out of layers frozen by `recipe.frozen_until` is kept, for all runs that have
            them in common; None for a folder in the user's cache.

    Returns:
        A finished Run.

    Raises:
        UserError: if the directory holds another run, the recipe does not suit the images or needs a `val`, or a
            training step does not fit into memory.
        InUse: if another process trains in the directory; a UserError.
        Diverged: if the loss or a weight is not finite; a UserError.
    """
    run = Run(directory)
    with contextlib.nullcontext() if run.finished else run.lock():
        return _fit(run, build_model, image_set, recipe, strategy, resume, profile, progress, features_dir)


def _fit(run, build_model, image_set, recipe, strategy, resume, profile, progress, features_dir):
    class_count, image_shape = len(image_set.class_names), image_set.image_shape
    if "val" not in image_set.splits and (recipe.keep_epoch == "best" or recipe.early_stopping):
        raise UserError(
            f"{image_set.name} has no split 'val' to choose an epoch by; keep the last epoch, without early stopping."
        )
    augmentation.check(recipe.augment, image_shape)
    pipeline.check_batch_size(recipe.batch_size, len(image_set.train))
    if tf.config.list_physical_devices("GPU"):
        # The CPU needs no such switch (see tfproject/__init__.py), and with it on, Keras would leave XLA off.
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    question = _fingerprints(build_model, image_set, recipe) | {"strategy": strategy, "asked": recipe.to_json()}
    if run.started:
        recipe = _check_same_run(run, question, resume)
        if run.finished:
            return run
    else:
        run.check_free()
        if strategy != "single":
            recipe = _without_xla(recipe)
        measured = build_model, image_shape
        if recipe.frozen_until:
            measured = frozen_prefix.suffix_builder(*measured, class_count, recipe.frozen_until)
        recipe = acceleration.resolve(recipe, *measured, class_count, len(_devices(strategy)))

    keras.utils.set_random_seed(recipe.seed)
    steps = len(image_set.train) // recipe.batch_size
    with _scope(strategy):
        with acceleration.dtype_policy(recipe.precision), _random_numbers_of_its_own(recipe.seed):
            whole = model = build_model(image_set.image_shape, class_count)
        if recipe.frozen_until:
            prefix, model = frozen_prefix.split(freezing.freeze_until(whole, recipe.frozen_until), recipe.frozen_until)
            if recipe.precision == "mixed_float16":
                model.dtype_policy = keras.DTypePolicy(recipe.precision)  # by which Keras decides to scale the loss
            image_set = frozen_prefix.run_once(
                prefix, image_set, features_dir or acceleration.cache_path().parent / "features",
                recipe.augment, min(recipe.views, recipe.epochs), progress=progress,
            )  # fmt: skip
        acceleration.compile_for_training(model, recipe, steps * recipe.epochs)
        scale_rates(model, recipe.layer_rates)
        history, best = checkpoints.restore_newest(run.directory / "checkpoints", model)

    epochs = _Epochs(run, recipe, history, best, steps * recipe.batch_size, progress)
    if not epochs.over:
        batches = image_set.train.training_batches(
            class_count, recipe.batch_size, recipe.augment, recipe.seed, len(history), recipe.epochs
        )
        validation = None
        if "val" in image_set.splits:
            at_once = max(1, min(256, VALIDATION_PIXELS // (image_shape[0] * image_shape[1])))
            validation = image_set.val.batches(at_once).map(lambda x, labels: (x, tf.one_hot(labels, class_count)))
        if not tf.config.list_physical_devices("GPU"):  # whose memory is not the machine's
            memory_guard.check(model, recipe.batch_size)
        if not run.started:  # what is refused above leaves the directory free
            run.write("environment.json", environment() | {"data": question["data"], "seed": recipe.seed})
            run.write("recipe.json", question | {"recipe": recipe.to_json()})
        with memory_guard.shortage_told(recipe.batch_size):
            model.fit(
                batches,
                initial_epoch=len(history),
                epochs=recipe.epochs,
                steps_per_epoch=steps,
                validation_data=validation,
                shuffle=False,
                verbose=0,
                callbacks=[
                    epochs,
                    keras.callbacks.TensorBoard(
                        run.directory / "tensorboard", write_graph=not history, profile_batch=(5, 15) if profile else 0
                    ),
                ],
            )
    kept = len(history)
    if recipe.keep_epoch == "best":
        kept = best_epoch(history)
        model.set_weights(epochs.best)
    model = _in_float32(whole, build_model, image_shape, class_count)
    frozen = {}
    if recipe.frozen_until:
        frozen["frozen"] = _frozen(freezing.freeze_until(model, recipe.frozen_until), question["network"]["frozen"])
    run.log_graph(model)
    saved_models.save(model, run.model_path, image_set.class_names)
    run.record(
        training={
            "epochs": len(history),
            "images": len(image_set.train),
            "parameters": model.count_params(),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "seconds": round(sum(row["seconds"] for row in history), 1),
            "final": {key: history[-1][key] for key in REPORTED if key in history[-1]},
            "kept_epoch": kept,
            "kept": {key: history[kept - 1][key] for key in REPORTED if key in history[-1]},
        },
        **frozen,
    )
    return run


@contextlib.contextmanager
def _random_numbers_of_its_own(seed):
    """Layers built within draw their initial weights and dropout from the seed, whatever other threads draw meanwhile.

    Keras takes a layer's seed from Python's global random numbers, of which a cluster's or a notebook's threads may
    take some at any moment. It has no public place to give it others.
    """
    from keras.src.random import seed_generator

    before = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = before


def best_epoch(history):
    """The number, from 1, of the first epoch with the highest accuracy on validation."""
    return 1 + max(range(len(history)), key=lambda epoch: (history[epoch]["val_accuracy"], -epoch))


def _fingerprints(build_model, image_set, recipe):
    """What a run directory belongs to, apart from the recipe."""
    with _random_numbers_of_its_own(recipe.seed):
        try:
            model = build_model(image_set.image_shape, len(image_set.class_names))
        except ValueError as error:
            height, width, _ = image_set.image_shape
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"The network cannot be built for images of {height}x{width} pixels ({reason}); give larger images, or "
                "another network."
            ) from error
    config = architecture(model)
    network = {"name": json.loads(config)["config"]["name"], "sha256": hashlib.sha256(config.encode()).hexdigest()}
    if recipe.frozen_until:
        network["frozen"] = freezing.frozen_digest(freezing.freeze_until(model, recipe.frozen_until))
    names = "\n".join(map(str, image_set.train.names))  # of files, which need not be valid UTF-8
    return {
        "network": network,
        # The fingerprint does not know the order of the training images, from which batches are drawn.
        "data": {"name": image_set.name, "split": image_set.split_method, "sha256": image_set.fingerprint,
                 "order": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]},
    }


def _frozen(model, digest):
    """What of a trained model was frozen, for metrics.json; that it did not move is checked."""
    if freezing.frozen_digest(model) != digest:
        raise RuntimeError("weights that were to be frozen have changed")
    rows = freezing.table(model)
    return {
        "layers": [row.layer for row in rows if row.frozen and row.parameters],
        "parameters": sum(row.parameters for row in rows if row.frozen),
        "sha256": digest,
    }


def _check_same_run(run, question, resume):
    """The recipe of the run that the directory holds, if it is the one asked for."""
    if not resume:
        raise UserError(f"{run.directory} already holds a run; add --resume to go on with it, or name another one.")
    found = run.question
    found["data"] = question["data"] | found["data"]  # a field may be younger than the run
    for key in ("data", "network", "strategy", "asked"):
        if found.get(key) != question[key]:
            what = {"data": "another image set or split", "network": "another network", "strategy": "another strategy"}
            raise UserError(
                f"{run.directory} holds a run with {what.get(key, 'another recipe')}; "
                "name another directory, or remove this one."
            )
    return run.recipe


def _without_xla(recipe):
    if recipe.jit_compile is True:
        raise UserError("XLA (jit_compile) and the strategy 'mirrored' do not go together; choose one of them.")
    return dataclasses.replace(recipe, jit_compile=False)


def _scope(strategy):
    devices = _devices(strategy)
    return contextlib.nullcontext() if strategy == "single" else tf.distribute.MirroredStrategy(devices).scope()


def _devices(strategy):
    """The names of the devices that share a batch."""
    if strategy not in STRATEGIES:
        raise UserError(f"Unknown strategy '{strategy}'; choose from {', '.join(STRATEGIES)}.")
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in (found[:1] if strategy == "single" else found)]


def _in_float32(model, build_model, image_shape, class_count):
    """The same network in plain float32 on one device: it runs everywhere, and all tools take it."""
    plain = build_model(image_shape, class_count)
    plain.set_weights(model.get_weights())
    return plain


class _Epochs(keras.callbacks.Callback):
    """After every epoch: history, best weights, checkpoint, whether training diverged or is over; the progress bar."""

    def __init__(self, run, recipe, history, best, images_per_epoch, progress):
        super().__init__()
        self.run, self.recipe, self.history, self.best = run, recipe, history, best
        self.images_per_epoch, self.epochs, self.progress = images_per_epoch, recipe.epochs, progress

    @property
    def over(self):
        """Whether no epoch is to follow; from the history alone, so that a resumed run stops where it would have."""
        done, patience = len(self.history), self.recipe.early_stopping
        return done >= self.epochs or bool(patience and done and done - best_epoch(self.history) >= patience)

    def on_train_begin(self, logs=None):
        terminal = self.progress and sys.stderr.isatty()
        self.bar = tqdm.tqdm(
            total=self.epochs * self.images_per_epoch, initial=len(self.history) * self.images_per_epoch,
            unit=" images", disable=not terminal, dynamic_ncols=True, smoothing=0.05, mininterval=0.5,
        )  # fmt: skip
        self.batch_size = self.images_per_epoch // self.params["steps"]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.start, self.trained = epoch, time.perf_counter(), None

    def on_test_begin(self, logs=None):
        self.trained = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.batch_size)
        if not math.isfinite(logs["loss"]):  # the mean of the epoch's: once it is not finite, it stays so
            raise self._diverged({"loss": logs["loss"]}, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        end = time.perf_counter()
        seconds = end - self.start
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in sorted(logs.items())}}
        row |= {"learning_rate": float(rate), "seconds": round(seconds, 2)}
        row["images_per_second"] = round(self.images_per_epoch / ((self.trained or end) - self.start), 1)
        losses = {key: row[key] for key in ("loss", "val_loss") if key in row}
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise self._diverged(losses)
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):  # ReLU can hide it from the loss
            raise self._diverged({**losses, "weights": "not finite"})
        self.history.append(row)
        self.run.write_history(self.history)
        kept = {}
        if self.recipe.keep_epoch == "best":
            if best_epoch(self.history) == len(self.history):
                self.best = self.model.get_weights()
            kept = {"best": self.best}
        checkpoints.save(self.run.directory / "checkpoints", self.model, self.history, **kept)
        self.model.stop_training = self.over
        reported = [f"{key} {row[key]:.4f}" for key in REPORTED if key in row]
        self.bar.set_postfix_str(reported[-1], refresh=False)
        if self.progress and self.bar.disable:
            left = (self.epochs - epoch - 1) * seconds
            print(
                f"epoch {epoch + 1}/{self.epochs}: {', '.join(reported)}, {row['images_per_second']:.0f} images/s, "
                f"{left / 60:.1f} min left",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def _diverged(self, found, step=None):
        """The Diverged to raise: when, on what, why most likely, and what is left."""
        steps, rate = self.params["steps"], float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if self.epoch == 0 and step == 1:
            cause = "the network itself, which gives no numbers before any step: see to its first weights and scaling"
        elif self.recipe.precision == "mixed_float16":
            cause = "a number beyond what 16 bits hold: choose mixed_bfloat16 or float32, or a lower learning rate"
        else:
            cause = f"too high a learning rate ({rate:.3g} here, {self.recipe.learning_rate:g} at most): lower it"
        good = checkpoints.written(self.run.directory / "checkpoints")
        return Diverged(
            f"Training diverged in epoch {self.epoch + 1} at step {step or steps} of {steps} "
            f"({', '.join(f'{name} {value}' for name, value in found.items())}); the likely cause is {cause}.",
            f"The last good checkpoint is {good[-1]}." if good else "There is no good checkpoint before it.",
        )

    def on_train_end(self, logs=None):
        self.bar.close()
