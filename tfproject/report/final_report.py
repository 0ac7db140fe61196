"""The final report: one page and one PDF about all tasks, made from what their runs left and from nothing else."""

import base64
import bisect
import dataclasses
import os
import pathlib
import re
import struct

from tfproject.errors import UserError
from tfproject.files import write_atomically
from tfproject.report import figures, style
from tfproject.report.report_parts import Picture, Table
from tfproject.report.report_sections import FOLDERS, sections
from tfproject.report.style import styled

TITLE = "Convolutional networks from CIFAR-10 to EuroSAT"
SUBTITLE = "The report of tfproject, made from the artefacts of its runs."
MOST_PAGES = 16
# Tagged, so that a screen reader finds tables and alt texts; a fixed identifier, so that the same report has the same
# bytes.
PDF = {"pdf_variant": "pdf/ua-1", "pdf_identifier": b"tfproject"}
COMMANDS = {
    "task1": "tfproject task1 --data real --publish",
    "task2": "tfproject task2 --data real --precision mixed_bfloat16 --publish",
    "task3": "tfproject task3 --data real --second MODEL.keras --publish",
    "task4": "tfproject task4 --data real --publish",
    "task5": "tfproject task5 --data real --precision mixed_bfloat16 --publish",
}
COURSE = (
    "The course project's numbers are single runs and come without intervals, so a difference is that of our mean to "
    "its number, and the interval is that of our mean alone.",
    "On CIFAR-10 they are of ten epochs, at the epoch where accuracy on test was highest, which flatters them; here "
    "test images were looked at once, at the end. On buildings they are of another edition of the set, and on EuroSAT "
    "of another split: a guide, not a comparison like for like.",
)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A section that is not a task's."""

    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


def write(results="results", out="docs"):
    """Write report.html and report.pdf. Where they would be the same as they are, the files are left alone.

    The PDF has fewer figures where all would not fit its 16 pages, and says so.

    Args:
        results: the folder that the tasks published to.
        out: the folder to write to; made if it is not there.

    Returns:
        The pathlib.Paths of page and PDF.

    Raises:
        UserError: if there are no results, WeasyPrint cannot be loaded, or a file cannot be written.
    """
    results, out = pathlib.Path(results), pathlib.Path(out)
    if not any((results / folder).is_dir() for folder in FOLDERS.values()):
        raise UserError(f"{results} holds no results of any task; give the folder that --publish wrote.")
    found = sections(results)
    written = {"report.html": to_html(found, results, out).encode(), "report.pdf": to_pdf(found)}
    out.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        path = out / name
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
    return tuple(out / name for name in written)


def to_html(found, results, out):
    """The page, which needs nothing beside itself.

    Args:
        found: Sections.
        results, out: folders, between which the links to the artefacts lead.

    Returns:
        HTML text.
    """
    way = pathlib.Path(os.path.relpath(pathlib.Path(results).resolve(), pathlib.Path(out).resolve())).as_posix()
    return _render(found, address=lambda source: f"{way}/{source}", fonts=())


def to_pdf(found):
    """The report as a tagged PDF of at most MOST_PAGES pages, in the fonts that come with matplotlib.

    Args:
        found: Sections.

    Returns:
        PDF bytes, the same for the same Sections.
    """
    try:
        import weasyprint
    except (ImportError, OSError) as error:  # OSError: a library of the system is missing
        raise UserError(
            f"The PDF needs WeasyPrint, which cannot be loaded ({error}); install tfproject[report] and, on Debian or "
            "Ubuntu, libpango-1.0-0 and libpangoft2-1.0-0."
        ) from error
    # Where HarfBuzz is too old to cut fonts down, fontTools does, and dates them.
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    fitting, fonts = {}, _fonts()

    def fits(left_out):
        html = _render(_without_pictures(found, left_out), address=None, fonts=fonts)
        document = weasyprint.HTML(string=html).render(**PDF)
        if len(document.pages) <= MOST_PAGES:
            fitting[left_out] = document
        return left_out in fitting

    fewest = bisect.bisect_left(range(1 + sum(len(section.pictures) for section in found)), True, key=fits)
    if fewest not in fitting:
        raise UserError(
            f"The report does not fit on {MOST_PAGES} pages even without figures; publish fewer experiments."
        )
    return fitting[fewest].write_pdf(**PDF)


def _without_pictures(found, count):
    """The sections without so many pictures, one after the other the last of the section that has most."""
    shown = [len(section.pictures) for section in found]
    for _ in range(count):
        shown[max(range(len(shown)), key=lambda i: (shown[i], i))] -= 1
    return [_with_pictures(section, most) for section, most in zip(found, shown)]


