"""`check_kind`: what a kind of data must keep."""

from __future__ import annotations

import json
from typing import Any

import torch

from steepest.data.batches import Held, batches
from steepest.data.fields import Field
from steepest.data.kinds.encoder import Kind, Settings
from steepest.data.tree import Tree, leaves
from steepest.models.probe import apply


def check_kind(kind: Kind, field: Any, *, name: str = "inputs", args: dict[str, Any] | None = None) -> None:
    """Hold a kind of data to its contract, on a field of at least 8 examples. AssertionError where it fails.

    The field is recognised; the encoder is fitted on its first half and reads all of it; features are a
    function of what was read, of the shape that was said, and the same whatever stands beside an example;
    nothing is trained or saved in the encoder, and its config, through JSON, restores it to the bit."""
    settings = Settings(args={name: args or {}})
    count = len(field)
    assert count >= 8, f"a check needs 8 examples or more, got {count}"
    assert kind.recognise(field, settings), "recognise gives no reason for a field of this kind"
    encoder = kind.fit(field[: count // 2], name, settings)
    assert not list(encoder.parameters()), "an encoder has no weights to train: they belong to its network"
    assert not encoder.state_dict(), "constants are buffers with persistent=False: config is their one home"
    assert all(line.endswith(".") for line in encoder.sentences()), "sentences end with a full stop"
    read = encoder.read(field)
    assert _examples(read) == count, f"read gives {_examples(read)} examples of {count}"
    features = _features(encoder, read, count)
    again = kind.restore(json.loads(json.dumps(encoder.config())))
    assert again.config() == encoder.config(), "config does not restore the same config"
    assert _same(_features(again, again.read(field), count), features), "restored, it gives other features"
    assert _same(
        _features(encoder, encoder.read(field[3:5]), 2), [one[3:5] for one in features], loose=True
    ), "two examples alone have other features than among all"
    fixed = None not in encoder.shape
    assert not fixed or tuple(features[0].shape[1:]) == tuple(encoder.shape), (
        f"features have the shape {tuple(features[0].shape[1:])} an example, and {encoder.shape} was said"
    )
    if fixed and not any(isinstance(leaf, Field) for leaf in leaves(read)):
        _check_export(encoder, read)


def _examples(read: Tree) -> int:
    counts = {len(leaf) for leaf in leaves(read)}
    assert len(counts) == 1, f"what read gives has {sorted(counts)} examples"
    return counts.pop()


def _features(encoder: Any, read: Tree, size: int) -> list[torch.Tensor]:
    """The features of all examples, in one batch, as a list of tensors."""
    (batch,) = next(batches(Held((read,), lambda fields: fields), size, shuffle=False).once())
    with torch.no_grad():
        found = list(leaves(apply(encoder, batch[0])))
        assert all(torch.equal(a, b) for a, b in zip(found, leaves(apply(encoder, batch[0])), strict=True)), (
            "the same batch has other features the second time"
        )
    return found


def _same(ones: list[torch.Tensor], others: list[torch.Tensor], loose: bool = False) -> bool:
    """Whether features agree; loose: but for the padding of a batch with longer examples."""
    for one, other in zip(ones, others, strict=True):
        cut = tuple(slice(0, n) for n in one.shape) if loose else ...
        if not torch.equal(one, other[cut]):
            return False
    return True


def _check_export(encoder: Any, read: Tree) -> None:
    args = read if isinstance(read, tuple) else (read,)
    with torch.no_grad():
        exported = torch.export.export(encoder, args).module()(*args)
        assert torch.equal(exported, encoder(*args)), "exported, it gives other features"
