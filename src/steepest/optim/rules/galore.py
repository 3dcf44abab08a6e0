"""GaLore and Fira: Adam on a few singular directions of the gradient, without and with the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments
from steepest.optim.rules.low_rank import (
    adam,
    back,
    gain,
    is_left,
    rank_of,
    restrained,
    singular,
    start,
    through,
)
from steepest.optim.rules.shapes import as_they_are, is_matrix, matrix, refuse


def _seen(self: Any, xp: Any, k: Any, w: Any, g: Any, p: Any) -> tuple[Any, Any]:
    """(the gradient as a matrix, the projection, anew where it is due)."""
    x, r = xp.reshape(g, matrix(w.shape)), rank_of(w, self.rank)
    return xp.cond(k.due, partial(_turned, xp, r, is_left(w)), as_they_are, x, p)


def _turned(xp: Any, r: int, left: bool, x: Any, p: Any) -> tuple[Any, Any]:
    return x, singular(xp, x, r, left)


@dataclass(frozen=True)
class GaLore(Rule):
    """Adam on the gradient's first singular directions.
    p ← first `rank` singular vectors of g, every `every` steps
    r = pᵀg   m ← β₁m+(1-β₁)r   v ← β₂v+(1-β₂)r²   u = scale·p·m̂/(√v̂+ε)   w ← w - lr·(u + weight_decay·w)

    p: left singular vectors where rows ≤ cols, else right ones, with r = g·p; each in the direction in which
    its elements add up to more than 0. m and v stay as they are when p changes.
    For matrices (out, in); a convolution is (out, in·height·width).
    lr: length of a coordinate's step among the directions, over scale, in units of w.
    State: m, v (2·rank floats a column), p (rank floats a row); of the longer and the shorter side.
    Zhao et al. 2024, arXiv:2403.03507, algorithm 2."""

    lr: Number = 1e-2
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    scale: Number = 0.25
    weight_decay: Number = 0.0
    rank: int = 128
    every: int = 200

    slots = ("m", "v", "p")
    momenta = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return start(xp, w, self.rank)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2) | {"due": (t - 1) % self.every == 0}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, p: Any) -> tuple[Any, ...]:
        x, p = _seen(self, xp, k, w, g, p)
        d, m, v = adam(xp, k, through(xp, x, p, is_left(w)), m, v)
        return xp.reshape(k.scale * back(xp, d, p, is_left(w)), w.shape), m, v, p


@dataclass(frozen=True)
class Fira(Rule):
    """GaLore, and the rest of the gradient at the scale that Adam finds.   p, r = pᵀg, m, v as in GaLore
    d = m̂/(√v̂+ε)   s = ‖d‖/‖r‖·(g - p·r), column by column; at most growth_limit times as long as the last
    u = scale·p·d + s   w ← w - lr·(u + weight_decay·w)

    Where p holds right singular vectors (rows > cols), row by row.
    For matrices (out, in); a convolution is (out, in·height·width).
    lr: length of a coordinate's step, in units of w.
    State: m, v (2·rank floats a column), p (rank floats a row), of the longer and the shorter side;
    n (1 number).
    Chen et al. 2024, arXiv:2410.01673, algorithm 1; as pytorch-optimizer's Fira, which limits
    growth before m and v are debiased."""

    lr: Number = 1e-2
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    scale: Number = 1.0
    growth_limit: Number = 1.01
    weight_decay: Number = 0.0
    rank: int = 128
    every: int = 200

    slots = ("m", "v", "p", "n")
    momenta = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return *start(xp, w, self.rank), xp.zeros((1,), w)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        due = {"due": (t - 1) % self.every == 0, "first": t == 1}
        return moments(xp, t, self.beta1, self.beta2) | due

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, p: Any, n: Any) -> tuple[Any, ...]:
        left = is_left(w)
        x, p = _seen(self, xp, k, w, g, p)
        r = through(xp, x, p, left)
        d, m, v = adam(xp, k, r, m, v)
        rest = gain(xp, d, r, 0 if left else 1) * (x - back(xp, r, p, left))
        rest, n = restrained(xp, k, rest, n)
        u = k.scale * back(xp, d, p, left) + rest
        return xp.reshape(u, w.shape), m, v, p, xp.reshape(n, (1,))
