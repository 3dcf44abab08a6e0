"""Papers' paths with one library's term in the place of the paper's: they show why the library disagrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import sqrt
from typing import Any

import numpy as np
from papers.closed import mean, true_mean
from papers.layerwise import norm
from papers.paper import Array, Gradient, Path, Rate


def nadam_one_correction(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """timm: the look-ahead is divided by 1 - β₁ᵗ as a whole."""
    ahead = beta1 * mean(G, beta1) + (1 - beta1) * G[-1]
    return ahead / (1 - beta1 ** len(G)) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def adam_raw_eps(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """ε beside the raw root, and 1e-15 under it."""
    rate = sqrt(1 - beta2 ** len(G)) / (1 - beta1 ** len(G))
    return rate * mean(G, beta1) / (np.sqrt(mean(G**2, beta2) + 1e-15) + eps)


def belief_unrectified(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    m, s = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        u = m / (1 - beta1**t) / (np.sqrt(s / (1 - beta2**t)) + eps)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


def laprop_decay_last(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    under: float = 0.0,
) -> Iterator[Array]:  # fmt: skip
    """Decay of the weights that have moved; `under` the root of v, ε on the raw root where that is not 0."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        v = beta2 * v + (1 - beta2) * g**2
        root = sqrt(1 - beta2**t)
        d = (np.sqrt(v + under) + eps) / root if under else np.sqrt(v) / root + eps
        m = beta1 * m + (1 - beta1) * g / d
        w = (w - lr(t) * m / (1 - beta1**t)) * (1 - lr(t) * weight_decay)
        yield w


def madgrad_eps_in_rate(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float,
    single: bool = False,
) -> Iterator[Array]:  # fmt: skip
    """The authors' code adds ε to the rate."""
    x0, s, nu = w, np.zeros_like(w), np.zeros_like(w)
    for k in count():
        g = gradient(w, k + 1) + weight_decay * w
        step = (lr(k + 1) + eps) * sqrt(k + 1)
        if single:
            step = float(np.float32(lr(k + 1) + eps) * np.sqrt(np.float32(k + 1)))
        s = s + step * g
        nu = nu + step * g**2
        w = momentum * w + (1 - momentum) * (x0 - s / (np.cbrt(nu) + eps))
        yield w


def adan_small_beta(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, beta3: float, eps: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """optax: the change of the gradient is multiplied by 1 - β₂."""
    m, v, n, last = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), None
    for t in count(1):
        g = gradient(w, t)
        change = np.zeros_like(w) if last is None else g - last
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * change
        n = beta3 * n + (1 - beta3) * (g + (1 - beta2) * change) ** 2
        up = m / (1 - beta1**t) + (1 - beta2) * v / (1 - beta2**t)
        w = w - lr(t) * (up / (np.sqrt(n / (1 - beta3**t)) + eps) + weight_decay * w)
        last = g
        yield w


