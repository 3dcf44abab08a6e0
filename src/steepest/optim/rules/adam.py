"""Adam: a first moment over the root of a second, debiased: m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, Rule, coupled, descend_and_decay, uncoupled


def moments(xp: Any, t: Any, beta1: Any, beta2: Any) -> dict[str, Any]:
    """Shares of what is new in m and v, and the factors that debias them: m̂ = unbias1·m, v̂ = unbias2·v."""
    return {
        "c1": 1 - beta1,
        "c2": 1 - beta2,
        "unbias1": 1 / debias(xp, beta1, t),
        "unbias2": 1 / debias(xp, beta2, t),
    }


def together(xp: Any, t: Any, beta1: Any, beta2: Any) -> dict[str, Any]:
    """The same, with one factor for both: m̂/√v̂ = unbias·m/√v."""
    unbias = xp.sqrt(debias(xp, beta2, t)) / debias(xp, beta1, t)
    return {"c1": 1 - beta1, "c2": 1 - beta2, "unbias": unbias}


@dataclass(frozen=True)
class TwoMoments(Rule):
    """Hyperparameters and state of Adam and its next of kin; these differ in what they make of them."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m", "v")
    signed = ("m",)
    positive = ("v",)


@dataclass(frozen=True)
class Adam(TwoMoments):
    """Debiased moments.   g ← g + weight_decay·w   m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)g²   u = m̂/(√v̂+ε)
    w ← w - lr·u

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; equals torch.optim.Adam."""

    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.   m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)g²   u = m̂/(√v̂+ε)
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; equals torch.optim.AdamW."""

    weight_decay: Number = 1e-2

    couple = staticmethod(uncoupled)
    follow = staticmethod(descend_and_decay)


@dataclass(frozen=True)
class AdamC(AdamW):
    """AdamW whose decay falls with the square of the rate.   u as in AdamW
    w ← w - lr·(u + lr/peak·weight_decay·w)

    So the norm of weights before a normalisation stays in balance with the rate to the end.
    lr: as AdamW's; peak: the highest rate of the schedule.   State: m, v (2 floats per weight).
    Defazio 2025, arXiv:2506.02285."""

    peak: Number = 1e-3

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        corrected = {"weight_decay": self.lr / self.peak * self.weight_decay}
        return moments(xp, t, self.beta1, self.beta2) | corrected


@dataclass(frozen=True)
class AdamInside(Adam):
    """Adam with ε within the root.   m, v as in Adam   u = m̂/√(v̂+ε)
    w ← w - lr·u

    lr: as Adam's.   State: m, v (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, otherwise; equals optax.adam(eps=0, eps_root=)."""

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias1 * m / xp.sqrt(k.unbias2 * v + k.eps), m, v


@dataclass(frozen=True)
class AdamTF(TwoMoments):
    """Adam whose ε stands beside v before its debiasing.   m, v as in Adam   u = √(1-β₂ᵗ)/(1-β₁ᵗ)·m/(√v+ε)
    w ← w - lr·(u + weight_decay·w)

    ε weighs 1/√(1-β₂ᵗ) times as much as in Adam: 30 times in the first step.
    lr: as Adam's.   State: m, v (2 floats per weight).
    Kingma & Ba 2015, arXiv:1412.6980, end of section 2 ("ε̂"); equals keras.optimizers.Adam and AdamW."""

    eps: Number = 1e-7

    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return together(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return k.unbias * m / (xp.sqrt(v) + k.eps), m, v
