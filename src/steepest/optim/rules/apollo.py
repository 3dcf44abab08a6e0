"""APOLLO: the gradient itself, each channel as long as Adam would make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

from steepest.optim.quantity import choice
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments
from steepest.optim.rules.low_rank import adam, gain, is_left, rank_of, restrained, start, through
from steepest.optim.rules.shapes import as_they_are, is_matrix, matrix, refuse


@dataclass(frozen=True)
class Apollo(Rule):
    """The gradient, lengthened as Adam lengthens a random projection of it.   r = pᵀg
    m ← β₁m+(1-β₁)r   v ← β₂v+(1-β₂)r²   s = scale·g·‖m̂/(√v̂+ε)‖/‖r‖, column by column
    ‖s‖ ← min(‖s‖, growth_limit·‖s‖ of the last step)   u = s   w ← w - lr·(u + weight_decay·w)

    p: normal numbers over √rank, of the seed, new every `every` steps. Where rows > cols r = g·p, row by row.
    per="tensor" has one length for the whole: with rank=1 and scale=128 that is APOLLO-Mini.
    For matrices (out, in); a convolution is (out, in·height·width).
    lr: length of a typical coordinate's step, in units of w.
    State: m, v (2·rank floats a column), p (rank floats a row), of the longer and the shorter side;
    n (1 number).
    Zhu et al. 2024, arXiv:2412.05270, algorithm 1."""

    lr: Number = 1e-2
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    scale: Number = 1.0
    growth_limit: Number = 1.01
    weight_decay: Number = 0.0
    rank: int = 128
    every: int = 200
    per: str = "channel"
    seed: int = 0

    slots = ("m", "v", "p", "n")
    momenta = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("Apollo's per", self.per, ("channel", "tensor"))

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return *start(xp, w, self.rank), xp.zeros((1,), w)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        period, first = (t - 1) // self.every, {"first": t == 1, "due": (t - 1) % self.every == 0}
        return moments(xp, t, self.beta1, self.beta2) | first | {"period": period}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, p: Any, n: Any) -> tuple[Any, ...]:
        left, x = is_left(w), xp.reshape(g, matrix(w.shape))
        (p,) = xp.cond(k.due, partial(self._drawn, xp, k, w), as_they_are, p)
        r = through(xp, x, p, left)
        d, m, v = adam(xp, k, r, m, v)
        axis = None if self.per == "tensor" else 0 if left else 1
        u, n = restrained(xp, k, k.scale * gain(xp, d, r, axis) * x, n)
        return xp.reshape(u, w.shape), m, v, p, xp.reshape(n, (1,))

    def _drawn(self, xp: Any, k: Any, w: Any, p: Any) -> tuple[Any]:
        return (xp.normal(p.shape, self.seed, k.period, p) / sqrt(rank_of(w, self.rank)),)
