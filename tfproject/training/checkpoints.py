"""Checkpoints that are whole or not there at all: weights, optimiser state and history after an epoch, in one file."""

import io
import json
import pathlib
import zipfile

import keras
import numpy as np

from tfproject.files import write_atomically

KEPT = 2  # the newest, and the one before in case the disk damages it


def _state(model):
    """Every variable that the next step depends on: weights, statistics, random states, optimiser."""
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    return [v for v in model.variables if id(v) not in metrics] + list(model.optimizer.variables)


def written(directory):
    """The checkpoints in a directory, pathlib.Paths from the oldest to the newest."""
    return sorted(pathlib.Path(directory).glob("epoch-*.npz"), key=lambda path: int(path.stem.rpartition("-")[2]))


def save(directory, model, history, best=()):
    """Write the checkpoint after `len(history)` epochs and remove those older than the last KEPT.

    Args:
        directory: made if it is not there.
        model: compiled and built.
        history: a list of one dict per epoch.
        best: the best epoch's weights so far, as `model.get_weights()` gave them; () where they are not kept.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {f"{i:04d}": keras.ops.convert_to_numpy(variable.value) for i, variable in enumerate(_state(model))}
    # In the same file: a checkpoint and the best weights up to it are both there, or neither is.
    arrays |= {f"best-{i:04d}": array for i, array in enumerate(best)}
    buffer = io.BytesIO()
    np.savez(buffer, history=np.array(json.dumps(history)), **arrays)
    write_atomically(directory / f"epoch-{len(history):04d}.npz", buffer.getvalue())
    left_behind = directory.glob(".epoch-*")  # by a process that was killed while it wrote
    for old in [*written(directory)[:-KEPT], *left_behind]:
        old.unlink()


def restore_newest(directory, model):
    """Put the newest undamaged checkpoint into the compiled, built model.

    Returns:
        The history up to it, a list of one dict per epoch; empty where there is no checkpoint. And the best epoch's
        weights, a list; empty where the checkpoint holds none.
    """
    variables = _state(model)
    for path in reversed(written(directory)):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in sorted(file.files) if name.isdigit()]
                history = json.loads(str(file["history"]))
                best = [file[name] for name in sorted(file.files) if name.startswith("best-")]
        except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError):
            continue  # damaged, as the checksum inside tells: the one before is as good, an epoch earlier
        if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
            continue  # of another version, that kept other things
        for variable, array in zip(variables, arrays):
            variable.assign(array)
        return history, best
    return [], []
