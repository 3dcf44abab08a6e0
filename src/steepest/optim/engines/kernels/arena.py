"""Tensors side by side in one stretch of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

ALIGNMENT = 64
"""Bytes; a line of the cache, and the longest vector."""


def settle(state: Mapping[Any, dict[str, Any]]) -> None:
    """Let the arrays of an optimizer's state that lie in the processor's memory lie side by side there."""
    found = [(entry, key, x) for entry in state.values() for key, x in entry.items() if movable(x)]
    for (entry, key, _), x in zip(found, side_by_side([x for *_, x in found]), strict=True):
        entry[key] = x


def movable(x: Any) -> bool:
    """True for plain tensors of this processor's memory that have axes."""
    return type(x) is torch.Tensor and x.layout is torch.strided and x.device.type == "cpu" and x.dim() > 0


def side_by_side(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of these tensors of the processor's memory, those of a dtype one after the other.

    Many small tensors are then on few pages. Their memory has one owner, so that one look tells whether it is
    where it was: shared or resized is the whole of it, or nothing. It is zeroed when it is first touched, and
    large stretches are in huge pages where the system gives them (NumPy asks for both). Each dtype has memory
    of its own, or torch.save would refuse it."""
    found: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(x.dtype for x in tensors):
        own = [number for number, x in enumerate(tensors) if x.dtype is dtype]
        found |= zip(own, _together([tensors[number] for number in own]), strict=True)
    return [found[number] for number in range(len(tensors))]


def _together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    sizes = [-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in tensors]
    memory = np.zeros(sum(sizes) + ALIGNMENT, np.uint8)
    place = -memory.ctypes.data % ALIGNMENT
    whole, copies = torch.from_numpy(memory), []
    for x, size in zip(tensors, sizes, strict=True):
        stretch = whole[place : place + x.nbytes].view(x.dtype).view(x.shape)
        copies.append(stretch.copy_(x))
        place += size
    return copies
