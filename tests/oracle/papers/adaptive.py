"""Adaptive rules whose state is not two moving averages of the gradient and its square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import log, sqrt

import numpy as np

from papers.adam import SETTINGS
from papers.paper import Array, Gradient, Paper, Rate


def yogi(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, initial: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """Zaheer et al. 2018, algorithm 2, corrected for the start like Adam."""
    m, v = np.full_like(w, initial), np.full_like(w, initial)
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * np.sign(v - g**2) * g**2
        w = w - lr(t) * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        yield w


def adan(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, beta3: float, eps: float,
    weight_decay: float, proximal: bool = True,
) -> Iterator[Array]:  # fmt: skip
    """Xie et al. 2022, arXiv:2208.06677, algorithm 1, β being what is kept and not what is new."""
    m, v, n, last = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), None
    for t in count(1):
        g = gradient(w, t)
        change = np.zeros_like(w) if last is None else g - last
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * change
        n = beta3 * n + (1 - beta3) * (g + beta2 * change) ** 2
        up = m / (1 - beta1**t) + beta2 * v / (1 - beta2**t)
        u = up / (np.sqrt(n / (1 - beta3**t)) + eps)
        if proximal:
            w = (w - lr(t) * u) / (1 + lr(t) * weight_decay)
        else:
            w = w * (1 - lr(t) * weight_decay) - lr(t) * u
        last = g
        yield w


def adanw(*args: object, **numbers: float) -> Iterator[Array]:
    """The same with `no_prox` of the authors' code."""
    return adan(*args, proximal=False, **numbers)  # type: ignore[arg-type]


def adopt(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2: step 0 there is step 1 here and moves nothing."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count():
        g = gradient(w, t + 1)
        if t == 0:
            v = g**2
        else:
            limit = t**0.25
            c = np.clip(g / np.maximum(np.sqrt(v), eps), -limit, limit)
            m = beta1 * m + (1 - beta1) * c
            w = w - lr(t + 1) * (m + weight_decay * w)
            v = beta2 * v + (1 - beta2) * g**2
        yield w


def ademamix(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, beta3: float, mix: float,
    eps: float, weight_decay: float, warmup: int,
) -> Iterator[Array]:  # fmt: skip
    """Pagliardini et al. 2024, arXiv:2409.03137, algorithm 1 and section 3 (schedulers)."""
    fast, slow, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        share, kept = mix, beta3
        if t < warmup:
            share = mix * t / warmup
            first, last = log(beta1), log(beta3)
            part = t / warmup
            kept = np.exp(first * last / ((1 - part) * last + part * first))
        g = gradient(w, t)
        fast = beta1 * fast + (1 - beta1) * g
        slow = kept * slow + (1 - kept) * g
        v = beta2 * v + (1 - beta2) * g**2
        up = fast / (1 - beta1**t) + share * slow
        w = w - lr(t) * (up / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * w)
        yield w


def mars(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, gamma: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """Yuan et al. 2024, arXiv:2411.10438, algorithm 2, with last step's gradient as it was (MARS-approx).

    It starts from x₁ = x₀, where both gradients are one."""
    m, v, last = np.zeros_like(w), np.zeros_like(w), gradient(w, 1)
    for t in count(1):
        g = gradient(w, t)
        c = g + gamma * beta1 / (1 - beta1) * (g - last)
        length = sqrt(float((c**2).sum()))
        if length > 1:
            c = c / length
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * c**2
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        w = w - lr(t) * (u + weight_decay * w)
        last = g
        yield w


def mars_exact(
    w: Array, gradient: Gradient, lr: Rate, reading: Callable[[int], Array], *, beta1: float, beta2: float,
    eps: float, gamma: float, weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """The same as it stands; the gradient of the batch of now at the last weights is read."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        c = gradient(w, t)
        if t > 1:
            c = c + gamma * beta1 / (1 - beta1) * (c - reading(t))
        c = c / max(1.0, sqrt(float((c**2).sum())))
        m = beta1 * m + (1 - beta1) * c
        v = beta2 * v + (1 - beta2) * c**2
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


def adamc(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    peak: float,
) -> Iterator[Array]:  # fmt: skip
    """Defazio 2025, arXiv:2506.02285, algorithm 1: the pull falls with the square of the rate."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        w = w - lr(t) * u - lr(t) ** 2 / peak * weight_decay * w
        yield w


def stable_adamw(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Wortsman et al. 2023, arXiv:2304.13013, algorithm 2, with its debiased averages."""
    v, u = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        kept1 = beta1 * (1 - beta1 ** (t - 1)) / (1 - beta1**t)
        kept2 = beta2 * (1 - beta2 ** (t - 1)) / (1 - beta2**t)
        v = kept1 * v + (1 - kept1) * g
        u = kept2 * u + (1 - kept2) * g**2
        rms = sqrt(float(np.mean(g**2 / np.maximum(u, eps**2))))
        eta = lr(t) / max(1.0, rms)
        w = w - eta * weight_decay * w - eta * v / (np.sqrt(u) + eps)
        yield w


def novograd(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1: one second moment a layer, begun at ‖g₁‖²."""
    m, v = np.zeros_like(w), 0.0
    for t in count(1):
        g = gradient(w, t)
        squared = float((g**2).sum())
        v = squared if t == 1 else beta2 * v + (1 - beta2) * squared
        m = beta1 * m + (g / (sqrt(v) + eps) + weight_decay * w)
        w = w - lr(t) * m
        yield w


def madgrad(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Defazio & Jelassi 2021, arXiv:2101.11075, algorithm 1."""
    x0, s, nu = w, np.zeros_like(w), np.zeros_like(w)
    for k in count():
        g = gradient(w, k + 1) + weight_decay * w
        step = lr(k + 1) * sqrt(k + 1)
        s = s + step * g
        nu = nu + step * g**2
        z = x0 - s / (np.cbrt(nu) + eps)
        w = momentum * w + (1 - momentum) * z
        yield w


PAPERS = [
    Paper("yogi", yogi, {**SETTINGS, "initial": 0.02}),
    Paper("adan", adan, {**SETTINGS, "beta3": 0.9}),
    Paper("adanw", adanw, {**SETTINGS, "beta3": 0.9}),
    Paper("adopt", adopt, SETTINGS),
    Paper("ademamix", ademamix, {**SETTINGS, "beta3": 0.99, "mix": 3.0, "warmup": 30}),
    Paper("mars", mars, {**SETTINGS, "gamma": 0.05}),
    Paper("marsexact", mars_exact, {**SETTINGS, "gamma": 0.05}, reads="curvature"),
    Paper("adamc", adamc, {**SETTINGS, "peak": 0.07}),
    Paper("stableadamw", stable_adamw, SETTINGS),
    Paper("novograd", novograd, SETTINGS),
    Paper("madgrad", madgrad, {"lr": 0.05, "momentum": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
]
