"""What rules with one matrix an axis share: which axes have one, their statistics, their eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rules.shapes import AXES, along, empty, folded, gram, transposed

RAMP = 1e-6
"""How far equal eigenvalues are moved apart, in shares of the mean one: every engine finds one basis."""


def axes_of(shape: Sequence[int], largest: int) -> tuple[int, ...]:
    """The axes of the folded shape that are short enough for a matrix of their own."""
    return tuple(axis for axis, n in enumerate(folded(shape)) if n <= largest)


def squares(xp: Any, w: Any, axes: Sequence[int]) -> list[Any]:
    """A zero matrix for each of these axes, and empty ones for the rest of AXES."""
    shape = folded(w.shape)
    return [xp.zeros((shape[i], shape[i]), w) if i in axes else empty(xp, w) for i in range(AXES)]


def tracked(xp: Any, share: Any, x: Any, axes: Sequence[int], statistics: Sequence[Any]) -> list[Any]:
    """The statistics a share of the way to the products of x with itself."""
    return [lerp(s, gram(xp, x, i), share) if i in axes else s for i, s in enumerate(statistics)]


def turned(xp: Any, x: Any, axes: Sequence[int], bases: Sequence[Any]) -> Any:
    """An array seen in the bases, whose columns are directions."""
    for axis in axes:
        x = along(xp, x, axis, transposed(xp, bases[axis]))
    return x


def turned_back(xp: Any, x: Any, axes: Sequence[int], bases: Sequence[Any]) -> Any:
    """What `turned` came from."""
    for axis in axes:
        x = along(xp, x, axis, bases[axis])
    return x


def eigenbasis(xp: Any, s: Any) -> Any:
    """Eigenvectors of a matrix of products, that of the largest eigenvalue first.

    Equal eigenvalues leave them open; a ramp on the diagonal settles them alike in every engine."""
    n = s.shape[0]
    place = xp.sum(xp.tril(xp.ones_like(s)), axis=1) / n
    size = xp.sum(xp.eye(n, s) * s) / n
    values, vectors = xp.eigh(s + xp.eye(n, s) * (RAMP * size * place))
    return xp.take(vectors, xp.argsort(-values), 1)


def iterated(xp: Any, s: Any, basis: Any) -> Any:
    """A basis one power iteration nearer to the eigenvectors, in its own order.

    What s does not reach stays as it was, by a share RAMP of the mean eigenvalue."""
    n = s.shape[0]
    size = xp.sum(xp.eye(n, s) * s) / n
    q, _ = xp.qr(s @ basis + RAMP * size * basis)
    return q


def root(xp: Any, s: Any, damping: Any, power: float) -> Any:
    """A power of a matrix of products, of eigenvalues no less than damping.   (S + damping·I)^power"""
    values, vectors = xp.eigh(s)
    return (vectors * (xp.maximum(values, 0.0) + damping) ** power) @ transposed(xp, vectors)
