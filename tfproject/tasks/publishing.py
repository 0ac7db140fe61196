"""What every task's results share on their way into the repository."""

import base64
import collections
import hashlib
import pathlib
import re

from tfproject.files import write_atomically
from tfproject.report import figures
from tfproject.training.run import RECORD, Run

EMBEDDED = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def copy(source, goal, paths, name=None):
    """Copy files to the same places below another folder, or a single one under another name.

    A page comes last, and points to the figures below the new folder that it has embedded where it was: a repository
    then holds each of them once.

    Args:
        source: the folder that all paths lie below.
        goal: the other folder.
        paths: pathlib.Paths.
        name: of the copy, for a single path.
    """
    for path in sorted(paths, key=lambda path: path.suffix == ".html"):
        to = pathlib.Path(goal) / (name or path.relative_to(source))
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(to, _linked(path.read_text(), to.parent) if path.suffix == ".html" else path.read_bytes())


def record(run, *more):
    """The files of a run's numbers that are there, and of further names: one that diverged at once has no history."""
    return [run / name for name in (*RECORD, *more) if (run / name).exists()]


def usual_precision(runs):
    """The precision that most of the runs (directories) ask for by its name; None where none does."""
    asked = [Run(run).read("recipe.json")["asked"]["precision"] for run in runs]
    return next((name for name, _ in collections.Counter(asked).most_common() if name != "auto"), None)


def _linked(page, folder):
    """A page's text with relative addresses for embedded figures that lie below the folder, and the others compact."""
    places = {_digest(path.read_bytes()): path.relative_to(folder).as_posix() for path in folder.glob("**/*.png")}

    def address(found):
        png = base64.b64decode(found[1])
        return places.get(_digest(png)) or figures.address(png)

    return EMBEDDED.sub(address, page)


def _digest(content):
    return hashlib.sha256(content).digest()
