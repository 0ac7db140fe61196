"""What the notebooks share: where they are and how much they run, and tables and pictures shown below a cell."""

import csv
import os
import pathlib
from typing import NamedTuple

from tfproject.errors import UserError
from tfproject.native_log import native_log_silenced

DATA = {"quick": "synthetic", "cpu": "real"}
SAID = {
    "quick": "Profile quick: generated images and small networks. It shows how everything works; its numbers say "
    "nothing about the world.",
    "cpu": "Profile cpu: the real image sets. What is finished in results/ is not run again.",
}


class Setting(NamedTuple):
    """What a notebook runs, and where.

    Attributes:
        profile: "quick" or "cpu".
        data: "synthetic" or "real".
        directory: where its runs go, a pathlib.Path relative to the repository.
        repository: where published runs are taken from; None in a profile that takes none.
    """

    profile: str
    data: str
    directory: pathlib.Path
    repository: pathlib.Path | None

    def published(self, results):
        """The folder of published results, if this profile takes any and there are finished ones; else None."""
        finished = self.repository is not None and (self.repository / results / "metrics.json").exists()
        return self.repository / results if finished else None


def begin(task):
    """Go to the repository's folder, and say what is run.

    The environment variable PROFILE decides how much; without it, it is the quick profile.

    Args:
        task: a name for the folder below runs/.

    Returns:
        Setting.

    Raises:
        UserError: if there is no such profile, or this is not inside the repository.
    """
    profile = os.environ.get("PROFILE", "quick")
    if profile not in DATA:
        raise UserError(f"PROFILE is '{profile}'; set it to one of {', '.join(DATA)}, or leave it out.")
    here = pathlib.Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), None)
    if root is None:
        raise UserError(f"{here} is not inside the repository; start the notebook from there.")
    os.chdir(root)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_log_silenced():
        import tensorflow  # noqa: F401 - said here once, quietly, whoever imports it next
    print(SAID[profile])
    directory = pathlib.Path("runs", f"notebooks-{profile}", task)
    return Setting(profile, DATA[profile], directory, pathlib.Path(".") if profile == "cpu" else None)


def say(*sentences):
    """Show sentences as a list."""
    _display_markdown("\n".join(f"- {_plain(sentence)}" for sentence in sentences if sentence))


def table(rows, columns):
    """Show a table.

    Args:
        rows: dicts, or the path of a CSV file.
        columns: a dict from the columns to show, in order, to the format of their numbers (".1%", ",.0f"); "" for text,
            a format that ends in "p" ("+.2p") for shares shown in points.
    """
    _display_markdown(to_markdown(rows, columns))


def to_markdown(rows, columns):
    """The Markdown text of a table. Args: as `table`; a missing value leaves its cell empty."""
    if isinstance(rows, (str, os.PathLike)):
        with open(rows, newline="") as file:
            rows = list(csv.DictReader(file))
    lines = [
        [_plain(column.replace("_", " ")) + (" (points)" if form.endswith("p") else "")
         for column, form in columns.items()],
        ["---:" if form else "---" for form in columns.values()],
        *([_cell(row.get(column), form) for column, form in columns.items()] for row in rows),
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(*pictures, caption="", alt=""):
    """Show figures, one below the other.

    Args:
        pictures: matplotlib Figures, or paths of PNG files.
        caption: a line above them.
        alt: what they show, for those who do not see them; the caption if "", and without one the file's name.
    """
    from IPython.display import Image, display

    from tfproject.report import figures

    if not pictures:
        print("There is no such figure.")
    elif caption:
        _display_markdown(_plain(caption))
    for picture in pictures:
        from_file = isinstance(picture, (str, os.PathLike))
        png = pathlib.Path(picture).read_bytes() if from_file else figures.to_png_bytes(picture)
        name = pathlib.Path(picture).stem if from_file else "figure"
        picture, form = figures.compact(png)
        display(Image(picture, format=form, alt=alt or caption or name))


def _cell(value, form):
    if value in ("", None):
        return ""
    if form.endswith("p"):
        return format(100 * float(value), f"{form[:-1]}f")
    return format(float(value), form) if form else _plain(str(value))


def _plain(text):
    """Text whose signs mean nothing to Markdown."""
    for sign in "\\`*_{}[]<>|$#~":
        text = text.replace(sign, f"\\{sign}")
    return text


def _display_markdown(text):
    from IPython.display import Markdown, display

    display(Markdown(text))
