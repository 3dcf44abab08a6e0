"""The global generators of Python, NumPy and torch, lent to data code and given back untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def state() -> tuple[Any, ...]:
    """State of the three global generators."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def restore(states: tuple[Any, ...]) -> None:
    """Put a `state()` back."""
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def seed_all(key: int) -> None:
    """Start the three global generators from one number."""
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(key % 2**63)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is drawn inside leaves no trace outside."""
    before = state()
    try:
        yield
    finally:
        restore(before)


class Apart:
    """A life of its own for the global generators: each `with` goes on where the last one ended."""

    def __init__(self, key: int) -> None:
        with undisturbed():
            seed_all(key)
            self._inside = state()

    def __enter__(self) -> None:
        self._outside = state()
        restore(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = state()
        restore(self._outside)
