"""What rules of low rank share: a gradient seen through a few directions, and Adam there."""

from __future__ import annotations

from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rules.shapes import matrix, norm, transposed


def rank_of(w: Any, rank: int) -> int:
    """How many directions there can be."""
    return min(rank, *matrix(w.shape))


def is_left(w: Any) -> bool:
    """Whether directions are mixtures of rows: the shorter side is seen through them."""
    rows, cols = matrix(w.shape)
    return rows <= cols


def start(xp: Any, w: Any, rank: int) -> tuple[Any, ...]:
    """m, v and the projection p before the first step."""
    rows, cols = matrix(w.shape)
    r = rank_of(w, rank)
    low = (r, cols) if is_left(w) else (rows, r)
    return xp.zeros(low, w), xp.zeros(low, w), xp.zeros((min(rows, cols), r), w)


def through(xp: Any, x: Any, p: Any, left: bool) -> Any:
    """A matrix seen through the columns of p."""
    return transposed(xp, p) @ x if left else x @ p


def back(xp: Any, x: Any, p: Any, left: bool) -> Any:
    """The matrix that looks so through the columns of p, and has nothing beside them."""
    return p @ x if left else x @ transposed(xp, p)


def singular(xp: Any, x: Any, r: int, left: bool) -> Any:
    """The first r singular vectors on one side, each turned so that its elements add up to more than 0."""
    u, _, vh = xp.svd(x)
    p = u[:, :r] if left else transposed(xp, vh)[:, :r]
    total = xp.sum(p, axis=0)
    return p * xp.where(total < 0, -1.0 + 0.0 * total, 1.0 + 0.0 * total)


def adam(xp: Any, k: Any, x: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """(Adam's direction, m, v) of a matrix seen through a few directions."""
    m = lerp(m, x, k.c1)
    v = lerp(v, x * x, k.c2)
    return k.unbias1 * m / (xp.sqrt(k.unbias2 * v) + k.eps), m, v


def gain(xp: Any, after: Any, before: Any, axis: int | None) -> Any:
    """By how much Adam lengthened each column or row, or the whole.   ‖after‖/(‖before‖ + 10⁻⁸)"""
    keep = axis is not None
    return norm(xp, after, axis=axis, keepdims=keep) / (norm(xp, before, axis=axis, keepdims=keep) + 1e-8)


def restrained(xp: Any, k: Any, x: Any, n: Any) -> tuple[Any, Any]:
    """(x, its norm): at most growth_limit times as long as in the step before, which was n long."""
    length = norm(xp, x)
    over = xp.maximum(length / (n + 1e-8), k.growth_limit) / k.growth_limit
    over = xp.where(k.first, 1.0 + 0.0 * over, over)
    return x / over, length / over
