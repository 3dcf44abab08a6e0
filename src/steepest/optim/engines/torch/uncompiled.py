"""Steps that torch.compile goes around: there is nothing in them that its compiler could make faster.

A module of its own, for it imports that compiler, which takes a second; it does so where one is at work."""

from __future__ import annotations

from typing import Any

import torch


def _step(optimizer: Any, closure: Any, scale: float, gradients: Any, reads: Any, zero_grad: bool) -> Any:
    return optimizer.step(closure, scale=scale, gradients=gradients, reads=reads, zero_grad=zero_grad)


step: Any = torch.compiler.disable(_step)
"""The optimizer's step, as it is."""
