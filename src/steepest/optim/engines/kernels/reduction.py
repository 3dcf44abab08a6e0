"""One pass over gradients: their norm, which is also the check that they are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from operator import attrgetter

import numpy as np
import torch

from steepest.optim.engines.kernels.compiled import ARGUMENTS, SIGNATURE, Kernel, compiled, spread
from steepest.optim.engines.kernels.source import ARITHMETIC, Column, imported
from steepest.optim.engines.on_numba import PLAIN, cut, plain
from steepest.optim.engines.precision.formats import FULL, NEAREST, widest
from steepest.optim.engines.sharded import OVER_MESHES, local

SOURCE = (
    '''"""Sums of squares of {dtype}. Written by steepest, which makes it anew where it is missing."""

from numba import cfunc, njit, types
from numba import {arithmetic} as T

{words}from steepest.optim.engines.kernels.intrinsics import pointer

CACHED = "__file__" in globals()


@njit(fastmath={{"reassoc"}}, error_model="numpy")
def square(g, start, stop):
    total = 0.0
    for i in range(start, stop):
        x = types.float64({element})
        total += x * x
    return total


'''
    + SIGNATURE
    + """def kernel(table, pieces, first, last, sums):
    for piece in range(first, last):
        row, start, stop = pieces[4 * piece], pieces[4 * piece + 1], pieces[4 * piece + 2]
        sums[piece] = square(pointer(table[row], {memory}), start, stop)
"""
)
"""Only the order of a piece's sum is left to the compiler, which fixes it; NaN and infinity stay."""

_layout, _dtype, _on_cpu = attrgetter("layout"), attrgetter("dtype"), attrgetter("is_cpu")


def norm(gradients: Sequence[torch.Tensor], places: Sequence[int] | None = None) -> float:
    """Euclidean norm of all tensors together; nan or inf where any element is. Nothing is written.

    places: where they lie, for one who has seen already that a kernel may read them, all of one dtype.
    Squares are summed in the widest float of the device by pieces of fixed length, so that the bits do not
    depend on the threads."""
    if places is not None:
        return math.sqrt(sum(_by_kernel(gradients, gradients[0].dtype, places)))
    plain_ones = gradients if _all_readable(gradients) else [g for g in gradients if readable(g)]
    squares = [] if plain_ones is gradients else _by_torch([g for g in gradients if not readable(g)])
    dtypes = set(map(_dtype, plain_ones))
    for dtype in filter(dtypes.__contains__, ARITHMETIC):
        same = plain_ones if len(dtypes) == 1 else [g for g in plain_ones if g.dtype is dtype]
        squares += _by_kernel(same, dtype, list(map(torch.Tensor.data_ptr, same)))
    return math.sqrt(sum(squares))


def readable(g: torch.Tensor) -> bool:
    """True where the kernel may read a tensor."""
    return plain(g, g)


def _all_readable(gradients: Sequence[torch.Tensor]) -> bool:
    """The same for all at once, faster, and short of the size of storages, which torch keeps."""
    return (
        PLAIN.issuperset(map(type, gradients))
        and {torch.strided} >= set(map(_layout, gradients))
        and ARITHMETIC.keys() >= set(map(_dtype, gradients))
        and all(map(_on_cpu, gradients))
        and all(map(torch.Tensor.is_contiguous, gradients))
        and all(map(torch.Tensor.data_ptr, filter(torch.Tensor.numel, gradients)))
    )


def _by_torch(gradients: Sequence[torch.Tensor]) -> list[float]:
    """The sum of squares of each, over all processes where it is split over several."""
    squares = []
    for g in map(local, gradients):
        values = g.detach().coalesce().values() if g.is_sparse else g.detach()
        squares.append([float(torch.linalg.vector_norm(values, dtype=_accumulator(values))) ** 2])
    return OVER_MESHES.sum(np.array(squares).reshape(-1, 1), gradients)[:, 0].tolist()


def _accumulator(values: torch.Tensor) -> torch.dtype:
    return widest(values).to_complex() if values.is_complex() else widest(values)


@cache
def _kernel(dtype: torch.dtype) -> Kernel:
    g, name = Column("g", NEAREST.get(dtype, FULL)), str(dtype).removeprefix("torch.")
    source = SOURCE.format(
        dtype=name,
        arithmetic=ARITHMETIC[dtype],
        words=imported(g.loaded()),
        element=g.loaded(),
        memory=g.memory,
    )
    return compiled(f"squares_{name}", source, *ARGUMENTS)


def _by_kernel(gradients: Sequence[torch.Tensor], dtype: torch.dtype, places: Sequence[int]) -> list[float]:
    table = np.array(places, np.int64)
    lengths = tuple(map(torch.Tensor.numel, gradients))
    pieces = _pieces(lengths)
    sums = np.zeros(len(pieces))
    call = table.ctypes.data, pieces.ctypes.data, len(pieces)
    spread(_kernel(dtype), *call, sums.ctypes.data, sum(lengths))
    return sums.tolist()


@cache
def _pieces(lengths: tuple[int, ...]) -> np.ndarray:
    return cut(lengths, [0] * len(lengths))
