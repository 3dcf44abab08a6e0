"""Rules that find their own rate, most of them one for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import sqrt
from typing import Any

import numpy as np

from papers.adam import SETTINGS
from papers.paper import Array, Gradient, Paper, Path, Rate

Arrays = list[Array]


def as_one(path: Path) -> Path:
    """The path of a model from that of one long vector of all its weights."""

    def paths(
        ws: Arrays, gradient: Callable[[Arrays, int], Arrays], lr: Rate, **numbers: Any
    ) -> Iterator[Arrays]:
        shapes, ends = [w.shape for w in ws], np.cumsum([w.size for w in ws])[:-1]

        def parts(x: Array) -> Arrays:
            return [part.reshape(shape) for part, shape in zip(np.split(x, ends), shapes, strict=True)]

        def joined(arrays: Arrays) -> Array:
            return np.concatenate([array.ravel() for array in arrays])

        for x in path(joined(ws), lambda x, t: joined(gradient(parts(x), t)), lr, **numbers):
            yield parts(x)

    return paths


def dadapt_adam(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, initial: float,
    growth: float, weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """Defazio & Mishchenko 2023, arXiv:2301.07733, algorithm 5 (Adam with D-Adaptation); as in version 3 of
    the authors' code, r is taken before v follows (the paper divides by the new v)."""
    m, v, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    d, r, kept = initial, 0.0, sqrt(beta2)
    for k in count(1):
        g = gradient(w, k)
        rate = d * lr(k)
        r = kept * r + (1 - kept) * rate * float((g * s / (np.sqrt(v) + eps)).sum())
        m = beta1 * m + (1 - beta1) * rate * g
        v = beta2 * v + (1 - beta2) * g**2
        s = kept * s + (1 - kept) * rate * g
        w = w - rate * weight_decay * w - m / (np.sqrt(v) + eps)
        d = max(d, min(r / ((1 - kept) * float(np.abs(s).sum())), d * growth))
        yield w


def prodigy(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, initial: float,
    coefficient: float, growth: float, weight_decay: float, safeguard_warmup: bool, bias_correction: bool,
) -> Iterator[Array]:  # fmt: skip
    """Mishchenko & Defazio 2023, arXiv:2306.06101, algorithm 4, in the order of the authors' package."""
    w0 = w
    m, v, s = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    d = d_max = initial
    r, kept = 0.0, sqrt(beta2)
    for k in count(1):
        g = gradient(w, k)
        rate = d * lr(k)
        if bias_correction:
            rate *= sqrt(1 - beta2**k) / (1 - beta1**k)
        r = kept * r + d / initial * rate * float((g * (w0 - w)).sum())
        s = kept * s + d / initial * (d if safeguard_warmup else rate) * g
        m = beta1 * m + (1 - beta1) * d * g
        v = beta2 * v + (1 - beta2) * d**2 * g**2
        estimate = coefficient * r / float(np.abs(s).sum())
        if d == initial:
            d = max(d, estimate)
        d_max = max(d_max, estimate)
        d = min(d_max, d * growth)
        w = w - rate * weight_decay * w - rate * m / (np.sqrt(v) + d * eps)
        yield w


def dog(
    w: Array, gradient: Gradient, lr: Rate, *, reps: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Ivgi et al. 2023, arXiv:2302.12022, equations 1 and 2."""
    w0 = w
    farthest, G = reps * (1 + sqrt(float((w0**2).sum()))), eps
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        farthest = max(farthest, sqrt(float(((w - w0) ** 2).sum())))
        G += float((g**2).sum())
        w = w - lr(t) * farthest / sqrt(G) * g
        yield w


def dowg(
    w: Array, gradient: Gradient, lr: Rate, *, reps: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Khaled et al. 2023, arXiv:2305.16284, algorithm 1; as in the authors' code the first guess is of the
    squared distance, and ε stands beside the root."""
    w0, squared, v = w, reps, 0.0
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        squared = max(squared, float(((w - w0) ** 2).sum()))
        v += squared * float((g**2).sum())
        w = w - lr(t) * squared / (sqrt(v) + eps) * g
        yield w


def planned(lr: Rate, t: int) -> float:
    """By how much a schedule of its own changes a rate that learns besides: ∂loss/∂rate is what it was."""
    return lr(t) - (lr(t - 1) if t > 1 else 0.0)


def hypergradient_sgd(
    w: Array, gradient: Gradient, lr: Rate, *, kappa: float, weight_decay: float
) -> Iterator[Array]:
    """Baydin et al. 2018, arXiv:1703.04782, algorithm 4 (SGD-HD)."""
    rate, last = 0.0, np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        rate += planned(lr, t) + kappa * float((g * last).sum())
        w = w - rate * g
        last = g
        yield w


def hypergradient_adam(
    w: Array, gradient: Gradient, lr: Rate, *, kappa: float, beta1: float, beta2: float, eps: float,
    weight_decay: float,
) -> Iterator[Array]:  # fmt: skip
    """The same, algorithm 6 (Adam-HD); ε is beside the corrected root in the step and in its derivative."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    rate, last = 0.0, np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t) + weight_decay * w
        rate += planned(lr, t) + kappa * float((g * last).sum())
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        last = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        w = w - rate * last
        yield w


GROWING = {"initial": 0.01, "growth": 1.3}
DISTANCE = {"lr": 0.8, "reps": 0.01, "eps": 1e-3, "weight_decay": 0.1}
PAPERS = [
    Paper("dadaptadam", as_one(dadapt_adam), {**SETTINGS, **GROWING, "lr": 0.8}, model=True),
    Paper(
        "prodigy",
        as_one(prodigy),
        {**SETTINGS, **GROWING, "lr": 0.8, "coefficient": 1.2, "bias_correction": True},
        model=True,
    ),
    Paper("dog", as_one(dog), DISTANCE, model=True),
    Paper("ldog", dog, DISTANCE),
    Paper("dowg", as_one(dowg), DISTANCE, model=True),
    Paper(
        "hypergradientsgd",
        as_one(hypergradient_sgd),
        {"lr": 0.05, "kappa": 1e-3, "weight_decay": 0.1},
        model=True,
    ),
    Paper("hypergradientadam", as_one(hypergradient_adam), {**SETTINGS, "kappa": 1e-3}, model=True),
]
