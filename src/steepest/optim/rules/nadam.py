"""NAdam: Adam whose momentum looks ahead; on a momentum that grows slowly towards β₁, or stands at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, coupled, descend_and_decay, uncoupled
from steepest.optim.rules.adam import TwoMoments


def looking_ahead(xp: Any, t: Any, beta1: Any, momentum_decay: Any, mu_product: Any) -> dict[str, Any]:
    """Weights of m and g in the numerator, and Π_t.   μ_t = β₁(1 - ½·0.96^(t·ψ))   Π_t = μ₁μ₂…μ_t
    ahead = μ_{t+1}/(1 - Π_t·μ_{t+1})   now = (1 - μ_t)/(1 - Π_t)
    """
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    following = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    return {
        "mu_product": mu_product,
        "now": (1 - mu) / (1 - mu_product),
        "ahead": following / (1 - mu_product * following),
    }


def denominator(xp: Any, t: Any, beta1: Any, beta2: Any) -> dict[str, Any]:
    """Shares of what is new in m and v, and the factor that debiases v."""
    return {"c1": 1 - beta1, "c2": 1 - beta2, "unbias2": 1 / debias(xp, beta2, t)}


@dataclass(frozen=True)
class NAdam(TwoMoments):
    """Adam that looks ahead.   g ← g + weight_decay·w   m, v as in Adam
    u = [(1-μ_t)/(1-Π_t)·g + μ_{t+1}/(1-Π_{t+1})·m]/(√v̂+ε)   μ_t = β₁(1 - ½·0.96^(t·ψ))   Π_t = μ₁μ₂…μ_t
    w ← w - lr·u

    lr: length of a coordinate's step, in units of w.   ψ: momentum_decay.
    State: m, v (2 floats per weight); Π, one for each tensor.
    Dozat 2016, ICLR workshop, algorithm 2; equals torch.optim.NAdam."""

    lr: Number = 2e-3
    momentum_decay: Number = 4e-3

    shared: ClassVar[Mapping[str, float]] = {"mu_product": 1.0}
    scope = "weight"
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any, mu_product: Any) -> dict[str, Any]:
        ahead = looking_ahead(xp, t, self.beta1, self.momentum_decay, mu_product)
        return ahead | denominator(xp, t, self.beta1, self.beta2)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        return (k.now * g + k.ahead * m) / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


@dataclass(frozen=True)
class NAdamW(NAdam):
    """NAdam with decoupled weight decay.   u as in NAdam, of the gradient alone
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight); Π, one for each tensor.
    Dozat 2016, ICLR workshop, with Loshchilov & Hutter 2019, arXiv:1711.05101; equals
    torch.optim.NAdam(decoupled_weight_decay=True)."""

    weight_decay: Number = 1e-2

    couple = staticmethod(uncoupled)
    follow = staticmethod(descend_and_decay)


@dataclass(frozen=True)
class NAdamTF(TwoMoments):
    """NAdam whose momentum reaches β₁ within a hundred steps.   u as in NAdam with ψ = 1
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight); Π, one for each tensor.
    Dozat 2016, ICLR workshop, algorithm 2, with the 0.96ᵗ of Sutskever et al. 2013, ICML;
    equals keras.optimizers.Nadam."""

    eps: Number = 1e-7

    shared: ClassVar[Mapping[str, float]] = {"mu_product": 1.0}
    scope = "weight"
    follow = staticmethod(descend_and_decay)
    direction = staticmethod(NAdam.direction)

    def scalars(self, xp: Any, t: Any, mu_product: Any) -> dict[str, Any]:
        ahead = looking_ahead(xp, t, self.beta1, 1.0, mu_product)
        return ahead | denominator(xp, t, self.beta1, self.beta2)


@dataclass(frozen=True)
class NAdamSimple(TwoMoments):
    """NAdam on a momentum that stands.   g ← g + weight_decay·w   m, v as in Adam
    u = [(1-β₁)/(1-β₁ᵗ)·g + β₁/(1-β₁ᵗ⁺¹)·m]/(√v̂+ε)   w ← w - lr·u

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Dozat 2016, ICLR workshop, algorithm 2, with μ = β₁; equals optax.nadam."""

    couple = staticmethod(coupled)
    direction = staticmethod(NAdam.direction)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        now = (1 - self.beta1) / debias(xp, self.beta1, t)
        ahead = self.beta1 / debias(xp, self.beta1, t + 1)
        return {"now": now, "ahead": ahead} | denominator(xp, t, self.beta1, self.beta2)


@dataclass(frozen=True)
class NAdamWSimple(NAdamSimple):
    """NAdamSimple with decoupled weight decay.   u as in NAdamSimple, of the gradient alone
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's step, in units of w.   State: m, v (2 floats per weight).
    Dozat 2016, ICLR workshop, with Loshchilov & Hutter 2019, arXiv:1711.05101; equals optax.nadamw."""

    weight_decay: Number = 1e-2

    couple = staticmethod(uncoupled)
    follow = staticmethod(descend_and_decay)
