"""A hyper-parameter search that is written down trial by trial, can be stopped at any moment, and goes on from there.

Optuna draws the settings (by its tree-structured Parzen estimator) and keeps the journal. A trial has rungs, each a
training that costs more than the one before. It goes on to the next rung unless it is worse than the median of what the
finished trials had there.
"""

import dataclasses
import json
import pathlib
import sys
import time

from tfproject.errors import UserError
from tfproject.files import write_atomically

STARTUP = 4  # finished trials before the search draws by what it has seen, and before it prunes


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high` to draw from, on a logarithmic scale if `logarithmic`."""

    low: float
    high: float
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        best: the settings of the trial with the highest score in the last rung; None if no trial got there.
        rows: a dict per trial, in order: trial, state ("finished", "pruned" or "diverged"), score (of the last rung
            that it came to; None where it diverged), rungs (how many it came to), seconds, and its settings by name.
        importances: the share of the differences in score that each setting explains (Hutter et al. 2014), by name;
            {} where there are too few finished trials.
    """

    best: dict | None
    rows: list[dict]
    importances: dict


def search(space, score, directory, *, trials, rungs, first=None, question=None, seed=0, progress=True):
    """Draw settings, score them, and keep all of it; begun before in the same directory, it goes on.

    Args:
        space: a dict from a setting's name to a Range, or to a tuple of values to choose from.
        score: function (settings, number of the rung from 0, directory of this rung of this trial) to a number, higher
            is better; None if it diverged. A call that was interrupted is made again with the same arguments.
        directory: where the journal goes.
        trials: how many in all.
        rungs: how many a trial has at most.
        first: settings of the first trial, such as those in use; None to draw them too.
        question: JSON values that say what is scored; a journal of another question is refused.
        seed: of what is drawn; a search that was stopped and continued draws what an uninterrupted one would have.
        progress: tell of each trial.

    Returns:
        Found.

    Raises:
        UserError: if the directory holds the journal of another search.

    Reference: Bergstra et al. 2011, Algorithms for hyper-parameter optimization; Akiba et al. 2019, Optuna.
    """
    import optuna
    from optuna.trial import TrialState

    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _check_question(directory, {"space": {k: _plain(v) for k, v in space.items()}, "rungs": rungs, "first": first,
                                "seed": seed, "scored": question})  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(directory)
    while sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) < trials:
        known = study.get_trials(deepcopy=False)
        number = sum(trial.state.is_finished() for trial in known)
        # A sampler of each trial's own, so that what it draws does not depend on when the search was begun.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=1_000_003 * seed + number)
        running = [trial for trial in known if trial.state == TrialState.RUNNING]
        if not known and first:
            study.enqueue_trial(first)
        trial = optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()
        state = _run(study, trial, space, score, directory, rungs)
        if progress:
            last = study.get_trials(deepcopy=False)[trial.number]
            said = "diverged" if state == TrialState.FAIL else f"{max(last.intermediate_values.items())[1]:.4f}"
            print(
                f"search, trial {number + 1}/{trials}: {said}{', pruned' if state == TrialState.PRUNED else ''} "
                f"({', '.join(f'{name} {_shown(value)}' for name, value in trial.params.items())})",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return _found(study, space)


def _study(directory):
    import warnings

    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            study_name="search", storage=JournalStorage(JournalFileBackend(str(directory / "journal.log"))),
            direction="maximize", load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=0),
        )  # fmt: skip


def _run(study, trial, space, score, directory, rungs):
    """Take a trial as far as it gets; returns the state that the journal then says."""
    from optuna.trial import TrialState

    settings = {name: _suggest(trial, name, choices) for name, choices in space.items()}
    value, seconds = None, trial.user_attrs.get("seconds", 0.0)
    done = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for rung in range(rungs):
        value = done.get(rung)
        if value is None:
            start = time.perf_counter()
            value = score(settings, rung, directory / "trials" / f"{trial.number:03d}-rung{rung}")
            seconds += time.perf_counter() - start
            trial.set_user_attr("seconds", round(seconds, 1))
            if value is None:
                study.tell(trial, state=TrialState.FAIL)
                return TrialState.FAIL
            trial.report(value, rung)
        if rung < rungs - 1 and rung + 1 not in done and trial.should_prune():  # by the last rung that it came to
            study.tell(trial, state=TrialState.PRUNED)
            return TrialState.PRUNED
    study.tell(trial, value)
    return TrialState.COMPLETE


def _suggest(trial, name, choices):
    if isinstance(choices, Range):
        return trial.suggest_float(name, choices.low, choices.high, log=choices.logarithmic)
    return trial.suggest_categorical(name, choices)


def _found(study, space):
    import optuna
    from optuna.trial import TrialState

    states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "diverged"}
    rows = []
    for trial in study.get_trials(deepcopy=False):
        scores = trial.intermediate_values
        if trial.state in states:
            rows.append(
                {
                    "trial": trial.number, "state": states[trial.state],
                    "score": scores[max(scores)] if scores and trial.state != TrialState.FAIL else None,
                    "rungs": len(scores), "seconds": trial.user_attrs.get("seconds"),
                    **{name: trial.params[name] for name in space},
                }
            )  # fmt: skip
    finished = [row for row in rows if row["state"] == "finished"]
    best = max(finished, key=lambda row: (row["score"], -row["trial"])) if finished else None
    importances = {}
    if len({row["score"] for row in finished}) > STARTUP:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        importances = {k: round(float(v), 4) for k, v in optuna.importance.get_param_importances(
            study, evaluator=evaluator).items()}  # fmt: skip
    return Found({name: best[name] for name in space} if best else None, rows, importances)


def _check_question(directory, question):
    """Keep what the search asks beside its journal. Raises UserError if another one is there."""
    path, text = directory / "question.json", json.dumps(question, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise UserError(f"{directory} holds the journal of another search; remove it, or name another directory.")
    if not path.exists():
        write_atomically(path, text)


def _plain(choices):
    return dataclasses.asdict(choices) if isinstance(choices, Range) else list(choices)


def _shown(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
