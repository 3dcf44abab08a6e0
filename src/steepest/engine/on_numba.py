"""The compiled engine: a rule's kernel over a table of addresses in the processor's memory."""

from __future__ import annotations

import ctypes
import struct
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import increment_version

from steepest.engine import kernel_cache, threads
from steepest.engine.inline import NotInlinable
from steepest.engine.kernel_cache import ARGUMENTS
from steepest.engine.kernel_source import source
from steepest.engine.threads import PARALLEL_FROM
from steepest.rule import Rule

PIECE = 1 << 16
"""Elements a kernel does at a time; constant, so that the bits do not depend on the threads."""

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
PLAIN = {torch.Tensor, torch.nn.Parameter}

_address, _size, _contiguous = torch.Tensor.data_ptr, attrgetter("nbytes"), torch.Tensor.is_contiguous
Tensors = Sequence[torch.Tensor]


def by_dtype(
    rows: Sequence[int], weights: Mapping[int, torch.Tensor], slots: Mapping[int, Tensors]
) -> dict[torch.dtype | None, list[int]]:
    """The rows that a kernel may touch, by dtype; under None those for the plain engine."""
    found: dict[torch.dtype | None, list[int]] = {}
    for row in rows:
        w = weights[row]
        fit = all(plain(x, w) for x in (w, *slots[row]))
        found.setdefault(w.dtype if fit else None, []).append(row)
    return found


def plain(x: torch.Tensor, like: torch.Tensor) -> bool:
    """True where x is nothing but a stretch of this processor's memory, with as many numbers as `like`."""
    return (
        type(x) in PLAIN
        and x.layout is torch.strided
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.dtype is like.dtype
        and x.shape == like.shape
        and x.is_contiguous()
        and not x.is_inference()
        and (x.storage_offset() + x.numel()) * x.element_size() <= x.untyped_storage().nbytes()
    )


def table(rule: Rule, dtype: torch.dtype | None, weights: Tensors, slots: Sequence[Tensors]) -> Table | None:
    """A table of these tensors for the rule's kernel; None where there is no kernel or tensors overlap."""
    kernel = None if dtype is None else kernel_of(rule, DTYPES[dtype])
    made = kernel and Table(kernel, weights, slots)
    return made if made and made.apart else None


_kernels: dict[tuple[type[Rule], str], kernel_cache.Kernel | None] = {}


def kernel_of(rule: Rule, dtype: str) -> kernel_cache.Kernel | None:
    """The compiled kernel of a rule's formula; None where its body, or the compiler, does not allow one."""
    key = type(rule), dtype
    if key not in _kernels:
        _kernels[key] = _compiled(rule, dtype)
    return _kernels[key]


def _compiled(rule: Rule, dtype: str) -> kernel_cache.Kernel | None:
    name = type(rule).__name__
    try:
        return kernel_cache.compiled(f"{name.lower()}_{dtype}", source(rule, dtype), *ARGUMENTS)
    except NotInlinable:
        return None
    except Exception as error:
        warnings.warn(f"{name} runs without a kernel: {error}", RuntimeWarning, stacklevel=2)
        return None


@cache
def _pack(count: int) -> Any:
    return struct.Struct(f"{count}d").pack


class Table:
    """Addresses of weights, gradients and slots, cut into pieces.

    They are compared with the tensors before every step; whatever is not as it was makes `fits` False."""

    def __init__(self, kernel: kernel_cache.Kernel, weights: Tensors, slots: Sequence[Tensors]) -> None:
        self.kernel, self.weights = kernel, weights
        self.slots = slots  # kept alive: the optimizer knows them by where they lie
        written = [*weights, *(slot for of_weight in zip(*slots, strict=True) for slot in of_weight)]
        count = len(weights)
        self.sizes = list(map(_size, weights))
        self.written = list(map(_address, written))
        stretches = sorted((a, a + n) for a, n in zip(self.written, map(_size, written), strict=True) if n)
        self.starts, self.stops = [a for a, _ in stretches], [b for _, b in stretches]
        self.apart = all(before[1] <= after[0] for before, after in pairwise(stretches))
        self.places: list[int] = []  # of gradients and weights, as last found fit
        self.seen: set[tuple[int, int]] = set()
        columns = self.written[:count] + self.written
        self.rows = np.array(columns, np.int64).reshape(-1, count).T.copy()
        self._cut([w.numel() for w in weights])
        self.call = self.rows.ctypes.data, self.pieces.ctypes.data
        self.alone = partial(kernel, *map(ctypes.c_void_p, self.call), *map(ctypes.c_int64, (0, self.end)))

    def _cut(self, lengths: Sequence[int]) -> None:
        pieces = [
            (row, start, min(start + PIECE, length))
            for row, length in enumerate(lengths)
            for start in range(0, length, PIECE)
        ]
        self.pieces = np.array(pieces, np.int64).reshape(-1, 3)
        self.elements, self.end = sum(lengths), len(pieces)

    def fits(self, gradients: Tensors) -> bool:
        """True where every tensor lies where it lay, and the next `run` may read these gradients."""
        tensors = [*gradients, *self.weights]
        try:
            places = list(map(_address, tensors))
            same = list(map(_size, gradients)) == self.sizes and all(map(_contiguous, tensors))
        except (RuntimeError, TypeError):  # a tensor without memory of its own, such as a sparse one; or None
            return False
        return same and (places == self.places or self._point(gradients, places))

    def _point(self, gradients: Tensors, places: list[int]) -> bool:
        """Let the table point to gradients that lie elsewhere than before; the weights may not."""
        count = len(gradients)
        if places[count:] != self.written[:count]:
            return False
        for place, g, w in zip(enumerate(places[:count]), gradients, self.weights, strict=True):
            if place not in self.seen:
                if not plain(g, w) or not self._outside(place[1], g.nbytes):
                    return False
                self.seen.add(place)
        self.rows[:, 1] = places[:count]
        self.places = places
        return True

    def _outside(self, start: int, size: int) -> bool:
        """True where a stretch of memory touches nothing that the kernel writes."""
        after = bisect_right(self.stops, start)
        return after == len(self.starts) or start + size <= self.starts[after]

    def run(self, rule: Rule, k: Any, scale: float) -> None:
        """Update every weight once, from scale times its gradient."""
        if self.elements < PARALLEL_FROM:
            self.alone(_pack(len(k) + 1)(scale, *k))
        else:
            threads.spread(self.kernel, *self.call, self.end, np.array([scale, *k]), self.elements)
        increment_version(self.weights)
