import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import toy
from PIL import Image

from tfproject import cli
from tfproject.errors import UserError
from tfproject.models import saved_models
from tfproject.native_log import error_stream, native_log_silenced
from tfproject.report import model_card

COMMAND = [sys.executable, "-c", "import sys; from tfproject.cli import main; sys.exit(main())"]


def run(*arguments, timeout=240):
    """The command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained network for the toy set's three classes."""
    path = tmp_path_factory.mktemp("model") / "toy.keras"
    saved_models.save(toy.network((16, 16, 3), 3), path, ("red", "green", "blue"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_set):
    """The toy set as a folder per class, split, and one file that is no image."""
    root = tmp_path_factory.mktemp("images")
    for split_name, split in toy_set.splits.items():
        for image, label, name in zip(split.images, split.labels, split.names):
            place = root / split_name / toy_set.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / name)
    (root / "train" / "red" / "broken.jpg").write_text("<html>not found</html>")
    return root


def test_help_answers_at_once_without_tensorflow():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--help")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0 and "predict" in done.stdout
    assert min(seconds) < 0.5
    code = "import sys; from tfproject.cli import build_parser; build_parser(); print('tensorflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["predict", "{model}"], "IMAGE|FOLDER"),
        (["predict", "{tmp}/none.keras", "{folder}"], "none.keras"),
        (["predict", "{model}", "{tmp}/none.png"], "none.png"),
        (["predict", "{tmp}/text.keras", "{folder}"], "damaged or not a Keras model"),
        (["predict", "{model}", "{folder}", "--csv", "{tmp}/no/such/folder.csv"], "cannot be written"),
        (["predict", "{model}", "{tmp}/none.png", "--explain", "{tmp}/text.json"], "text.json is no folder"),
        (["predict", "{model}", "{tmp}/none.png", "--explain", "{tmp}/text.json/a/b"], "text.json is no folder"),
        (["evaluate", "{model}", "--data", "{tmp}/nowhere"], "nowhere"),
        (["evaluate", "{model}", "--data", "cifr10"], "cifar10"),
        (["evaluate", "{model}", "--data", "synthetic-objects"], "knows the classes red, green, blue"),
        (["interpret", "{model}", "--data", "synthetic-objects"], "knows the classes red, green, blue"),
        (["task3", "--publish"], "publish from the folder of tfproject's own repository"),
        (["train", "--epochs", "0"], "epochs is 0"),
        (["train", "--epochs", "many"], "invalid int value: 'many'"),
        (["train", "--optimizer", "adamax"], "one of sgd"),
        (["train", "--augment", "rotate", "--run-dir", "{tmp}/run"], "Unknown augmentation 'rotate'"),
        (["train", "--data", "{folder}", "--on-bad-image", "fail"], "broken.jpg"),
        (["task5", "--publish"], "publish from the folder of tfproject's own repository"),
        (["train", "--split-files", "{tmp}/lists"], "lists"),
        (["data", "check", "{tmp}/nowhere"], "nowhere"),
        (["task2", "--run-dir", "{tmp}/text.json"], "text.json cannot be read or written (File exists)"),
        (["map", "{model}", "."], "There is no file ."),
    ],
)
def test_a_mistake_is_answered_by_one_sentence_and_code_2(
    arguments, words, model, folder, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "text.json").write_text("{}")
    arguments = [a.format(model=model, folder=folder, tmp=tmp_path) for a in arguments]
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    errors = capfd.readouterr().err
    assert code == 2
    assert words in errors and "Traceback" not in errors
    assert len([line for line in errors.strip().splitlines() if "warning" not in line]) == 1


