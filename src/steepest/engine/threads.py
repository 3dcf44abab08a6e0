"""A small pool of threads for work that releases the GIL; made on first use, and anew after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)


def spread(work: Callable[..., Any], shares: Sequence[tuple[Any, ...]]) -> None:
    """Call work(*share) for every share at once, one in this thread, and wait for all of them."""
    others = [_pool(len(shares) - 1).submit(work, *share) for share in shares[1:]]
    try:
        work(*shares[0])
    finally:
        for other in others:
            other.result()


def _pool(size: int) -> ThreadPoolExecutor:
    if size not in _pools:
        _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="steepest")
    return _pools[size]
