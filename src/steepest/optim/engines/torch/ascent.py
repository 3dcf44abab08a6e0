"""Gradients taken up the slope (SAM, ASAM): passes at two places, and the weights back where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.on_torch import TORCH, real, wide

EPS = 1e-12
"""What is added to the norm of the stretched gradient, as the authors' code does."""


def twice(optimizer: Any, closure: Callable[[], Any]) -> Any:
    """Call the closure at the weights w and at w + e. Gives its first loss; p.grad is its second gradient.

    e = radius·s(s(g))/(‖s(g)‖ + 1e-12) with the rule's stretch s, the norm over all weights of such rules, in
    float64. The weights are put back to the bit, also where the closure raises."""
    loss = closure()
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for weight, e in _ways_up(optimizer):
                kept.append((weight, weight.detach().clone()))
                real(weight).add_(e)
        optimizer.zero_grad()
        closure()
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)
    return loss


def _ways_up(optimizer: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, e) of every weight that goes up."""
    rows = list(_stretched(optimizer))
    length = norm([s for *_, s in rows])
    for rule, weight, sign, s in rows:
        yield weight, sign * rule.radius / (length + EPS) * rule.ascent(TORCH, wide(real(weight)), s)


def _stretched(optimizer: Any) -> Iterator[tuple[Any, Tensor, float, Tensor]]:
    """(rule, weight, 1 or -1 where the loss is to grow, stretched gradient) of every weight that goes up."""
    for group in optimizer.param_groups:
        rule, sign = optimizer.rule_of(group), -1.0 if group.get("maximize") else 1.0
        for weight in group["params"] if rule.ascent else ():
            if weight.grad is not None:
                w = wide(real(weight))
                yield rule, weight, sign, rule.ascent(TORCH, w, real(weight.grad).to(w.device, w.dtype))
