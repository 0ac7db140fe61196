"""A full disk: one clear error, and what was good before is good after; with room again the work goes on."""

import time

import numpy as np
import processes
import pytest
import toy
import victims

from tfproject.errors import UserError
from tfproject.files import write_atomically

ROOM = "cannot be (written|saved)|no room|make room"


def refused(process):
    assert process.end() == 2 and processes.one_sentence(process.said), process.said[-3000:]
    assert "No space left" in process.said or "room" in process.said


def test_what_was_there_before_stays(disk, tally):
    full = disk("64k")
    path = full.path / "metrics.json"
    write_atomically(path, "before")
    full.fill()
    with tally.fault():
        with pytest.raises(UserError, match="has room"):
            write_atomically(path, bytes(100_000))
        tally.result(path.read_text(), "before")
        assert sorted(each.name for each in full.path.iterdir()) == ["filler", "metrics.json"]


def test_a_model_that_cannot_be_put_together_is_told(disk, tally, tmp_path, monkeypatch):
    from tfproject.models import saved_models

    full = disk("16k")
    monkeypatch.setattr("tempfile.tempdir", str(full.path))
    with tally.fault(), pytest.raises(UserError, match="set TMPDIR to another folder"):
        saved_models.save(toy.network((16, 16, 3), 3), tmp_path / "model.keras", ("red", "green", "blue"))
    assert not (tmp_path / "model.keras").exists() and not (tmp_path / "model.json").exists()


@pytest.mark.long
@pytest.mark.parametrize("epoch", [1, 2])
def test_during_a_checkpoint(disk, child, tally, tmp_path, epoch):
    child(victims.train, tmp_path / "whole").end_well()
    full = disk("8m")
    directory, good = full.path / "run", full.path / f"run/checkpoints/epoch-{epoch:04d}.npz"
    with tally.fault():
        process = child(at_the_full_disk, directory, epoch, name="first", beside=tmp_path / "disk")
        while not good.exists() and process.process.is_alive():
            time.sleep(0.002)
        full.fill()
        (tmp_path / "go").touch()
        refused(process)
        with np.load(good) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "history")
        full.free()
        child(victims.train, directory, name="second", beside=tmp_path / "disk").end_well()
        tally.result(victims.result(directory), victims.result(tmp_path / "whole"))


def pages(folder, share):
    """So large, as `mount` takes it, that a share of a folder's files fits: whole pages, as a tmpfs counts."""
    taken = sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())
    return f"{max(1, int(share * taken)) * 4}k"


def at_the_full_disk(directory, epoch):
    """Training that waits after an epoch's checkpoint until the disk is full."""
    import pathlib

    from tfproject.training import checkpoints

    save, go = checkpoints.save, pathlib.Path(directory).parents[1] / "go"

    def save_and_wait(directory, model, history, **kept):
        save(directory, model, history, **kept)
        while len(history) == epoch and not go.exists():
            time.sleep(0.002)

    checkpoints.save = save_and_wait
    victims.train(directory)


@pytest.mark.long
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_during_a_cache(disk, child, tally, tmp_path, share):
    child(victims.train_frozen, tmp_path / "whole").end_well()
    full = disk(pages(tmp_path / "whole" / "features", share))
    with tally.fault():
        process = child(victims.train_frozen, tmp_path / "run", full.path / "features", name="first")
        refused(process)
        full.resize("16m")
        child(victims.train_frozen, tmp_path / "run", full.path / "features", name="second").end_well()
        tally.result(victims.result(tmp_path / "run"), victims.result(tmp_path / "whole"))


@pytest.mark.long
def test_during_a_report(disk, child, tally, tmp_path):
    full = disk("24m")
    directory = full.path / "study"
    child(victims.study, directory, name="first", beside=tmp_path / "disk").end_well()
    before = {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    assert any(path.suffix == ".html" for path in before)
    full.fill()
    with tally.fault():
        refused(child(victims.study, directory, name="second", beside=tmp_path / "disk"))
        tally.result({path: path.read_bytes() for path in before}, before)
        full.free()
        child(victims.study, directory, name="third", beside=tmp_path / "disk").end_well()


@pytest.mark.long
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_during_a_map(disk, child, tally, tmp_path, share):
    victims.write_scene(tmp_path)
    child(victims.map_scene, tmp_path / "whole").end_well()
    full = disk(pages(tmp_path / "whole", share))
    for name in ("tiny.keras", "tiny.json", "scene.tif"):
        (full.path / name).symlink_to(tmp_path / name)
    with tally.fault():
        refused(child(victims.map_scene, full.path / "map", name="first", beside=tmp_path / "disk"))
        full.resize("16m")
        child(victims.map_scene, full.path / "map", name="second", beside=tmp_path / "disk").end_well()
        tally.result(victims.result(full.path / "map"), victims.result(tmp_path / "whole"))
