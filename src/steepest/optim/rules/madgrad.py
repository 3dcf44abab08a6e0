"""MADGRAD: dual averaging with cube roots, and momentum as a mean of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.rule import Number, Rule, coupled, depart


@dataclass(frozen=True)
class MADGRAD(Rule):
    """Sums of gradients from the start x₀.   g ← g + weight_decay·w   λ = lr·√t   s ← s + λg   v ← v + λg²
    z = x₀ - s/(∛v+ε)   u = (1-momentum)·(w - z)   w ← w - u

    lr: a coordinate's first step is (1-momentum)·∛(lr²·g) long, in units of w.
    State: s, v, x₀ (3 floats per weight).
    Defazio & Jelassi 2021, arXiv:2101.11075, algorithm 1; the authors' code, timm.optim.MADGRAD and
    optax.contrib.madgrad add ε to lr besides."""

    lr: Number = 1e-2
    momentum: Number = 0.9
    eps: Number = 1e-6
    weight_decay: Number = 0.0

    slots = ("s", "v", "x0")
    couple = staticmethod(coupled)
    follow = staticmethod(depart)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.zeros_like(w), xp.zeros_like(w), 1.0 * w

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"weight": self.lr * xp.sqrt(t), "c": 1 - self.momentum, "third": 1 / 3}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, s: Any, v: Any, x0: Any) -> tuple[Any, ...]:
        s = s + k.weight * g
        v = v + k.weight * (g * g)
        z = x0 - s / (v**k.third + k.eps)
        return k.c * (w - z), s, v, x0
