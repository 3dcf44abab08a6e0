"""QHAdam: Adam whose moments are mixed with the gradient of now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, Rule, descend_and_decay


@dataclass(frozen=True)
class QHAdam(Rule):
    """Quasi-hyperbolic moments.   m, v as in Adam   u = (ν₁m̂+(1-ν₁)g)/(√(ν₂v̂+(1-ν₂)g²)+ε)
    w ← w - lr·(u + weight_decay·w)

    ν₁ = ν₂ = 1 is AdamW.   lr: length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight).
    Ma & Yarats 2019, arXiv:1810.06801; equals pytorch_optimizer.QHAdam(weight_decouple=True)."""

    lr: Number = 1e-3
    beta1: Number = 0.995
    beta2: Number = 0.999
    nu1: Number = 0.7
    nu2: Number = 1.0
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "mean1": self.nu1 / debias(xp, self.beta1, t),
            "mean2": self.nu2 / debias(xp, self.beta2, t),
            "now1": 1 - self.nu1,
            "now2": 1 - self.nu2,
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        root = xp.sqrt(k.mean2 * v + k.now2 * (g * g))
        return (k.mean1 * m + k.now1 * g) / (root + k.eps), m, v
