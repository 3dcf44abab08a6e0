"""ASGD: gradient descent at a falling rate, and the mean of the weights on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, coupled


@dataclass(frozen=True)
class ASGD(Rule):
    """Averaged descent.   g ← g + weight_decay·w   u = g + lambd·w   η = lr/(1 + lambd·lr·(t - 1))^power
    w ← w - η·u   a ← a + (w - a)/max(1, t - 1 - t0): the mean of w from step t0 + 2 on, to test and to ship

    lr: units of w per unit of g, at first.   State: a (1 float per weight).
    Polyak & Juditsky 1992, doi:10.1137/0330046, with the rates of Xu 2011, arXiv:1107.2490;
    equals torch.optim.ASGD at a constant lr (under a schedule torch's η is that of the step before)."""

    lr: Number = 1e-2
    lambd: Number = 1e-4
    power: Number = 0.75
    t0: Number = 1e6
    weight_decay: Number = 0.0

    slots = ("a",)
    couple = staticmethod(coupled)
    quantities: ClassVar = {"power": Quantity("how fast the rate falls", "exponent of the time")}

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (1.0 * w,)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {
            "lr": self.lr / (1 + self.lambd * self.lr * (t - 1)) ** self.power,
            "kept": 1 - 1 / xp.maximum(1.0, t - 1 - self.t0),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, a: Any) -> tuple[Any, ...]:
        u = g + k.lambd * w
        moved = w - k.lr * u
        return u, moved + k.kept * (a - moved)

    @staticmethod
    def evaluate(xp: Any, k: Any, w: Any, a: Any) -> Any:
        return a
