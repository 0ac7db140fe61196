"""Processes of the tests' own, to be killed, starved and counted on: they start in a moment, forked from one that has
imported TensorFlow and not yet used it."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import traceback

from tfproject.errors import UserError

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "tensorflow", "keras", "sklearn.model_selection", "tfproject.training", "tfproject.evaluation",
    "tfproject.models.saved_models", "tfproject.experiments", "tfproject.interpret.samples", "tfproject.tools.mapping",
])  # fmt: skip
NEVER = 1 << 60
WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")  # Python's audit events of files


class Child:
    """A function in a process of its own.

    Attributes:
        process: its multiprocessing.Process.
        output, errors: files with what it wrote to the screen, in a folder beside the directory or `beside`.
        events: how often it has opened, renamed, removed or made a file below `directory` so far.
    """

    def __init__(self, function, directory, *arguments, name="child", kill_at=NEVER, beside=None):
        beside = pathlib.Path(beside or directory).with_suffix(".said")
        beside.mkdir(parents=True, exist_ok=True)
        self.output, self.errors = (beside / f"{name}-{kind}" for kind in ("output", "errors"))
        self._events = CONTEXT.Value("q", 0)
        streams = self.output, self.errors
        self.process = CONTEXT.Process(
            target=_run, args=(function, str(directory), arguments, streams, self._events, kill_at)
        )
        self.process.start()

    @property
    def events(self):
        return self._events.value

    @property
    def said(self):
        """What it wrote to the error stream."""
        return self.errors.read_text() if self.errors.exists() else ""

    def end(self, seconds=240):
        """Wait for its end: the exit code, or minus the signal that ended it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"hangs: {self.said[-2000:]}")
        return self.process.exitcode

    def end_well(self):
        code = self.end()
        assert code == 0, self.said[-3000:]

    def signal(self, number):
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def kill_after(self, seconds):
        """Kill -9 after so long; whether it was still at work then."""
        self.process.join(seconds)
        self.signal(signal.SIGKILL)
        return self.end() == -signal.SIGKILL


def _run(function, directory, arguments, streams, events, kill_at):
    for stream, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch(event, details):
        if event in WATCHED and details and isinstance(details[0], (str, os.PathLike)):
            if os.fspath(details[0]).startswith(directory):
                events.value += 1
                if events.value == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        code = function(directory, *arguments)
    except UserError as error:  # as the command line does
        print(f"tfproject: {error}", file=sys.stderr)
        code = 2
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def one_sentence(text):
    """Whether a program's last words are one line that a person can act on."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return len(lines) == 1 and lines[0].startswith("tfproject: ") and lines[0].endswith((".", ")"))


def command(directory, *arguments):
    """The `tfproject` command; `directory` is watched only."""
    from tfproject import cli

    return cli.main([str(argument) for argument in arguments])
