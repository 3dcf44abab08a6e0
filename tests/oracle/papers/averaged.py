"""Rules that train one point and ship another: the average x, the gradient's point y, the walker z."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from papers.adam import SETTINGS
from papers.paper import Array, Gradient, Paper, Rate


def schedule_free_sgd(
    w: Array, gradient: Gradient, lr: Rate, *, beta: float, weight_decay: float, power: float, warmup: int
) -> Iterator[tuple[Array, Array]]:
    """Defazio et al. 2024, arXiv:2405.15682, equations 3 to 5, with the weights of the authors' code."""
    x = y = z = w
    total = highest = 0.0
    for t in count(1):
        rate = lr(t) * min(1.0, t / warmup) if warmup else lr(t)
        highest = max(highest, rate)
        total += t**power * highest**2
        share = t**power * highest**2 / total
        z = z - rate * (gradient(y, t) + weight_decay * y)
        x = (1 - share) * x + share * z
        y = (1 - beta) * z + beta * x
        yield y, x


def schedule_free_adamw(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    power: float, warmup: int,
) -> Iterator[tuple[Array, Array]]:  # fmt: skip
    """The same paper, algorithm 1."""
    x = y = z = w
    v = np.zeros_like(w)
    total = highest = 0.0
    for t in count(1):
        rate = lr(t) * min(1.0, t / warmup) if warmup else lr(t)
        highest = max(highest, rate)
        total += t**power * highest**2
        share = t**power * highest**2 / total
        g = gradient(y, t)
        v = beta2 * v + (1 - beta2) * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * y)
        x = (1 - share) * x + share * z
        y = (1 - beta1) * z + beta1 * x
        yield y, x


SLOWLY = {"power": 1.5, "warmup": 20}
PAPERS = [
    Paper(
        "schedulefreesgd",
        schedule_free_sgd,
        {"lr": 0.2, "beta": 0.8, "weight_decay": 0.1, **SLOWLY},
        ships=True,
    ),
    Paper("schedulefreeadamw", schedule_free_adamw, {**SETTINGS, **SLOWLY}, ships=True),
]