def adopt_later_clip(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """pytorch-optimizer: the limit is that of the step after, and decay acts in the first step too."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        w = w * (1 - lr(t) * weight_decay)
        if t == 1:
            v = g**2
        else:
            limit = t**0.25
            m = beta1 * m + (1 - beta1) * np.clip(g / np.maximum(np.sqrt(v), eps), -limit, limit)
            w = w - lr(t) * m
            v = beta2 * v + (1 - beta2) * g**2
        yield w


def mars_raw_eps(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, gamma: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    m, v, last = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        c = g + gamma * beta1 / (1 - beta1) * (g - last)
        c = c / max(1.0, norm(c))
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * c**2
        u = m / (1 - beta1**t) * sqrt(1 - beta2**t) / (np.sqrt(v + 1e-15) + eps)
        w = w - lr(t) * (u + weight_decay * w)
        last = g
        yield w


def lars_of_sum(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, trust: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """optax: the norm of g + weight_decay·w, where the paper has the sum of the norms."""
    v = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        local = trust * norm(w) / (norm(g) + eps) if norm(w) > 0 and norm(g) > 0 else 1.0
        v = momentum * v + lr(t) * local * g
        w = w - v
        yield w


def lars_not_vectors(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, trust: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """pytorch-optimizer: vectors are neither scaled nor decayed, there is no ε."""
    v = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        if w.ndim > 1:
            both = norm(g) + weight_decay * norm(w)
            g = (g + weight_decay * w) * (trust * norm(w) / both if norm(w) > 0 and both > 0 else 1.0)
        v = momentum * v + g
        w = w - lr(t) * v
        yield w


def lamb_decay_outside(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Keras: decay first, and the ratio of what is left without it."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        w = w - lr(t) * weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        r = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        w = w - lr(t) * (norm(w) / norm(r) if norm(w) > 0 and norm(r) > 0 else 1.0) * r
        yield w


def lamb_uncorrected(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """pytorch-optimizer: v not corrected, m outside the ratio; decay first, ‖w‖ at most 10, ε in it."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - lr(t) * weight_decay * w
        r = m / (np.sqrt(v) + eps)
        length = min(norm(w), 10.0)
        w = w - lr(t) / (1 - beta1**t) * (length / (norm(r) + eps) if length and norm(r) else 1.0) * r
        yield w


def rprop_late(
    w: Array, gradient: Gradient, lr: Rate, *, shrink: float, grow: float, shortest: float, longest: float
) -> Iterator[Array]:
    """optax: each step is the one that was due a step before."""
    length, last = np.full_like(w, lr(1)), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        turn = g * last
        longer = np.clip(length * np.where(turn > 0, grow, shrink), shortest, longest)
        length = np.where(turn == 0, length, longer)
        w = w - np.where(turn < 0, 0, last)
        last = np.where(turn < 0, 0, length * np.sign(g))
        yield w


def sophia_late(
    w: Array, gradient: Gradient, lr: Rate, reading: Callable[[int], Array], *, beta1: float, beta2: float,
    clip: float, eps: float, weight_decay: float, every: int,
) -> Iterator[Array]:  # fmt: skip
    m, h = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        m = beta1 * m + (1 - beta1) * gradient(w, t)
        u = np.clip(m / (1 - beta1**t) / np.maximum(clip * h, eps), -1, 1)
        w = w - lr(t) * (u + weight_decay * w)
        if (t - 1) % every == 0:
            h = beta2 * h + (1 - beta2) * reading(t)
        yield w


def lookahead_late(
    w: Array, gradient: Gradient, lr: Rate, inner: Any, numbers: dict[str, Any], weight_decay: float,
    every: int, share: float,
) -> Iterator[Array]:  # fmt: skip
    """timm: the slow weights are copied at the first synchronisation."""
    G: list[Array] = []
    slow = None
    for t in count(1):
        G.append(gradient(w, t))
        w = w - lr(t) * (inner(np.array(G), **numbers) + weight_decay * w)
        if t % every == 0:
            slow = w if slow is None else slow + share * (w - slow)
            w = slow
        yield w


def dadapt_corrected(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, initial: float,
    growth: float, weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """optax: the rate is multiplied by Adam's bias corrections."""
    m, v, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    d, r, kept = initial, 0.0, sqrt(beta2)
    for k in count(1):
        g = gradient(w, k)
        rate = d * lr(k) * sqrt(1 - beta2**k) / (1 - beta1**k)
        r = kept * r + (1 - kept) * rate * float((g * s / (np.sqrt(v) + eps)).sum())
        m = beta1 * m + (1 - beta1) * rate * g
        v = beta2 * v + (1 - beta2) * g**2
        s = kept * s + (1 - kept) * rate * g
        w = w - rate * weight_decay * w - m / (np.sqrt(v) + eps)
        d = max(d, min(r / ((1 - kept) * float(np.abs(s).sum())), d * growth))
        yield w


def schedule_free_decay_of_y(aliased: bool) -> Path:
    """Keras: decay of y alone, before the step; `aliased`: y is split into x and z by the new z."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float,
        weight_decay: float, power: float, warmup: int,
    ) -> Iterator[tuple[Array, Array]]:  # fmt: skip
        y = z = w
        v = np.zeros_like(w)
        for t in count(1):
            g = gradient(y, t)
            y = y - lr(t) * weight_decay * y
            v = beta2 * v + (1 - beta2) * g**2
            old, z = z, z - lr(t) * g / (np.sqrt(v / (1 - beta2**t)) + eps)
            x = (y - (1 - beta1) * (z if aliased else old)) / beta1
            x = (1 - 1 / t) * x + z / t
            y = (1 - beta1) * z + beta1 * x
            yield y, x

    return path
