"""Adan: Adam with Nesterov's look ahead made from differences of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, descend_and_decay


def shrink(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """How weights follow where decay is a proximal step.   w ← (w - lr·u)/(1 + lr·weight_decay)"""
    return k.shrunk * (w - k.lr * u)


@dataclass(frozen=True)
class AdanW(Rule):
    """Adan with decoupled weight decay.   Δ = g - p, 0 at t = 1   p ← g
    m ← β₁m+(1-β₁)g   d ← β₂d+(1-β₂)Δ   n ← β₃n+(1-β₃)(g+β₂Δ)²   u = (m̂+β₂d̂)/(√n̂+ε)
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   β are shares that are kept; the paper's are 1 - β.
    State: m, d, n, p (4 floats per weight).
    Xie et al. 2022, arXiv:2208.06677, algorithm 1; equals timm.optim.Adan(no_prox=True)."""

    lr: Number = 1e-3
    beta1: Number = 0.98
    beta2: Number = 0.92
    beta3: Number = 0.99
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "d", "n", "p")
    signed = ("m", "d")
    positive = ("n",)
    follow = staticmethod(descend_and_decay)
    quantities: ClassVar = {
        "beta2": Quantity("the share of the mean difference of gradients that is kept", "per step", high=1),
        "beta3": Quantity("the share of the second moment that is kept", "per step", high=1),
    }

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "c3": 1 - self.beta3,
            "first": xp.where(t == 1, 1.0, 0.0),
            "unbias1": 1 / debias(xp, self.beta1, t),
            "ahead": self.beta2 / debias(xp, self.beta2, t),
            "unbias3": 1 / debias(xp, self.beta3, t),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, d: Any, n: Any, p: Any) -> tuple[Any, ...]:
        change = g - xp.where(k.first > 0, g, p)
        m = lerp(m, g, k.c1)
        d = lerp(d, change, k.c2)
        ahead = g + k.beta2 * change
        n = lerp(n, ahead * ahead, k.c3)
        return (k.unbias1 * m + k.ahead * d) / (xp.sqrt(k.unbias3 * n) + k.eps), m, d, n, g


@dataclass(frozen=True)
class Adan(AdanW):
    """Adaptive Nesterov momentum.   u as in AdanW
    w ← (w - lr·u)/(1 + lr·weight_decay)

    lr: length of a coordinate's step, in units of w.   β are shares that are kept; the paper's are 1 - β.
    State: m, d, n, p (4 floats per weight).
    Xie et al. 2022, arXiv:2208.06677, algorithm 1; equals timm.optim.Adan."""

    follow = staticmethod(shrink)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return AdanW.scalars(self, xp, t) | {"shrunk": 1 / (1 + self.lr * self.weight_decay)}