def test_predict_names_classes_and_lists_bad_files(model, folder, tmp_path, capsys, toy_set):
    arguments = ["predict", str(model), str(folder / "train"), str(folder / "test")]
    assert cli.main([*arguments, "--csv", str(tmp_path / "p.csv"), "--json", str(tmp_path / "p.json")]) == 0
    text = capsys.readouterr().out
    assert "broken.jpg" in text and "1 of 151 files could not be read" in text
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    content = json.loads((tmp_path / "p.json").read_text())
    assert [row["class"] for row in rows] == [p["class"] for p in content["predictions"]]
    assert content["bad"][0]["file"].endswith("broken.jpg")
    saved = saved_models.load(model)
    by_name = {name: image for s in toy_set.splits.values() for name, image in zip(s.names, s.images)}
    images = np.stack([by_name[os.path.basename(row["file"])] for row in rows]).astype("float32")
    expected = saved.model.predict(images, verbose=0)
    np.testing.assert_allclose([[float(r[c]) for c in saved.class_names] for r in rows], expected, atol=1e-5)


def test_predict_and_evaluate_agree(folder, tmp_path, capsys):
    # Class folders are sorted by name, so a model for this folder has its classes in that order.
    path = tmp_path / "toy.keras"
    saved_models.save(toy.network((16, 16, 3), 3), path, ("blue", "green", "red"))
    out = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(path), "--data", str(folder), "--split", "test", "--json", str(out)]) == 0
    assert cli.main(["predict", str(path), str(folder / "test"), "--json", str(tmp_path / "p.json")]) == 0
    scores = json.loads(out.read_text())
    predictions = json.loads((tmp_path / "p.json").read_text())["predictions"]
    right = sum(pathlib.Path(p["file"]).parent.name == p["class"] for p in predictions)
    assert scores["count"] == len(predictions) == 30
    assert scores["accuracy"] == pytest.approx(right / 30)
    for column, name in enumerate(scores["class_names"]):
        assert sum(row[column] for row in scores["confusion"]) == sum(p["class"] == name for p in predictions)


