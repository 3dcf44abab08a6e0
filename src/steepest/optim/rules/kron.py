"""Kron: PSGD with a triangular factor on each axis, learnt by multiplicative steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.kronecker import axes_of
from steepest.optim.rules.shapes import (
    AXES,
    along,
    as_they_are,
    column,
    empty,
    folded,
    gram,
    norm,
    ratio,
    rms,
    transposed,
    unfolded,
)

_GUARD = 1e-30
_LONGEST = 1.1
"""Root mean square of a step, above which it is shortened; 1 where the factors whiten."""


@dataclass(frozen=True)
class Kron(Rule):
    """Momentum whitened by factors that are fitted to it.   m ← momentum·m + (1-momentum)·g   h = m̂
    a = h times qᵢ on every axis   b = noise times qᵢ⁻ᵀ on every axis
    qᵢ ← qᵢ - precondition_lr·triu(a₍ᵢ₎a₍ᵢ₎ᵀ - b₍ᵢ₎b₍ᵢ₎ᵀ)·qᵢ/‖a₍ᵢ₎a₍ᵢ₎ᵀ + b₍ᵢ₎b₍ᵢ₎ᵀ‖
    u = h times qᵢᵀqᵢ on every axis   u ← u·min(1, 1.1/RMS(u))   w ← w - lr·(u + weight_decay·w)

    qᵢ: upper triangular; a diagonal for axes of 1, of more than `largest`, and of vectors. Fitted in each of
    the first `flat` steps, then ever more seldom by the factor e^fall a step, at last once in `every`.
    lr: root mean square of a step, in units of w; a little above Adam's.
    State: m (1 float per weight), q0 to q3 (n² for an axis of n, or n), waited (1 number).
    Li 2018, arXiv:1512.04202, and 2024, arXiv:2402.11858; equals kron_torch and timm's Kron, without their
    balancing of the factors, which changes no product of them."""

    lr: Number = 1e-3
    momentum: Number = 0.9
    precondition_lr: Number = 0.1
    fall: Number = 1e-3
    weight_decay: Number = 0.0
    every: int = 34
    flat: int = 500
    largest: int = 2048
    seed: int = 0

    slots = ("m", "q0", "q1", "q2", "q3")
    shared = {"waited": 0.0}  # noqa: RUF012
    scope = "weight"
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        full, shape = self._full(w), folded(w.shape)
        factors = [xp.eye(n, w) if i in full else xp.zeros((n,), w) + 1.0 for i, n in enumerate(shape)]
        return xp.zeros_like(w), *factors, *(empty(xp, w) for _ in range(AXES - len(shape)))

    def scalars(self, xp: Any, t: Any, waited: Any) -> dict[str, Any]:
        # In logarithms: a whole `every` is met exactly, and nothing overflows.
        pause = xp.minimum(self.fall * xp.maximum(t - 1 - self.flat, 0), log(self.every))
        due = xp.log(waited + 1) >= pause
        return {
            "c1": 1 - self.momentum,
            "unbias": 1 / debias(xp, self.momentum, t),
            "t": t,
            "due": due,
            "waited": xp.where(due, 0.0, waited + 1),
        }

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, *q: Any) -> tuple[Any, ...]:
        shape, full = folded(w.shape), self._full(w)
        m = lerp(m, g, k.c1)
        h = xp.reshape(k.unbias * m, shape)
        used, unused = q[: len(shape)], q[len(shape) :]
        _, *used = xp.cond(k.due, partial(self._fitted, xp, k, full), as_they_are, h, *used)
        u = h
        for axis, factor in enumerate(used):
            u = _times(xp, u, axis, factor, axis in full)
            u = _times(xp, u, axis, transposed(xp, factor) if axis in full else factor, axis in full)
        u = u * xp.minimum(_LONGEST / (rms(xp, u) + 1e-8), 1.0)
        return xp.reshape(u, w.shape), m, *used, *unused

    def _fitted(self, xp: Any, k: Any, full: Any, h: Any, *factors: Any) -> tuple[Any, ...]:
        a, b = h, xp.normal(h.shape, self.seed, k.t, h)
        for axis, factor in enumerate(factors):
            a = _times(xp, a, axis, factor, axis in full)
            b = _divided(xp, b, axis, factor, axis in full)
        return h, *(
            _triangular(xp, k, a, b, axis, factor) if axis in full else _diagonal(xp, k, a, b, axis, factor)
            for axis, factor in enumerate(factors)
        )

    def _full(self, w: Any) -> tuple[int, ...]:
        """The axes with a triangular factor."""
        shape = folded(w.shape)
        axes = axes_of(w.shape, self.largest) if len(w.shape) > 1 else ()
        return tuple(axis for axis in axes if shape[axis] > 1)


def _times(xp: Any, x: Any, axis: int, factor: Any, full: bool) -> Any:
    return along(xp, x, axis, factor) if full else x * column(xp, factor, axis, x.ndim)


def _divided(xp: Any, x: Any, axis: int, factor: Any, full: bool) -> Any:
    """Times the inverse of the factor's transpose."""
    if not full:
        return x / column(xp, factor, axis, x.ndim)
    rows = xp.swapaxes(x, axis, 0)
    solved = xp.solve_triangular(transposed(xp, factor), xp.reshape(rows, (rows.shape[0], -1)), lower=True)
    return xp.swapaxes(xp.reshape(solved, rows.shape), axis, 0)


def _triangular(xp: Any, k: Any, a: Any, b: Any, axis: int, factor: Any) -> Any:
    one, other = gram(xp, a, axis), gram(xp, b, axis)
    step = xp.triu(one - other) / (_size(xp, one + other) + _GUARD)
    return xp.addmm(factor, k.precondition_lr * step, factor, 1.0, -1.0)


def _diagonal(xp: Any, k: Any, a: Any, b: Any, axis: int, factor: Any) -> Any:
    one, other = (xp.sum(rows * rows, axis=1) for rows in (unfolded(xp, a, axis), unfolded(xp, b, axis)))
    return factor - k.precondition_lr * (one - other) / (xp.max(xp.abs(one + other)) + _GUARD) * factor


def _size(xp: Any, s: Any) -> Any:
    """A number just below the spectral norm of a matrix of products, found from its longest row."""
    height = xp.max(xp.abs(s))
    s = ratio(xp, s, height)
    longest = xp.take(s, xp.argsort(xp.sum(s * s, axis=1))[-1:], 0)
    x = s @ transposed(xp, longest)
    return height * norm(xp, transposed(xp, s) @ ratio(xp, x, norm(xp, x)))
