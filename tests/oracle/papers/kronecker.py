"""Rules with a matrix for each axis of a weight: Shampoo, SOAP, KL-Shampoo, PSGD's Kron."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import count
from math import exp, sqrt

import numpy as np

from papers.adam import SETTINGS
from papers.paper import MATRICES, VECTORS, Array, Gradient, Paper, Rate

LONG = (2, 1, 2, 3, 2)
ANY = (*VECTORS, *MATRICES, LONG)


def folded(x: Array) -> Array:
    """With the axes after the fourth merged into it."""
    return x.reshape(*x.shape[:3], -1) if x.ndim > 4 else x


def unfolded(x: Array, axis: int) -> Array:
    """The matrix of an axis by all others."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def times(x: Array, matrix: Array, axis: int) -> Array:
    """Σ_j matrix[i, j]·x[…, j, …]"""
    return np.moveaxis(np.tensordot(matrix, x, ([1], [axis])), 0, axis)


def times_all(x: Array, matrices: dict[int, Array]) -> Array:
    return reduce(lambda y, axis: times(y, matrices[axis], axis), matrices, x)


def norm(x: Array) -> float:
    return sqrt(float((x**2).sum()))


def shampoo(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, retain: float, eps: float,
    damping: float, weight_decay: float, graft: str, every: int, largest: int,
) -> Iterator[Array]:  # fmt: skip
    """Gupta et al. 2018, arXiv:1802.09568, algorithm 2; grafts of Shi et al. 2023, arXiv:2309.06497."""
    shape = folded(w).shape
    axes = [axis for axis, n in enumerate(shape) if n <= largest]
    sums = {axis: np.zeros((shape[axis], shape[axis])) for axis in axes}
    roots: dict[int, Array] = {}
    m, v = np.zeros(shape), np.zeros(shape)
    for t in count(1):
        g = folded(gradient(w, t))
        for axis in axes:
            G = unfolded(g, axis)
            sums[axis] = retain * sums[axis] + (1 if retain == 1 else 1 - retain) * G @ G.T
            if t % every == 1 or every == 1:
                of = sums[axis] / (1 if retain == 1 else 1 - retain**t)
                values, vectors = np.linalg.eigh(of)
                values = np.maximum(values, 0) + damping
                roots[axis] = vectors * values ** (-1 / (2 * len(axes))) @ vectors.T
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        u = times_all(m / (1 - beta1**t), roots)
        if graft != "none":
            d = m / (1 - beta1**t)
            d = d / (np.sqrt(v / (1 - beta2**t)) + eps) if graft == "adam" else d
            u = u * norm(d) / norm(u)
        w = w - lr(t) * (u.reshape(w.shape) + weight_decay * w)
        yield w


def eigenbasis(s: Array) -> Array:
    """Eigenvectors, largest first; a small ramp tells equal eigenvalues apart."""
    n = len(s)
    ramp = np.diag(np.arange(1, n + 1) / n)
    return np.linalg.eigh(s + 1e-6 * np.trace(s) / n * ramp)[1][:, ::-1]


def turned_on(s: Array, basis: Array) -> Array:
    """One power iteration of a basis; a small multiple of the identity keeps what s does not reach."""
    return np.linalg.qr((s + 1e-6 * np.trace(s) / len(s) * np.eye(len(s))) @ basis)[0]


def soap(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, weight_decay: float,
    every: int, largest: int,
) -> Iterator[Array]:  # fmt: skip
    """Vyas et al. 2024, arXiv:2409.11321, algorithms 3 and 4; the first gradient only finds a basis."""
    shape = folded(w).shape
    axes = [axis for axis, n in enumerate(shape) if n <= largest] if len(shape) > 1 else []
    g = folded(gradient(w, 1))
    sums = {axis: (1 - beta2) * unfolded(g, axis) @ unfolded(g, axis).T for axis in axes}
    bases = {axis: eigenbasis(s) for axis, s in sums.items()}
    m, v = np.zeros(shape), np.zeros(shape)
    yield w
    for t in count(1):
        g = folded(gradient(w, t + 1))
        forward = {axis: basis.T for axis, basis in bases.items()}
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * times_all(g, forward) ** 2
        turned = times_all(m, forward) / (np.sqrt(v) + eps)
        u = times_all(turned, bases) * sqrt(1 - beta2**t) / (1 - beta1**t)
        w = w - lr(t + 1) * (u.reshape(w.shape) + weight_decay * w)
        for axis in axes:
            G = unfolded(g, axis)
            sums[axis] = beta2 * sums[axis] + (1 - beta2) * G @ G.T
            if t % every == 0:
                values = (bases[axis] * (sums[axis] @ bases[axis])).sum(0)
                order = np.argsort(-values, kind="stable")
                v = v.take(order, axis)
                bases[axis] = turned_on(sums[axis], bases[axis][:, order])
        yield w


