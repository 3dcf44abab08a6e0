"""FTRL: weights made anew in each step from the sum of all gradients; many of them exactly 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, depart


@dataclass(frozen=True)
class FTRL(Rule):
    """Follow the regularised leader.   n ← n + g²   1/η = (n^power + beta)/lr, σ by how much it grew
    z ← z + g + 2·l2_shrinkage·w - σw   u = w - (clip(z, ±l1) - z)/(1/η + 2·l2)   w ← w - u

    w is a function of z and n: where |z| ≤ l1 it is 0. z begins at 0 whatever w is, so that the first step
    forgets weights that are not 0, the more so the smaller its gradient: a rule for linear models from 0.
    l2 pulls towards 0 by where a weight is now; l2_shrinkage enters the sum z as a gradient does, and not n.
    lr: length of a coordinate's first step, in units of w.
    State: z, n (2 floats per weight), n first `initial`; 1/lr of the last step for each tensor.
    McMahan et al. 2013, doi:10.1145/2487575.2488200, algorithm 1; equals at a constant lr
    keras.optimizers.Ftrl(learning_rate_power=-power), where a new lr stretches the weights; l2_shrinkage is
    its l2_shrinkage_regularization_strength."""

    lr: Number = 1e-3
    power: Number = 0.5
    initial: float = 0.1
    l1: Number = 0.0
    l2: Number = 0.0
    beta: Number = 0.0
    l2_shrinkage: Number = 0.0

    slots = ("z", "n")
    shared: ClassVar[Mapping[str, float]] = {"per": 0.0}
    scope = "weight"
    follow = staticmethod(depart)
    quantities: ClassVar = {
        "power": Quantity("how fast rates fall with the sum of squares", "its exponent"),
        "beta": Quantity("what is added to the root of the sum of squares", "units of g"),
        "l2_shrinkage": Quantity(
            "the pull of the penalty l2_shrinkage·w²", "half of units of g per unit of w"
        ),
    }

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.zeros_like(w), xp.full_like(w, self.initial)

    def scalars(self, xp: Any, t: Any, per: Any) -> dict[str, Any]:
        """At lr = 0, where 1/η is ∞, nothing moves, and the next step goes on from the last positive lr."""
        now = 1 / xp.where(self.lr > 0, self.lr, 1.0)
        before = xp.where(per > 0, per, now)
        return {
            "now": now,
            "before": before,
            "shift": self.beta * (now - before),
            "least": self.beta * now + 2 * self.l2,
            "pull": 2 * self.l2_shrinkage,
            "moves": xp.where(self.lr > 0, 1.0, 0.0),
            "per": xp.where(self.lr > 0, now, per),
        }

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, z: Any, n: Any) -> tuple[Any, ...]:
        new = n + k.moves * (g * g)
        root = k.now * new**k.power
        sigma = root - k.before * n**k.power + k.shift
        z = z + k.moves * (g + k.pull * w - sigma * w)
        clipped = xp.minimum(xp.maximum(z, -k.l1), k.l1)
        return k.moves * (w - (clipped - z) / (root + k.least)), z, new