def test_evaluate_says_what_it_scores_and_what_the_model_may_have_seen(folder, tmp_path, capsys):
    path, out = tmp_path / "toy.keras", tmp_path / "scores.json"
    about = {"name": folder.name, "split": "a stratified hold-out", "sha256": "of another split"}
    saved_models.save(toy.network((16, 16, 3), 4), path, ("blue", "green", "grey", "red"), data=about)
    assert cli.main(["evaluate", str(path), "--data", str(folder), "--split", "val", "--json", str(out)]) == 0
    said = capsys.readouterr()
    assert f"{folder.name}, val; split: the set's own" in said.out
    assert "1 of what" in said.err and "train/red/broken.jpg" in said.err
    assert "was trained on" in said.err and "a stratified hold-out" in said.err
    scores = json.loads(out.read_text())
    assert scores["data"]["part"] == "val" and scores["data"]["bad_images"][0]["name"] == "train/red/broken.jpg"
    assert scores["class_names"] == ["blue", "green", "grey", "red"] and sum(scores["confusion"][2]) == 0
    assert [sum(row) for row in scores["confusion"]] == [10, 10, 0, 10]  # each under its own name

    assert cli.main(["evaluate", str(path), "--data", str(folder), "--split", "all", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["count"] == 180
    assert cli.main(["evaluate", str(path), "--data", str(folder / "test"), "--split", "all"]) == 0
    assert "images 30 accuracy" in " ".join(capsys.readouterr().out.split())
    for option in (["--split-method", "own"], ["--seed", "3"], ["--on-overlap", "drop"]):
        assert cli.main(["evaluate", str(path), "--data", str(folder), "--split", "all", *option]) == 2
        assert "--split all takes every image; leave out" in capsys.readouterr().err


def test_evaluate_takes_a_split_that_is_all_there_is(folder, tmp_path, capsys):
    path = tmp_path / "toy.keras"
    saved_models.save(toy.network((16, 16, 3), 3), path, ("blue", "green", "red"))
    shutil.copytree(folder / "test", tmp_path / "images" / "test")
    assert cli.main(["evaluate", str(path), "--data", str(tmp_path / "images")]) == 0
    assert "images 30 accuracy" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["evaluate", str(path), "--data", str(tmp_path / "images"), "--split", "val"]) == 2
    assert "every image (`--split all`)" in capsys.readouterr().err


def test_files_are_written_before_the_screen_which_may_be_closed(model, folder, tmp_path, monkeypatch, capsys):
    from tfproject import cost, evaluation
    from tfproject.data import audit

    out, seen = tmp_path / "out.json", []

    def told(*_, **__):
        seen.append(out.exists())
        out.unlink(missing_ok=True)
        return ""

    monkeypatch.setattr(evaluation.Predictions, "to_text", told)
    monkeypatch.setattr(evaluation, "summary_text", told)
    monkeypatch.setattr(audit, "to_text", told)
    monkeypatch.setattr(type(cost.study(toy.network((16, 16, 3), 3), 1, (16, 16, 3))), "to_text", told)
    for command in (
        ["predict", model, folder / "test"], ["evaluate", model, "--data", folder, "--split", "all"],
        ["data", "check", folder], ["profile-model", model],
    ):  # fmt: skip
        cli.main([*map(str, command), "--json", str(out)])
    assert seen == [True] * 4


def test_outputs_take_nothing_s_place(model, folder, tmp_path, capsys):
    copy, image = tmp_path / "m.keras", tmp_path / "tiles" / "a.png"
    for suffix in (".keras", ".json"):
        shutil.copy(model.with_suffix(suffix), copy.with_suffix(suffix))
    shutil.copytree(next((folder / "test").iterdir()), tmp_path / "tiles")
    next((tmp_path / "tiles").iterdir()).rename(image)
    (tmp_path / "link.csv").symlink_to(copy)
    before = {path: path.read_bytes() for path in (copy, copy.with_suffix(".json"), image)}
    for arguments, words in (
        (["--json", copy.with_suffix(".json")], "is the model's card and would be overwritten"),
        (["--csv", tmp_path / "tiles" / ".." / "m.md"], "is the model's card"),
        (["--csv", tmp_path / "link.csv"], "is the model and"),
        (["--csv", image], "is a file that is read"),
        (["--json", tmp_path / "a", "--csv", tmp_path / "." / "a"], "named for another output, too,"),
    ):
        assert cli.main(["predict", *map(str, (copy, image, *arguments))]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["predict", *map(str, (copy, tmp_path / "tiles", "--json", image))]) == 2
    assert "is an image of a folder that is read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_the_screen_may_be_named_as_a_file(model, folder, monkeypatch, capfd):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/dev" and access(path, mode))
    assert cli.main(["predict", str(model), str(folder / "test"), "--json", "/dev/stdout"]) == 0
    assert '"abstain_below": null' in capfd.readouterr().out


def test_predict_and_map_hand_their_options_on(model, folder, tmp_path, monkeypatch, capsys):
    from tfproject import evaluation, tools

    given = {}

    def recorder(name, answer=None):
        def call(*arguments, **options):
            given[name] = (arguments, options)
            if answer is None:
                raise UserError("That is enough.")
            return answer

        return call

    predictions = evaluation.Predictions(("a.png",), ("red",), np.ones((1, 1), np.float32))
    monkeypatch.setattr(evaluation, "predict_files", recorder("predict", predictions))
    monkeypatch.setattr(tools, "explain_files", recorder("explain"))
    monkeypatch.setattr(tools, "map_scene", recorder("map"))
    options = ["--abstain-below", "0.7", "--views", "8", "--precision", "mixed_bfloat16"]
    assert cli.main(["predict", str(model), str(folder / "test"), *options, "--explain", str(tmp_path / "maps")]) == 2
    (saved, paths), options = given["predict"]
    assert len(paths) == 30 and options == {"abstain_below": 0.7, "views": 8} and saved.precision == "mixed_bfloat16"
    assert given["explain"][0] == (saved, predictions, tmp_path / "maps")
    assert "a.png" in capsys.readouterr().out  # the table, though the heat maps have failed

    options = ["--nodata", "-9999", "--value-range", "0", "2750", "--bands", "3", "2", "1", "--views", "2"]
    options += ["--stride", "8", "--batch-size", "5"]
    assert cli.main(["map", str(model), str(tmp_path / "scene.tif"), *options]) == 2
    (saved, scene, directory), options = given["map"]
    assert (scene, directory) == (tmp_path / "scene.tif", tmp_path / "scene-map")
    assert options == {"no_data": -9999, "value_range": [0, 2750], "bands": [3, 2, 1], "views": 2, "stride": 8,
                       "batch_size": 5}  # fmt: skip
    assert cli.main(["map", str(model), str(scene), "--out", str(tmp_path / "there")]) == 2
    assert given["map"][0][2] == tmp_path / "there" and given["map"][1]["value_range"] is None


