"""A run: the directory that a training leaves behind, and how to read it."""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import platform
import subprocess
import time

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.training.recipe import Recipe

POLL_SECONDS = 1.0  # while another process holds a lock


class InUse(UserError):
    """Another process is at work on what this one was to write."""


@contextlib.contextmanager
def held(path):
    """Hold a lock file; the system frees it when the process ends, however it ends.

    Args:
        path: the lock file, a pathlib.Path; made if it is not there. It says who held it last.

    Raises:
        InUse: if it is held already.
        UserError: if it cannot be written.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name a directory that can be.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            raise InUse(
                f"{path.parent} is in use by {holder}; wait until that is done, or name another directory."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextlib.contextmanager
def held_when_free(path):
    """Hold a lock file as `held` does; while another process has it, wait."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(path))
                break
            except InUse:
                time.sleep(POLL_SECONDS)
        yield


# What tells of a run without its weights, as results are published; with the last, a run is finished.
RECORD = ("recipe.json", "environment.json", "history.csv", "metrics.json")
# What a run replaces, and has written only after its recipe.json.
LATER = ("checkpoints", "history.csv", "metrics.json", "model.keras", "model.json")


@dataclasses.dataclass(frozen=True)
class Run:
    """A directory with what one training was made of and what came out.

    recipe.json       the recipe, the network's and the image set's fingerprints
    environment.json  versions, device, commit
    history.csv       a row per epoch: loss, accuracy, val_loss, val_accuracy, learning rate, seconds
    metrics.json      what was measured; the one home of the run's numbers
    checkpoints/      to resume from
    model.keras       the trained network, model.json its class names beside it
    tensorboard/      logs
    """

    directory: pathlib.Path

    def __post_init__(self):
        object.__setattr__(self, "directory", pathlib.Path(self.directory))

    @property
    def model_path(self):
        return self.directory / "model.keras"

    @property
    def finished(self):
        """Whether training came to its end and the model is saved."""
        return (self.directory / "metrics.json").exists() and self.model_path.exists()

    @property
    def started(self):
        return (self.directory / "recipe.json").exists()

    def answers(self, recipe, images):
        """Whether it was asked this Recipe of images with this fingerprint; it need not be finished."""
        if not self.started:
            return False
        found = self.question
        return found["asked"] == Recipe().to_json() | recipe.to_json() and found["data"].get("sha256") == images

    @property
    def question(self):
        """What the run was asked, recipe.json's dict. Raises UserError if it is missing or damaged."""
        found = self.read("recipe.json")
        if not all(isinstance(found.get(key), dict) for key in ("asked", "data")):
            raise _damaged(self.directory / "recipe.json", ValueError())
        return found | {"asked": Recipe().to_json() | found["asked"]}  # a field may be younger than the run

    def check_free(self, *more):
        """Refuse a directory that is no run's and holds files that a run would replace.

        Args:
            *more: names of such files beside those of every run.

        Raises:
            UserError: if it does.
        """
        there = [name for name in (*LATER, *more) if (self.directory / name).exists()]
        if there and not self.started:
            raise UserError(
                f"{self.directory} holds {', '.join(there)} and no recipe.json: it is no run's, and these would be "
                "replaced; name another directory, or move them."
            )

    def lock(self):
        """A context in which no other process can train this run. Raises InUse if one does."""
        return held(self.directory / ".lock")

    @functools.cached_property
    def model(self):
        """The trained keras.Model. Raises UserError if its file is missing or damaged."""
        from tfproject.models import saved_models

        return saved_models.load(self.model_path).model

    @property
    def recipe(self):
        return Recipe.from_json(self.read("recipe.json").get("recipe"))

    @property
    def metrics(self):
        """What was measured, a dict; empty if nothing was yet."""
        return self.read("metrics.json") if (self.directory / "metrics.json").exists() else {}

    @property
    def history(self):
        """A dict from column to the list of its values, one per epoch."""
        path = self.directory / "history.csv"
        try:
            rows = list(csv.DictReader(io.StringIO(path.read_text())))
            return {column: [float(row[column]) for row in rows] for column in rows[0]}
        except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
            raise _damaged(path, error) from None

    def record(self, **measured):
        """Add to metrics.json; what has the same name is replaced."""
        self.write("metrics.json", {**self.metrics, **measured})

    def read(self, name):
        """The content of one of the run's JSON files. Raises UserError if it is missing or damaged."""
        path = self.directory / name
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise _damaged(path, error) from None

    def write(self, name, content):
        """Write one of the run's JSON files."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self.directory / name, json.dumps(content, indent=1) + "\n")

    def write_history(self, rows):
        """Write history.csv from a list of one dict per epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.directory / "history.csv", text.getvalue())

    def log_graph(self, model):
        """Show the network's operations in TensorBoard's graph dashboard (Keras' callback logs its layers only)."""
        import tensorflow as tf

        forward = tf.function(lambda image: model(image, training=False))
        graph = forward.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)).graph
        with tf.summary.create_file_writer(str(self.directory / "tensorboard" / "train")).as_default():
            tf.summary.graph(graph)

    def log_figure(self, tag, png, step=0):
        """Show a picture (PNG bytes) in TensorBoard's image dashboard."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self.directory / "tensorboard" / "figures")).as_default():
            tf.summary.image(tag, tf.io.decode_png(png, channels=3)[None], step=step)


def _damaged(path, error):
    return UserError(
        f"{path} cannot be read ({type(error).__name__}); it belongs to every run: remove {path.parent} or choose "
        "another run directory."
    )


def environment():
    """Versions, devices and commit that a result depends on, a plain dict."""
    import importlib.metadata

    import tensorflow as tf

    packages = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "scikit-learn", "pillow")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": versions,
        "processor": _processor(),
        "cores": _cores(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or _cores(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "commit": _commit(),
    }


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor():
    """The processor's name and the instruction sets that decide how fast it trains."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"name": platform.processor(), "instructions": []}
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    return {
        "name": fields.get("model name", platform.processor()),
        "instructions": [i for i in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if i in flags],
    }


def _commit():
    """The commit of the checkout that this code runs from, with "+changes" where it differs; None outside of one."""
    try:
        here = pathlib.Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() or None
