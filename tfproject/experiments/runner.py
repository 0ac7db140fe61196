"""Running what is missing of a study: one trial after the other here, or spread over a cluster."""

import dataclasses
import shutil
import sys
import time
import warnings

from tfproject.errors import UserError
from tfproject.experiments.experiment import Trial
from tfproject.training.run import POLL_SECONDS, InUse, environment, held, held_when_free

# Sums over a batch are rounded differently by another number of threads, so every process of every study uses this one;
# a machine with more cores takes more workers.
THREADS = 2


def run_study(study, *, only=None, scheduler=None, workers=None, progress=True):
    """Train what is missing, measure, and write tables, figures and page.

    What is finished is not run again, and a trial that was interrupted goes on from its last checkpoint. Several
    processes may run the same study at once: they share the trials out among themselves.

    Args:
        study: a Study.
        only: names of experiments to run; None for all.
        scheduler: the address of a Dask scheduler to hand the trials to; its workers must see the study's directory
            under the same path, and have the data.
        workers: number of local worker processes to start instead.
        progress: show how far it is.

    Returns:
        The page's pathlib.Path.

    Raises:
        UserError: if a trial cannot be trained as it is, other than by diverging, which is a result.
    """
    from tfproject.experiments import analysis, distributed, page

    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers were asked for; ask for at least one, or leave it out.")
    set_up_tensorflow()
    study.directory.mkdir(parents=True, exist_ok=True)
    while missing := study.missing(only):
        with Progress(study, missing, progress) as bar:
            if scheduler or workers:
                distributed.run_trials(study, missing, bar, scheduler, workers)
            else:
                run_trials(study, missing, bar)
    with held_when_free(study.directory / ".end-lock"):
        finished = [experiment for experiment in study.experiments if not study.missing([experiment.name])]
        for experiment in finished:
            measure_at_the_end(study, experiment)
        results = {experiment.name: analysis.analyse(study, experiment) for experiment in finished}
        page.log_hparams_config(study, results)
        return page.write(study, results)


def set_up_tensorflow():
    """Have TensorFlow compute with THREADS threads; warns where it is too late for that in this process."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it warns that every trial traces a network of its own
    if tf.config.threading.get_intra_op_parallelism_threads() == THREADS:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    except RuntimeError:
        if environment()["threads"] != THREADS:
            warnings.warn(
                f"TensorFlow runs in this process already, with another number of threads than a study's {THREADS}; "
                "its results may differ in the last digits from those of other processes.",
                stacklevel=2,
            )


def run_trials(study, trials, bar):
    """Run trials in this process; those that another process is at are passed over and waited for at the end."""
    waiting = list(trials)
    while waiting:
        passed = []
        for trial in waiting:
            if run_trial(study, trial):
                bar.done(trial)
            else:
                passed.append(trial)
        if len(passed) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = passed


def run_trial(study, trial, wait=False):
    """Train and measure a trial, unless that is done already.

    Args:
        study: a Study.
        trial: a Trial.
        wait: whether to wait where another process is at it.

    Returns:
        Whether it is finished; False if another process is at it.
    """
    run = study.run_of(trial)
    while "outcome" not in run.metrics:
        try:
            with held(run.directory / ".trial-lock"):
                if "outcome" not in run.metrics:
                    _train_and_measure(study, trial)
        except InUse:
            if not wait:
                return False
            time.sleep(POLL_SECONDS)
    return True


def _train_and_measure(study, trial):
    import keras

    from tfproject import evaluation, training
    from tfproject.experiments import page
    from tfproject.training.fitting import Diverged

    images = trial.images(study.image_set)
    directory = study.run_of(trial).directory
    try:
        run = training.fit(trial.build_model, images, trial.recipe, directory, progress=False)
    except Diverged as error:
        study.run_of(trial).record(outcome={"diverged": error.reason})
        keras.utils.clear_session()  # the next one's layers are to have the names that they have in a new process
        return
    # On the images as they are and in inference mode, as for validation: history's training accuracy is neither.
    train = evaluation.evaluate(run.model, images.train, images.class_names)
    kept = run.metrics["training"]["kept"]
    outcome = {
        "train_accuracy": train.accuracy,
        "val_accuracy": kept["val_accuracy"],
        "val_loss": kept["val_loss"],
        "gap": train.accuracy - kept["val_accuracy"],
    }
    page.log_hparams(run, trial, outcome)
    run.record(outcome=outcome)
    shutil.rmtree(run.directory / "checkpoints", ignore_errors=True)  # a finished run resumes nothing
    keras.utils.clear_session()


def measure_at_the_end(study, experiment):
    """Score on test what was chosen by validation, when all its trials are finished, and measure noise scales.

    On test go the variation that is best on validation, the baseline, and those for which others published a result.
    """
    from tfproject import evaluation
    from tfproject.experiments import analysis, noise_scale

    chosen = analysis.chosen(study, experiment)
    for variation in study.variations(experiment):
        tested = variation.name in {chosen, experiment.baseline, *experiment.published}
        for seed in experiment.seeds:
            trial = Trial(variation, seed)
            run = study.run_of(trial)
            if "diverged" in run.metrics["outcome"]:
                continue
            needs_test = tested and "test" not in run.metrics
            needs_noise = experiment.noise_scale and "noise_scale" not in run.metrics
            if not needs_test and not needs_noise:
                continue
            if not run.model_path.exists():
                train_again(study, trial)
            images = trial.images(study.image_set)
            if needs_test:
                run.record(test=evaluation.evaluate(run.model, images.test, images.class_names).to_json())
            if needs_noise:
                measured = noise_scale.measure(
                    run.model, images.train, len(images.class_names), big=experiment.noise_scale, seed=seed
                )
                run.record(noise_scale=dataclasses.asdict(measured))


def train_again(study, trial):
    """Train a finished trial anew of which only the numbers are there, as of one from published results."""
    run = study.run_of(trial)
    measured = run.metrics
    shutil.rmtree(run.directory)
    run_trial(study, trial, wait=True)
    run.record(**{name: value for name, value in measured.items() if name not in run.metrics})


class Progress:
    """A bar of trained images with the time left on a terminal, a line per trial elsewhere."""

    def __init__(self, study, trials, shown):
        import tqdm

        self.study, self.count, self.finished = study, len(trials), 0
        total = sum(trial.training_images(study.image_set) for trial in trials)
        terminal = shown and sys.stderr.isatty()
        self.lines = shown and not terminal
        self.bar = tqdm.tqdm(total=total, unit=" images", unit_scale=True, disable=not terminal, dynamic_ncols=True)
        self.total, self.trained, self.start = total, 0, time.perf_counter()

    def __enter__(self):
        self.bar.set_postfix_str(f"0/{self.count} trials")
        return self

    def __exit__(self, *_):
        self.bar.close()

    def done(self, trial):
        """Tell that a trial is finished."""
        images = trial.training_images(self.study.image_set)
        self.finished += 1
        self.trained += images
        self.bar.set_postfix_str(f"{self.finished}/{self.count} trials", refresh=False)
        self.bar.update(images)
        if self.lines:
            left = (time.perf_counter() - self.start) * (self.total - self.trained) / self.trained
            accuracy = self.study.outcome(trial).get("val_accuracy")
            said = "diverged" if accuracy is None else f"val_accuracy {accuracy:.4f}"
            print(
                f"trial {self.finished}/{self.count}: {trial.variation.name}, seed {trial.seed}: {said}, "
                f"{left / 60:.0f} min left",
                file=sys.stderr, flush=True,
            )  # fmt: skip
