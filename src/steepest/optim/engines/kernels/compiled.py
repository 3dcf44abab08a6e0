"""Compiled kernels: modules of generated source that Numba caches beside them, and calls on torch's threads.

A pool of our own would have to wait for a processor while torch's threads spin on after their last operation.
Pieces are taken one by one from a common counter, so that a thread that comes late takes fewer."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import get_ident
from types import ModuleType
from typing import Any, TypeAlias

import llvmlite
import numba
import numpy as np
import torch

from steepest.optim.engines.kernels import intrinsics
from steepest.optim.engines.precision import bits, formats

Kernel: TypeAlias = Any
"""A C function of ctypes, with its `address`."""

ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
SIGNATURE = """@cfunc(
    types.void(
        types.CPointer(types.int64), types.CPointer(types.int64), types.int64, types.int64,
        types.CPointer(types.float64),
    ),
    cache=CACHED,
    error_model="numpy",
)
"""
"""What every kernel over a table takes, for ctypes and in its source: the table of addresses, the pieces, the
first and the last of them to do, and numbers to read or to write."""


def folder() -> Path:
    """Where kernels are kept: $STEEPEST_CACHE, else steepest/kernels in the user's cache folder."""
    chosen = os.environ.get("STEEPEST_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steepest" / "kernels"


def compiled(name: str, source: str, *arguments: Any) -> Kernel:
    """The C function `kernel` of a generated module; calls release the GIL. arguments: its ctypes.

    It is read from the cache, or compiled and put there; in memory alone where the folder cannot be used."""
    return _compiled(name, source, arguments)


@cache
def _compiled(name: str, source: str, arguments: tuple[Any, ...]) -> Kernel:
    module = _from_disk(name, source) or _in_memory(name, source)
    function = ctypes.CFUNCTYPE(None, *arguments)(module.kernel.address)
    function.module = module  # type: ignore[attr-defined]  # its memory lives as long as the function
    function.address = module.kernel.address  # type: ignore[attr-defined]
    return function


def digest(source: str) -> str:
    """What tells kernels apart: their source, which holds the rule, and everything that compiles it."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, platform.python_version())
    vocabulary = [Path(str(module.__file__)).read_text() for module in (intrinsics, bits, formats)]
    return hashlib.sha256("\n".join([source, *vocabulary, *versions]).encode()).hexdigest()[:24]


def _from_disk(name: str, source: str) -> ModuleType | None:
    try:
        path = folder() / f"{name}_{digest(source)}.py"
        _prepare(path.parent)
        if not path.exists() or path.read_text() != source:
            _write_whole(path, source)
        return _imported(path)
    except Exception:  # whatever is wrong with the folder or a file in it, memory will do
        return None


def _write_whole(path: Path, source: str) -> None:
    """Write beside the file and rename: another process never reads half of it."""
    neighbour = path.with_name(f".{path.stem}.{os.getpid()}-{get_ident()}.tmp")
    neighbour.write_text(source)
    neighbour.replace(path)


def _imported(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"steepest_kernel_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise OSError(f"{path} is no module")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # Numba's cache looks its functions up there
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[specification.name]
        raise
    return module


def _in_memory(name: str, source: str) -> ModuleType:
    module = ModuleType(f"steepest_kernel_{name}")
    exec(compile(source, f"<{module.__name__}>", "exec"), module.__dict__)
    return module


def _prepare(path: Path) -> None:
    """Make the folder. What lies in it is executed, so OSError unless it is ours alone to write."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} can be written by others")


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
