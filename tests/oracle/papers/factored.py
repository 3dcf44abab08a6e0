"""Rules that keep sums over rows and columns, or one number a block, where Adam keeps one a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, product
from math import prod, sqrt

import numpy as np

from papers.adam import SETTINGS
from papers.paper import MATRICES, VECTORS, Array, Gradient, Paper, Rate

ANY = (*VECTORS, *MATRICES, (2, 2, 2), (5,))


def rms(x: Array) -> float:
    return sqrt(float(np.mean(x**2)))


def history(squares: list[Array], kept: list[float]) -> Array:
    """The average of all squares so far where the share kept changes: v_t = β_t·v_{t-1} + (1-β_t)·q_t."""
    shares = [(1 - kept[i]) * prod(kept[i + 1 :]) for i in range(len(kept))]
    return np.tensordot(shares, np.array(squares), 1)


def largest_two(shape: tuple[int, ...]) -> tuple[int, int]:
    """(second largest axis, largest axis); of equal ones the later counts as larger."""
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return order[-2], order[-1]


def outer(v: Array, rows: int, columns: int) -> Array:
    """The product of row and column means over their mean: equation 4 of Shazeer & Stern 2018."""
    r = v.mean(axis=columns, keepdims=True)
    c = v.mean(axis=rows, keepdims=True)
    return r * c / r.mean(axis=rows, keepdims=True)


def adafactor(
    w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, eps1: float, eps2: float, threshold: float,
    weight_decay: float, axes: Callable[[tuple[int, ...]], tuple[int, int]] = largest_two,
) -> Iterator[Array]:  # fmt: skip
    """Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 to 6, lr for the cap of ρ_t."""
    squares: list[Array] = []
    for t in count(1):
        g = gradient(w, t)
        squares.append(g**2 + eps1)
        v = history(squares, [1 - i**-decay_rate for i in range(1, t + 1)])
        if w.ndim > 1:
            v = outer(v, *axes(w.shape))
        u = g / np.sqrt(v)
        u = u / max(1.0, rms(u) / threshold)
        alpha = max(eps2, rms(w)) * min(lr(t), 1 / sqrt(t))
        w = w - alpha * u - lr(t) * weight_decay * w
        yield w


def adafactor_torch(
    w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, eps1: float, eps2: float, threshold: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """torch.optim.Adafactor as documented: ε₁ bounds what one divides by, the last two axes are factored."""
    squares: list[Array] = []
    for t in count(1):
        g = gradient(w, t)
        squares.append(g**2)
        v = history(squares, [1 - i**-decay_rate for i in range(1, t + 1)])
        if w.ndim > 1:
            r, c = v.mean(-1, keepdims=True), v.mean(-2, keepdims=True)
            v = r * c / np.maximum(r.mean(-2, keepdims=True), eps1)
        u = g / np.sqrt(np.maximum(v, eps1**2))
        alpha = max(eps2, rms(w)) * min(lr(t), 1 / sqrt(t))
        w = w - lr(t) * weight_decay * w - alpha * u / max(1.0, rms(u) / threshold)
        yield w


def adafactor_big_vision(
    w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, cap: float, momentum: float, eps1: float,
    weight_decay: float, factor_from: int,
) -> Iterator[Array]:  # fmt: skip
    """Zhai et al. 2022, arXiv:2106.04560, section 3.4: no scaling by the weight, β₂ capped, momentum of u."""
    squares: list[Array] = []
    kept: list[float] = []
    m = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        squares.append(g**2 + eps1)
        kept.append(min(cap, 1 - t**-decay_rate))
        v = history(squares, kept)
        if w.ndim > 1 and sorted(w.shape)[-2] >= factor_from:
            v = outer(v, *largest_two(w.shape))
        m = momentum * m + (1 - momentum) * g / np.sqrt(v)
        w = w - lr(t) * (m + weight_decay * w)
        yield w


def adafactor_optax(
    w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, eps1: float, eps2: float, threshold: float,
    weight_decay: float, factor_from: int,
) -> Iterator[Array]:  # fmt: skip
    """optax.adafactor as documented: a rate of one's own, and a decay beside it."""
    squares: list[Array] = []
    for t in count(1):
        g = gradient(w, t)
        squares.append(g**2 + eps1)
        v = history(squares, [1 - i**-decay_rate for i in range(1, t + 1)])
        if w.ndim > 1 and sorted(w.shape)[-2] >= factor_from:
            v = outer(v, *largest_two(w.shape))
        u = g / np.sqrt(v)
        u = u / max(1.0, rms(u) / threshold)
        w = w - lr(t) * max(eps2, rms(w)) * u - weight_decay * w
        yield w


