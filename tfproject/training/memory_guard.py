"""Memory that a training step will need, against what there is: told before training starts."""

import contextlib
import pathlib
import resource

from tfproject.cost.memory import peak_training_memory
from tfproject.errors import UserError

CGROUP = pathlib.Path("/sys/fs/cgroup")
LIMITS = (  # (limit, used, what could be given back of it) of a container: version 2, version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def check(model, batch_size, available=None):
    """Refuse a batch whose training step cannot fit into memory.

    Args:
        model: a compiled keras.Model with its optimiser built, so that parameters and optimiser are in memory already.
        batch_size: images a step.
        available: bytes that can still be taken; None to ask the system.

    Raises:
        UserError: with the predicted memory, and the largest batch that would fit.
    """
    available = available_memory() if available is None else available
    if available is None:
        return

    def missing(batch):
        predicted = peak_training_memory(model, batch, model.optimizer)
        return predicted.total - predicted.parameters - predicted.optimizer - available

    if missing(batch_size) <= 0:
        return
    fits, fits_not = 0, batch_size
    while fits_not - fits > 1:
        batch = (fits + fits_not) // 2
        fits, fits_not = (batch, fits_not) if missing(batch) <= 0 else (fits, batch)
    needed = peak_training_memory(model, batch_size, model.optimizer).total
    raise UserError(
        f"A training step of {model.name} with a batch of {batch_size:,} needs {_in_words(needed)} of memory as "
        f"predicted from its layers, and {_in_words(needed - missing(batch_size))} are there for it; "
        + (f"a batch of {fits:,} would fit." if fits else "not even one image would fit: take smaller ones.")
    )


@contextlib.contextmanager
def shortage_told(batch_size):
    """Within, TensorFlow's report that memory has run out becomes a UserError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"Memory ran out in a training step with a batch of {batch_size:,}; choose a smaller one, or end other "
            "programs. What is finished is kept."
        ) from error


def available_memory():
    """Bytes that this process can still take, by the machine, its container and its own limit; None if not known."""
    left = []
    with contextlib.suppress(OSError, KeyError):
        left.append(_numbers("/proc/meminfo")["MemAvailable:"] * 1024)
    for limit, used, statistics in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            left.append(int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()))
            left[-1] += _numbers(CGROUP / statistics).get("inactive_file", 0)
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    if own != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, KeyError):
            left.append(own - _numbers("/proc/self/status")["VmSize:"] * 1024)
    return max(0, min(left)) if left else None


def _numbers(path):
    """A dict from the first word of each line to the whole number that is its second."""
    words = (line.split() for line in pathlib.Path(path).read_text().splitlines())
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def _in_words(size):
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{max(0, size) / 1e6:,.0f} MB"
