"""The vocabulary of rules in JAX, and one step over many weights. Everything is traceable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from steepest.optim.engines.on_numpy import normal
from steepest.optim.engines.pure import Shared, numbers_at, step_all, with_floats
from steepest.optim.errors import UserError
from steepest.optim.maths import VOCABULARY
from steepest.optim.rule import Rule

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


def _normal(shape: Sequence[int], seed: int, t: Any, like: Any) -> jax.Array:
    if isinstance(t, int):
        return jnp.asarray(normal(tuple(shape), seed, t), like.dtype)
    key = jax.random.fold_in(jax.random.key(seed), jnp.asarray(t).astype(jnp.uint32))
    return jax.random.normal(key, tuple(shape), like.dtype)


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) else x


JAX = SimpleNamespace(
    **{name: with_floats(name, getattr(jnp, name)) for name in (*VOCABULARY, "cos")},
    **{name: getattr(jnp, name) for name in _SAME},
    zeros=lambda shape, like: jnp.zeros(shape, like.dtype),
    eye=lambda n, like: jnp.eye(n, dtype=like.dtype),
    eigh=jnp.linalg.eigh,
    qr=jnp.linalg.qr,
    svd=lambda x: jnp.linalg.svd(x, full_matrices=False),
    solve_triangular=lambda a, b, lower=False: jax.scipy.linalg.solve_triangular(a, b, lower=lower),
    argsort=lambda x: jnp.argsort(x, axis=-1, stable=True),
    take=jnp.take,
    addmm=lambda c, a, b, beta=1.0, alpha=1.0: beta * c + alpha * (a @ b),
    normal=_normal,
    cond=jax.lax.cond,
    cast=_cast,
    total=lambda x, shape: jnp.sum(jnp.broadcast_to(x, shape), dtype=float),
)
"""`xp` for JAX: the closed vocabulary of rules, and that of whole arrays."""


def wide(x: Any) -> jax.Array:
    """An array in the dtype of arithmetic and state: float32 for 16-bit floats, a complex one as pairs."""
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag], -1)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def narrow(x: jax.Array, like: Any) -> jax.Array:
    """The way back: in the dtype of another array, and complex where that is."""
    if jnp.iscomplexobj(like):
        return jax.lax.complex(x[..., 0], x[..., 1]).astype(like.dtype)
    return x.astype(like.dtype)


def exact(w: Any, lost: Any) -> jax.Array:
    """A weight with what rounding has taken from it."""
    return w if lost is None else wide(w) + wide(lost)


def rounded(x: jax.Array, like: Any) -> tuple[jax.Array, jax.Array]:
    """(the nearest that a 16-bit dtype holds, as float32; what that takes away).

    A compiler may leave out a cast to 16 bits and back again, but not lax.reduce_precision."""
    kind = jnp.finfo(like.dtype)
    near = jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
    return near, (x - near).astype(like.dtype)


def scalar(number: Any) -> jax.Array:
    """A number in the dtype of scalars: float32, or float64 where jax_enable_x64 is set."""
    return jnp.asarray(number, dtype=float)


def scalars(numbers: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The same of several by name."""
    return {name: scalar(number) for name, number in numbers.items()}


def scheduled(rule: Rule, t: Any) -> dict[str, jax.Array]:
    """What the rule's schedules say of step t."""
    return scalars(numbers_at(rule, JAX, scalar(t)))


def numbers_of(rule: Rule, t: Any) -> dict[str, jax.Array]:
    """Every hyperparameter in step t."""
    fixed = {name: getattr(rule, name) for name in rule.numbers() if not callable(getattr(rule, name))}
    return {name: (scalars(fixed) | scheduled(rule, t))[name] for name in rule.numbers()}


def start(rule: Rule, name: str, w: Any) -> tuple[jax.Array, ...]:
    """The slots of a weight before its first update."""
    if not jnp.issubdtype(w.dtype, jnp.inexact):
        raise UserError(
            f"The weight {name!r} is {w.dtype}, and rules move floating-point numbers alone. "
            f"Leave it out, as optax.masked and optax.partition do."
        )
    if not rule.takes(wide(w).shape):
        raise UserError(
            f"{type(rule).__name__} moves matrices, and {name!r} has the shape {w.shape}. Give it and its "
            f"like to another rule, as optax.partition does."
        )
    if rule.whole and jnp.iscomplexobj(w):
        raise UserError(f"{type(rule).__name__} looks at rows and columns, and {name!r} is {w.dtype}.")
    return tuple(rule.init(JAX, wide(w)))


def step(
    rule: Rule, t: Any, rows: Sequence[Sequence[Any]], shared: Sequence[Shared]
) -> tuple[list[tuple[jax.Array, ...]], list[Shared]]:
    """New (w, *slots) of rows (w, g, *reads, *slots), in the dtype of arithmetic, and new shared scalars.

    The rule holds arrays; see `numbers_of`."""
    return step_all(JAX, [rule] * len(rows), scalar(t), [[wide(x) for x in row] for row in rows], shared)


def shipped(rule: Rule, t: Any, w: Any, slots: Sequence[Any], shared: Shared) -> jax.Array:
    """The weights to test and to ship, in the dtype of arithmetic."""
    k, _ = rule.constants(JAX, scalar(t), shared)
    return rule.evaluate(JAX, k, wide(w), *slots)


def uphill(rule: Any, weights: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    """The weights a distance `radius` up, where the rule wants its gradient from.

    s = ascent(w, g)   w + radius·ascent(w, s)/(‖s‖ + 1e-12), the norm over all weights"""
    wides = [
        (wide(w), wide(jnp.zeros_like(w) if g is None else g))
        for w, g in zip(weights, gradients, strict=True)
    ]
    steep = [rule.perturb(JAX, w, g) for w, g in wides]
    length = rule.radius / (jnp.sqrt(sum(JAX.total(s * s, s.shape) for s in steep)) + 1e-12)
    up = [
        w + length.astype(w.dtype) * rule.perturb(JAX, w, s) for (w, _), s in zip(wides, steep, strict=True)
    ]
    return [narrow(x, w) for x, w in zip(up, weights, strict=True)]
