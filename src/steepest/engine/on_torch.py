"""The plain engine: a rule on torch tensors of any device, dtype and stride, one weight after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from steepest.maths import HOST, VOCABULARY
from steepest.rule import Rule

_LOW = (torch.bfloat16, torch.float16)


def _on_scalars_too(name: str) -> Callable[[Any], Any]:
    on_tensor, on_float = getattr(torch, name), getattr(HOST, name)
    return lambda x: on_tensor(x) if isinstance(x, torch.Tensor) else on_float(x)


def _of_two(name: str) -> Callable[[Any, Any], Any]:
    on_tensors, on_floats = getattr(torch, name), getattr(HOST, name)

    def operation(a: Any, b: Any) -> Any:
        like = a if isinstance(a, torch.Tensor) else b
        if not isinstance(like, torch.Tensor):
            return on_floats(a, b)
        return on_tensors(torch.as_tensor(a).to(like), torch.as_tensor(b).to(like))

    return operation


def _sign(x: Any) -> Any:
    """-1, 0 or 1, and NaN of NaN, which torch.sign turns into 0."""
    return torch.where(x != x, x, torch.sign(x)) if isinstance(x, torch.Tensor) else HOST.sign(x)


def _where(condition: Any, a: Any, b: Any) -> Any:
    chosen = torch.where if isinstance(condition, torch.Tensor) else HOST.where
    return chosen(condition, a, b)


TORCH = SimpleNamespace(
    **{name: _on_scalars_too(name) for name in set(VOCABULARY) - {"maximum", "minimum", "sign", "where"}},
    maximum=_of_two("maximum"),
    minimum=_of_two("minimum"),
    sign=_sign,
    where=_where,
    zeros_like=torch.zeros_like,
    ones_like=torch.ones_like,
    full_like=torch.full_like,
)
"""`xp` for tensors: the closed vocabulary of rules, mixed with floats as they please."""


def real(x: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor as reals; a complex one as pairs, in the same memory."""
    return torch.view_as_real(x) if x.is_complex() else x


def wide(x: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype of arithmetic and state: float32 for 16-bit floats, else its own."""
    return x.float() if x.dtype in _LOW else x


def start(rule: Rule, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The slots of a weight before its first update."""
    with torch.no_grad():
        slots = rule.init(TORCH, wide(real(w.detach())))
        return tuple(torch.view_as_complex(slot) for slot in slots) if w.is_complex() else tuple(slots)


def update(
    rule: Rule, k: Any, w: torch.Tensor, g: torch.Tensor, slots: Sequence[torch.Tensor], scale: float
) -> None:
    """One update of one weight in place, from `scale` times its gradient. g is not written."""
    w = real(w.detach())
    g = real(g.detach()).to(w.device, wide(w).dtype)
    g = g if scale == 1.0 else scale * g
    slots = [real(slot) for slot in slots]
    moved, *new = rule.update(TORCH, k, wide(w), g, *slots)
    w.copy_(moved)
    for old, value in zip(slots, new, strict=True):
        old.copy_(value)
