"""MARS: gradients freed from part of their noise by the gradient before, then Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments


def corrected(k: Any, g: Any, p: Any) -> Any:
    """The gradient with a share of what has changed since the last one."""
    return g + k.ahead * (g - p)


def forward(xp: Any, k: Any, g: Any, p: Any, m: Any, v: Any) -> tuple[Any, ...]:
    """Adam's direction from the corrected gradient, shortened; and the new moments."""
    c = k.shortened * corrected(k, g, p)
    m = lerp(m, c, k.c1)
    v = lerp(v, c * c, k.c2)
    return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


@dataclass(frozen=True)
class _Corrected(Rule):
    """What both forms have in common."""

    lr: Number = 3e-3
    beta1: Number = 0.95
    beta2: Number = 0.99
    eps: Number = 1e-8
    gamma: Number = 0.025
    weight_decay: Number = 0.0

    sums = ("squares",)
    scope = "weight"
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        ahead = xp.where(t == 1, 0.0, self.gamma * self.beta1 / (1 - self.beta1))
        return moments(xp, t, self.beta1, self.beta2) | {"ahead": ahead}

    def finalize(self, xp: Any, t: Any, n: Any, squares: Any) -> dict[str, Any]:
        return {"shortened": 1 / xp.maximum(1.0, xp.sqrt(squares))}


@dataclass(frozen=True)
class MARS(_Corrected):
    """AdamW on corrected gradients.   c = g + gamma·β₁/(1-β₁)·(g - p), g at t = 1   p ← g
    c ← c/max(1, ‖c‖), the norm over one weight   m, v as in AdamW, of c   u = m̂/(√v̂+ε)
    w ← w - lr·(u + weight_decay·w)

    For matrices and convolutions; its authors move biases, norms and embeddings by AdamW.
    lr: length of a coordinate's step, in units of w.   State: m, v, p (3 floats per weight).
    Yuan et al. 2024, arXiv:2411.10438, algorithm 2 with p in place of the last weights' gradient on the batch
    of now; equals timm.optim.Mars (its authors' code counts p as 0 at t = 1)."""

    slots = ("m", "v", "p")

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, p: Any) -> tuple[Any, ...]:
        c = corrected(k, g, p)
        return (c * c,)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, p: Any) -> tuple[Any, ...]:
        u, m, v = forward(xp, k, g, p, m, v)
        return u, m, v, g


@dataclass(frozen=True)
class MARSExact(_Corrected):
    """MARS with a second gradient in place of a remembered one.   c = g + gamma·β₁/(1-β₁)·(g - p)
    p: the gradient of this step's batch at o, the weights of before   c is shortened, m, v, u are as in MARS
    w ← w - lr·(u + weight_decay·w)   o ← the w of before

    A step takes two passes over its batch, so engines need the loss as a function. Noise that is the batch's
    own cancels in g - p; that of dropout does where both passes draw the same numbers.
    lr: length of a coordinate's step, in units of w.   State: m, v, o (3 floats per weight).
    Yuan et al. 2024, arXiv:2411.10438, algorithm 2 as it stands."""

    slots = ("m", "v", "o")
    extra_inputs = ("p",)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, p: Any, m: Any, v: Any, o: Any) -> tuple[Any, ...]:
        c = corrected(k, g, p)
        return (c * c,)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, p: Any, m: Any, v: Any, o: Any) -> tuple[Any, ...]:
        u, m, v = forward(xp, k, g, p, m, v)
        return u, m, v, w

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.zeros_like(w), xp.zeros_like(w), 1.0 * w
