"""The widest floats that a device has, for sums on it."""

from __future__ import annotations

import torch

NARROW = {"mps"}
"""Devices without float64, by torch's name: Apple's GPUs. They sum in float32."""


def widest(x: torch.Tensor) -> torch.dtype:
    """The widest real float of the tensor's device."""
    return torch.float32 if x.device.type in NARROW else torch.float64


def widened(x: torch.Tensor) -> torch.Tensor:
    """The tensor in the widest real float of its device."""
    return x.to(widest(x))
