"""ADOPT: Adam whose second moment has not seen the gradient that it divides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay


@dataclass(frozen=True)
class ADOPT(Rule):
    """Divide by the second moment of before, clipped.   t = 1: v ← g², and w stays. From t = 2 on:
    c = g/max(√v, ε), at most ±(t-1)^¼   m ← β₁m+(1-β₁)c   u = m   v ← β₂v+(1-β₂)g²
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2; equals optax.contrib.adopt, and timm.optim.Adopt
    with clip_exp=0.25."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.9999
    eps: Number = 1e-6
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {
            "lr": xp.where(t == 1, 0.0, self.lr),
            "c1": 1 - self.beta1,
            "c2": xp.where(t == 1, 1.0, 1 - self.beta2),
            "bound": (t - 1) ** 0.25,
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        c = g / xp.maximum(xp.sqrt(v), k.eps)
        m = lerp(m, xp.minimum(xp.maximum(c, -k.bound), k.bound), k.c1)
        return m, m, lerp(v, g * g, k.c2)
