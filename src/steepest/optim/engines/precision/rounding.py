"""The functions of `bits` on torch tensors of any device: what the plain engine keeps in few bits."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from steepest.optim.engines.precision import bits
from steepest.optim.engines.precision.formats import BLOCK, FULL, Format


def _down(b: Any, places: int) -> Any:
    """A shift to the right that brings in zeros; torch's brings in the sign."""
    return (b >> places) & ((1 << (32 - places)) - 1)


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        kind = torch.float32 if isinstance(a, float) else torch.int32
        a = torch.tensor(a, dtype=kind, device=condition.device)
    return torch.where(condition, a, b)


TORCH_BITS = SimpleNamespace(
    bits=lambda x: x.view(torch.int32),
    number=lambda b: b.view(torch.float32),
    down=_down,
    where=_where,
)
"""`xp` for `bits`, of float32 and int32, which wraps round on every device."""


class Draws:
    """The random bits of one update of one weight: 16 an element for each array that asks.

    numbers: of `Memory`, the last two of them integers of 32 bits. weight: its number."""

    def __init__(self, numbers: Sequence[float], weight: int) -> None:
        self.numbers, self.weight, self.count = numbers, weight, 0

    def for_array(self, x: Tensor) -> Tensor:
        """Those of the next array, one for each element of x."""
        word, second = divmod(self.count, 2)
        self.count += 1
        a, b = (torch.tensor(int(key)).to(torch.int32) for key in self.numbers[1:])
        keys = [key(TORCH_BITS, a, b, self.weight, word) for key in (bits.first_key, bits.second_key)]
        i = torch.arange(x.numel(), device=x.device).to(torch.int32)
        drawn = bits.chance(TORCH_BITS, i, *(key.to(x.device) for key in keys))
        return (bits.high if second else bits.low)(TORCH_BITS, drawn).view(x.shape)


def load(one: Format, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """The numbers that an array holds. scale: of its blocks."""
    if one is FULL:
        return x
    if scale is None:
        return x.float()
    rows = _in_blocks(x).int()
    return _whole(getattr(bits, one.load)(TORCH_BITS, rows, _floor(one, scale, rows)), x)


def store(one: Format, x: Tensor, value: Tensor, draws: Draws, scale: Tensor | None = None) -> None:
    """Write numbers into an array, and their scales beside it."""
    if one is FULL:
        x.copy_(value)
        return
    if not one.draws:
        x.copy_(value.to(x.dtype))
        return
    value = value.float().expand(x.shape).contiguous()
    drawn, word = draws.for_array(value), getattr(bits, one.store)
    if scale is None:
        x.copy_(word(TORCH_BITS, value, drawn).to(torch.int16).view(x.dtype))
        return
    rows = _in_blocks(value)
    scale.copy_(bits.scale_of(TORCH_BITS, bits.top(TORCH_BITS, rows).amax(1)))
    codes = word(TORCH_BITS, rows, _in_blocks(drawn), _floor(one, scale, rows))
    x.copy_(_whole(codes.to(torch.uint8), x))


def _in_blocks(x: Tensor) -> Tensor:
    """All elements in rows of a block, the last one filled with zeros."""
    return pad(x.reshape(-1), (0, -x.numel() % BLOCK)).view(-1, BLOCK)


def _whole(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1)[: like.numel()].view(like.shape)


def _floor(one: Format, scale: Tensor, rows: Tensor) -> Tensor:
    return (scale * one.foot)[:, None].expand_as(rows).contiguous()