def test_images_of_several_sizes_are_told_and_brought_to_one(folder, tmp_path, capsys):
    root = tmp_path / "mixed"
    shutil.copytree(folder, root)
    Image.new("RGB", (30, 20)).save(root / "train" / "red" / "larger.png")
    assert cli.main(["data", "check", str(root)]) == 2
    said = capsys.readouterr()
    assert "30x20 (1)" in said.out and "--image-size" in said.err
    assert cli.main(["data", "check", str(root), "--image-size", "8", "12"]) == 0
    assert "181 images of 12x8 pixels" in capsys.readouterr().out


def test_a_network_of_ones_own_images_has_limits_of_its_own_and_needs_two_classes(folder, tmp_path, capsys):
    arguments = ["train", "--profile", "quick", "--network", "custom_cnn", "--epochs", "1", "--batch-size", "20",
                 "--augment", "flip", "--image-size", "8", "8"]  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("a page of something else")
    shutil.copytree(folder, tmp_path / "synthetic")  # which generated images are called
    broken = tmp_path / "synthetic" / "train" / "red" / "broken.jpg"
    broken.rename(broken.with_name(os.fsdecode(b"broken\xff.jpg")))
    run_it = [*arguments, "--data", str(tmp_path / "synthetic"), "--run-dir", str(tmp_path / "run")]
    assert cli.main(run_it) == 2
    assert "holds report.html and no recipe.json" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").read_text() == "a page of something else"
    (tmp_path / "run" / "report.html").unlink()
    assert cli.main(run_it) == 0
    assert "cannot be used and is left out, such as" in (said := capsys.readouterr()).err
    assert r"broken\udcff.jpg" in said.err
    assert "Test accuracy" in said.out and "image/png" in (tmp_path / "run" / "report.html").read_text()
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    told = " ".join(card["limits"])
    assert "8x8 pixels" in told and "one of the 3 classes" in told and "Sentinel" not in told
    assert card["licence"] == "to be chosen by who trained it" and card["image_size"] == [8, 8]
    card["scores"]["test"]["kappa"] = None
    assert "| undefined |" in model_card.to_markdown(card, "model.keras")
    shutil.copytree(folder / "train" / "green", tmp_path / "one" / "tiles")
    assert cli.main([*arguments, "--data", str(tmp_path / "one"), "--run-dir", str(tmp_path / "other")]) == 2
    assert "has one class only, 'tiles'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_class_without_a_training_image_is_named(folder, tmp_path, capsys):
    root = tmp_path / "images"
    shutil.copytree(folder, root)
    for path in (root / "train" / "green").iterdir():
        path.write_text("no image")
    assert cli.main(["train", "--data", str(root), "--run-dir", str(tmp_path / "run"), "--profile", "quick"]) == 2
    assert "images has no training image that can be used of green; add some" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_check_tells_what_is_wrong_with_a_set_that_cannot_be_split(folder, tmp_path, capsys):
    root, out = tmp_path / "images", tmp_path / "audit.json"
    shutil.copytree(folder / "train", root)
    for number, path in enumerate(sorted((root / "green").iterdir())[1:]):
        path.rename(root / "green" / os.fsdecode(b"\xff%d.png" % number))
    for path in root.glob("green/*.png"):
        if not path.name.startswith("train"):
            path.write_text("no image")
    assert cli.main(["data", "check", str(root), "--json", str(out)]) == 2
    said = capsys.readouterr()
    assert "'green' of images has 1 different images (39 more cannot be used)" in said.err
    assert said.out.count("not an image") == 40 and "images of 16x16 pixels in 3 classes" in said.out
    report = json.loads(out.read_text())
    assert report["bad_image_count"] == 40 and report["totals"]["green"] == 1
    assert "too few for each split" in report["refused"]


