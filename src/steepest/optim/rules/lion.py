"""Lion: the sign of a momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay


@dataclass(frozen=True)
class Lion(Rule):
    """Sign of an interpolated momentum.   u = sign(β₁m+(1-β₁)g)   m ← β₂m+(1-β₂)g
    w ← w - lr·(u + weight_decay·w)

    lr: length of each coordinate's step, in units of w; a third to a tenth of AdamW's, with weight_decay as
    many times larger.
    State: m (1 float per weight).
    Chen et al. 2023, arXiv:2302.06675, algorithm 2."""

    lr: Number = 1e-4
    beta1: Number = 0.9
    beta2: Number = 0.99
    weight_decay: Number = 0.0

    slots = ("m",)
    signed = ("m",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.beta1, "c2": 1 - self.beta2}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        return xp.sign(lerp(m, g, k.c1)), lerp(m, g, k.c2)
