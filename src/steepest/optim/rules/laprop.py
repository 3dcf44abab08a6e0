"""LaProp: Adam with momentum taken after the division instead of before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class LaProp(Rule):
    """Momentum of normalised gradients.   v ← β₂v+(1-β₂)g²   m ← β₁m+(1-β₁)·g/(√v̂+ε)   u = m̂
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Ziyin et al. 2020, arXiv:2002.04839, algorithm 1; equals timm.optim.LaProp at a constant lr without decay
    (it keeps lr within m, and decays the weights after the step)."""

    lr: Number = 4e-4
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-15
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c2)
        m = lerp(m, g / (xp.sqrt(k.unbias2 * v) + k.eps), k.c1)
        return k.unbias1 * m, m, v
