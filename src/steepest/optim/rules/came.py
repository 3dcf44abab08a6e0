"""CAME: Adafactor with momentum, and less trust where the two disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.factored import averages, clipped, followed, full, last_two, over_root


@dataclass(frozen=True)
class CAME(Rule):
    """Momentum of factored steps, over the factored size of its own error.
    r, c ← averages of g²+eps1 by row and column, of decay β₂
    d = g/√(r·c/mean(r))   d ← d/max(1, RMS(d)/threshold)
    m ← β₁m+(1-β₁)d   a, b ← averages of (d-m)²+eps2 by row and column, of decay β₃   u = m/√(a·b/mean(a))
    w ← w - lr·(u + weight_decay·w)

    r, c, a, b: over the last two axes. A vector has a second moment v that is not factored, and u = m.
    lr: length of a coordinate's step, in units of w; below Adam's.
    State: m (1 float per weight); r, c, a, b of a matrix (two floats a row and two a column), v of a vector
    (1 float per weight).
    Luo et al. 2023, arXiv:2307.02047, algorithm 2; equals pytorch-optimizer's CAME."""

    lr: Number = 2e-4
    beta1: Number = 0.9
    beta2: Number = 0.999
    beta3: Number = 0.9999
    eps1: Number = 1e-30
    eps2: Number = 1e-16
    threshold: Number = 1.0
    weight_decay: Number = 0.0

    slots = ("m", "r", "c", "a", "b", "v")
    signed = ("m",)
    quantities = {"beta3": Quantity("the share of the error's size that is kept", "per step", high=1)}  # noqa: RUF012
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        axes = last_two(w.shape)
        return xp.zeros_like(w), *averages(xp, w, axes), *averages(xp, w, axes), full(xp, w, axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "c2": 1 - self.beta2, "c3": 1 - self.beta3}

    def direction(
        self, xp: Any, k: Any, w: Any, g: Any, m: Any, r: Any, c: Any, a: Any, b: Any, v: Any
    ) -> tuple[Any, ...]:
        axes = last_two(w.shape)
        r, c, v = followed(xp, k.c2, g * g + k.eps1, axes, r, c, v)
        d = clipped(xp, over_root(xp, g, axes, r, c, v), k.threshold)
        m = lerp(m, d, k.c1)
        if axes is None:
            return m, m, r, c, a, b, v
        a, b, _ = followed(xp, k.c3, (d - m) * (d - m) + k.eps2, axes, a, b, v)
        return over_root(xp, m, axes, a, b, v), m, r, c, a, b, v
