"""The README's numbers are those of the artefacts, its links lead somewhere, and its commands do what it says."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image

from tfproject import cli
from tfproject.data.decoding import decode_image
from tfproject.data.synthetic.tiles import land_cover
from tfproject.report import readme

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
TFPROJECT = ".venv/bin/tfproject "
# The same command on less: what takes hours or the network does it on tiles that lie in the folder.
LESS = {
    # The notebooks' tests run the tasks whole.
    "task1 --data real": "task1 --data synthetic --only custom_cnn",
    "task2 --data real": "task2 --data synthetic --only overfit",
    "task3 --data real": "task3 --data synthetic --only CustomCNN",
    "task4 --data real": "task4 --data synthetic --only parts",
    "task5 --data real": "task5 --data synthetic --only exploration",
    "--data real --split-files eurosat-random": "--data tiles --epochs 1 --batch-size 32 "
    "--precision float32 --jit-compile false",
    "interpret saved_models/eurosat_best.keras --data eurosat --split-files eurosat-random":
        "interpret saved_models/eurosat_best.keras --data tiles --profile quick",
    "--data eurosat --split-files eurosat-random": "--data tiles",
    "--data my_region/": "--data tiles",
    "prepare eurosat": "prepare synthetic-land-cover",
    "check eurosat": "check tiles",
}


def commands():
    """What stands in shell blocks and in tables, without the remarks."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).splitlines()
    found = [line.split(" #")[0].strip() for line in lines] + re.findall(r"`((?:\.venv/bin/|make )[^`]+)`", TEXT)
    return tuple(dict.fromkeys(filter(None, found)))


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
OURS = [command.removeprefix(TFPROJECT) for command in commands() if command.startswith(TFPROJECT)]
MAKE = [command for command in commands() if command.startswith("make ")]


def test_the_results_are_those_of_the_artefacts():
    assert TEXT.split(readme.START)[1].split(readme.END)[0] == readme.results_table(ROOT)


def test_a_row_has_the_mean_of_the_seeds_and_what_the_course_had(tmp_path):
    for path in ("results/open-project", "saved_models"):
        shutil.copytree(ROOT / path, tmp_path / path)
    run = tmp_path / "results" / "task1-custom-cnn" / "whitened_cnn-seed{}" / "metrics.json"
    training = {"parameters": 1_000, "epochs": 2, "images": 50, "seconds": 90}
    scores = {"test": {"views": 1}, "test_6_views": {"views": 6}}
    card = {"scores": scores, "data": {"description": "as it was"}, "environment": {"cores": 4}}
    (tmp_path / "saved_models" / "cifar10_best.json").write_text(json.dumps(card))
    for seed, accuracy in enumerate((0.5, 0.7)):
        path = pathlib.Path(str(run).format(seed))
        path.parent.mkdir(parents=True)
        measured = {"accuracy": accuracy, "accuracy_interval": [0, 1], "count": 10}
        path.write_text(json.dumps({"training": training, "test": measured, "test_6_views": measured}))
    parts = [{"variation": "3 VGG16, fine-tuned", "scored_distinct": 9,
              "distinct": {"mean": 0.9, "low": 0.8, "high": 1.0, "values": [0.9] * 3}}]  # fmt: skip
    (tmp_path / "results" / "task4-losses").mkdir()
    (tmp_path / "results" / "task4-losses" / "metrics.json").write_text(json.dumps({"test": {"parts": parts}}))
    table = readme.results_table(tmp_path)
    assert "| a strong small CNN, from scratch | CIFAR-10, 10 test images | **60.00%** (" in table
    assert "mean of 2 seeds, 6 views) | cifar10-airbench (Jordan 2024) 94.0 %" in table
    assert "A strong small CNN: 1,000 param" in table
    assert (
        "| buildings: VGG16, fine-tuned | Terrassa Buildings, 9 test photos | **90.00%** (80.00% to 100.00%; mean of "
        "3 seeds) | the course project 60.1 %, on another edition |"
    ) in table


