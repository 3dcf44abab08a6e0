"""AdEMAMix: Adam with a second, far slower mean of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments


def slower(xp: Any, share: Any, beta1: Any, beta3: Any) -> Any:
    """What is new in a mean whose half-life has gone this share of the way from that of β₁ to that of β₃.

    1 - β with 1/ln β = (1 - share)/ln β₁ + share/ln β₃"""
    least = 1e-30  # ln 0 is no number to interpolate from
    ends = xp.log(xp.maximum(beta1, least)), xp.log(xp.maximum(beta3, least))
    return -xp.expm1(1 / ((1 - share) / ends[0] + share / ends[1]))


@dataclass(frozen=True)
class AdEMAMix(Rule):
    """A fast and a slow mean.   m, v as in Adam   l ← β₃l+(1-β₃)g, not debiased   u = (m̂+mix·l)/(√v̂+ε)
    w ← w - lr·(u + weight_decay·w)

    Over the first `warmup` updates mix rises in a line from 0, and β₃ from β₁ so that its half-life does.
    lr: length of a coordinate's step, in units of w, up to 1 + mix times that once l is full.
    State: m, l, v (3 floats per weight).
    Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137, algorithm 1."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    beta3: Number = 0.9999
    mix: Number = 2.0
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    warmup: int = 0

    slots = ("m", "l", "v")
    signed = ("m", "l")
    positive = ("v",)
    follow = staticmethod(descend_and_decay)
    quantities: ClassVar = {
        "beta3": Quantity("the share of the slow mean that is kept", "per step", high=1),
        "warmup": Quantity("how long mix and beta3 rise, 0 for not at all", "updates"),
    }

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2) | self._slow(xp, t)

    def _slow(self, xp: Any, t: Any) -> dict[str, Any]:
        """How much of l counts, and what is new in it."""
        if self.warmup == 0:
            return {"mix": self.mix, "c3": 1 - self.beta3}
        share = xp.minimum(1.0, t / self.warmup)
        risen = xp.where(share < 1, slower(xp, share, self.beta1, self.beta3), 1 - self.beta3)
        return {"mix": share * self.mix, "c3": risen}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any, l: Any, v: Any) -> tuple[Any, ...]:  # noqa: E741
        m = lerp(m, g, k.c1)
        l = lerp(l, g, k.c3)  # noqa: E741
        v = lerp(v, g * g, k.c2)
        return (k.unbias1 * m + k.mix * l) / (xp.sqrt(k.unbias2 * v) + k.eps), m, l, v
