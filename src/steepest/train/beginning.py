"""The beginning of an update, to which it goes back where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout

from steepest.data.rng import GENERATORS, capture, restore

LOOKED, EVERY = 10, 100
"""Whether code draws random numbers is looked at in the first LOOKED updates and one of EVERY after them: a
look copies the states of three generators, some 10 kB, and in each update would be dear beside small ones."""

DRAWING = (
    Dropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.RNNBase, nn.MultiheadAttention
)  # fmt: skip
"""Modules of torch that draw random numbers."""


class Beginning:
    """What the passes of an update change besides gradients, as it was before them, to be put back.

    That is running statistics, of modules that have such, and random numbers: torch's where a module draws
    them or may, being a person's own; torch's, NumPy's and Python's where passes were seen to draw them, in
    a person's loss, say. Of others nothing is kept, but in the updates in which it is looked."""

    def __init__(self, net: nn.Module) -> None:
        self._places = list(_changing(net))
        drawing = any(isinstance(module, DRAWING) or not _of_torch(module) for module in net.modules())
        self._drawn = {"torch", "cuda"} if drawing else set()
        self._updates = 0
        self._buffers: list[Tensor] = []
        self._chance: dict[str, Any] = {}

    def keep(self, wanted: bool) -> None:
        """An update begins;   wanted: whether it could begin anew."""
        self._buffers = [held[name].clone() for held, name in self._places if wanted]
        self._chance = capture(GENERATORS if self._looks() else self._drawn) if wanted else {}
        self._updates += 1

    def over(self) -> None:
        """Its passes are done: what they were seen to draw is kept from now on."""
        now = capture(self._chance.keys() - self._drawn)
        self._drawn |= {name for name, state in now.items() if not _same(self._chance[name], state)}

    @torch.no_grad()
    def put_back(self) -> None:
        """It begins anew."""
        for (held, name), before in zip(self._places, self._buffers, strict=False):
            held[name].copy_(before)
        restore(self._chance)

    def _looks(self) -> bool:
        return self._updates < LOOKED or self._updates % EVERY == 0


def _changing(net: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """(buffers of a module, name) of each that a forward pass may write to."""
    for module in net.modules():
        if isinstance(module, RunningNorm) or not _of_torch(module):
            yield from ((module._buffers, name) for name, held in module._buffers.items() if held is not None)


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.")


def _same(state: Any, other: Any) -> bool:
    if isinstance(state, Tensor):
        return torch.equal(state, other)
    return len(state) == len(other) and all(map(np.array_equal, state, other))
