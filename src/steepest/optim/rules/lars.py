"""Layer-wise rates: a step as long as its weight is large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp, unless_zero
from steepest.optim.rule import Number, Rule
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class LARS(Rule):
    """A rate for each layer.   q = trust·‖w‖/(‖g‖ + weight_decay·‖w‖ + ε), 1 where a norm is 0
    b ← momentum·b + q·(g + weight_decay·w)   u = b   w ← w - lr·u

    Norms run over one weight tensor. Biases and norms are better left to a rule without layers.
    lr: a factor without unit; the first step is about lr·trust times as long as w.
    State: b (1 float per weight).
    You, Gitman & Ginsburg 2017, arXiv:1708.03888, algorithm 1, but for lr, which is in the velocity there:
    another path where lr changes. Equals timm.optim.Lars(always_adapt=True)."""

    lr: Number = 1.0
    momentum: Number = 0.9
    trust: Number = 1e-3
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("b",)
    signed = ("b",)
    sums = ("weights", "gradients")
    scope = "weight"

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, b: Any) -> tuple[Any, ...]:
        return w * w, g * g

    def finalize(self, xp: Any, t: Any, n: Any, weights: Any, gradients: Any) -> dict[str, Any]:
        size, slope = xp.sqrt(weights), xp.sqrt(gradients)
        divisor = slope + self.weight_decay * size + self.eps
        trusted = self.trust * size / unless_zero(xp, divisor)
        return {"ratio": xp.where((weights == 0) | (gradients == 0), 1.0, trusted)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, b: Any) -> tuple[Any, ...]:
        b = k.momentum * b + k.ratio * (g + k.weight_decay * w)
        return b, b


def proposed(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    """Adam's direction with weight decay in it, and the new moments.   r = m̂/(√v̂+ε) + weight_decay·w"""
    m = lerp(m, g, k.c1)
    v = lerp(v, g * g, k.c2)
    return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps) + k.weight_decay * w, m, v


@dataclass(frozen=True)
class LAMB(Rule):
    """Adam with a rate for each layer.   m, v as in Adam   r = m̂/(√v̂+ε) + weight_decay·w
    u = ‖w‖/‖r‖·r, r where a norm is 0   w ← w - lr·u

    Norms run over one weight tensor. Clip gradients before it as NVIDIA's does by global norm 1.
    lr: length of a step, as a share of the length of w.   State: m, v (2 floats per weight).
    You et al. 2020, arXiv:1904.00962, algorithm 2 with φ(z) = z;
    equals timm.optim.Lamb(max_grad_norm=None, always_adapt=True) and optax.lamb."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-6
    weight_decay: Number = 0.01

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    sums = ("weights", "proposals")
    scope = "weight"

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        r, m, v = proposed(xp, k, w, g, m, v)
        return w * w, r * r

    def finalize(self, xp: Any, t: Any, n: Any, weights: Any, proposals: Any) -> dict[str, Any]:
        ratio = xp.sqrt(weights / unless_zero(xp, proposals))
        return {"ratio": xp.where((weights == 0) | (proposals == 0), 1.0, ratio)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        r, m, v = proposed(xp, k, w, g, m, v)
        return k.ratio * r, m, v
