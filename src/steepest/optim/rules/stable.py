"""StableAdamW: steps of a weight are shortened while its second moment lags behind its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class StableAdamW(Rule):
    """AdamW at a rate of its own for every weight.   m, v as in AdamW   u = m̂/(√v̂+ε)
    η = lr/max(1, RMS), RMS² the mean of g²/max(v̂, ε²) over the weight   w ← w - η·(u + weight_decay·w)

    lr: longest step of a coordinate, in units of w.   State: m, v (2 floats per weight).
    Wortsman et al. 2023, arXiv:2304.13013, algorithm 2 (update clipping of Shazeer & Stern 2018)."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.99
    eps: Number = 1e-8
    weight_decay: Number = 1e-2

    slots = ("m", "v")
    sums = ("squares",)
    scope = "weight"
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2) | {"least": self.eps * self.eps}

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c2)
        return (g * g / xp.maximum(k.unbias2 * v, k.least),)

    def finalize(self, xp: Any, t: Any, n: Any, squares: Any) -> dict[str, Any]:
        return {"lr": self.lr / xp.maximum(1.0, xp.sqrt(squares / n))}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v
