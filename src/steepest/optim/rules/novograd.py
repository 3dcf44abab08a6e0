"""NovoGrad: one second moment a weight, that of its gradient's norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule


@dataclass(frozen=True)
class NovoGrad(Rule):
    """Momentum of gradients over their norm.   v ← β₂v+(1-β₂)‖g‖², ‖g‖² at t = 1: one number a weight
    m ← β₁m + g/(√v+ε) + weight_decay·w   u = m   w ← w - lr·u

    lr: length of a whole weight's step, in units of w; 1/(1-β₁) times that along a steady gradient.
    State: m (1 float per weight); v, one for each tensor.
    Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1; equals optax.novograd."""

    lr: Number = 1e-2
    beta1: Number = 0.95
    beta2: Number = 0.98
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("m",)
    shared: ClassVar[Mapping[str, float]] = {"v": 0.0}
    sums = ("squares",)
    scope = "weight"
    signed = ("m",)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        return (g * g,)

    def finalize(self, xp: Any, t: Any, n: Any, squares: Any, v: Any) -> dict[str, Any]:
        v = xp.where(t == 1, squares, lerp(v, squares, 1 - self.beta2))
        return {"v": v, "root": xp.sqrt(v) + self.eps}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        m = k.beta1 * m + g / k.root + k.weight_decay * w
        return m, m
