"""Curvature of each coordinate in the place of squares: its estimate d comes from an extra backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, descend_and_decay

CLIP = Quantity("how much of the curvature counts: with less, more is clipped")


def due(xp: Any, t: Any, every: int) -> Any:
    """1 in updates 1, 1 + every, 1 + 2·every, …, where d is new; 0 in all others, where it is not read."""
    return xp.where((t - 1) % every == 0, 1.0, 0.0)


@dataclass(frozen=True)
class SophiaG(Rule):
    """Clipped Newton steps, curvature of Gauss and Newton.   m ← β₁m+(1-β₁)g   every `every` updates
    h ← β₂h+(1-β₂)d   u = sign(m)·min(|m|/(clip·h + 1e-15), 1)   w ← w - lr·(u + weight_decay·w)

    d: batch size times the square of the mean gradient for labels drawn from the model's own predictions.
    lr: longest step of a coordinate, in units of w.   clip: ρ of the authors' code.
    State: m, h (2 floats per weight).
    Liu et al. 2023, arXiv:2305.14342, algorithm 3 with estimator 2; numbers of the authors' code."""

    lr: Number = 1e-4
    beta1: Number = 0.965
    beta2: Number = 0.99
    clip: Number = 0.04
    weight_decay: Number = 0.1
    every: int = 10

    slots = ("m", "h")
    extra_inputs = ("d",)
    signed = ("m",)
    positive = ("h",)
    follow = staticmethod(descend_and_decay)
    quantities: ClassVar = {"clip": CLIP}

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "c2": 1 - self.beta2, "due": due(xp, t, self.every)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, d: Any, m: Any, h: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        h = xp.where(k.due > 0, lerp(h, d, k.c2), h)
        return xp.sign(m) * xp.minimum(xp.abs(m) / (k.clip * h + 1e-15), 1.0), m, h


@dataclass(frozen=True)
class SophiaH(Rule):
    """Clipped Newton steps, curvature of Hutchinson.   m ← β₁m+(1-β₁)g   every `every` updates
    h ← β₂h+(1-β₂)d   u = m/max(clip·h, ε), at most ±1   w ← w - lr·(u + weight_decay·w)

    d: z⊙Hz for a random z of variance 1, H the Hessian.
    lr: longest step of a coordinate, in units of w.   clip: γ of the paper.
    State: m, h (2 floats per weight).
    Liu et al. 2023, arXiv:2305.14342, algorithm 3 with estimator 1."""

    lr: Number = 1e-4
    beta1: Number = 0.965
    beta2: Number = 0.99
    clip: Number = 0.01
    eps: Number = 1e-12
    weight_decay: Number = 0.1
    every: int = 10

    slots = ("m", "h")
    extra_inputs = ("d",)
    signed = ("m", "h")
    momenta = ("m",)
    follow = staticmethod(descend_and_decay)
    quantities: ClassVar = {
        "clip": CLIP,
        "eps": Quantity("the least curvature that counts", "units of d"),
    }

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "c2": 1 - self.beta2, "due": due(xp, t, self.every)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, d: Any, m: Any, h: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        h = xp.where(k.due > 0, lerp(h, d, k.c2), h)
        u = m / xp.maximum(k.clip * h, k.eps)
        return xp.minimum(xp.maximum(u, -1.0), 1.0), m, h


@dataclass(frozen=True)
class AdaHessian(Rule):
    """Adam with curvature for squares.   m ← β₁m+(1-β₁)g   every `every` updates v ← β₂v+(1-β₂)d²
    u = m̂/(v̂^(power/2)+ε), v debiased by the estimates so far   w ← w - lr·(u + weight_decay·w)

    d: z⊙Hz for z of ±1, H the Hessian; in convolutions the mean of |d| over a kernel.
    lr: a factor without unit where power is 1 (Newton's step is 1).   State: m, v (2 floats per weight).
    Yao et al. 2021, arXiv:2006.00719, algorithm 1; equals timm.optim.Adahessian, but for its update_each > 1,
    where an estimate enters v again in each step until the next."""

    lr: Number = 0.15
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-4
    power: Number = 1.0
    weight_decay: Number = 0.0
    every: int = 1

    slots = ("m", "v")
    extra_inputs = ("d",)
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)
    quantities: ClassVar = {
        "power": Quantity("the exponent of the curvature: 1 for Newton's step, 0 for plain momentum"),
        "eps": Quantity("what keeps a denominator from zero", "units of d^power"),
    }

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        estimates = (t - 1) // self.every + 1
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "unbias1": 1 / debias(xp, self.beta1, t),
            "unbias2": 1 / debias(xp, self.beta2, estimates),
            "half": 0.5 * self.power,
            "due": due(xp, t, self.every),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, d: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = xp.where(k.due > 0, lerp(v, d * d, k.c2), v)
        return k.unbias1 * m / ((k.unbias2 * v) ** k.half + k.eps), m, v
