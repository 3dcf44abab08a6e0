"""Rules whose moments live in a few directions of the gradient: GaLore, Fira, Apollo."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import sqrt

import numpy as np

from papers.paper import MATRICES, Array, Gradient, Paper, Rate


class Moments:
    """Adam in the directions of a projection; all of it seen with the longer axis as columns."""

    def __init__(self, beta1: float, beta2: float, eps: float) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.m, self.v = 0.0, 0.0

    def step(self, R: Array, t: int) -> Array:
        self.m = self.beta1 * self.m + (1 - self.beta1) * R
        self.v = self.beta2 * self.v + (1 - self.beta2) * R**2
        return self.m / (1 - self.beta1**t) / (np.sqrt(self.v / (1 - self.beta2**t)) + self.eps)


def leading(G: Array, rank: int) -> Array:
    """The first left singular vectors of G, each with a sum that is not negative."""
    vectors = np.linalg.svd(G, full_matrices=False)[0][:, :rank]
    sums = vectors.sum(0)
    return vectors * np.where(sums < 0, -1, 1)


def lengths(x: Array) -> Array:
    """The norm of each column."""
    return np.sqrt((x**2).sum(0))


class Limiter:
    """Lets a norm grow by no more than a factor a step (Chen et al. 2024, section 4.3)."""

    def __init__(self, limit: float) -> None:
        self.limit, self.last = limit, None

    def __call__(self, S: Array) -> Array:
        if self.last is not None:
            growth = sqrt(float((S**2).sum())) / (self.last + 1e-8)
            S = S / (max(growth, self.limit) / self.limit)
        self.last = sqrt(float((S**2).sum()))
        return S


def galore(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, scale: float,
    weight_decay: float, rank: int, every: int, growth_limit: float = 0,
) -> Iterator[Array]:  # fmt: skip
    """Zhao et al. 2024, arXiv:2403.03507, algorithm 2; with a limit Fira (Chen et al. 2024, 2410.01673)."""
    rows, columns = w.shape[0], w.size // w.shape[0]
    adam, limited, P = Moments(beta1, beta2, eps), Limiter(growth_limit), np.empty(0)
    for t in count(1):
        G = gradient(w, t).reshape(rows, columns)
        G = G if rows <= columns else G.T
        if (t - 1) % every == 0:
            P = leading(G, min(rank, rows, columns))
        R = P.T @ G
        N = adam.step(R, t)
        u = scale * P @ N
        if growth_limit:
            u = u + limited((G - P @ R) * lengths(N) / (lengths(R) + 1e-8))
        u = (u if rows <= columns else u.T).reshape(w.shape)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


def apollo(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, scale: float,
    growth_limit: float, weight_decay: float, rank: int, every: int, per: str, seed: int,
) -> Iterator[Array]:  # fmt: skip
    """Zhu et al. 2024, arXiv:2412.05270, algorithm 1: random projections tell how long to step."""
    rows, columns = w.shape[0], w.size // w.shape[0]
    r, short = min(rank, rows, columns), min(rows, columns)
    adam, limited = Moments(beta1, beta2, eps), Limiter(growth_limit)
    for t in count(1):
        G = gradient(w, t).reshape(rows, columns)
        G = G if rows <= columns else G.T
        draw = np.random.Generator(np.random.Philox(key=[seed, (t - 1) // every]))
        R = (draw.standard_normal((short, r)) / sqrt(r)).T @ G
        N = adam.step(R, t)
        if per == "tensor":
            factor = sqrt(float((N**2).sum())) / (sqrt(float((R**2).sum())) + 1e-8)
        else:
            factor = lengths(N) / (lengths(R) + 1e-8)
        u = limited(scale * G * factor)
        u = (u if rows <= columns else u.T).reshape(w.shape)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


NUMBERS = {"lr": 0.05, "beta1": 0.8, "beta2": 0.97, "eps": 1e-3, "weight_decay": 0.1, "rank": 2, "every": 7}
MINI = {"rank": 1, "per": "tensor", "scale": 0.7, "growth_limit": 1.5}
PAPERS = [
    Paper("galore", galore, {**NUMBERS, "scale": 0.4}, shapes=MATRICES),
    Paper("fira", galore, {**NUMBERS, "scale": 0.4, "growth_limit": 1.2}, shapes=MATRICES),
    Paper("apollo", apollo, {**NUMBERS, "seed": 2}, ({**NUMBERS, **MINI},), shapes=MATRICES),
]
