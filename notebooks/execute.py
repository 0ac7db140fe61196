"""Execute the notebooks and keep their outputs: `python notebooks/execute.py [NAME ...]`.

The scripts are what is edited; each .ipynb is made anew from the script of the same name. PROFILE decides how much is
run (see tfproject/notebook.py).
"""

import pathlib
import sys
import time

import jupytext
import nbclient
import nbformat

HERE = pathlib.Path(__file__).parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def execute(script, goal):
    """Run a script as a notebook and write it with its outputs.

    Args:
        script: path of the percent script.
        goal: path of the .ipynb to write; where the cells run.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; nothing is written then.
    """
    notebook = jupytext.read(script)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same each time, so that only what changed differs
    resources = {"metadata": {"path": str(goal.parent)}}
    nbclient.NotebookClient(notebook, timeout=None, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress and warnings are for the one who waits
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, goal)


if __name__ == "__main__":
    for path in sorted(HERE.glob("[1-5]_*.py")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            start = time.perf_counter()
            execute(path, path.with_suffix(".ipynb"))
            print(f"{path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
