"""The same for rules that keep rows, columns or matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import sqrt
from typing import Any

import numpy as np
from papers.factored import outer, rms
from papers.kronecker import norm, times_all, unfolded
from papers.low_rank import Limiter, leading, lengths
from papers.orthogonal import each_matrix, polynomial
from papers.paper import Array, Gradient, Rate

Axes = Callable[[tuple[int, ...]], tuple[int, int]]


def last_two(shape: tuple[int, ...]) -> tuple[int, int]:
    return -2, -1


def first_two(shape: tuple[int, ...]) -> tuple[int, int]:
    """timm's choice for convolutions."""
    return (0, 1) if len(shape) > 2 and min(shape[:2]) > 1 else (-2, -1)


def adafactor_relative_decay(axes: Axes, first: bool = False) -> Any:
    """Decay times the rate that the step takes, and other axes of a convolution.

    `first`: decay of its own, before the step (Keras)."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, eps1: float, eps2: float,
        threshold: float, weight_decay: float,
    ) -> Iterator[Array]:  # fmt: skip
        v = np.zeros_like(w)
        for t in count(1):
            g = gradient(w, t)
            v = (1 - t**-decay_rate) * v + t**-decay_rate * (g**2 + eps1)
            u = g / np.sqrt(outer(v, *axes(w.shape)) if w.ndim > 1 else v)
            w = w - lr(t) * weight_decay * w if first else w
            alpha = max(eps2, rms(w)) * min(lr(t), 1 / sqrt(t))
            w = w - alpha * (u / max(1.0, rms(u) / threshold) + (0 if first else weight_decay * w))
            yield w

    return path


def adafactor_single(
    w: Array, gradient: Gradient, lr: Rate, *, decay_rate: float, eps1: float, eps2: float, threshold: float,
    weight_decay: float, factor_from: int,
) -> Iterator[Array]:  # fmt: skip
    """optax: 1 - t^-decay_rate is computed in float32."""
    v = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        kept = float(np.float32(1) - np.float32(t) ** np.float32(-decay_rate))
        v = kept * v + (1 - kept) * (g**2 + eps1)
        order = sorted(range(w.ndim), key=lambda axis: (w.shape[axis], axis))
        factored = w.ndim > 1 and w.shape[order[-2]] >= factor_from
        u = g / np.sqrt(outer(v, order[-2], order[-1]) if factored else v)
        w = w - lr(t) * max(eps2, rms(w)) * u / max(1.0, rms(u) / threshold) - weight_decay * w
        yield w


def schulz_clamped(x: Array, steps: int, coefficients: str, eps: float) -> Array:
    """Divided by the larger of the norm and ε, where the authors' code adds ε."""
    left, s, right = np.linalg.svd(x, full_matrices=False)
    s = s / max(sqrt(float((s**2).sum())), eps)
    for i in range(steps):
        a, b, c = polynomial(coefficients, i)
        s = a * s + b * s**3 + c * s**5
    return left * s @ right


def muon(scale: Callable[[Array], float], orthogonal: Any = schulz_clamped, corrected: bool = False) -> Any:
    """`corrected`: average and gradient are corrected for the start, each on its own, and then mixed."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float,
        steps: int, nesterov: bool, coefficients: str, batch_axes: int,
    ) -> Iterator[Array]:  # fmt: skip
        m = np.zeros_like(w)
        for t in count(1):
            g = gradient(w, t)
            m = momentum * m + (1 - momentum) * g
            a, b = (1 - momentum ** (t + 1), 1 - momentum**t) if corrected else (1, 1)
            x = momentum * m / a + (1 - momentum) * g / b if nesterov else m
            u = each_matrix(lambda x: scale(x) * orthogonal(x, steps, coefficients, eps), x)
            w = w - lr(t) * (u + weight_decay * w)
            yield w

    return path


def normuon(by_row: bool) -> Any:
    """The larger of the norm and ε; ε beside the last norm. AdaMuon: of the average and not of its signs."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, momentum: float, beta2: float, eps: float,
        weight_decay: float, steps: int, nesterov: bool, coefficients: str, batch_axes: int,
    ) -> Iterator[Array]:  # fmt: skip
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t in count(1):
            g = gradient(w, t)
            m = momentum * m + (1 - momentum) * g
            x = (1 - momentum) * g + momentum * m if nesterov else m
            o = each_matrix(lambda x: schulz_clamped(x, steps, coefficients, 1e-7), x)
            rows = o.reshape(len(o), -1)
            squares = np.mean(rows**2, axis=1)[:, None] + 0 * rows if by_row else rows**2
            v = beta2 * v + (1 - beta2) * squares.reshape(w.shape)
            d = np.sqrt(v if by_row else v / (1 - beta2**t)) + eps
            u = each_matrix(lambda x: 0.2 * sqrt(x.size) * x / (norm(x) + eps), o / d)
            w = w - lr(t) * (u + weight_decay * w)
            yield w

    return path


