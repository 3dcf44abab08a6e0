"""Adam whose rate is an estimate of the distance to the solution, found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp, unless_zero
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, depart_and_decay, descend_and_decay

DISTANCE = {"initial": Quantity("d before the first step, below the distance to go", "units of w", open=True)}


@dataclass(frozen=True)
class DAdaptAdam(Rule):
    """Adam at the rate d·lr, d a growing lower bound of the largest distance to go.   q = √β₂
    N ← qN+(1-q)·d·lr·Σ g·s/(√v+ε)   s ← qs+(1-q)·d·lr·g   m ← β₁m+(1-β₁)·d·lr·g   v ← β₂v+(1-β₂)g²
    u = m/(√v+ε)   d ← max(d, min(N/((1-q)·Σ|s|), growth·d)), of the next step
    w ← w - u - d·lr·weight_decay·w

    N is taken with the old s and v (the paper's with the new v). Sums run over all weights.
    lr: a factor without unit; leave it at 1, or let a schedule begin at 1.
    State: m, v, s (3 floats per weight); d and N for all together.
    Defazio & Mishchenko 2023, arXiv:2301.07733, in the form of version 3 of the authors' code;
    equals pytorch_optimizer.DAdaptAdam(weight_decouple=True)."""

    lr: Number = 1.0
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    initial: float = 1e-6
    growth: Number = inf
    weight_decay: Number = 0.0

    slots = ("m", "v", "s")
    signed = ("m",)
    positive = ("v",)
    shared: ClassVar[Mapping[str, float]] = {"d": 0.0, "numerator": 0.0}
    sums = ("products", "length")
    quantities = DISTANCE
    follow = staticmethod(depart_and_decay)

    def scalars(self, xp: Any, t: Any, d: Any, numerator: Any) -> dict[str, Any]:
        rate, kept = self.lr * xp.maximum(d, self.initial), self.beta2**0.5
        return {
            "lr": rate,
            "c1": rate * (1 - self.beta1),
            "c2": 1 - self.beta2,
            "kept": kept,
            "gain": rate * (1 - kept),
        }

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, s: Any) -> tuple[Any, ...]:
        return g * s / unless_zero(xp, xp.sqrt(v) + k.eps), xp.abs(k.kept * s + k.gain * g)

    def finalize(
        self, xp: Any, t: Any, n: Any, products: Any, length: Any, d: Any, numerator: Any
    ) -> dict[str, Any]:
        kept, d = self.beta2**0.5, xp.maximum(d, self.initial)
        numerator = kept * numerator + (1 - kept) * d * self.lr * products
        found = numerator / ((1 - kept) * unless_zero(xp, length))
        return {"d": xp.maximum(d, xp.minimum(found, d * self.growth)), "numerator": numerator}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, s: Any) -> tuple[Any, ...]:
        m = k.beta1 * m + k.c1 * g
        v = lerp(v, g * g, k.c2)
        return m / (xp.sqrt(v) + k.eps), m, v, k.kept * s + k.gain * g


@dataclass(frozen=True)
class Prodigy(Rule):
    """Adam at the rate d·lr, d an estimate of the distance to go that grows faster.   q = √β₂
    N ← qN+(d/d₀)·d·lr·Σ g·(w₀-w)   s ← qs+(d/d₀)·d·lr·g   m ← β₁m+(1-β₁)·d·g   v ← β₂v+(1-β₂)·d²g²
    d̂ = coefficient·N/Σ|s|   d' = min(max of all d̂, growth·d), of the next step   u = m/(√v+d'ε)
    w ← w - lr·d·(u + weight_decay·w)

    d₀: initial; while d is still d₀ it may jump. bias_correction multiplies d·lr by √(1-β₂ᵗ)/(1-β₁ᵗ);
    safeguard_warmup leaves lr out of s, for a rate that starts low. Sums run over all weights.
    lr: a factor without unit; leave it at 1, or let a schedule begin at 1.
    State: m, v, s, w0 (4 floats per weight); d, the largest d̂ and N for all together.
    Mishchenko & Defazio 2023, arXiv:2306.06101, algorithm 4; equals prodigyopt.Prodigy."""

    lr: Number = 1.0
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    initial: float = 1e-6
    coefficient: Number = 1.0
    growth: Number = inf
    weight_decay: Number = 0.0
    safeguard_warmup: bool = False
    bias_correction: bool = False

    slots = ("m", "v", "s", "w0")
    signed = ("m",)
    positive = ("v",)
    shared: ClassVar[Mapping[str, float]] = {"d": 0.0, "largest": 0.0, "numerator": 0.0}
    sums = ("products", "length")
    quantities = DISTANCE
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return *(xp.zeros_like(w) for _ in "mvs"), 1.0 * w

    def scalars(self, xp: Any, t: Any, d: Any, largest: Any, numerator: Any) -> dict[str, Any]:
        d, rate = xp.maximum(d, self.initial), self._rate(xp, t, d)
        return {
            "lr": rate,
            "c1": d * (1 - self.beta1),
            "c2": d * d * (1 - self.beta2),
            "kept": self.beta2**0.5,
            "gain": d / self.initial * (d if self.safeguard_warmup else rate),
        }

    def _rate(self, xp: Any, t: Any, d: Any) -> Any:
        rate = self.lr * xp.maximum(d, self.initial)
        if not self.bias_correction:
            return rate
        return rate * xp.sqrt(debias(xp, self.beta2, t)) / debias(xp, self.beta1, t)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, s: Any, w0: Any) -> tuple[Any, ...]:
        return g * (w0 - w), xp.abs(k.kept * s + k.gain * g)

    def finalize(
        self,
        xp: Any,
        t: Any,
        n: Any,
        products: Any,
        length: Any,
        d: Any,
        largest: Any,
        numerator: Any,
    ) -> dict[str, Any]:
        d, rate = xp.maximum(d, self.initial), self._rate(xp, t, d)
        numerator = self.beta2**0.5 * numerator + d / self.initial * rate * products
        found = self.coefficient * numerator / unless_zero(xp, length)
        largest = xp.maximum(xp.maximum(largest, d), found)
        free = xp.where(d == self.initial, xp.maximum(d, found), d)
        d = xp.minimum(largest, free * self.growth)
        return {"d": d, "largest": largest, "numerator": numerator, "floor": d * self.eps}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, s: Any, w0: Any) -> tuple[Any, ...]:
        m = k.beta1 * m + k.c1 * g
        v = k.beta2 * v + k.c2 * (g * g)
        return m / (xp.sqrt(v) + k.floor), m, v, k.kept * s + k.gain * g, w0
