"""The reference engine: one step in float64, nothing written in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from steepest.optim.engines import pure
from steepest.optim.maths import HOST, VOCABULARY
from steepest.optim.rule import Rule

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Shared: TypeAlias = dict[str, float]

_SAME = (
    "sum",
    "mean",
    "max",
    "reshape",
    "swapaxes",
    "stack",
    "triu",
    "tril",
    "zeros_like",
    "ones_like",
    "full_like",
)


def _normal(shape: tuple[int, ...], seed: int, t: int, like: Any) -> Any:
    return normal(shape, seed, t).astype(like.dtype)


def normal(shape: tuple[int, ...], seed: int, t: int) -> Array:
    """Standard normal numbers that depend on (seed, t) alone."""
    return np.random.Generator(np.random.Philox(key=[seed, int(t)])).standard_normal(shape)


def _of_numbers(decompose: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decomposition that gives NaN where its matrix holds NaN or ∞, instead of an error."""

    def parts(x: Any) -> Any:
        if np.isfinite(x).all():
            return decompose(x)
        return tuple(part + np.nan for part in decompose(np.zeros_like(x)))

    return parts


NUMPY = SimpleNamespace(
    **{name: getattr(np, name) for name in (*VOCABULARY, *_SAME)},
    zeros=lambda shape, like: np.zeros(shape, like.dtype),
    eye=lambda n, like: np.eye(n, dtype=like.dtype),
    eigh=_of_numbers(np.linalg.eigh),
    qr=np.linalg.qr,
    svd=_of_numbers(partial(np.linalg.svd, full_matrices=False)),
    solve_triangular=lambda a, b, lower=False: np.linalg.solve(a, b),
    argsort=lambda x: np.argsort(x, axis=-1, kind="stable"),
    take=np.take,
    addmm=lambda c, a, b, beta=1.0, alpha=1.0: beta * c + alpha * (a @ b),
    normal=_normal,
    cond=lambda condition, f, g, *arrays: f(*arrays) if condition else g(*arrays),
    cast=lambda x, dtype: x,
    total=lambda x, shape: float(np.sum(np.broadcast_to(x, shape))),
)
"""`xp` for arrays: the closed vocabulary of rules, and that of whole arrays."""


def step(
    rule: Rule,
    step: int,
    t: int,
    w: Any,
    g: Any,
    slots: Sequence[Any],
    shared: Mapping[str, float],
    reads: Sequence[Any] = (),
) -> tuple[Array, tuple[Array, ...], Shared]:
    """New (weight, slots, shared scalars) of a weight in its update t, at the global step of the schedules.

    Start from `rule.init(NUMPY, w)` and `rule.shared`. Arrays of any float dtype go in, float64 comes out."""
    ((w, *slots),), (shared,) = step_all(rule, step, t, [(w, g, *reads, *slots)], [shared])
    return w, tuple(slots), shared


def step_all(
    rule: Rule,
    step: int,
    t: int,
    arrays: Sequence[Sequence[Any]],
    shared: Sequence[Mapping[str, float]],
) -> tuple[list[tuple[Array, ...]], list[Shared]]:
    """The same for all weights of a model: a row (w, g, *extra, *slots) and the shared scalars of each.

    Gives a row (w, *slots) and the new shared scalars of each."""
    rules = [rule.at(step)] * len(arrays)
    rows = [[np.asarray(array, np.float64) for array in row] for row in arrays]
    return pure.step_all(NUMPY, rules, t, rows, list(map(dict, shared)), host=HOST)
