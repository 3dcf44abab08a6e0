"""Schedule-free rules: the average of the weights takes the place of a falling rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import debias, lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, depart
from steepest.optim.wrappers.free import average_share, warmed, way_back

QUANTITIES = {
    "beta": Quantity("the share of the average in the point where gradients are taken", high=1),
    "beta1": Quantity("the share of the average in the point where gradients are taken", high=1),
    "power": Quantity("the power of t by which late steps weigh more in the average"),
    "warmup": Quantity("the updates over which lr grows to its value", "steps; 0: none"),
}


def averaging(
    xp: Any, t: Any, lr: Any, beta: Any, power: Any, warmup: int, largest: Any, total: Any
) -> dict[str, Any]:
    """The rate in force, the share c of the newest z in x, and how w follows from both."""
    lr = warmed(xp, t, lr, warmup)
    share, largest, total = average_share(xp, t, lr, power, largest, total)
    inner, back = lr * (1 - beta * (1 - share)), way_back(xp, beta)
    return {"lr": lr, "share": share, "inner": inner, "back": back, "largest": largest, "total": total}


def between(xp: Any, k: Any, w: Any, u: Any, z: Any) -> tuple[Any, ...]:
    """How far the point between average and z goes back, and the new z.   z ← z - lr·u
    w ← (1-c)·w + c·z - lr·(1 - β(1-c))·u, with the old z"""
    return k.share * (w - z) + k.inner * u, z - k.lr * u


@dataclass(frozen=True)
class ScheduleFreeSGD(Rule):
    """Gradient descent at z, gradients at w, an average x of all z.   u = g + weight_decay·w   z ← z - lr·u
    x ← (1-c)·x + c·z   c = tʳ·max(lr)²/Σ tʳ·max(lr)²   w ← (1-β)·z + β·x, hence
    w ← w - lr·(1 - β(1-c))·u - c·(w - z), with the old z   r: power

    The weights to test and to ship are x = z + (w - z)/β. Use a constant lr, of up to ten times that of SGD
    with momentum; it grows over the first `warmup` updates.
    lr: units of w per unit of g.   State: z (1 float per weight); the sum of weights for all together.
    Defazio et al. 2024, arXiv:2405.15682; equals schedulefree.SGDScheduleFree."""

    lr: Number = 1.0
    beta: Number = 0.9
    weight_decay: Number = 0.0
    power: Number = 0.0
    warmup: int = 0

    slots = ("z",)
    shared: ClassVar[Mapping[str, float]] = {"largest": 0.0, "total": 0.0}
    quantities = QUANTITIES
    follow = staticmethod(depart)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (1.0 * w,)

    def scalars(self, xp: Any, t: Any, largest: Any, total: Any) -> dict[str, Any]:
        return averaging(xp, t, self.lr, self.beta, self.power, self.warmup, largest, total)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, z: Any) -> tuple[Any, ...]:
        return between(xp, k, w, g + k.weight_decay * w, z)

    @staticmethod
    def evaluate(xp: Any, k: Any, w: Any, z: Any) -> Any:
        return lerp(z, w, k.back)


@dataclass(frozen=True)
class ScheduleFreeAdamW(Rule):
    """Adam without momentum at z, gradients at w, an average x of all z.   v ← β₂v+(1-β₂)g²
    u = g/(√v̂+ε) + weight_decay·w   x, z and c as in ScheduleFreeSGD, with β₁ for β, hence
    w ← w - lr·(1 - β₁(1-c))·u - c·(w - z), with the old z

    The weights to test and to ship are x = z + (w - z)/β₁. Use a constant lr, one to ten times AdamW's; it
    grows over the first `warmup` updates.
    lr: length of a coordinate's step, in units of w.
    State: z, v (2 floats per weight); the sum of weights for all together.
    Defazio et al. 2024, arXiv:2405.15682, algorithm 1; equals schedulefree.AdamWScheduleFree."""

    lr: Number = 2.5e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    power: Number = 0.0
    warmup: int = 0

    slots = ("z", "v")
    positive = ("v",)
    shared: ClassVar[Mapping[str, float]] = {"largest": 0.0, "total": 0.0}
    quantities = QUANTITIES
    follow = staticmethod(depart)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return 1.0 * w, xp.zeros_like(w)

    def scalars(self, xp: Any, t: Any, largest: Any, total: Any) -> dict[str, Any]:
        made = averaging(xp, t, self.lr, self.beta1, self.power, self.warmup, largest, total)
        return made | {"c2": 1 - self.beta2, "unbias2": 1 / debias(xp, self.beta2, t)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, z: Any, v: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c2)
        u, z = between(xp, k, w, g / (xp.sqrt(k.unbias2 * v) + k.eps) + k.weight_decay * w, z)
        return u, z, v

    @staticmethod
    def evaluate(xp: Any, k: Any, w: Any, z: Any, v: Any) -> Any:
        return lerp(z, w, k.back)
