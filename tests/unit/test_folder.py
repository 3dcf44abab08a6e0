"""Files written whole, one writer a folder."""

import os
import subprocess
import sys

import pytest

from steepest import evidence
from steepest.evidence import Evidence
from steepest.files import Folder, write_atomic
from steepest.optim.errors import UserError


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_the_second_process_in_a_folder_is_refused(tmp_path):
    child = "import sys; from steepest.files import Folder\nwith Folder(sys.argv[1]).lock(): pass"
    with Folder(tmp_path).lock():
        found = subprocess.run([sys.executable, "-c", child, tmp_path], capture_output=True, text=True)
    assert "Another process is training in" in found.stderr
    assert subprocess.run([sys.executable, "-c", child, tmp_path]).returncode == 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Folder(tmp_path / "file" / "run").create()


def test_evidence_comes_back_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "evidence.jsonl"
    first = Evidence("horizon", 500, "2 ms a step fit 500 times into 1 s", [{"step": 1, "ms": 2.0}], 0.1)
    evidence.append(path, first)
    with open(path, "a") as file:
        file.write('{"choice": "hor')
    assert evidence.read(path) == [first]
    evidence.append(path, first)
    assert evidence.read(path) == [first, first]


def test_a_disk_that_refuses_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"model' cannot be written: No space left on device\. Free space"):
        write_atomic(tmp_path / "model", b"new")
    with pytest.raises(UserError, match=r"run' cannot be written: No space left on device\. Choose another"):
        Folder(tmp_path / "run").create()


def test_a_folder_that_cannot_be_locked_is_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"), Folder(tmp_path / "file").lock():
        pass
