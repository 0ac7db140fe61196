"""Keeping what libraries' C++ parts say by themselves off the screen."""

import contextlib
import os
import sys


@contextlib.contextmanager
def native_log_silenced():
    """Silence what C++ writes to the error stream: TensorFlow as it starts (no GPU found, oneDNN is on), or libtiff.

    TF_CPP_MIN_LOG_LEVEL does not reach messages from before its logging is set up, so the stream itself is turned
    away. Python's exceptions pass as ever.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
