"""AdaBelief: the denominator is how far gradients stray from their mean, not how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.radam import rectification


@dataclass(frozen=True)
class AdaBelief(Rule):
    """Belief in gradients, rectified.   m ← β₁m+(1-β₁)g   s ← β₂s+(1-β₂)(g-m)²+ε   ρ, r as in RAdam
    u = r·√(1-β₂ᵗ)·m̂/(√s+ε) where ρ ≥ 5, else m̂   w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w, where gradients are all noise; longer where they agree.
    State: m, s (2 floats per weight).
    Zhuang et al. 2020, arXiv:2010.07468, algorithm 2, rectified as in the authors' code, version 0.2;
    equals timm.optim.AdaBelief."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-16
    weight_decay: Number = 0.0

    slots = ("m", "s")
    signed = ("m",)
    positive = ("s",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        rho, r = rectification(xp, t, self.beta2)
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "unbias1": 1 / debias(xp, self.beta1, t),
            "rectified": xp.where(rho >= 5, r * xp.sqrt(debias(xp, self.beta2, t)), 0.0),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, s: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        s = lerp(s, (g - m) * (g - m), k.c2) + k.eps
        u = k.unbias1 * m
        return xp.where(k.rectified > 0, k.rectified * u / (xp.sqrt(s) + k.eps), u), m, s
