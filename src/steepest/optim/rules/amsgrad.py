"""AMSGrad: Adam whose denominator never falls; of what the greatest is kept differs between libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, coupled, descend_and_decay, uncoupled
from steepest.optim.rules.adam import TwoMoments, moments, together


@dataclass(frozen=True)
class AMSGrad(TwoMoments):
    """Adam whose denominator never falls.   m, v as in Adam   a ← max(a, v)   u = m̂/(√â+ε), â = a/(1-β₂ᵗ)
    w ← w - lr·u

    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2, debiased;
    equals torch.optim.Adam(amsgrad=True)."""

    slots = ("m", "v", "a")
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
class AMSGradW(AMSGrad):
    """AMSGrad with decoupled weight decay.   m, v as in AdamW   a ← max(a, v)   u = m̂/(√â+ε), â = a/(1-β₂ᵗ)
    w ← w - lr·(u + weight_decay·w)

    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2, debiased;
    equals torch.optim.AdamW(amsgrad=True)."""

    weight_decay: Number = 1e-2

    couple = staticmethod(uncoupled)
    follow = staticmethod(descend_and_decay)


@dataclass(frozen=True)
class AMSGradHat(AMSGrad):
    """AMSGrad that keeps the greatest debiased moment.   m, v as in Adam   a ← max(a, v̂)   u = m̂/(√a+ε)
    w ← w - lr·u

    v̂ of the first step is the first g²: one large gradient at the start shortens all steps that follow.
    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2; equals optax.amsgrad."""

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, a: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        a = xp.maximum(a, k.unbias2 * v)
        return k.unbias1 * m / (xp.sqrt(a) + k.eps), m, v, a


@dataclass(frozen=True)
class AMSGradTF(TwoMoments):
    """AMSGrad whose ε stands beside a before its debiasing.   m, v as in Adam   a ← max(a, v)
    u = √(1-β₂ᵗ)/(1-β₁ᵗ)·m/(√a+ε)   w ← w - lr·(u + weight_decay·w)

    lr: as Adam's.   State: m, v, a (3 floats per weight).
    Reddi, Kale & Kumar 2018, arXiv:1904.09237, algorithm 2; equals keras.optimizers.Adam(amsgrad=True)."""

    eps: Number = 1e-7

    slots = ("m", "v", "a")
    positive = ("v", "a")
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return together(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, a: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        a = xp.maximum(a, v)
        return k.unbias * m / (xp.sqrt(a) + k.eps), m, v, a
