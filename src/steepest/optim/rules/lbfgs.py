"""L-BFGS: Newton's direction, by the curvature between the last steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from steepest.optim.maths import unless_zero
from steepest.optim.rule import Number, Rule, coupled

PAIRS = 10
"""Steps that are remembered, as in SciPy. The newest has the number 0."""

LEAST = 1e-10
"""Cosine of the angle between a step and the change of the gradient up to which a pair tells nothing."""

AT = range(PAIRS + 1)
COUPLES = [(i, j) for i in AT for j in range(i + 1)]
"""Numbers of pairs of which the second is not the older one."""


@dataclass(frozen=True)
class LBFGS(Rule):
    """Newton's direction by the last ten pairs.   g ← g + weight_decay·w   s = w - o, y = g - p
    u = Hg, H = γ and all pairs by the recursion of two loops, γ = s·y/(y·y) of the newest   w ← w - lr·u

    For gradients of the whole data, or of large batches: y compares those of two steps. A pair without
    curvature (s·y ≤ 1e-10·‖s‖·‖y‖) is left out; before the first, γ = min(1, 1/Σ|g|). Nothing is searched
    along the direction: for that see steepest.torch.LBFGS. o, p: the last w and g. Inner
    products run over all weights of the rule.
    lr: a factor without unit (Newton's step is 1).   State: ten s, ten y, o, p (22 floats per weight).
    Liu & Nocedal 1989, doi:10.1007/BF01589116, without a line search; inner products before both loops as in
    Chen, Wang & Zhou 2014, section 3; equals torch.optim.LBFGS(max_iter=1, history_size=10)."""

    lr: Number = 1.0
    weight_decay: Number = 0.0

    slots = (*(f"s{i}" for i in range(PAIRS)), *(f"y{i}" for i in range(PAIRS)), "o", "p")
    sums = (
        *(f"gs{i}" for i in AT),
        *(f"gy{i}" for i in AT),
        *(f"s{i}y{j}" for i, j in COUPLES),
        *(f"y{i}y{j}" for i, j in COUPLES),
        "s0s0",
        "size",
    )
    whole = True
    couple = staticmethod(coupled)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return *(xp.zeros_like(w) for _ in range(2 * PAIRS)), 1.0 * w, xp.zeros_like(w)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        s, y = pairs(w, g, slots)
        curved, changes = [s[i] * y[j] for i, j in COUPLES], [y[i] * y[j] for i, j in COUPLES]
        return *(g * x for x in (*s, *y)), *curved, *changes, s[0] * s[0], xp.abs(g)

    def finalize(self, xp: Any, t: Any, n: Any, *sums: Any) -> dict[str, Any]:
        *products, square, size = sums
        lengths = len(AT), len(AT), len(COUPLES), len(COUPLES)
        gs, gy, curved, changes = (
            products[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)
        )
        bent = curved[0] > LEAST * xp.sqrt(square * changes[0])
        gs, gy = (taken(xp, bent, x) for x in (gs, gy))
        sy, yy = (taken_of_two(xp, bent, x) for x in (curved, changes))
        first = xp.minimum(1.0, 1 / unless_zero(xp, size))
        gamma = xp.where(sy[0, 0] > 0, sy[0, 0] / unless_zero(xp, yy[0, 0]), first)
        along, against = two_loops(xp, gamma, gs, gy, sy, yy)
        numbers = {f"a{i}": x for i, x in enumerate(along)} | {f"b{i}": x for i, x in enumerate(against)}
        return {"bent": xp.where(bent, 1.0, 0.0), "gamma": gamma} | numbers

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        s, y = (taken(xp, k.bent > 0, x) for x in pairs(w, g, slots))
        along = k.a0, k.a1, k.a2, k.a3, k.a4, k.a5, k.a6, k.a7, k.a8, k.a9
        against = k.b0, k.b1, k.b2, k.b3, k.b4, k.b5, k.b6, k.b7, k.b8, k.b9
        u = k.gamma * g
        for a, x in zip((*along, *against), (*s, *y), strict=True):
            u = u + a * x
        return u, *s, *y, w, g


def pairs(w: Any, g: Any, slots: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(steps, changes of the gradient), from the one just made to the oldest."""
    *old, o, p = slots
    return [w - o, *old[:PAIRS]], [g - p, *old[PAIRS:]]


def taken(xp: Any, bent: Any, of_each: Sequence[Any]) -> list[Any]:
    """What belongs to the pairs that are kept: the newest first where it is bent, else not at all."""
    return [xp.where(bent, new, old) for new, old in pairwise(of_each)]


def taken_of_two(xp: Any, bent: Any, of_two: Sequence[Any]) -> dict[tuple[int, int], Any]:
    """The same of numbers that belong to two pairs each, by the numbers that these then have."""
    at = dict(zip(COUPLES, of_two, strict=True))
    return {(i, j): xp.where(bent, at[i, j], at[i + 1, j + 1]) for i, j in COUPLES if i < PAIRS}


def two_loops(
    xp: Any, gamma: Any, gs: Sequence[Any], gy: Sequence[Any], sy: Mapping[Any, Any], yy: Mapping[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """(factors of all s, factors of all y) in Hg - γg, by inner products; pairs of zeros count nothing."""
    per = [xp.where(sy[i, i] > 0, 1 / unless_zero(xp, sy[i, i]), 0.0) for i in range(PAIRS)]
    alpha: list[Any] = []
    for i in range(PAIRS):
        alpha.append(per[i] * (gs[i] - sum(alpha[j] * sy[i, j] for j in range(i))))
    along: list[Any] = [0.0] * PAIRS
    for i in reversed(range(PAIRS)):
        bent = gamma * (gy[i] - sum(alpha[j] * yy[max(i, j), min(i, j)] for j in range(PAIRS)))
        along[i] = alpha[i] - per[i] * (bent + sum(along[j] * sy[j, i] for j in range(i + 1, PAIRS)))
    return along, [-gamma * a for a in alpha]
