"""Weights as arrays with axes: how rules of matrices and tensors look at them, and sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from steepest.optim.errors import UserError

AXES = 4
"""A tensor has at most so many axes to a rule; those beyond are one with the last."""


def norm(xp: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Euclidean norm over all axes, or those given."""
    return xp.sqrt(xp.sum(x * x, axis=axis, keepdims=keepdims))


def rms(xp: Any, x: Any) -> Any:
    """Root of the mean square of all elements."""
    return xp.sqrt(xp.mean(x * x))


def ratio(xp: Any, a: Any, b: Any) -> Any:
    """a/b, and 0 where b is 0; NaN stays in sight."""
    return xp.where(b == 0, 0 * a, a / xp.where(b == 0, b + 1, b))


def as_they_are(*arrays: Any) -> tuple[Any, ...]:
    """What a step leaves alone."""
    return arrays


def empty(xp: Any, w: Any) -> Any:
    """What stands in a slot that a weight of this shape does not need."""
    return xp.zeros((0,), w)


def folded(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with one to AXES axes: a number is a vector of one, axes beyond become one with the last."""
    shape = tuple(shape) or (1,)
    return shape if len(shape) <= AXES else (*shape[: AXES - 1], prod(shape[AXES - 1 :]))


def matrix(shape: Sequence[int], batch_axes: int = 0) -> tuple[int, ...]:
    """The shape as matrices: (…, out, in), and of a convolution (out, in·height·width)."""
    shape = tuple(shape)
    return (*shape[: batch_axes + 1], prod(shape[batch_axes + 1 :]))


def is_matrix(shape: Sequence[int], batch_axes: int = 0) -> bool:
    """Whether there are at least two axes behind those that count matrices."""
    return len(shape) >= 2 + batch_axes


def refuse(rule: Any, shape: Sequence[int]) -> None:
    """UserError where a rule cannot move a weight of this shape."""
    if not rule.takes(shape):
        raise UserError(
            f"{type(rule).__name__} moves matrices, and a weight has the shape {tuple(shape)}. "
            "steepest.torch.optimizer(model, rule) gives it the matrices and AdamW the rest; "
            "or name a rule for the others in groups={pattern: rule}."
        )


def transposed(xp: Any, x: Any) -> Any:
    """The last two axes the other way round."""
    return xp.swapaxes(x, -1, -2)


def unfolded(xp: Any, x: Any, axis: int) -> Any:
    """One axis as rows, all others as columns."""
    return xp.reshape(xp.swapaxes(x, axis, 0), (x.shape[axis], -1))


def gram(xp: Any, x: Any, axis: int) -> Any:
    """Products of an array with itself over all axes but one, which is left twice.   X_(i)·X_(i)ᵀ"""
    rows = unfolded(xp, x, axis)
    return rows @ transposed(xp, rows)


def along(xp: Any, x: Any, axis: int, a: Any) -> Any:
    """A matrix times every column of an array that runs along one axis."""
    last = xp.swapaxes(x, axis, -1)
    # Rows of a matrix: TensorFlow multiplies no vector by a matrix.
    rows = xp.reshape(last, (-1, x.shape[axis])) @ transposed(xp, a)
    return xp.swapaxes(xp.reshape(rows, (*last.shape[:-1], a.shape[0])), axis, -1)


def column(xp: Any, x: Any, axis: int, ndim: int) -> Any:
    """A vector that lies along one of ndim axes."""
    return xp.reshape(x, tuple(-1 if i == axis else 1 for i in range(ndim)))
