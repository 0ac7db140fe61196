import json
import os
import pathlib
import resource
import runpy
import shutil
import subprocess
import sys

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks
from PIL import Image

from tfproject import notebook
from tfproject.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("[1-9]_*.py"))}
NAMES = ("1_Baseline_CNN_CIFAR", "2_Experiments", "3_Interpretability", "4_Transfer_learning", "5_Open_project")
IN_A_KERNEL = "3_Interpretability"  # the others run as scripts, without Jupyter
PICTURE = {"image/png", "image/jpeg"}
SECONDS = 300  # of processor time: on two cores well under three minutes


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository with nothing in it but the notebooks' folder, and no setting."""
    monkeypatch.delenv("PROFILE", raising=False)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_there_are_five():
    assert tuple(SCRIPTS) == NAMES


def assert_same(notebook_path, script):
    made, written = jupytext.read(notebook_path), jupytext.read(script)
    made.metadata = written.metadata  # the kernel's name is not in the script
    compare_notebooks(made, written, "py:percent")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script(name):
    assert_same(SCRIPTS[name].with_suffix(".ipynb"), SCRIPTS[name])


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_long(name):
    for cell in jupytext.read(SCRIPTS[name]).cells:
        assert len(cell.source.splitlines()) <= 15, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_it_was_executed_on_the_real_data(name):
    cells = [cell for cell in nbformat.read(SCRIPTS[name].with_suffix(".ipynb"), 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any(notebook.SAID["cpu"] in output.get("text", "") for output in outputs)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert sum(not PICTURE.isdisjoint(output.get("data", ())) for output in outputs) >= 5
    assert str(ROOT) not in json.dumps(outputs)


def on_its_own(name):
    """A parameter of a test that takes minutes: any process may run it."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@pytest.mark.parametrize("name", [on_its_own(name) for name in NAMES if name != IN_A_KERNEL])
def test_it_runs_as_a_script(name, elsewhere):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = _processor_seconds()
    subprocess.run([sys.executable, SCRIPTS[name]], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert _processor_seconds() - before < SECONDS
    assert len(list((elsewhere / "runs" / "notebooks-quick").iterdir())) == 1
    assert sorted(path.name for path in elsewhere.iterdir() if path.is_dir()) == ["notebooks", "runs"]


@pytest.mark.xdist_group(IN_A_KERNEL)
def test_it_runs_as_a_notebook(elsewhere):
    execute = runpy.run_path(str(ROOT / "notebooks" / "execute.py"))["execute"]
    before, goal = _processor_seconds(), elsewhere / "notebooks" / f"{IN_A_KERNEL}.ipynb"
    execute(SCRIPTS[IN_A_KERNEL], goal)
    assert _processor_seconds() - before < SECONDS
    assert_same(goal, SCRIPTS[IN_A_KERNEL])
    outputs = [output for cell in nbformat.read(goal, 4).cells if cell.cell_type == "code" for output in cell.outputs]
    assert notebook.SAID["quick"] in outputs[0].text
    assert sum(not PICTURE.isdisjoint(output.get("data", ())) for output in outputs) >= 20
    assert not any(output.get("name") == "stderr" for output in outputs)


def _processor_seconds():
    """Of processes that have ended, started from here or from there."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_runs_go_to_the_repository_from_anywhere_in_it(elsewhere, monkeypatch):
    setting = notebook.begin("some-task")
    assert pathlib.Path.cwd() == elsewhere
    assert setting == ("quick", "synthetic", pathlib.Path("runs/notebooks-quick/some-task"), None)
    monkeypatch.setenv("PROFILE", "cpu")
    assert notebook.begin("some-task")[:3] == ("cpu", "real", pathlib.Path("runs/notebooks-cpu/some-task"))


def test_results_are_taken_where_they_are_finished(elsewhere, monkeypatch):
    finished, begun = pathlib.Path("results/finished"), pathlib.Path("results/begun")
    for folder in (finished, begun):
        (elsewhere / folder).mkdir(parents=True)
    (elsewhere / finished / "metrics.json").write_text("{}")
    assert notebook.begin("some-task").published(finished) is None  # the quick profile has its own
    monkeypatch.setenv("PROFILE", "cpu")
    setting = notebook.begin("some-task")
    assert setting.published(finished) == finished
    assert setting.published(begun) is None


def test_mistakes_are_told(elsewhere, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PROFILE", "slow")
    with pytest.raises(UserError, match="'slow'.*quick, cpu"):
        notebook.begin("some-task")
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.chdir(tmp_path_factory.mktemp("outside"))
    with pytest.raises(UserError, match="not inside the repository"):
        notebook.begin("some-task")


def test_a_table_shows_what_the_file_holds(tmp_path):
    (tmp_path / "rows.csv").write_text("name,accuracy,seeds,other\na|b,0.98765,3,x\nplain,,12000,y\n")
    shown = notebook.to_markdown(tmp_path / "rows.csv", {"name": "", "accuracy": ".1%", "seeds": ",.0f"})
    assert shown.split("\n") == [
        "| name | accuracy | seeds |",
        "| --- | ---: | ---: |",
        r"| a\|b | 98.8% | 3 |",
        "| plain |  | 12,000 |",
    ]


def test_a_table_shows_differences_in_points():
    rows = [{"step": "a", "gain": 0.1058}, {"step": "b", "gain": None}]
    assert notebook.to_markdown(rows, {"step": "", "gain": "+.2p"}).split("\n") == [
        "| step | gain (points) |", "| --- | ---: |", "| a | +10.58 |", "| b |  |",
    ]  # fmt: skip


def test_a_table_shows_rows_too():
    rows = [{"variation": "flip_shift", "p_corrected": 0.0312}, {"variation": "none", "p_corrected": None}]
    assert notebook.to_markdown(rows, {"variation": "", "p_corrected": ".2g"}).split("\n")[2:] == [
        r"| flip\_shift | 0.031 |",
        "| none |  |",
    ]


def test_a_figure_has_a_caption_and_words_for_those_who_do_not_see_it(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    path = tmp_path / "colour_kernels.png"
    Image.new("RGB", (2, 2)).save(path)
    notebook.show(path)
    notebook.show(path, caption="VGG16: kernels")
    notebook.show(path, caption="VGG16: kernels", alt="squares")
    alts = [one.alt for one in shown if hasattr(one, "alt")]
    assert alts == ["colour_kernels", "VGG16: kernels", "squares"]
    assert [one.data for one in shown if not hasattr(one, "alt")] == 2 * ["VGG16: kernels"]
