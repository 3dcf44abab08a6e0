"""RAdam: Adam that waits until its second moment can be trusted, and steps by the first until then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, coupled, descend_and_decay, uncoupled
from steepest.optim.rules.adam import TwoMoments


def rectification(xp: Any, t: Any, beta2: Any) -> tuple[Any, Any]:
    """(ρ, r): over how many squares v is a mean, and the factor that makes up for the variance of 1/√v.

    ρ∞ = 2/(1-β₂) - 1   ρ = ρ∞ - 2tβ₂ᵗ/(1-β₂ᵗ)   r² = (ρ-4)(ρ-2)ρ∞/((ρ∞-4)(ρ∞-2)ρ), for ρ of 5 and more"""
    longest = 2 / (1 - beta2) - 1
    gathered = debias(xp, beta2, t)
    rho = longest - 2 * t * (1 - gathered) / gathered
    n, most = xp.maximum(rho, 5.0), xp.maximum(longest, 5.0)
    return rho, xp.sqrt((n - 4) * (n - 2) * most / ((most - 4) * (most - 2) * n))


@dataclass(frozen=True)
class RAdam(TwoMoments):
    """Rectified Adam.   g ← g + weight_decay·w   m, v as in Adam   ρ, r as in `rectification`
    u = r·√(1-β₂ᵗ)·m̂/(√v+ε) where ρ > 5 (with β₂ = 0.999: from step 6 on), else m̂   w ← w - lr·u

    lr: length of a coordinate's step, in units of w; in the first steps, units of w per unit of g.
    State: m, v (2 floats per weight).
    Liu et al. 2020, arXiv:1908.03265, algorithm 2; equals torch.optim.RAdam."""

    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        rho, r = rectification(xp, t, self.beta2)
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "unbias1": 1 / debias(xp, self.beta1, t),
            "rectified": xp.where(rho > 5, r * xp.sqrt(debias(xp, self.beta2, t)), 0.0),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        u = k.unbias1 * m
        return xp.where(k.rectified > 0, k.rectified * u / (xp.sqrt(v) + k.eps), u), m, v


@dataclass(frozen=True)
class RAdamW(RAdam):
    """RAdam with decoupled weight decay.   u as in RAdam, of the gradient alone
    w ← w - lr·(u + weight_decay·w)

    lr: as RAdam's.   State: m, v (2 floats per weight).
    Liu et al. 2020, arXiv:1908.03265, with Loshchilov & Hutter 2019, arXiv:1711.05101; equals
    torch.optim.RAdam(decoupled_weight_decay=True)."""

    weight_decay: Number = 1e-2

    couple = staticmethod(uncoupled)
    follow = staticmethod(descend_and_decay)


@dataclass(frozen=True)
class RAdamHat(RAdam):
    """RAdam with ε beside the debiased root.   m, v, ρ, r as in RAdam   u = r·m̂/(√v̂+ε) where ρ ≥ 5, else m̂
    w ← w - lr·u

    lr: as RAdam's.   State: m, v (2 floats per weight).
    Liu et al. 2020, arXiv:1908.03265, algorithm 2; equals optax.radam."""

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        rho, r = rectification(xp, t, self.beta2)
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "unbias1": 1 / debias(xp, self.beta1, t),
            "unbias2": 1 / debias(xp, self.beta2, t),
            "rectified": xp.where(rho >= 5, r, 0.0),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2)
        u = k.unbias1 * m
        return xp.where(k.rectified > 0, k.rectified * u / (xp.sqrt(k.unbias2 * v) + k.eps), u), m, v
