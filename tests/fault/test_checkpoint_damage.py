"""Damaged checkpoints are named and left out; the newest sound one is taken."""

import json

import pytest
import torch
from torch import nn

from steepest.optim.errors import UserError
from steepest.train.loop import loop

FILES = ("model.safetensors", "state.safetensors", "state.json", "MANIFEST.json")


def train(out, steps=9):
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    x = torch.randn(40, 3)
    opt = torch.optim.AdamW(net.parameters(), lr=0.01)
    with loop(
        net,
        opt,
        (x, x.sum(1, keepdim=True)),
        out=out,
        budget=f"{steps} steps",
        batch_size=8,
        save_every="3 steps",
    ) as inside:
        for a, b in inside:
            inside.step(nn.functional.mse_loss(net(a), b))
    return inside, net


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def header(path):
    path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [cut, flip, remove, header])
def test_the_newest_sound_checkpoint_is_taken_and_the_other_named(tmp_path, file, damage):
    train(tmp_path, 6)
    damage(tmp_path / "checkpoints" / "step-000006" / file)
    with pytest.warns(UserWarning, match=r"step-000006.*goes on from step 3"):
        again, net = train(tmp_path)
    alone = train(tmp_path / "alone")[1]
    assert again.done == 9
    assert torch.equal(net.weight, alone.weight)
    told = [json.loads(line) for line in (tmp_path / "evidence.jsonl").read_text().splitlines()]
    assert told[0]["choice"] == "checkpoint"
    assert "step-000006" in told[0]["why"]


def test_where_none_is_sound_nothing_is_overwritten(tmp_path):
    train(tmp_path, 6)
    for folder in (tmp_path / "checkpoints").iterdir():
        flip(folder / "model.safetensors")
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.safetensors"))
    with pytest.raises(UserError, match=r"None of the checkpoints.*can be used.*begin again"):
        train(tmp_path)
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.safetensors")) == before


def test_a_checkpoint_of_a_newer_format_is_refused_by_name(tmp_path):
    train(tmp_path, 6)
    manifest = tmp_path / "checkpoints" / "step-000006" / "MANIFEST.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.warns(UserWarning, match="step-000006 has format 99"):
        train(tmp_path)


def test_another_network_lists_all_that_differs_and_loads_nothing(tmp_path):
    train(tmp_path, 3)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = [weight.clone() for weight in net.parameters()]
    x = torch.randn(40, 3)
    again = loop(net, torch.optim.AdamW(net.parameters()), (x, x), out=tmp_path, epochs=1, batch_size=8)
    with (
        pytest.raises(UserError, match=r"weight is not in the network.*0\.weight is not in the saved state"),
        again,
    ):
        pass
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_other_data_are_refused(tmp_path):
    train(tmp_path, 3)
    net = nn.Linear(3, 1)
    x = torch.randn(41, 3)
    again = loop(net, torch.optim.AdamW(net.parameters()), (x, x), out=tmp_path, epochs=1, batch_size=8)
    with pytest.raises(UserError, match="examples was 40 and is 41"), again:
        pass
