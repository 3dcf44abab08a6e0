"""Rates that learn: the loss falls with the rate as far as this gradient agrees with the last direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp, unless_zero
from steepest.optim.rule import Number, Rule, coupled
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class HypergradientSGD(Rule):
    """Gradient descent on the rate too.   g ← g + weight_decay·w   gained ← gained + kappa·Σ g·p   p ← g
    u = g   w ← w - (lr + gained)·u

    The sum runs over all weights, before any of them moves.
    lr: the rate to start from (or its schedule), in units of w per unit of g.
    State: p (1 float per weight); gained for all together.
    Baydin et al. 2018, arXiv:1703.04782, algorithm 4; equals SGDHD of the authors' code."""

    lr: Number = 1e-3
    kappa: Number = 1e-6
    weight_decay: Number = 0.0

    slots = ("p",)
    shared: ClassVar[Mapping[str, float]] = {"gained": 0.0}
    sums = ("products",)
    couple = staticmethod(coupled)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, p: Any) -> tuple[Any, ...]:
        return (g * p,)

    def finalize(self, xp: Any, t: Any, n: Any, products: Any, gained: Any) -> dict[str, Any]:
        gained = gained + self.kappa * products
        return {"lr": self.lr + gained, "gained": gained}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, p: Any) -> tuple[Any, ...]:
        return g, g


@dataclass(frozen=True)
class HypergradientAdam(Rule):
    """Adam whose rate learns.   g ← g + weight_decay·w   gained ← gained + kappa·Σ g·(last u)
    m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)g²   u = m̂/(√v̂+ε)   w ← w - (lr + gained)·u

    The sum runs over all weights, before any of them moves; the last u is made anew from m and v.
    lr: the rate to start from (or its schedule): length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight); gained for all together.
    Baydin et al. 2018, arXiv:1703.04782, algorithm 6; the authors' code has its ε on the uncorrected √v, and
    changes the rate from tensor to tensor."""

    lr: Number = 1e-3
    kappa: Number = 1e-8
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    shared: ClassVar[Mapping[str, float]] = {"gained": 0.0}
    sums = ("products",)
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any, gained: Any) -> dict[str, Any]:
        before = xp.maximum(t - 1, 1)
        last = {"last1": 1 / debias(xp, self.beta1, before), "last2": 1 / debias(xp, self.beta2, before)}
        return moments(xp, t, self.beta1, self.beta2) | last

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        return (g * (k.last1 * m) / unless_zero(xp, xp.sqrt(k.last2 * v) + k.eps),)

    def finalize(self, xp: Any, t: Any, n: Any, products: Any, gained: Any) -> dict[str, Any]:
        gained = gained + self.kappa * products
        return {"lr": self.lr + gained, "gained": gained}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v
