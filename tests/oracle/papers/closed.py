"""Closed forms: nothing is carried from step to step, averages are sums over all gradients so far.

G is an array of gradients, one a step, the last the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from papers.paper import Array, Gradient, Path, Rate

Direction = Callable[..., Array]


def ages(G: Array) -> Array:
    """T-1, …, 1, 0 steps ago."""
    return np.arange(len(G) - 1, -1, -1.0)


def velocity(G: Array, kept: float) -> Array:
    """Σ μ^(t-i)·g_i"""
    return np.tensordot(kept ** ages(G), G, 1)


def mean(G: Array, kept: float) -> Array:
    """Moving average from zero.   Σ (1 - β)·β^(t-i)·g_i"""
    return (1 - kept) * velocity(G, kept)


def true_mean(G: Array, kept: float) -> Array:
    """The same with weights that sum to one."""
    return velocity(G, kept) / velocity(np.ones(len(G)), kept)


def heads(direction: Direction, G: Array) -> Array:
    """The directions of all steps up to the last."""
    return np.stack([direction(G[:t]) for t in range(1, len(G) + 1)])


def coupled(direction: Direction) -> Path:
    """The path of a rule whose weight decay is part of the gradient."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, weight_decay: float = 0, **numbers: Any
    ) -> Iterator[Array]:
        G: list[Array] = []
        for t in count(1):
            G.append(gradient(w, t) + weight_decay * w)
            w = w - lr(t) * direction(np.array(G), **numbers)
            yield w

    return path


def decoupled(direction: Direction) -> Path:
    """The path of a rule whose weight decay is a pull of its own (Loshchilov & Hutter 2019)."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, weight_decay: float = 0, **numbers: Any
    ) -> Iterator[Array]:
        G: list[Array] = []
        for t in count(1):
            G.append(gradient(w, t))
            w = (1 - lr(t) * weight_decay) * w - lr(t) * direction(np.array(G), **numbers)
            yield w

    return path
