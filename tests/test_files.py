"""Writing takes nothing away but the old content of the file that is meant."""

import os
import threading

import pytest

from tfproject.errors import UserError
from tfproject.files import write_atomically


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "latest.csv").symlink_to("real.csv")
    write_atomically(tmp_path / "latest.csv", "new")
    assert (tmp_path / "latest.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["latest.csv", "real.csv"]


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    write_atomically(pipe, "content")
    reader.join(10)
    assert found == ["content"] and not pipe.is_file()


def test_what_utf_8_cannot_hold_is_escaped(tmp_path):
    name = os.fsdecode(b"t\xff\xc3\xa4.png")
    write_atomically(tmp_path / "page.html", f"<p>{name}</p>")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>t\\udcff\u00e4.png</p>"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path, "content")
    assert tmp_path.is_dir()


def test_permissions_are_those_of_the_file_or_of_the_process(tmp_path):
    (tmp_path / "private.json").touch(mode=0o600)
    write_atomically(tmp_path / "private.json", "{}")
    assert (tmp_path / "private.json").stat().st_mode & 0o777 == 0o600
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new.json", "{}")
    finally:
        os.umask(before)
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o640