def _with_pictures(section, most):
    """The section with so many pictures, and how many others there are."""
    left = len(section.pictures) - most
    said = f"{left} more figure{'s are' if left > 1 else ' is'} in the HTML report." if left else ""
    return dataclasses.replace(section, pictures=section.pictures[:most], left_out=said)


def _fonts():
    """(family, weight, style, address) of fonts that are the same wherever matplotlib is."""
    import matplotlib

    folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    files = (
        ("Report serif", 400, "normal", "STIXGeneral"), ("Report serif", 400, "italic", "STIXGeneralItalic"),
        ("Report serif", 700, "normal", "STIXGeneralBol"), ("Report sans", 400, "normal", "DejaVuSans"),
        ("Report sans", 600, "normal", "DejaVuSans-Bold"), ("Report sans", 700, "normal", "DejaVuSans-Bold"),
        ("Report mono", 400, "normal", "DejaVuSansMono"),
    )  # fmt: skip
    return tuple((*font, (folder / f"{name}.ttf").as_uri()) for *font, name in files)


def _render(found, address, fonts):
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    )
    environment.filters |= {"base64": lambda png: base64.b64encode(png).decode(), "width": _width, "tall": _tall}
    return environment.get_template("final_report.html").render(
        title=TITLE, subtitle=SUBTITLE, summary=_summary(found), sections=found, course=_course(found),
        conclusions=_conclusions(found), limits=_limits(found), reproduce=_reproduce(found), address=address,
        fonts=fonts,
    )  # fmt: skip


def _width(png):
    """CSS pixels: of the PNG's, as many as make a figure 46 rem wide at most."""
    return min(_size(png)[0], 736)


def _tall(png):
    """Whether its text would be too small to read at the height of other figures, as with ten rows or more."""
    width, height = _size(png)
    return height > 0.65 * width


def _size(png):
    """Width and height of PNG bytes, from their head."""
    return struct.unpack(">II", png[16:24])


def _summary(found):
    there, missing = [s for s in found if not s.missing], [s for s in found if s.missing]
    compared = [comparison for section in there for comparison in section.comparisons]
    hours = sum(training.seconds for section in there for training in section.trainings) / 3600
    count = sum(len(section.trainings) for section in there)
    if there:
        yield (
            f"Of the {len(found)} tasks {len(there)} {'has' if len(there) == 1 else 'have'} results here, from {count} "
            f"training runs that took {hours:.1f} hours."
        )
    if compared:
        above, below, unclear = _against(compared)
        many = "accuracies" if len(compared) > 1 else "accuracy"
        told = f"Of {len(compared)} {many} that the course project gives too, ours is above in {len(above)}"
        if below:
            told += f", below in {len(below)} ({'; '.join(c.what for c in below)})"
        if unclear:
            told += f", and not shown to differ in {len(unclear)} ({'; '.join(c.what for c in unclear)})"
        yield (
            f"{told}; above and below mean that our whole 95 % interval lies beyond their single number. {COURSE[1]}"
        )
    if missing:
        yield f"Not finished yet, and so missing below: {', '.join(f'Task {s.name[4:]}' for s in missing)}."


def _against(compared):
    """The comparisons whose interval is above the course project's number, below it, and neither."""
    above = [c for c in compared if c.ours.low is not None and c.ours.low > c.theirs]
    below = [c for c in compared if c.ours.high is not None and c.ours.high < c.theirs]
    return above, below, [c for c in compared if c not in above and c not in below]


def _course(found):
    compared = [comparison for section in found for comparison in section.comparisons]
    if not compared:
        return _Part(text=("Missing: none of the results that exist has a counterpart in the course project.",))
    rows = tuple(
        (c.task, c.what, str(c.ours), f"{c.theirs:.1%}", _points(c.ours, c.theirs), c.ours.basis or "no interval")
        for c in compared
    )
    table = Table(
        "Accuracy on test, ours and the course project's.",
        ("task", "what", "ours (95 % interval)", "course project", "difference, points", "interval"),
        rows,
    )
    drawn = [(f"{c.task}: {c.what}", c.ours.mean, c.ours.low, c.ours.high, c.theirs) for c in compared]
    alt = "Our accuracy and the course project's on a line each: "
    alt += "; ".join(f"{name}, {ours:.1%} and {theirs:.1%}" for name, ours, _, _, theirs in drawn) + "."
    picture = Picture(
        figures.to_png_bytes(comparison_figure(drawn)),
        "Accuracy on test: ours with the 95 % interval (dot) and the course project's (ring).", alt,
    )  # fmt: skip
    return _Part(COURSE, (table,), (picture,))


