"""Studies of transfer learning: variations with images, stages or a linear SVM of their own, each trial tested."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np

from tfproject.experiments.experiment import Variation
from tfproject.experiments.study import Study, load_images
from tfproject.training.recipe import Recipe
from tfproject.training.run import InUse, Run, environment, held

AT_ONCE = 32  # images through a whole network when it is tested


@dataclasses.dataclass(frozen=True)
class TransferVariation(Variation):
    """One way to transfer.

    Attributes:
        images: arguments of the study's function to the image set, beside the study's own and the trial's seed.
        stages: recipes of the trainings before the last one, see `tfproject.training.stages`.
        svm: instead of training the output layer, fit a linear SVM on what comes out of `recipe.frozen_until`; of maps
            the mean over their places is taken.
    """

    images: Mapping[str, object] = dataclasses.field(default_factory=dict)
    stages: tuple[Recipe, ...] = ()
    svm: bool = False

    @property
    def has_test(self):
        """See `Variation.has_test`: where there is no test, validation is scored in its place."""
        return self.images.get("protocol") != "70/30"

    def settings(self):
        """See `Variation.settings`."""
        settings = super().settings() | dict(self.images)
        for name in ("layer_rates", "head"):
            if name in settings:
                settings[name] = json.dumps(settings[name])
        if settings.get("weights"):
            settings["weights"] = pathlib.PurePath(settings["weights"]).name
        if self.stages:
            settings["stages"] = " then ".join(recipe.frozen_until or "all" for recipe in (*self.stages, self.recipe))
        return settings | ({"classifier": "linear SVM"} if self.svm else {})


@dataclasses.dataclass(frozen=True)
class TransferStudy(Study):
    """A Study whose variations have images of their own.

    features/         what came out of frozen layers, for all runs; it can be removed at any time
    """

    def images_of(self, trial):
        """The ImageSet that a trial trains, validates and is scored on."""
        return load_images(self.images, self._options(trial))

    def run_of(self, trial):
        """The Run, begun or not, that a trial's result is in: the same exactly for trials of the same content."""
        variation = trial.variation
        weights = _digest_of_file(variation.options.get("weights"))
        options = variation.all_options | ({"weights": weights} if weights else {})  # wherever the file lies
        content = {
            "recipe": trial.recipe.to_json(),
            "stages": [recipe.to_json() for recipe in recipes_of(trial)[:-1]],
            "network": variation.network,
            "options": options,
            "svm": variation.svm,
            "data": _fingerprint(self.images, self._options(trial)),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return Run(self.directory / "runs" / f"{digest[:12]}-seed{trial.seed}")

    @property
    def features(self):
        """Where features are kept, a pathlib.Path."""
        return self.directory / "features"

    def _options(self, trial):
        return tuple(sorted({**self.image_options, **trial.variation.images, "seed": trial.seed}.items()))


def recipes_of(trial):
    """The recipes of a trial's stages, the last one among them, with its seed."""
    return tuple(
        dataclasses.replace(recipe, seed=trial.seed) for recipe in (*trial.variation.stages, trial.variation.recipe)
    )


def run_trial(study, trial, score):
    """Train, measure and score a trial, unless that is done already.

    Args:
        study: a TransferStudy.
        trial: a Trial.
        score: function from (probabilities, split, class names) to what goes to the run's metrics.json.

    Returns:
        Whether it is finished; False if another process is at it.
    """
    run = study.run_of(trial)
    if study.outcome(trial) is not None:
        return True
    try:
        with held(run.directory / ".trial-lock"):
            if study.outcome(trial) is None:
                (_fit_svm if trial.variation.svm else _train)(study, trial, score)
    except InUse:
        return False
    return True


def history_of(run):
    """The history of all stages of a run, one after the other: a dict from column to the values of all epochs."""
    from tfproject.training.stages import stages_of

    histories = [stage.history for stage in stages_of(run.directory)]
    columns = [column for column in histories[-1] if all(column in history for history in histories)]
    return {column: [value for history in histories for value in history[column]] for column in columns}


def _train(study, trial, score):
    import keras

    from tfproject.training.fitting import Diverged
    from tfproject.training.stages import fit_stages

    images, directory = study.images_of(trial), study.run_of(trial).directory
    try:
        run = fit_stages(
            trial.build_model, images, recipes_of(trial), directory, progress=False, features_dir=study.features
        )
    except Diverged as error:
        study.run_of(trial).record(outcome={"diverged": error.reason})
        keras.utils.clear_session()  # the next one's layers are to have the names that they have in a new process
        return
    splits = _scored(images)
    found = probabilities(trial, run, images, list(splits.values()), study.features)
    run.record(**{name: score(found[i], split, images.class_names) for i, (name, split) in enumerate(splits.items())})
    kept = run.metrics["training"]["kept"]
    run.record(
        outcome={
            # The running mean of the last epoch: the images as they are would have to go through frozen layers too.
            "train_accuracy": kept["accuracy"],
            "val_accuracy": kept["val_accuracy"],
            "val_loss": kept["val_loss"],
            "gap": kept["accuracy"] - kept["val_accuracy"],
        }
    )
    for checkpoints in directory.glob("**/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)
    for model in directory.glob("stage-*/model.*"):
        model.unlink()
    keras.utils.clear_session()


def _fit_svm(study, trial, score):
    import keras

    from tfproject import evaluation
    from tfproject.models import linear_svm

    images, run = study.images_of(trial), study.run_of(trial)
    run.write("environment.json", environment() | {"data": {"sha256": images.fingerprint}, "seed": trial.seed})
    keras.utils.set_random_seed(trial.seed)
    prefix = _prefix(trial, images)[0]
    train, val = (_vectors(prefix, split, study.features) for split in (images.train, images.val))
    # Where validation is what is scored, C must not be chosen by it.
    chooses = (val, images.val.labels) if "test" in images.splits else None
    svm = linear_svm.fit_linear_svm(train, images.train.labels, chooses, seed=trial.seed)
    found = {
        name: svm.probabilities(_vectors(prefix, split, study.features), len(images.class_names))
        for name, split in _scored(images).items()
    }
    on_val = evaluation.scores(
        svm.probabilities(val, len(images.class_names)), images.val.labels, images.class_names
    )
    train_accuracy = float((svm.predict(train) == images.train.labels).mean())
    run.record(
        svm={"C": svm.cost, "accuracy_by_C": {f"{cost:g}": found for cost, found in svm.accuracies.items()},
             "features": int(train.shape[1])},
        **{name: score(found[name], split, images.class_names) for name, split in _scored(images).items()},
    )  # fmt: skip
    run.record(
        outcome={
            "train_accuracy": train_accuracy, "val_accuracy": on_val.accuracy, "val_loss": on_val.log_loss,
            "gap": train_accuracy - on_val.accuracy,
        }
    )  # fmt: skip
    keras.utils.clear_session()


def probabilities(trial, run, images, splits, features_dir):
    """What a finished run's network says about splits; its frozen part is run on images that were not seen yet only.

    Args:
        trial: the run's Trial.
        run: a finished Run.
        images: the ImageSet it was trained on.
        splits: a list of `tfproject.data.Split`.
        features_dir: where features are kept.

    Returns:
        A list of float32 arrays (n, classes), one for each split.
    """
    from tfproject.evaluation.prediction import predictor
    from tfproject.training import frozen_prefix

    if not trial.recipe.frozen_until:
        at_once = min(AT_ONCE, min(len(split) for split in splits))
        predict = predictor(run.model, images.image_shape[:2], at_once)
        return [np.concatenate([predict(x) for x, _ in split.batches(at_once)]) for split in splits]
    prefix, suffix = _prefix(trial, images, run.model.get_weights())
    found = []
    for split in splits:
        features = frozen_prefix.features(prefix, split, features_dir, progress=False)
        found.append(np.concatenate([suffix(x, training=False).numpy() for x, _ in features.batches(AT_ONCE)]))
    return found


def _prefix(trial, images, weights=None):
    """The frozen part of a trial's network as `training.fit` makes it, which decides under which key features lie."""
    from tfproject.models import freezing
    from tfproject.training import frozen_prefix

    until = trial.recipe.frozen_until
    model = freezing.freeze_until(trial.build_model(images.image_shape, len(images.class_names)), until)
    if weights is not None:
        model.set_weights(weights)
    return frozen_prefix.split(model, until)


def _vectors(prefix, split, features_dir):
    from tfproject.training import frozen_prefix

    features = frozen_prefix.features(prefix, split, features_dir, progress=False)
    maps = [x.numpy() for x, _ in features.batches(AT_ONCE)]
    return np.concatenate([x.mean(axis=(1, 2)) if x.ndim == 4 else x for x in maps])


def _scored(images):
    """The splits that a trial is scored on: "test" (validation where there is no test) and "distinct"."""
    return {"test": images.splits.get("test", images.val), "distinct": images.splits["distinct"]}


@functools.lru_cache(maxsize=None)
def _fingerprint(images, options):
    return load_images(images, options).fingerprint


@functools.lru_cache(maxsize=None)
def _digest_of_file(path):
    path = pathlib.Path(path) if path else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else None
