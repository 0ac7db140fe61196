"""Minutes of the whole study in its quick profile on generated images, as `make study` runs it once installed."""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time


def study_seconds(tasks=()):
    """Seconds of `tfproject study` in a process and a folder of its own; of the tasks named, or all."""
    program = "from tfproject.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    with tempfile.TemporaryDirectory() as folder:
        only = ("--only", *tasks) if tasks else ()
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program, "study", "--profile", "quick", "--run-dir", folder, *only], check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=pathlib.Path(__file__).parents[1],
        )  # fmt: skip
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=(), metavar="TASK", help="these tasks alone (default all)")
    arguments = parser.parse_args()
    import machine
    from claims import measure

    seconds = [study_seconds(arguments.only) for _ in range(arguments.rounds)]
    what = f"`make study` ({', '.join(arguments.only)})" if arguments.only else "the whole `make study`, installed"
    row = measure(what, "s", seconds, target=None if arguments.only else 360, at_most=True)
    machine.write("study", {"seconds": seconds, "claims": [row], "machine": machine.describe()})


if __name__ == "__main__":
    main()
