"""What is done to gradients before a rule sees them. Nothing here is written in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.quantity import Quantity

MAX_NORM = Quantity("the longest gradient let through", "units of g", open=True)
LIMIT = Quantity("the largest coordinate let through", "units of g", open=True)
RATIO = Quantity("the largest gradient norm per weight norm of an output unit", "1/units of lr", open=True)
EPS = Quantity("the least weight norm assumed, so that zero weights can grow", "units of w", open=True)


@dataclass(frozen=True)
class ClipNorm:
    """All gradients together, shortened to a norm.   g ← g·min(1, max_norm/‖g‖)

    Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1."""

    max_norm: float

    def __post_init__(self) -> None:
        MAX_NORM.number("max_norm", self.max_norm)

    def scale(self, norm: float) -> float:
        """The factor for all gradients, given their common norm; NaN for NaN, so that it stays visible."""
        return 1.0 if norm <= self.max_norm else self.max_norm / norm


@dataclass(frozen=True)
class ClipValue:
    """Every coordinate kept within bounds.   g ← max(-limit, min(g, limit))"""

    limit: float

    def __post_init__(self) -> None:
        LIMIT.number("limit", self.limit)

    def apply(self, xp: Any, w: Any, g: Any) -> Any:
        """The gradient of weight w to use instead of g; xp is numpy or torch."""
        return xp.clip(g, -self.limit, self.limit)


@dataclass(frozen=True)
class ClipAdaptive:
    """Gradients short beside their weights, one output unit at a time.
    g_i ← g_i·min(1, ratio·max(‖w_i‖, eps)/‖g_i‖)   i: first axis; a weight with one axis or none is one unit

    Brock et al. 2021, arXiv:2102.06171, equation 3 (there λ = ratio, ε = eps)."""

    ratio: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        RATIO.number("ratio", self.ratio)
        EPS.number("eps", self.eps)

    def apply(self, xp: Any, w: Any, g: Any) -> Any:
        """The gradient of weight w to use instead of g; xp is numpy or torch."""
        limit = self.ratio * xp.clip(_unit_norms(xp, w), self.eps, None)
        return g * (limit / xp.maximum(_unit_norms(xp, g), limit))


def _unit_norms(xp: Any, x: Any) -> Any:
    axes = tuple(range(1, x.ndim)) or tuple(range(x.ndim))
    return xp.sqrt(xp.sum(x * x, axis=axes, keepdims=True))
