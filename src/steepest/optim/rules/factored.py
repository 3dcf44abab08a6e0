"""Second moments of a matrix kept as one average a row and one a column: V = r·c/mean(r)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rules.shapes import empty, rms

Axes = tuple[int, int] | None
"""Which two axes are factored: c is averaged over the first, r over the second; None for a full V."""


def largest_two(shape: Sequence[int], least: int = 0) -> Axes:
    """The two longest axes, where the shorter has this many elements at least."""
    order = sorted(range(len(shape)), key=shape.__getitem__)
    return (order[-2], order[-1]) if len(shape) > 1 and shape[order[-2]] >= least else None


def last_two(shape: Sequence[int]) -> Axes:
    """The last two axes; those before them count matrices."""
    return (len(shape) - 2, len(shape) - 1) if len(shape) > 1 else None


def averages(xp: Any, w: Any, axes: Axes) -> tuple[Any, Any]:
    """r and c before the first step; both empty where V is full."""
    if axes is None:
        return empty(xp, w), empty(xp, w)
    small, big = axes
    return xp.zeros(_without(w.shape, big), w), xp.zeros(_without(w.shape, small), w)


def full(xp: Any, w: Any, axes: Axes) -> Any:
    """V before the first step where it is full; empty where it is factored."""
    return xp.zeros_like(w) if axes is None else empty(xp, w)


def followed(xp: Any, share: Any, squares: Any, axes: Axes, r: Any, c: Any, v: Any) -> tuple[Any, Any, Any]:
    """r, c and V a share of the way to the squares."""
    if axes is None:
        return r, c, lerp(v, squares, share)
    small, big = axes
    r = lerp(r, xp.mean(squares, axis=big, keepdims=True), share)
    return r, lerp(c, xp.mean(squares, axis=small, keepdims=True), share), v


def moment(xp: Any, axes: Axes, r: Any, c: Any, v: Any, least: Any) -> Any:
    """V.   r·c/max(mean(r), least)"""
    return v if axes is None else r / xp.maximum(xp.mean(r, axis=axes[0], keepdims=True), least) * c


def over_root(xp: Any, x: Any, axes: Axes, r: Any, c: Any, v: Any) -> Any:
    """x/√V, one factor after the other: the product of two small ones is 0 in float32.   x/√(r/mean(r))/√c"""
    if axes is None:
        return x / xp.sqrt(v)
    return x / xp.sqrt(r / xp.mean(r, axis=axes[0], keepdims=True)) / xp.sqrt(c)


def clipped(xp: Any, u: Any, threshold: Any) -> Any:
    """A direction whose root mean square is at most a threshold.   u/max(1, RMS(u)/threshold)"""
    return u / xp.maximum(rms(xp, u) / threshold, 1.0)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(1 if i == axis else n for i, n in enumerate(shape))
