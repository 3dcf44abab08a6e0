"""Contexts in which a library computes in the precision of its weights, or draws the numbers that we draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch


@contextmanager
def double_scalars() -> Iterator[None]:
    """torch's default type is float64: scalars that a library keeps in tensors are as exact as Python's."""
    zeros = torch.zeros
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch, "zeros", lambda *args, dtype=None, **rest: zeros(*args, **rest)):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def without_casts() -> Iterator[None]:
    """Tensors stay float64 when they are told to become float32 or bfloat16."""
    to = torch.Tensor.to

    def stay(x: Any, *args: Any, dtype: Any = None, **rest: Any) -> Any:
        return (
            x.clone()
            if {*args, dtype} & {torch.float32, torch.bfloat16}
            else to(x, *args, **_given(dtype), **rest)
        )

    with (
        mock.patch.object(torch.Tensor, "bfloat16", lambda x: x),
        mock.patch.object(torch.Tensor, "float", lambda x: x),
        mock.patch.object(torch.Tensor, "to", stay),
    ):
        yield


def _given(dtype: Any) -> dict[str, Any]:
    return {"dtype": dtype} if dtype is not None else {}


def whole_precision(function: Callable[..., Any]) -> Callable[[], AbstractContextManager[None]]:
    """For a function whose default type is bfloat16."""

    @contextmanager
    def patch() -> Iterator[None]:
        before = function.__defaults__ or ()
        function.__defaults__ = tuple(torch.float64 if one is torch.bfloat16 else one for one in before)
        try:
            yield
        finally:
            function.__defaults__ = before

    return patch


def normal(shape: Any, seed: int, t: int) -> torch.Tensor:
    """Our normal numbers of step t."""
    draw = np.random.Generator(np.random.Philox(key=[seed, t]))
    return torch.from_numpy(draw.standard_normal(tuple(shape)))


@contextmanager
def our_noise(weights: int) -> Iterator[None]:
    """Kron draws what we draw, for that many weights a step; and solves in float64."""
    calls = iter(range(10**9))

    def drawn(shape: Any, **_: Any) -> torch.Tensor:
        return normal(shape, 0, 1 + next(calls) // weights)

    with (
        mock.patch.object(torch, "randn", drawn),
        mock.patch.object(torch, "randn_like", lambda x, **_: drawn(x.shape)),
        without_casts(),
    ):
        yield


@contextmanager
def our_projection(rank: int) -> Iterator[None]:
    """Apollo draws what we draw; the side to be projected is the one that is not the rank."""

    def drawn(shape: Any, **_: Any) -> torch.Tensor:
        return normal(shape, 0, 0) if shape[1] == rank else normal(shape[::-1], 0, 0).T

    with mock.patch.object(torch, "randn", drawn):
        yield