def came(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, beta3: float, eps1: float,
    eps2: float, threshold: float, weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """Luo et al. 2023, arXiv:2307.02047, algorithm 2."""
    m, v, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        v = beta2 * v + (1 - beta2) * (g**2 + eps1)
        u = g / np.sqrt(outer(v, -2, -1) if w.ndim > 1 else v)
        u = u / max(1.0, rms(u) / threshold)
        m = beta1 * m + (1 - beta1) * u
        s = beta3 * s + (1 - beta3) * ((u - m) ** 2 + eps2)
        step = m / np.sqrt(outer(s, -2, -1)) if w.ndim > 1 else m
        w = w - lr(t) * (step + weight_decay * w)
        yield w


def sm3(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Anil et al. 2019, arXiv:1901.11150, algorithm SM3-II; the sets are the slices across each axis."""
    tops = [np.zeros(n) for n in w.shape]
    m = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        nu = np.empty_like(w)
        for i in product(*map(range, w.shape)):
            nu[i] = min(top[j] for top, j in zip(tops, i, strict=True)) + g[i] ** 2
        for axis, top in enumerate(tops):
            for j in range(len(top)):
                top[j] = nu.take(j, axis).max()
        m = momentum * m + (1 - momentum) * g / np.sqrt(nu + eps)
        w = w - lr(t) * (m + weight_decay * w)
        yield w


def adam_mini(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    blocks: int,
) -> Iterator[Array]:  # fmt: skip
    """Zhang et al. 2024, arXiv:2406.16793, algorithm 1: one second moment a block of rows."""
    parts = (blocks or w.shape[0]) if w.ndim > 1 else 1
    m, v = np.zeros_like(w), np.zeros(parts)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.array([np.mean(part**2) for part in np.split(g, parts)])
        u = [
            part / (1 - beta1**t) / (sqrt(one / (1 - beta2**t)) + eps)
            for part, one in zip(np.split(m, parts), v, strict=True)
        ]
        w = w - lr(t) * (np.concatenate(u) + weight_decay * w)
        yield w


EVEN = ((4,), (6, 4), (4, 6), (2, 3, 2))
RELATIVE = {"lr": 0.1, "decay_rate": 0.7, "eps1": 1e-3, "eps2": 0.05, "threshold": 0.6, "weight_decay": 0.05}
BIG = {"lr": 0.05, "decay_rate": 0.7, "cap": 0.9, "momentum": 0.8, "eps1": 1e-3, "weight_decay": 0.1}
CONFIDENT = {**SETTINGS, "beta3": 0.95, "eps1": 1e-3, "eps2": 1e-2, "threshold": 0.7}
del CONFIDENT["eps"]
PAPERS = [
    Paper("adafactor", adafactor, RELATIVE, shapes=ANY),
    Paper("adafactortorch", adafactor_torch, RELATIVE, shapes=ANY),
    Paper("adafactorbigvision", adafactor_big_vision, {**BIG, "factor_from": 3}, shapes=ANY),
    Paper("adafactoroptax", adafactor_optax, {**RELATIVE, "factor_from": 3}, shapes=ANY),
    Paper("came", came, CONFIDENT, shapes=ANY),
    Paper("sm3", sm3, {"lr": 0.05, "momentum": 0.8, "eps": 1e-2, "weight_decay": 0.1}, shapes=ANY),
    Paper(
        "adammini",
        adam_mini,
        SETTINGS,
        ({**SETTINGS, "blocks": 2},),
        shapes=((4,), (6, 4), (4, 6), (2, 3, 2)),
    ),
]
