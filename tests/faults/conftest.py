"""What the tests of faults share: the count of what was done and what came of it, processes, and small disks."""

import contextlib
import os
import pathlib
import subprocess

import processes
import pytest

COUNTED = ("faults injected", "survived", "inputs tried", "wrong answers", "lost results")


class Tally:
    """Counts as the tests go; every judgement is an assertion, too."""

    def __init__(self):
        self.counts = dict.fromkeys(COUNTED, 0)

    @contextlib.contextmanager
    def fault(self):
        """Around an injected fault and what shows that it was survived."""
        self.counts["faults injected"] += 1
        yield
        self.counts["survived"] += 1

    def assert_right(self, right, told=""):
        """An input was tried; whether the answer (a result or a refusal) was right."""
        self.counts["inputs tried"] += 1
        self.counts["wrong answers"] += not right
        assert right, told

    def result(self, found, expected, told=""):
        """What came out after a fault, against what comes out without."""
        same = found == expected
        self.counts["lost results"] += not same
        assert same, told or "the result is another one"


TALLY = Tally()


@pytest.fixture(scope="session")
def tally():
    return TALLY


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("faults: " + ", ".join(f"{name} {n:,}" for name, n in TALLY.counts.items()))


@pytest.fixture
def child():
    """Starts processes (see processes.Child), none of which outlives the test."""
    started = []

    def start(*arguments, **options):
        started.append(processes.Child(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.is_alive():
            each.process.kill()
            each.process.join()


class Disk:
    """A file system of its own with a given size.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path):
        self.path = path

    def fill(self):
        """Leave no room at all."""
        with contextlib.suppress(OSError), open(self.path / "filler", "ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self):
        (self.path / "filler").unlink(missing_ok=True)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)


@pytest.fixture
def disk(tmp_path):
    """A function from a size ("4m") to a Disk; skips where no file system can be mounted."""
    mounted = []

    def mount(size):
        place = tmp_path / "disk"
        place.mkdir()
        done = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True
        ).returncode == 0  # fmt: skip
        if not done:
            pytest.skip("a small file system can be mounted by root only")
        mounted.append(place)
        return Disk(pathlib.Path(place))

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", place], check=True)
