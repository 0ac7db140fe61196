"""Keeping what libraries' C++ parts say by themselves off the screen."""

import contextlib
import os
import sys

_TURNED_AWAY = []  # descriptors of the error stream as it was, the outermost first


@contextlib.contextmanager
def native_log_silenced():
    """Silence what C++ writes to the error stream: TensorFlow as it starts (no GPU found, oneDNN is on), or libtiff.

    TF_CPP_MIN_LOG_LEVEL does not reach messages from before its logging is set up, so the stream itself is turned
    away. Python's exceptions pass as ever.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    _TURNED_AWAY.append(stderr)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        _TURNED_AWAY.remove(stderr)
        os.close(stderr)


def error_stream():
    """The descriptor of the error stream that a person sees, also while it is turned away."""
    return _TURNED_AWAY[0] if _TURNED_AWAY else 2
