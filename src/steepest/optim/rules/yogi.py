"""Yogi: Adam whose second moment moves by steps that know only which way to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, coupled
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class Yogi(Rule):
    """Additive second moment.   g ← g + weight_decay·w   m ← β₁m+(1-β₁)g   v ← v - (1-β₂)·sign(v - g²)·g²
    u = m̂/(√v̂+ε)   w ← w - lr·u

    lr: length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight), both first `initial`.
    Zaheer et al. 2018, NeurIPS, algorithm 2, debiased as in the authors' code; equals optax.yogi."""

    lr: Number = 1e-2
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-3
    initial: float = 1e-6
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    couple = staticmethod(coupled)
    quantities: ClassVar = {
        "initial": Quantity("both moments before the first step", "units of g for m, of g² for v")
    }

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.full_like(w, self.initial), xp.full_like(w, self.initial)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = v - k.c2 * xp.sign(v - g * g) * (g * g)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v