def test_a_task_without_results_has_no_row(tmp_path):
    (tmp_path / "results").mkdir()
    table = readme.results_table(tmp_path)
    assert "EuroSAT" not in table and "Not run yet, of Task 2:" in table


def test_every_file_that_it_points_to_exists():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(targets) >= 2
    for target in targets:
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_command_is_one_that_is_run_here():
    assert len(OURS) >= 14 and len(MAKE) >= 3
    assert sorted(commands()) == sorted([TFPROJECT + command for command in OURS] + MAKE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the saved models, and with everything else that the README's commands name."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "saved_models").mkdir()
    for path in (ROOT / "saved_models").iterdir():
        (folder / "saved_models" / path.name).symlink_to(path)
    tiles = land_cover(per_class=8).splits["all"]
    classes = json.loads((ROOT / "saved_models" / "eurosat_best.json").read_text())["class_names"]
    for number, (image, label) in enumerate(zip(tiles.images, tiles.labels, strict=True)):
        for place in (folder / "tiles" / classes[label], folder / "my_tiles"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    Image.fromarray(tiles.images[0]).save(folder / "tile.png")
    Image.fromarray(tiles.images[:12].reshape(3, 4, 64, 64, 3).swapaxes(1, 2).reshape(192, 256, 3)).save(
        folder / "scene.tif"
    )
    return folder


def of_less(command):
    """The command's arguments, on less."""
    for asked, less in LESS.items():
        if asked in command:
            return shlex.split(command.replace(asked, less))
    return shlex.split(command)


def in_minutes(command):
    """A parameter; what takes a minute or more is left to the notebooks' tests, which run these tasks, too."""
    slow = command.split()[0] in ("task2", "task3", "task4", "interpret")
    return pytest.param(command, marks=pytest.mark.long) if slow else command


@pytest.mark.parametrize("command", [in_minutes(c) for c in OURS if c.split()[0] != "serve"])
def test_it_runs(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.main(of_less(command)) == 0
    said = capsys.readouterr().out
    assert said.strip()
    reports = re.findall(r"Report: (.*)", said)
    assert all(pathlib.Path(path).exists() for path in reports)
    if command.split()[0] in ("train", "study", *(f"task{number}" for number in range(1, 6))):
        assert len(reports) == 1


def test_the_page_is_served(folder):
    (command,) = (c for c in OURS if c.split()[0] == "serve")
    call = "import sys; from tfproject.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [*shlex.split(command), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", call, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        assert "image" in httpx.get(address, timeout=30).text
        server.send_signal(signal.SIGINT)
        assert server.wait(10) is not None
    finally:
        server.kill()


def test_the_model_is_used_without_the_package(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)  # which each way to resize changes
    Image.fromarray(noise).save(folder / "tile.png", exif=turned)
    there = {}
    exec(BLOCKS[0], there)
    assert "0." in capsys.readouterr().out
    np.testing.assert_array_equal(there["tile"], decode_image(folder / "tile.png", (64, 64)))


def test_the_library_is_used_from_python(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    call = BLOCKS[1].replace('"eurosat", split_files="eurosat-random"', '"tiles"')
    call = call.replace("epochs=20", "epochs=1, batch_size=32, precision='float32', jit_compile=False")
    exec(call, {})
    assert "accuracy" in capsys.readouterr().out and (folder / "runs" / "my-run" / "model.keras").exists()


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_it_and_calls_what_there_is(command):
    # Not as a part of the make that runs the tests, whose settings it would take over.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    planned = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    called = planned.strip().splitlines()[-1]
    if called.startswith(TFPROJECT):
        cli.build_parser().parse_args(shlex.split(called.removeprefix(TFPROJECT)))
    for file in re.findall(r" -r (\S+)", planned):
        assert (ROOT / file).exists()


@pytest.mark.long
def test_the_study_on_synthetic_images(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.main(["study", "--data", "synthetic", "--profile", "quick"]) == 0
    assert (folder / "runs" / "study-synthetic-quick" / "report.html").exists()
