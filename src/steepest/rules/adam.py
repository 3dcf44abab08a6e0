"""Adam and its family: a first moment over the root of a second, debiased: m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.maths import debias, lerp
from steepest.rule import Number, Rule, coupled, descend_and_decay


def moments(xp: Any, t: Any, beta1: Any, beta2: Any) -> dict[str, Any]:
    """Shares of what is new in m and v, and the factors that debias them: m̂ = unbias1·m, v̂ = unbias2·v."""
    return {
        "c1": 1 - beta1,
        "c2": 1 - beta2,
        "unbias1": 1 / debias(xp, beta1, t),
        "unbias2": 1 / debias(xp, beta2, t),
    }


@dataclass(frozen=True)
class Adam(Rule):
    """Debiased moments.   g ← g + weight_decay·w   m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)g²   u = m̂/(√v̂+ε)
    w ← w - lr·u

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; equals torch.optim.Adam."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


@dataclass(frozen=True)
class AdamW(Rule):
    """Adam with decoupled weight decay.   m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)g²   u = m̂/(√v̂+ε)
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; equals torch.optim.AdamW."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 1e-2

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


@dataclass(frozen=True)
class AMSGrad(Rule):
    """Adam whose denominator never falls.   m, v as in Adam   a ← max(a, v)   u = m̂/(√â+ε), â = a/(1-β₂ᵗ)
    w ← w - lr·u

    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2, debiased;
    equals torch.optim.Adam(amsgrad=True)."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "v", "a")
    signed = ("m",)
    positive = ("v", "a")
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, a: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        a = xp.maximum(a, v)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * a) + k.eps), m, v, a


@dataclass(frozen=True)
class AMSGradW(Rule):
    """AMSGrad with decoupled weight decay.   m, v as in AdamW   a ← max(a, v)   u = m̂/(√â+ε), â = a/(1-β₂ᵗ)
    w ← w - lr·(u + weight_decay·w)

    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2, debiased;
    equals torch.optim.AdamW(amsgrad=True)."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 1e-2

    slots = ("m", "v", "a")
    signed = ("m",)
    positive = ("v", "a")
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, a: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        a = xp.maximum(a, v)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * a) + k.eps), m, v, a


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