def test_profile_model_draws_the_roofline_it_measured(model, tmp_path, capsys):
    picture = tmp_path / "roofline.png"
    assert cli.main(["profile-model", str(model), "--roofline", str(picture)]) == 2
    assert "give --measure too" in capsys.readouterr().err and not picture.exists()
    assert cli.main(["profile-model", str(model), "--measure", "--roofline", str(picture)]) == 0
    assert "of roof" in capsys.readouterr().out and Image.open(picture).format == "PNG"
    assert cli.main(["profile-model", str(model), "--measure", "--roofline", str(model.with_suffix(".json"))]) == 2
    assert "the model's card" in capsys.readouterr().err


def test_data_check_counts_and_lists(folder, tmp_path, capsys):
    assert cli.main(["data", "check", str(folder), "--json", str(tmp_path / "audit.json")]) == 0
    text = capsys.readouterr().out
    assert "broken.jpg" in text and "red" in text
    assert "broken.jpg" in (tmp_path / "audit.json").read_text()


def test_train_trains_tests_and_describes_and_resumes(folder, tmp_path, capsys):
    directory = tmp_path / "run"
    arguments = ["train", "--data", str(folder), "--profile", "quick", "--network", "custom_cnn", "--epochs", "2",
                 "--batch-size", "20", "--optimizer", "sgd", "--run-dir", str(directory)]  # fmt: skip
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "Test accuracy" in text and str(directory / "report.html") in text
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["test"]["count"] == 30 and metrics["validation"]["count"] == 30
    for part in ("validation", "test"):  # which the names of the images scored show
        shown = [row["name"] for row in metrics[part]["top_losses"]]
        assert shown and all(name.startswith(part.removesuffix("idation")) for name in shown)
    low, high = metrics["test"]["accuracy_interval"]
    assert low < metrics["test"]["accuracy"] < high or metrics["test"]["accuracy"] in (0, 1)
    assert metrics["training"]["peak_memory_mb"] > 100
    report = (directory / "report.html").read_text()
    assert f"{metrics['test']['accuracy']:.2%}" in report and report.count("data:image/png") == 7
    assert "http://" not in report and "https://" not in report.replace("https://arxiv.org", "")
    card = json.loads((directory / "model.json").read_text())
    assert card["scores"]["test"]["accuracy"] == metrics["test"]["accuracy"]
    assert {p.stem for p in (directory / "figures").glob("*.png")} >= {"confusion_matrix", "training_curves", "samples"}

    assert cli.main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0
    assert json.loads((directory / "metrics.json").read_text()) == metrics

    capsys.readouterr()
    assert cli.main(["evaluate", str(directory / "model.keras"), "--data", str(folder), "--split", "test"]) == 0
    assert cli.main(["predict", str(directory / "model.keras"), str(folder / "test" / "red")]) == 0
    capsys.readouterr()
    export = ["export", str(directory / "model.keras"), "--format", "savedmodel", "--out", str(tmp_path / "saved")]
    assert cli.main([*export, "--images", str(folder)]) == 0
    said = capsys.readouterr()
    assert "on 180 images" in said.out and "1 of 181 images cannot be read, such as" in said.err
    (tmp_path / "none.jpg").write_text("no image")
    assert cli.main([*export, "--images", str(tmp_path / "none.jpg")]) == 2
    assert "give images that can" in capsys.readouterr().err


def test_a_sentence_reaches_the_screen_while_c_plus_plus_is_silenced(capfd):
    with native_log_silenced():
        os.write(2, b"what C++ says")
        os.write(error_stream(), b"a sentence")
    os.write(error_stream(), b", and another")
    assert capfd.readouterr().err == "a sentence, and another"