def soap_without_ramp(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    every: int, largest: int,
) -> Iterator[Array]:  # fmt: skip
    """The authors' code: no ramp under equal eigenvalues, decay of the weights that have moved."""
    axes = range(w.ndim) if w.ndim > 1 else []
    g = gradient(w, 1)
    sums = {axis: (1 - beta2) * unfolded(g, axis) @ unfolded(g, axis).T for axis in axes}
    bases = {axis: np.linalg.eigh(s)[1][:, ::-1] for axis, s in sums.items()}
    m, v = np.zeros_like(w), np.zeros_like(w)
    yield w
    for t in count(1):
        g = gradient(w, t + 1)
        forward = {axis: basis.T for axis, basis in bases.items()}
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * times_all(g, forward) ** 2
        u = times_all(times_all(m, forward) / (np.sqrt(v) + eps), bases)
        w = (w - lr(t + 1) * u * sqrt(1 - beta2**t) / (1 - beta1**t)) * (1 - lr(t + 1) * weight_decay)
        for axis in axes:
            sums[axis] = beta2 * sums[axis] + (1 - beta2) * unfolded(g, axis) @ unfolded(g, axis).T
            if t % every == 0:
                power = sums[axis] @ bases[axis]
                order = np.argsort(-(bases[axis] * power).sum(0), kind="stable")
                v = v.take(order, axis)
                bases[axis] = np.linalg.qr(power[:, order])[0]
        yield w


def low_rank(kind: str) -> Any:
    """pytorch-optimizer: no bias corrections within, √bc₂/bc₁ on the step, ε on the raw root, decay last.

    Its Apollo scales the projected gradient and projects that back, where the paper scales the gradient."""

    def path(
        w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, scale: float,
        weight_decay: float, rank: int, every: int, growth_limit: float = 1.01, per: str = "", seed: int = 0,
    ) -> Iterator[Array]:  # fmt: skip
        rows, columns = w.shape
        limited, m, v = Limiter(growth_limit), 0.0, 0.0
        for t in count(1):
            G = gradient(w, t)
            G = G if rows < columns else G.T
            if t == 1:
                draw = np.random.Generator(np.random.Philox(key=[seed, 0]))
                P = (
                    draw.standard_normal((len(G), rank)) / sqrt(rank)
                    if kind == "apollo"
                    else leading(G, rank)
                )
            R = P.T @ G
            m = beta1 * m + (1 - beta1) * R
            v = beta2 * v + (1 - beta2) * R**2
            N = m / (np.sqrt(v) + eps)
            factor = lengths(N) / (lengths(R) + 1e-8)
            u = scale * P @ N
            if kind == "fira":
                u = u + limited((G - scale * P @ R) * factor)
            if kind == "apollo":
                u = scale * P @ (limited(R * factor) * sqrt(scale))
            u = u if rows < columns else u.T
            step = lr(t) * sqrt(1 - beta2**t) / (1 - beta1**t)
            w = (w - step * u) * (1 - (step if kind == "apollo" else lr(t)) * weight_decay)
            yield w

    return path
