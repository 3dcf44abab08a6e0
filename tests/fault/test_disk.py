"""A disk that refuses, and a process that dies, at every single call of a checkpoint's writing."""

import errno
import os

import pytest
import torch

from steepest.files import Folder
from steepest.optim.errors import UserError
from steepest.train import checkpoint
from steepest.train.checkpoint import Checkpoints
from steepest.train.state import Snapshot

CALLS = ("mkdir", "fsync", "replace", "rmdir", "unlink")


class Death(BaseException):
    """The process ends here."""


def snapshot(step):
    progress = {"best": step - step % 3 or None, "good": None}
    network = {"w": torch.full((4,), float(step))}
    return Snapshot(step, {"network": network, "other": {"m": torch.ones(2)}, "progress": progress})


def save_all(folder, upto):
    keeper = Checkpoints(folder, keep=2)
    keeper.load()
    for step in range(1, upto + 1):
        one = snapshot(step)
        if step % 3 == 0:
            keeper.best = one
        keeper.save(one)


def failing(monkeypatch, at, error):
    """The call number `at` among all of CALLS raises; gives the list of calls made."""
    made = []

    def counted(name, real):
        def call(*args, **kwargs):
            made.append(name)
            if len(made) == at:
                raise error
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    return made


def calls_of(place):
    with pytest.MonkeyPatch.context() as patch:
        made = failing(patch, 0, Death())
        save_all(Folder(place), 5)
    return len(made)


def test_death_at_any_call_leaves_a_whole_checkpoint(tmp_path):
    for at in range(1, calls_of(tmp_path / "count") + 1):
        place = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, at, Death())
            with pytest.raises(Death):
                save_all(Folder(place), 5)
        keeper = Checkpoints(Folder(place), keep=2)
        found, refused = keeper.load()
        assert not refused, f"call {at}"
        if found is not None:
            assert torch.equal(found.model["w"], snapshot(found.step).model["w"])
            assert (keeper.best.step if keeper.best else None) == found.progress["best"]
        keeper.save(snapshot(9))
        assert checkpoint.steps(Folder(place).checkpoints)[0] == 9


def test_a_full_disk_gets_a_sentence_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "run")
    save_all(folder, 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"step 3 cannot be written.*No space left.*make room and resume"):
        Checkpoints(folder).save(snapshot(3))
    monkeypatch.undo()
    assert Checkpoints(folder).load()[0].step == 2
    assert not list(folder.checkpoints.glob(".*"))


def test_a_real_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    place = tmp_path / "checkpoints"
    place.mkdir()
    real = checkpoint._write_synced

    def to_full(path, content):
        real(type(path)("/dev/full"), content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_write_synced", to_full)
        with pytest.raises(UserError, match="No space left on device"):
            checkpoint.write(place, snapshot(1))
    assert list(place.iterdir()) == []