def test_ctrl_c_ends_with_one_line(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "train", "--run-dir", str(tmp_path / "run"), "--epochs", "50"], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "recipe.json").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("tfproject: interrupted") and "Traceback" not in errors


@pytest.mark.parametrize("command, kept", [("serve", False), ("data", False), ("train", True), ("map", True)])
def test_an_interrupted_command_says_what_is_left(command, kept, monkeypatch, capfd):
    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cli, "_ENDING", threading.Lock())
    with pytest.raises(SystemExit):
        cli._interrupted(command)
    errors = capfd.readouterr().err
    assert ("what is finished is kept" in errors) == kept and ("nothing to go on from" in errors) != kept


def test_a_study_hands_its_options_to_the_tasks(tmp_path, monkeypatch):
    from tfproject.tasks import study, task1_custom_cnn

    given = {}

    def run_task(data, profile, directory, **options):
        given.update(options, data=data)
        raise UserError("That is enough.")

    monkeypatch.setattr(task1_custom_cnn, "run_task", run_task)
    monkeypatch.setattr(study, "TASKS", {"task1": study.TASKS["task1"]})
    arguments = ["study", "--only", "task1", "--run-dir", str(tmp_path)]
    assert cli.main([*arguments, "--data-dir", "there", "--on-bad-image", "fail"]) == 2
    assert given == {"data": "synthetic", "data_dir": pathlib.Path("there"), "on_bad_image": "fail"}
    with pytest.raises(SystemExit):
        cli.main(["study", "--seed", "3"])  # each task has seeds of its own


@pytest.mark.parametrize("command", ["task1", "task2", "task3", "task4", "task5"])
def test_nothing_but_real_results_is_published(command, monkeypatch, capsys):
    monkeypatch.setattr("tfproject.report.readme.check", lambda: None)
    assert cli.main([command, "--publish"]) == 2
    assert "Only results of the real images are published, not of 'synthetic'" in capsys.readouterr().err
    assert cli.main([command, "--data", "real", "--profile", "quick", "--publish"]) == 2
    assert "'quick' only tries things out" in capsys.readouterr().err


def test_the_study_shows_every_task_that_was_run_in_their_order(tmp_path, monkeypatch):
    from tfproject.report import figures
    from tfproject.tasks import study

    ran = []

    def task(name):
        def run(data, profile, directory, options):
            ran.append((name, data, profile, options))
            directory.mkdir()
            figures.save(figures.class_counts({"train": [1, 2]}, ["a", "b"]), directory / "f.png")
            return {"heading": f"Heading of {name}", "text": [name], "figure": ("f.png", "caption"), "report": "r.html"}

        return run

    assert list(study.TASKS)[:2] == ["task1", "task2"]
    monkeypatch.setattr(study, "TASKS", {name: task(name) for name in ("task1", "task2")})
    study.run_study("synthetic", "quick", tmp_path, only=["task2"], data_dir="there")
    page = study.run_study("synthetic", "quick", tmp_path, only=["task1"]).read_text()
    assert ran == [("task2", "synthetic", "quick", {"data_dir": "there"}), ("task1", "synthetic", "quick", {})]
    assert page.index("Heading of task1") < page.index('href="task1/r.html"') < page.index("Heading of task2")

    def without_images(*_):
        raise UserError("There are no photos of Terrassa; put them into place.")

    monkeypatch.setattr(study, "TASKS", {"task4": without_images} | {name: task(name) for name in ("task5", "task6")})
    with pytest.raises(UserError, match="lacks task4, for the reasons above; the rest is in .*report.html"):
        study.run_study("synthetic", "quick", tmp_path / "less")
    assert [name for name, *_ in ran[2:]] == ["task5", "task6"]  # what comes later is run all the same
    page = (tmp_path / "less" / "report.html").read_text()
    assert "task4: There are no photos of Terrassa" in page and "Heading of task6" in page
