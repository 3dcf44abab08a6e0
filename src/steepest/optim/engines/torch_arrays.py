"""What rules that see whole arrays call on `xp`, in torch: maths.WHOLE_VOCABULARY."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from steepest.optim.engines.on_numpy import normal

Axis = int | tuple[int, ...] | None


def _summed(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.sum(x, dim=axis, keepdim=keepdims)


def _mean(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.mean(x, dim=axis, keepdim=keepdims)


def _max(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.amax(x, dim=tuple(range(x.dim())) if axis is None else axis, keepdim=keepdims)


def _reshaped(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return torch.reshape(x, tuple(shape))


def _stack(arrays: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    return torch.stack(list(arrays), dim=axis)


def _argsort(x: torch.Tensor) -> torch.Tensor:
    return torch.argsort(x, dim=-1, stable=True)


def _take(x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.index_select(x, axis, indices)


def _addmm(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1.0, alpha: float = 1.0) -> Any:
    together = {2: torch.addmm, 3: torch.baddbmm}.get(c.dim())
    return together(c, a, b, beta=beta, alpha=alpha) if together else beta * c + alpha * (a @ b)


def _zeros(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)


def _eye(n: int, like: torch.Tensor) -> torch.Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def _of_numbers(decompose: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """A decomposition that gives NaN where its matrix holds NaN or ∞, instead of an error."""

    def parts(x: torch.Tensor) -> Any:
        if torch.isfinite(x).all():
            return decompose(x)
        return tuple(part + torch.nan for part in decompose(torch.zeros_like(x)))

    return parts


def _solve_triangular(a: torch.Tensor, b: torch.Tensor, lower: bool = False) -> torch.Tensor:
    return torch.linalg.solve_triangular(a, b, upper=not lower)


def _normal(shape: Sequence[int], seed: int, t: int, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(normal(tuple(shape), seed, t)).to(like)


def _cond(condition: Any, f: Callable[..., Any], g: Callable[..., Any], *arrays: Any) -> Any:
    return f(*arrays) if condition else g(*arrays)


WHOLE = {
    "sum": _summed,
    "mean": _mean,
    "max": _max,
    "reshape": _reshaped,
    "swapaxes": torch.swapaxes,
    "stack": _stack,
    "triu": torch.triu,
    "tril": torch.tril,
    "argsort": _argsort,
    "take": _take,
    "addmm": _addmm,
    "zeros": _zeros,
    "eye": _eye,
    "eigh": _of_numbers(torch.linalg.eigh),
    "qr": torch.linalg.qr,
    "svd": _of_numbers(partial(torch.linalg.svd, full_matrices=False)),
    "solve_triangular": _solve_triangular,
    "normal": _normal,
    "cond": _cond,
}
"""Each word and what it is in torch. Random numbers are NumPy's, so that both engines have the same."""