def kl_shampoo(
    w: Array, gradient: Gradient, lr: Rate, *, beta1: float, beta2: float, eps: float, damping: float,
    initial: float, weight_decay: float, every: int,
) -> Iterator[Array]:  # fmt: skip
    """Lin et al. 2025, arXiv:2509.03378, the practical form: eigenvalues in the last basis, a basis by QR."""
    rows, columns = w.shape[0], w.size // w.shape[0]
    G = gradient(w, 1).reshape(rows, columns)
    left, right = (1 - beta2) * G @ G.T / columns, (1 - beta2) * G.T @ G / rows
    A, B = eigenbasis(left), eigenbasis(right)
    a, b = np.full(rows, initial), np.full(columns, initial)
    m = np.zeros((rows, columns))
    yield w
    for t in count(2):
        G = gradient(w, t).reshape(rows, columns)
        m = beta1 * m + (1 - beta1) * G
        turned = (A.T @ m @ B) / (np.sqrt(np.outer(a, b)) + eps)
        w = w - lr(t) * ((A @ turned @ B.T).reshape(w.shape) + weight_decay * w)
        left = beta2 * left + (1 - beta2) * G @ (B / b @ B.T) @ G.T / columns
        right = beta2 * right + (1 - beta2) * G.T @ (A / a @ A.T) @ G / rows
        squares = (A.T @ G @ B) ** 2
        of_a, of_b = (squares / b).mean(1), (squares / a[:, None]).mean(0)
        a = np.maximum(beta2 * a + (1 - beta2) * of_a, damping)
        b = np.maximum(beta2 * b + (1 - beta2) * of_b, damping)
        if (t - 1) % every == 0:
            A, B = turned_on(left, A), turned_on(right, B)
        yield w


def lower_bound(S: Array) -> float:
    """Of the spectral norm, by one step of power iteration from the longest row."""
    top = np.abs(S).max()
    if top == 0:
        return 0.0
    S = S / top
    x = S @ S[np.argmax((S**2).sum(1))]
    return top * norm(S.T @ (x / norm(x)))


def kron(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, precondition_lr: float, fall: float,
    weight_decay: float, every: int, flat: int, largest: int, seed: int,
) -> Iterator[Array]:  # fmt: skip
    """Li 2018, arXiv:1512.04202, with the momentum, clipping and fading updates of kron_torch."""
    shape = folded(w).shape
    diagonal = [n == 1 or n > largest or len(shape) < 2 for n in shape]
    Q = {axis: np.eye(n) for axis, n in enumerate(shape)}
    m, waited = np.zeros(shape), 0
    for t in count(1):
        m = momentum * m + (1 - momentum) * folded(gradient(w, t))
        h = m / (1 - momentum**t)
        waited += 1
        if waited >= 1 / max(exp(-fall * max(t - 1 - flat, 0)), 1 / every):
            waited = 0
            V = np.random.Generator(np.random.Philox(key=[seed, t])).standard_normal(shape)
            one = times_all(h, Q)
            other = times_all(V, {axis: np.linalg.inv(q).T for axis, q in Q.items()})
            for axis, q in Q.items():
                T1 = unfolded(one, axis) @ unfolded(one, axis).T
                T2 = unfolded(other, axis) @ unfolded(other, axis).T
                if diagonal[axis]:
                    T1, T2 = np.diag(np.diag(T1)), np.diag(np.diag(T2))
                    bound = np.abs(T1 + T2).max()
                else:
                    bound = lower_bound(T1 + T2)
                Q[axis] = q - precondition_lr * np.triu(T1 - T2) / (bound + 1e-30) @ q
        u = times_all(h, {axis: q.T @ q for axis, q in Q.items()})
        u = u * min(1, 1.1 / (sqrt(float(np.mean(u**2))) + 1e-8))
        w = w - lr(t) * (u.reshape(w.shape) + weight_decay * w)
        yield w


GUPTA = {"graft": "none", "damping": 0.05, "retain": 1.0, "every": 3, "largest": 5}
KL = {"every": 3, "initial": 0.4}
SHI = {"graft": "sgd", "damping": 0.05, "retain": 0.9}
FADING = {"fall": 0.1, "flat": 10, "every": 5, "precondition_lr": 0.2, "seed": 4}
PAPERS = [
    Paper(
        "shampoo",
        shampoo,
        {**SETTINGS, "damping": 0.02},
        ({**SETTINGS, **GUPTA}, {**SETTINGS, **SHI}),
        shapes=ANY,
        delicate=True,
    ),
    Paper("soap", soap, SETTINGS, ({**SETTINGS, "every": 3, "largest": 3},), shapes=ANY, delicate=True),
    Paper("klshampoo", kl_shampoo, SETTINGS, ({**SETTINGS, **KL},), shapes=MATRICES, delicate=True),
    Paper("kron", kron, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.1, **FADING}, shapes=ANY),
]
