"""Kernels on several threads: those of torch, which are awake already.

A pool of our own would have to wait for a processor while torch's threads spin on after their last operation.
Pieces are taken one by one from a common counter, so that a thread that comes late takes fewer."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steepest.optim.engines.kernels.compiled import Kernel, compiled

PARALLEL_FROM = 1 << 18
"""Elements from which on a second thread does clearly more than it costs (benchmarks/threads.py)."""

SOURCE = '''"""One thread's share. Written by steepest, which makes it anew where it is missing."""

from numba import cfunc, types

from steepest.optim.engines.kernels.intrinsics import call_kernel, take

CACHED = "__file__" in globals()


@cfunc(types.void(types.CPointer(types.int64)), cache=CACHED)
def kernel(shared):
    piece = take(shared, 1)
    while piece < shared[1]:
        call_kernel(shared[2], shared[3], shared[4], piece, piece + 1, shared[5])
        piece = take(shared, 1)
'''
"""shared: next piece, end of the pieces, addresses of the kernel, its table, its pieces and its constants."""

LIBRARY = re.compile(r"\S*/lib(?:gomp|iomp5|omp)\b\S*")
_forked = False


def spread(kernel: Kernel, table: int, pieces: int, count: int, k: int, elements: int) -> None:
    """Do pieces 0 to `count` of a kernel; by several threads where they hold many elements.

    table, pieces, k: addresses."""
    workers = torch.get_num_threads() if elements >= PARALLEL_FROM and not _forked else 1
    parallel = _parallel() if workers > 1 else None
    if parallel is None:
        kernel(table, pieces, 0, count, k)
        return
    shared = np.array([0, count, kernel.address, table, pieces, k], np.int64)
    parallel(_team().address, shared.ctypes.data, workers, 0)


@cache
def _team() -> Kernel:
    return compiled("team", SOURCE, ctypes.c_void_p)


@cache
def _parallel() -> Callable[..., None] | None:
    """The way into torch's OpenMP threads, which GNU's, Intel's and LLVM's libraries have; or None."""
    function = next(filter(None, map(_entry, _libraries())), None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        function.restype = None
    return function


def _libraries() -> Iterator[str | None]:
    """Where torch's OpenMP may be, the surest first: there may be another library's beside it.

    That is as the linker searched for torch: what is global (None), what torch is linked to, any other."""
    if not sys.platform.startswith("linux"):  # nor tried there
        return
    yield from (None, torch._C.__file__)
    with suppress(OSError):
        yield from LIBRARY.findall(Path("/proc/self/maps").read_text())[:1]


def _entry(library: str | None) -> Any:
    """GOMP_parallel of a library or of what it is linked to; None where it has none."""
    try:
        return ctypes.CDLL(library).GOMP_parallel
    except (OSError, AttributeError):
        return None


def _after_fork() -> None:
    """OpenMP's threads are not there in a child, and waiting for them would never end."""
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)
