"""Rules with the rectification of Liu et al. 2020, arXiv:1908.03265."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

import numpy as np

from papers.adam import SETTINGS
from papers.closed import coupled, decoupled, mean, true_mean
from papers.paper import Array, Gradient, Paper, Rate


def terms(beta2: float, t: int) -> tuple[float, float]:
    """(ρ_t, r_t): length of the simple average that v_t is like, and the ratio of the variances."""
    longest = 2 / (1 - beta2) - 1
    rho = longest - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 4:
        return rho, 0.0
    return rho, np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))


def radam(G: Array, beta1: float, beta2: float, eps: float, hat: bool = False) -> Array:
    """Algorithm 2; the gate is 5 as in the authors' code, ε beside the raw root or the corrected one."""
    rho, r = terms(beta2, len(G))
    if (rho < 5) if hat else (rho <= 5):
        return true_mean(G, beta1)
    if hat:
        return r * true_mean(G, beta1) / (np.sqrt(true_mean(G**2, beta2)) + eps)
    return r * true_mean(G, beta1) * np.sqrt(1 - beta2 ** len(G)) / (np.sqrt(mean(G**2, beta2)) + eps)


def adabelief(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float
) -> Iterator[Array]:
    """Zhuang et al. 2020, arXiv:2010.07468, algorithm 2, rectified as in the authors' package 0.2.

    s holds the square of what the average m, this step's included, did not foresee, and ε every step."""
    m, s = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        rho, r = terms(beta2, t)
        belief = r * np.sqrt(1 - beta2**t) / (np.sqrt(s) + eps) if rho >= 5 else 1.0
        w = w - lr(t) * weight_decay * w - lr(t) * belief * m / (1 - beta1**t)
        yield w


PAPERS = [
    Paper("radam", coupled(radam), SETTINGS),
    Paper("radamw", decoupled(radam), SETTINGS),
    Paper("radamhat", coupled(partial(radam, hat=True)), SETTINGS),
    Paper("adabelief", adabelief, SETTINGS),
]
