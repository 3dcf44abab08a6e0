"""The sign alone: of the gradient, or of its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay


@dataclass(frozen=True)
class SignSGD(Rule):
    """Sign of the gradient.   u = sign(g)
    w ← w - lr·(u + weight_decay·w)

    lr: length of each coordinate's step, in units of w.   State: none.
    Bernstein et al. 2018, arXiv:1802.04434, algorithm 1; equals optax.sign_sgd."""

    lr: Number = 1e-3
    weight_decay: Number = 0.0

    follow = staticmethod(descend_and_decay)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any) -> tuple[Any, ...]:
        return (xp.sign(g),)


@dataclass(frozen=True)
class Signum(Rule):
    """Sign of a mean of gradients.   m ← momentum·m + (1 - momentum)·g   u = sign(m)
    w ← w - lr·(u + weight_decay·w)

    lr: length of each coordinate's step, in units of w.   State: m (1 float per weight).
    Bernstein et al. 2018, arXiv:1802.04434, algorithm 2."""

    lr: Number = 1e-3
    momentum: Number = 0.9
    weight_decay: Number = 0.0

    slots = ("m",)
    signed = ("m",)
    follow = staticmethod(descend_and_decay)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c": 1 - self.momentum}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c)
        return xp.sign(m), m
