"""Rules that step along an orthogonal matrix. Each matrix is taken apart into its singular vectors.

An odd polynomial of a matrix, which a Newton-Schulz iteration makes, acts on the singular values alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import prod, sqrt

import numpy as np

from papers.paper import MATRICES, Array, Gradient, Paper, Rate

JORDAN = [(3.4445, -4.7750, 2.0315)]
QUINTIC = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
EXPRESS = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]
"""Amsel et al. 2025, arXiv:2505.16932, algorithm 1, before the safety of 1.01."""


def polynomial(name: str, i: int) -> tuple[float, float, float]:
    """The coefficients of iteration i (0, 1, …)."""
    table = {"jordan": JORDAN, "quintic": QUINTIC, "polar_express": EXPRESS}[name]
    a, b, c = table[min(i, len(table) - 1)]
    safety = 1.01 if name == "polar_express" and i < len(table) - 1 else 1.0
    return a / safety, b / safety**3, c / safety**5


def newton_schulz(x: Array, steps: int, coefficients: str, eps: float) -> Array:
    """Jordan et al. 2024: what brings the singular values of x near to 1."""
    left, s, right = np.linalg.svd(x, full_matrices=False)
    wide = 1.01 if coefficients == "polar_express" else 1.0
    s = s / (sqrt(float((s**2).sum())) * wide + eps)
    for i in range(steps):
        a, b, c = polynomial(coefficients, i)
        s = a * s + b * s**3 + c * s**5
    return left * s @ right


def each_matrix(transform: Callable[[Array], Array], x: Array, batch_axes: int = 0) -> Array:
    """A function of matrices on a stack of kernels, the axes after the output's being one."""
    stack = x.reshape(prod(x.shape[:batch_axes]), x.shape[batch_axes], -1)
    return np.stack([transform(one) for one in stack]).reshape(x.shape)


def jordans(x: Array) -> float:
    return sqrt(max(1, x.shape[0] / x.shape[1]))


def moonshots(x: Array) -> float:
    return 0.2 * sqrt(max(x.shape))


def spectral(x: Array) -> float:
    return sqrt(x.shape[0] / x.shape[1])


def muon(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float, steps: int,
    nesterov: bool, coefficients: str, batch_axes: int, scale: Callable[[Array], float],
) -> Iterator[Array]:  # fmt: skip
    """Jordan et al. 2024; scaled so, as Liu et al. 2025 (arXiv:2502.16982, 2.2), or by the spectral norm."""
    m = np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = momentum * m + (1 - momentum) * g
        x = (1 - momentum) * g + momentum * m if nesterov else m
        u = each_matrix(lambda x: scale(x) * newton_schulz(x, steps, coefficients, eps), x, batch_axes)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


def of_adams_length(x: Array) -> Array:
    """Times 0.2·√(rows·columns) over the norm."""
    length = sqrt(float((x**2).sum()))
    return 0.2 * sqrt(x.size) / length * x if length else x


def mean_of_rows(x: Array) -> Array:
    return np.repeat(x.mean(1)[:, None], x.shape[1], 1)


def normuon(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, beta2: float, eps: float, weight_decay: float,
    steps: int, nesterov: bool, coefficients: str, batch_axes: int, by_row: bool = True,
) -> Iterator[Array]:  # fmt: skip
    """Li et al. 2025, arXiv:2510.05491, algorithm 1; AdaMuon, Si et al. 2025, arXiv:2507.11005."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in count(1):
        g = gradient(w, t)
        m = momentum * m + (1 - momentum) * g
        x = (1 - momentum) * g + momentum * m if nesterov else m
        x = x if by_row else np.sign(x)
        o = each_matrix(lambda x: newton_schulz(x, steps, coefficients, 1e-7), x, batch_axes)
        squares = each_matrix(
            lambda x: x**2 if not by_row else 0 * x + (x**2).mean(1)[:, None], o, batch_axes
        )
        v = beta2 * v + (1 - beta2) * squares
        u = each_matrix(of_adams_length, o / (np.sqrt(v) + eps), batch_axes)
        w = w - lr(t) * (u + weight_decay * w)
        yield w


def spectral_descent(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, weight_decay: float, batch_axes: int
) -> Iterator[Array]:
    """Carlson et al. 2015: the steepest direction in the spectral norm, after momentum."""
    m = np.zeros_like(w)

    def polar(x: Array) -> Array:
        left, s, right = np.linalg.svd(x, full_matrices=False)
        whole = s > np.finfo(float).eps * max(x.shape) * s[0]
        return left[:, whole] @ right[whole]

    for t in count(1):
        m = momentum * m + (1 - momentum) * gradient(w, t)
        w = w - lr(t) * (each_matrix(polar, m, batch_axes) + weight_decay * w)
        yield w


def gram_schmidt(x: Array) -> Array:
    """Orthonormal columns that span what the first columns of x span; each is freed of the others twice."""
    found: list[Array] = []
    for column in x.T:
        for _ in range(2):
            for q in found:
                column = column - (q @ column) * q
        found.append(column / sqrt(float(column @ column)))
    return np.array(found).T


def dion(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, eps: float, weight_decay: float, rank: int,
    seed: int,
) -> Iterator[Array]:  # fmt: skip
    """Ahn et al. 2025, arXiv:2504.05295, algorithm 1 (centralised)."""
    rows, columns = w.shape[0], w.size // w.shape[0]
    r = min(rank, rows, columns)
    q = np.random.Generator(np.random.Philox(key=[seed, 0])).standard_normal((columns, r))
    m = np.zeros((rows, columns))
    for t in count(1):
        b = m + gradient(w, t).reshape(rows, columns)
        p = gram_schmidt(b @ q)
        back = b.T @ p
        m = b - (1 - momentum) * p @ back.T
        q = back / (np.sqrt((back**2).sum(0)) + eps)
        w = w - lr(t) * (sqrt(rows / columns) * (p @ q.T).reshape(w.shape) + weight_decay * w)
        yield w


NUMBERS = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1}
CHOICES = (
    {**NUMBERS, "eps": 1e-2, "steps": 3, "nesterov": False},
    {**NUMBERS, "coefficients": "quintic", "batch_axes": 1},
    {**NUMBERS, "coefficients": "polar_express", "steps": 10},
)
BY_ROW = {**NUMBERS, "beta2": 0.9, "eps": 1e-2}
BY_ROWS = ({**BY_ROW, "nesterov": True, "batch_axes": 1}, {**BY_ROW, "coefficients": "quintic", "steps": 3})
STACKS = ((2, 6, 4), (3, 4, 6), (2, 3, 2, 2))
"""Shapes that are matrices with their first axis and without it."""

PAPERS = [
    Paper("muon", partial(muon, scale=jordans), NUMBERS, CHOICES, shapes=STACKS),
    Paper("muonmatched", partial(muon, scale=moonshots), NUMBERS, CHOICES, shapes=STACKS),
    Paper("muonspectral", partial(muon, scale=spectral), NUMBERS, CHOICES, shapes=STACKS),
    Paper("normuon", normuon, BY_ROW, BY_ROWS, shapes=STACKS),
    Paper("adamuon", partial(normuon, by_row=False), BY_ROW, BY_ROWS, shapes=STACKS),
    Paper("spectraldescent", spectral_descent, NUMBERS, ({**NUMBERS, "batch_axes": 1},), shapes=STACKS),
    Paper("dion", dion, {**NUMBERS, "eps": 1e-3, "rank": 2, "seed": 3}, shapes=MATRICES),
]
