"""Adamax: Adam in the infinity norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, Rule, coupled, descend_and_decay


@dataclass(frozen=True)
class Adamax(Rule):
    """Adam in the infinity norm.   g ← g + weight_decay·w   m ← β₁m+(1-β₁)g   n ← max(β₂n, |g|+ε)   u = m̂/n
    w ← w - lr·u

    lr: length of a coordinate's step, in units of w.   State: m, n (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 2; equals torch.optim.Adamax."""

    lr: Number = 2e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "n")
    signed = ("m",)
    positive = ("n",)
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "unbias1": 1 / debias(xp, self.beta1, t)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, n: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        n = xp.maximum(k.beta2 * n, xp.abs(g) + k.eps)
        return k.unbias1 * m / n, m, n


@dataclass(frozen=True)
class AdamaxTF(Rule):
    """Adamax with ε beside the norm.   m ← β₁m+(1-β₁)g   n ← max(β₂n, |g|)   u = m̂/(n+ε)
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, n (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 2; equals keras.optimizers.Adamax."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-7
    weight_decay: Number = 0.0

    slots = ("m", "n")
    signed = ("m",)
    positive = ("n",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "unbias1": 1 / debias(xp, self.beta1, t)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, n: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        n = xp.maximum(k.beta2 * n, xp.abs(g))
        return k.unbias1 * m / (n + k.eps), m, n
