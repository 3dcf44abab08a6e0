"""Checkpoints: whole or not there, verified, rotated."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from steepest.optim.errors import UserError
from steepest.train import checkpoint
from steepest.train.checkpoint import Damaged
from steepest.train.state import Snapshot


def snapshot(step, value=1.0, best=None, good=None):
    model = {"w": torch.full((3, 2), value), "tied": torch.full((3, 2), value)}
    state = {
        "optimizer/w/m": torch.tensor(0.1, dtype=torch.float64),
        "random/torch": torch.zeros(5, dtype=torch.uint8),
    }
    progress = {"best": best, "good": good, "loss": 1 / 3}
    return Snapshot(step, {"network": model, "state": state, "progress": progress})


def test_what_is_read_is_what_was_written(tmp_path):
    one = snapshot(12)
    read = checkpoint.read(checkpoint.write(tmp_path, one))
    assert (read.step, read.progress) == (12, one.progress)
    for part in ("network", "state"):
        assert all(torch.equal(read.parts[part][name], x) for name, x in one.parts[part].items())


def test_a_manifest_names_size_and_digest_of_every_file(tmp_path):
    folder = checkpoint.write(tmp_path, snapshot(5))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["files"].keys() == {"model.safetensors", "state.safetensors", "state.json"}
    for name, entry in manifest["files"].items():
        assert entry["size"] == (folder / name).stat().st_size
        assert len(entry["sha256"]) == 64


def test_writing_a_step_again_replaces_it(tmp_path):
    checkpoint.write(tmp_path, snapshot(5, 1.0))
    checkpoint.write(tmp_path, snapshot(5, 2.0))
    assert checkpoint.read(checkpoint.path_of(tmp_path, 5)).model["w"][0, 0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def test_rotation_keeps_the_newest_and_what_they_need(tmp_path):
    for step in range(1, 8):
        checkpoint.write(tmp_path, snapshot(step, best=2 if step > 2 else None, good=step))
        checkpoint.rotate(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [7, 6, 2]


def test_the_newest_finite_checkpoint_is_never_rotated_away(tmp_path):
    checkpoint.write(tmp_path, snapshot(1))
    for step in range(2, 6):
        checkpoint.write(tmp_path, snapshot(step, value=float("nan")))
        checkpoint.rotate(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [5, 4, 1]


def test_what_a_kill_left_half_done_is_cleared_away(tmp_path):
    checkpoint.write(tmp_path, snapshot(3))
    (tmp_path / "step-000003").rename(tmp_path / ".step-000003.old")
    (tmp_path / ".step-000004.tmp").mkdir()
    checkpoint.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    assert checkpoint.read(tmp_path / "step-000003").step == 3


def test_links_are_relative_and_replaced_in_one_go(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        target = checkpoint.write(tmp_path / "checkpoints", snapshot(step))
        checkpoint.link(tmp_path / "last", target)
    assert (tmp_path / "last").readlink().as_posix() == "checkpoints/step-000002"
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert (moved / "last" / "MANIFEST.json").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 7, b"\xff" * 8 + b"{}", (10**12).to_bytes(8, "little") + b"{" * 50]
)
def test_a_header_that_cannot_be_is_refused_before_it_is_read(content):
    with pytest.raises(Damaged, match="announces a header of"):
        checkpoint.tensors(content, "w.safetensors")


def test_a_header_of_nonsense_gets_a_sentence():
    with pytest.raises(Damaged, match=r"w\.safetensors is no sound safetensors file"):
        checkpoint.tensors((8).to_bytes(8, "little") + b"nonsense", "w.safetensors")


def test_what_waits_damaged_beyond_the_run_does_not_count_as_the_newest(tmp_path):
    """A run that went back before it would have lost each of its own as soon as it was written."""
    for step in (20, 30, 50):
        checkpoint.write(tmp_path, snapshot(step))
    checkpoint.rotate(tmp_path, 1, last=30)
    assert checkpoint.steps(tmp_path) == [50, 30]


def test_a_folder_is_taken_away_though_a_kill_has_left_half_of_one(tmp_path):
    (tmp_path / ".checkpoints.tmp" / "step-000001").mkdir(parents=True)
    checkpoint.write(tmp_path / "checkpoints", snapshot(2))
    checkpoint.remove(tmp_path / "checkpoints")
    assert not list(tmp_path.iterdir())


class Odd:
    """What no checkpoint can hold."""


def test_every_tree_of_tensors_and_numbers_comes_back_as_it_was():
    tree = {
        "nested": {"w/m": torch.arange(3), "w": {"m": torch.ones(2)}},
        "betas": (0.9, (1, [torch.tensor(2.0)])),
        "by number": {0: {"step": torch.tensor(1.0)}, (1, 2): None},
        "milestones": Counter({3: 1, 5: 2}),
        "numbers": [math.inf, 1 / 3, 10**20, True, np.float64(0.1), np.int64(3)],
        "$mark": "text",
    }
    plain, tensors = checkpoint.packed(tree)
    back = checkpoint.unpacked(json.loads(json.dumps(plain)), tensors)
    assert repr(back) == repr({**tree, "numbers": [math.inf, 1 / 3, 10**20, True, 0.1, 3]})
    assert [type(one) for one in back.values()] == [type(one) for one in tree.values()]


def test_other_objects_are_refused_by_their_place():
    with pytest.raises(UserError, match=r"carry/mine/0.*\(Odd\).*without executing code"):
        checkpoint.packed({"carry/mine": [Odd()]})


def test_newer_formats_are_refused(tmp_path):
    folder = checkpoint.write(tmp_path, snapshot(1))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"format": 3}))
    with pytest.raises(Damaged, match="format 3; this version of steepest reads up to 2"):
        checkpoint.read(folder)
