"""A study's trials on a Dask cluster: an existing one, or worker processes on this machine."""

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading

from tfproject.errors import UserError
from tfproject.experiments.runner import run_trial, set_up_tensorflow

RETRIES = 10  # workers that a trial may outlive
PATIENCE = 5  # seconds, for a scheduler to answer


def run_trials(study, trials, bar, scheduler=None, workers=None):
    """Hand trials to a cluster, the longest first, and wait until all are finished.

    A worker that dies leaves its lock to the system and its checkpoints in the study's directory: Dask gives its trial
    to another worker, and that one goes on from there.

    Args:
        study: a Study; its directory must be the same for all workers.
        trials: Trials.
        bar: a `tfproject.experiments.runner.Progress`.
        scheduler: the address of a Dask scheduler; None to start workers here.
        workers: how many.

    Raises:
        UserError: if there is no scheduler or no longer one, a worker does not see the study, or a trial cannot be
            trained.
    """
    import distributed

    study.directory.joinpath("runs").mkdir(parents=True, exist_ok=True)
    fingerprint = study.image_set.fingerprint
    with _client(scheduler, workers) as client:
        futures = {}
        for trial in sorted(trials, key=lambda trial: -trial.training_images(study.image_set)):
            key = f"{study.run_of(trial).directory.name}-{id(futures)}"
            images = trial.training_images(study.image_set)
            future = client.submit(work, study, trial, fingerprint, False, key=key, pure=False, priority=images)
            futures[future] = trial
        finished = distributed.as_completed(futures)
        for future in finished:
            trial = futures.pop(future)
            if _result(future, trial):
                bar.done(trial)
            else:  # another process is at it; by now everything else is handed out
                later = client.submit(work, study, trial, fingerprint, True, pure=False, priority=-1)
                futures[later] = trial
                finished.add(later)


def work(study, trial, fingerprint, wait):
    """What a worker does: see `tfproject.experiments.runner.run_trial`.

    Args:
        study, trial, wait: as there.
        fingerprint: of the image set that the study is done on.
    """
    import socket

    if not study.directory.joinpath("runs").is_dir():
        raise UserError(
            f"The worker on {socket.gethostname()} does not see {study.directory}; put the study into a directory that "
            "all workers share under the same path."
        )
    set_up_tensorflow()
    if study.image_set.fingerprint != fingerprint:
        raise UserError(
            f"The worker on {socket.gethostname()} has other images of {study.image_set.name}; give all the same."
        )
    return run_trial(study, trial, wait)


@contextlib.contextmanager
def _client(scheduler, workers):
    import dask
    import distributed

    for name in ("distributed", "distributed.client"):  # which has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a lost connection is told in one sentence, below
    if scheduler:
        with _connect(scheduler) as client:
            yield client
        return
    options = {
        # A killed trial is no reason to give it up, and TensorFlow's memory is not Dask's to watch.
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(options),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
            silence_logs=logging.CRITICAL, env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client


def _connect(scheduler):
    """A distributed.Client, in a thread: Dask waits for ever for one that takes the connection and says nothing."""
    import distributed

    answer = queue.SimpleQueue()

    def connect():
        try:
            answer.put(distributed.Client(scheduler, timeout=f"{PATIENCE}s"))
        except (OSError, ValueError) as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        found = answer.get(timeout=2 * PATIENCE)
    except queue.Empty:
        found = "it takes the connection and does not answer"
    if isinstance(found, distributed.Client):
        return found
    raise UserError(
        f"There is no Dask scheduler at {scheduler} ({found}); start one with `dask scheduler`, and workers with "
        f"`dask worker --nthreads 1 {scheduler}`."
    )


def _result(future, trial):
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except (asyncio.CancelledError, concurrent.futures.CancelledError, CommClosedError):  # as nobody here cancels
        raise UserError(
            "The connection with the Dask scheduler is lost; what is finished is kept, and workers may finish what "
            "they are at: see that scheduler and workers are there, and begin again to go on."
        ) from None
    except KilledWorker as error:
        raise UserError(
            f"'{trial.variation.name}' with seed {trial.seed} has ended {error.allowed_failures + 1} workers; "
            "give them more memory, and begin again to go on."
        ) from None