def _points(ours, theirs):
    points = f"{100 * (ours.mean - theirs):+.1f}"
    if ours.low is None:
        return points
    return f"{points} ({100 * (ours.low - theirs):+.1f} to {100 * (ours.high - theirs):+.1f})"


@styled
def comparison_figure(rows):
    """Our accuracies with intervals beside others', a line each.

    Args:
        rows: (name, mean, low, high, other) of each, shares; low and high None where there is no interval.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(style.WIDTH, 0.9 + 0.3 * len(rows)))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (_, mean, low, high, other) in enumerate(rows):
        axes.plot([other, mean], [place, place], color=style.PALE, linewidth=3, zorder=1)
        if low is not None:
            axes.plot([max(low, 0), min(high, 1)], [place, place], color=style.PALETTE[0], linewidth=1.6, zorder=2)
        ours = axes.scatter([mean], [place], s=34, color=style.PALETTE[0], zorder=3)
        theirs = axes.scatter(
            [other], [place], s=34, facecolors="white", edgecolors=style.INK, linewidths=1.2, zorder=3
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.margins(y=0.6 / max(len(rows), 1))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("accuracy on test")
    axes.legend(
        [ours, theirs],
        ["ours", "course project"],
        loc="upper left",
        bbox_to_anchor=(0, 1.0 + 0.35 / len(rows)),
        ncols=2,
    )
    return figure


def _conclusions(found):
    said = [sentence for section in found for sentence in section.conclusions]
    compared = [comparison for section in found for comparison in section.comparisons]
    if compared:
        above, below, _ = _against(compared)
        most = max(compared, key=lambda c: abs(c.ours.mean - c.theirs))
        said.append(
            f"The largest difference to the course project is {_points(most.ours, most.theirs)} points, for "
            f"{most.what} ({most.task}); our interval is above their number in {len(above)} of {len(compared)}, below "
            f"in {len(below)}."
        )
    return said or ["None: there are no results to conclude from."]


def _limits(found):
    said = [limit for section in found for limit in section.limits]
    lossy = [s.name[4:] for s in found if any("compressed again" in text for text in s.text)]
    if lossy:
        said.append(
            f"The CIFAR-10 images of Task {' and '.join(lossy)} are a lossy copy, which is harder than the original "
            "that others' numbers are of."
        )
    if missing := [section.name[4:] for section in found if section.missing]:
        said.append(f"Nothing is said of Task {', '.join(missing)}, whose results do not exist yet.")
    return said


def _reproduce(found):
    rows, environments = [], {}
    for section in found:
        trainings = section.trainings
        seeds = sorted({training.seed for training in trainings})
        hours = f"{sum(training.seconds for training in trainings) / 3600:.2f}" if trainings else "not recorded"
        rows.append((
            f"Task {section.name[4:]}", COMMANDS[section.name], "missing" if section.missing else str(len(trainings)),
            ", ".join(map(str, seeds)), "" if section.missing else hours,
        ))  # fmt: skip
        for training in trainings:
            machine = (f"Task {section.name[4:]}", *_machine(training.environment))
            environments.setdefault(machine, set()).add(_commit(training.environment))
    versions = {machine[-1] for machine in environments}
    alike = versions.pop() if len(versions) == 1 else ""
    machines = tuple(
        (*(machine[:-1] if alike else machine), ", ".join(sorted(commits)))
        for machine, commits in sorted(environments.items())
    )
    tables = [Table(
        "What was run. Hours are of training and validation, of the published runs, one after the other.",
        ("task", "command", "runs", "seeds", "hours"), tuple(rows),
    )]  # fmt: skip
    if machines:
        tables.append(Table(
            f"On what, and with what{alike and f': all with {alike}'}. A commit with a + had changes beside it.",
            ("for", "processor", "cores", "GPUs", *(() if alike else ("versions",)), "commits"), machines,
        ))  # fmt: skip
    return _Part(
        (
            "In the folder of the repository, on Debian or Ubuntu with Python 3.11 to 3.13: make study DATA=real "
            "installs the exact versions of requirements.txt and runs all tasks; the commands below run one each. "
            "Interrupted, a run goes on when it is started again; the same seed on the same machine and versions "
            "gives the same weights, bit for bit.",
            "make report writes this report anew from the files in results/ in a few minutes or less, without "
            "training anything, and changes nothing where nothing changed.",
        ),
        tuple(tables),
    )


def _commit(environment):
    commit, _, changes = str(environment["commit"] or "unknown").partition("+")
    return commit[:7] + ("+" if changes else "")


def _machine(environment):
    processor = environment["processor"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    return (
        re.sub(r"\((R|TM)\)", "", processor["name"]), str(environment["cores"]),
        ", ".join(environment["gpus"]) or "none", f"Python {environment['python']}, {versions}",
    )  # fmt: skip
