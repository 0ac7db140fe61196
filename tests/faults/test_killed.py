"""Kill -9 and Ctrl-C at any moment: the work goes on and ends with the same result, bit for bit."""

import os
import random
import signal
import time

import processes
import psutil
import pytest
import victims

WORKS = ("train", "study", "train_frozen", "top", "map_scene")
KILLS = 6  # of each work, half of them by the clock, half when a file is about to be opened, renamed or removed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """From the name of a work to (its result, seconds, file events) when nothing happens to it."""
    done = {}
    processes.Child(os.mkdir, tmp_path_factory.mktemp("first") / "none").end_well()  # the one to fork from is there now

    def result(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            if name == "map_scene":
                victims.write_scene(folder)
            start = time.monotonic()
            process = processes.Child(getattr(victims, name), folder / "work")
            process.end_well()
            done[name] = folder, victims.result(folder / "work"), time.monotonic() - start, process.events
        return done[name]

    return result


def killed_often(name, kills, undisturbed, child, tally, seed):
    folder, expected, seconds, events = undisturbed(name)
    moments, killed, attempt = random.Random(seed), 0, 0
    while killed < kills:
        attempt += 1
        assert attempt < 4 * kills, "it is hardly ever still at work when it shall be killed"
        directory = folder / f"{seed}-{attempt}"
        for _ in range(min(3, kills - killed)):
            with tally.fault():
                if killed % 2:
                    work = child(getattr(victims, name), directory, kill_at=moments.randint(1, events))
                    ended = work.end() == -signal.SIGKILL
                else:
                    work = child(getattr(victims, name), directory)
                    ended = work.kill_after(moments.uniform(0.05, 0.95) * seconds)
                killed += ended
                assert ended or work.process.exitcode == 0, work.said[-2000:]
            if not ended:
                tally.counts["faults injected"] -= 1  # it was done before
                tally.counts["survived"] -= 1
        child(getattr(victims, name), directory).end_well()
        tally.result(victims.result(directory), expected)


@pytest.mark.parametrize("name", ["train", "map_scene"])
def test_killed_once_it_ends_the_same(name, undisturbed, child, tally):
    killed_often(name, 1, undisturbed, child, tally, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("name", WORKS)
def test_killed_at_random_moments_it_ends_the_same(name, undisturbed, child, tally):
    killed_often(name, KILLS, undisturbed, child, tally, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.5, 3, 7, 12])
def test_ctrl_c_ends_within_five_seconds_with_one_line(child, tally, tmp_path, seconds):
    arguments = ("train", "--data", "synthetic", "--run-dir", tmp_path / "run", "--epochs", "40")
    with tally.fault():
        process = child(processes.command, tmp_path / "run", *arguments)
        process.process.join(seconds)
        start = time.monotonic()
        process.signal(signal.SIGINT)
        assert process.end(30) == 130, process.said
        assert time.monotonic() - start < 5
        lines = [line for line in process.said.splitlines() if line and not line.startswith("epoch ")]
        assert len(lines) == 1 and "interrupted; what is finished is kept, and the same command goes on" in lines[0]


def endless_step(directory, kind):
    """Ctrl-C's handler of the command line while one call of TensorFlow takes long."""
    import tensorflow as tf

    from tfproject import cli

    @tf.function
    def long():
        x = tf.random.uniform((500, 500))
        return tf.while_loop(lambda i, x: i < 10**6, lambda i, x: (i + 1, x @ x), (0, x))[1]

    cli._study = lambda arguments: long()
    os.mkdir(directory)
    return cli.main(["study"])


@pytest.mark.long
def test_ctrl_c_within_a_step_that_takes_long(child, tally, tmp_path):
    with tally.fault():
        process = child(endless_step, tmp_path / "work", 0)
        while not (tmp_path / "work").exists():
            time.sleep(0.05)
        process.process.join(4)
        process.signal(signal.SIGINT)
        assert process.end(5) == 130
        assert len(process.said.strip().splitlines()) == 1


def test_a_second_process_is_refused_and_the_first_goes_on(undisturbed, child, tally):
    folder, expected, _, _ = undisturbed("train")
    directory = folder / "shared"
    first = child(victims.train, directory, name="first")
    while not (directory / "recipe.json").exists() and first.process.is_alive():
        time.sleep(0.01)
    with tally.fault():
        second = child(victims.train, directory, name="second")
        assert second.end() == 2 and processes.one_sentence(second.said), second.said
        assert f"in use by process {first.process.pid} " in second.said
        first.end_well()
        tally.result(victims.result(directory), expected)


@pytest.mark.long
def test_ctrl_c_leaves_no_workers_behind(child, tally, tmp_path):
    with tally.fault():
        process = child(
            processes.command, tmp_path / "run", "task2", "--data", "synthetic", "--workers", 1,
            "--run-dir", tmp_path / "run", "--only", "cures",
        )  # fmt: skip
        start = time.monotonic()
        while not list((tmp_path / "run").glob("runs/*")):  # until a worker is at a trial
            assert process.process.is_alive() and time.monotonic() - start < 60, process.said
            time.sleep(0.1)
        workers = psutil.Process(process.process.pid).children(recursive=True)
        assert workers, process.said
        process.signal(signal.SIGINT)
        assert process.end(5) == 130
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive
