"""Rules that set the length of a layer's step by the norm of the layer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from papers.adam import SETTINGS
from papers.paper import Array, Gradient, Paper, Rate


def norm(x: Array) -> float:
    return float(np.sqrt((x**2).sum()))


def lars(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, trust: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """You et al. 2017, arXiv:1708.03888, algorithm 1; no scaling where a norm is 0."""
    v = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        local = 1.0
        if norm(w) > 0 and norm(g) > 0:
            local = trust * norm(w) / (norm(g) + weight_decay * norm(w) + eps)
        v = momentum * v + lr(t) * local * (g + weight_decay * w)
        w = w - v
        yield w


def lars_outside(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, trust: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """The same with the rate of now on the whole sum of scaled gradients, as torch's momentum has it."""
    scaled: list[Array] = []
    for t in count(1):
        g = gradient(w, t)
        both = norm(w) > 0 and norm(g) > 0
        local = trust * norm(w) / (norm(g) + weight_decay * norm(w) + eps) if both else 1.0
        scaled.append(local * (g + weight_decay * w))
        w = w - lr(t) * sum(momentum ** (t - 1 - i) * one for i, one in enumerate(scaled))
        yield w


def lamb(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """You et al. 2020, arXiv:1904.00962, algorithm 2 with φ(z) = z; no scaling where a norm is 0."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        r = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        r = r + weight_decay * w
        ratio = norm(w) / norm(r) if norm(w) > 0 and norm(r) > 0 else 1.0
        w = w - lr(t) * ratio * r
        yield w


LONG = {"lr": 0.5, "momentum": 0.8, "trust": 0.05, "eps": 1e-3, "weight_decay": 0.1}
PAPERS = [
    Paper("lars", lars, LONG, steady=True),
    Paper("lamb", lamb, SETTINGS),
]
