"""Rules that are given an estimate of the curvature, or of its square, beside the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from papers.paper import Array, Gradient, Paper, Rate

Reading = Callable[[int], Array]


def sophia_g(
    w: Array, gradient: Gradient, lr: Rate, reading: Reading, *, beta1: float, beta2: float, clip: float,
    weight_decay: float, every: int,
) -> Iterator[Array]:  # fmt: skip
    """Liu et al. 2023, arXiv:2305.14342, algorithm 3, in the form of the authors' code (SophiaG)."""
    m, h = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        m = beta1 * m + (1 - beta1) * gradient(w, t)
        if t % every == 1 or every == 1:
            h = beta2 * h + (1 - beta2) * reading(t)
        u = np.sign(m) * np.minimum(np.abs(m) / (clip * h + 1e-15), 1)
        w = w - lr(t) * weight_decay * w - lr(t) * u
        yield w


def sophia_h(
    w: Array, gradient: Gradient, lr: Rate, reading: Reading, *, beta1: float, beta2: float, clip: float,
    eps: float, weight_decay: float, every: int,
) -> Iterator[Array]:  # fmt: skip
    """The same paper, algorithm 3 with Hutchinson's estimator (algorithm 1)."""
    m, h = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        m = beta1 * m + (1 - beta1) * gradient(w, t)
        if t % every == 1 or every == 1:
            h = beta2 * h + (1 - beta2) * reading(t)
        w = w - lr(t) * weight_decay * w
        w = w - lr(t) * np.clip(m / np.maximum(clip * h, eps), -1, 1)
        yield w


def adahessian(
    w: Array, gradient: Gradient, lr: Rate, reading: Reading, *, beta1: float, beta2: float, eps: float,
    power: float, weight_decay: float, every: int,
) -> Iterator[Array]:  # fmt: skip
    """Yao et al. 2021, arXiv:2006.00719, algorithm 1 (averages over kernels are in the reading).

    The mean runs over the estimates there have been; between two of them the last mean stands."""
    m, squares = np.zeros_like(w), []
    for t in count(1):
        m = beta1 * m + (1 - beta1) * gradient(w, t)
        if t % every == 1 or every == 1:
            squares.append(reading(t) ** 2)
        shares = beta2 ** np.arange(len(squares))[::-1]
        v = np.tensordot(shares / shares.sum(), squares, 1)
        w = w - lr(t) * (m / (1 - beta1**t) / (v ** (power / 2) + eps) + weight_decay * w)
        yield w


NUMBERS = {"lr": 0.05, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1}
GAUSS = {**NUMBERS, "clip": 2.0, "every": 3}
HUTCHINSON = {**NUMBERS, "clip": 1.5, "eps": 0.01, "every": 3}
POWER = {**NUMBERS, "eps": 1e-3, "power": 0.7}
PAPERS = [
    Paper("sophiag", sophia_g, GAUSS, ({**GAUSS, "every": 1},), reads="squares"),
    Paper("sophiah", sophia_h, HUTCHINSON, ({**HUTCHINSON, "every": 1},), reads="curvature"),
    Paper("adahessian", adahessian, POWER, ({**POWER, "every": 3},), reads="curvature"),
]
