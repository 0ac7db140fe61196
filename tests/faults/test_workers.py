"""Workers and scheduler that are killed, and a network that is cut: no run is lost, and none is counted twice."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import processes
import pytest
import victims

pytestmark = pytest.mark.long
HERE = pathlib.Path(__file__).parent


class Cluster:
    """A scheduler and workers of Dask, each a process."""

    def __init__(self, folder):
        self.folder, self.started = folder, []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def scheduler(self):
        process = self._start("scheduler", "--port", self.port, "--host", "127.0.0.1", "--no-dashboard")
        start = time.monotonic()
        while True:  # until it listens
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return process
            assert time.monotonic() - start < 60 and process.poll() is None
            time.sleep(0.05)

    def worker(self, address=None):
        place = ["--local-directory", self.folder, "--no-dashboard", "--death-timeout", 60]
        return self._start("worker", "--nthreads", 1, *place, address or self.address)

    def _start(self, *arguments):
        environment = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(self.folder / f"dask-{len(self.started)}.log", "wb") as log:
            self.started.append(subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, arguments)], env=environment, stdout=log, stderr=log,
                start_new_session=True,
            ))  # fmt: skip
        return self.started[-1]

    def end(self):
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Cable:
    """A way to a port that can be cut and mended."""

    def __init__(self, goal):
        self.goal, self.whole, self.ends = goal, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.goal))
                self.ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.whole = False
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self.ends, self.whole = [], True


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study") / "work"
    processes.Child(victims.study, directory).end_well()
    return victims.result(directory)


def study(directory, address):
    victims.study(directory, scheduler=address)


def wait_for_a_checkpoint(directory, *others):
    start = time.monotonic()
    while not list(directory.glob("runs/*/checkpoints/epoch-*.npz")):
        assert time.monotonic() - start < 120 and all(each.process.is_alive() for each in others)
        time.sleep(0.01)


def finish(cluster, child, tally, directory, expected):
    """The study begun again where it was stopped ends as if nothing had been."""
    child(victims.study, directory, name="last").end_well()
    tally.result(victims.result(directory), expected)


def test_a_worker_is_killed(cluster, child, tally, tmp_path, expected):
    cluster.scheduler()
    first = cluster.worker()
    process = child(study, tmp_path / "work", cluster.address)
    wait_for_a_checkpoint(tmp_path / "work", process)
    with tally.fault():
        os.killpg(first.pid, signal.SIGKILL)
        cluster.worker()
        process.end_well()
        tally.result(victims.result(tmp_path / "work"), expected)


def test_the_scheduler_is_killed(cluster, child, tally, tmp_path, expected):
    scheduler = cluster.scheduler()
    cluster.worker()
    process = child(study, tmp_path / "work", cluster.address)
    wait_for_a_checkpoint(tmp_path / "work", process)
    with tally.fault():
        os.killpg(scheduler.pid, signal.SIGKILL)
        assert process.end(90) == 2 and processes.one_sentence(process.said), process.said[-3000:]
        assert "begin again to go on" in process.said
        finish(cluster, child, tally, tmp_path / "work", expected)


@pytest.mark.parametrize("whose", ["worker", "study"])
def test_the_network_is_cut_for_a_while(cluster, child, tally, tmp_path, expected, whose):
    cluster.scheduler()
    cable = Cable(cluster.port)
    cluster.worker(cable.address if whose == "worker" else None)
    process = child(study, tmp_path / "work", cable.address if whose == "study" else cluster.address)
    wait_for_a_checkpoint(tmp_path / "work", process)
    with tally.fault():
        cable.cut()
        time.sleep(5)
        cable.mend()
        if whose == "worker":
            cluster.worker()  # Dask ends a worker that has lost its scheduler
            process.end_well()
        else:
            code = process.end(120)
            assert code == 0 or code == 2 and processes.one_sentence(process.said), process.said[-3000:]
        finish(cluster, child, tally, tmp_path / "work", expected)


def test_a_scheduler_that_says_nothing_is_refused(child, tally, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute, tally.fault():
        process = child(study, tmp_path / "work", f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        assert process.end(60) == 2 and processes.one_sentence(process.said), process.said[-3000:]
        assert "does not answer" in process.said
