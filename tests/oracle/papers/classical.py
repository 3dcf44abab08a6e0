"""Gradient descent, momentum, and the first rules with a rate for each element."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

import numpy as np

from papers.closed import coupled, decoupled, heads, mean, velocity
from papers.paper import Array, Gradient, Paper, Rate


def sgd(G: Array) -> Array:
    return G[-1]


def momentum(G: Array, momentum: float, dampening: float) -> Array:
    """Polyak 1964; the first gradient is taken whole."""
    undamped = np.where(np.arange(len(G)) == 0, 1, 1 - dampening).reshape(-1, *[1] * (G.ndim - 1))
    return velocity(undamped * G, momentum)


def nesterov(G: Array, momentum: float) -> Array:
    """Sutskever et al. 2013, seen from the point ahead where the gradient is taken."""
    return G[-1] + momentum * velocity(G, momentum)


def momentum_tf(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, weight_decay: float
) -> Iterator[Array]:
    """TensorFlow: the velocity is a step and not a gradient.   w moves by Σ -lr_i·μ^(t-i)·g_i"""
    steps: list[Array] = []
    for t in count(1):
        steps.append(-lr(t) * gradient(w, t))
        w = w + velocity(np.array(steps), momentum) - lr(t) * weight_decay * w
        yield w


def nesterov_tf(
    w: Array, gradient: Gradient, lr: Rate, *, momentum: float, weight_decay: float
) -> Iterator[Array]:
    """Keras: v ← μv - lr·g, w ← w + μv - lr·g."""
    steps: list[Array] = []
    for t in count(1):
        steps.append(-lr(t) * gradient(w, t))
        w = w + momentum * velocity(np.array(steps), momentum) + steps[-1] - lr(t) * weight_decay * w
        yield w


def adagrad(G: Array, lr_decay: float, eps: float, initial: float) -> Array:
    """Duchi et al. 2011."""
    return G[-1] / (np.sqrt(initial + (G**2).sum(0)) + eps) / (1 + (len(G) - 1) * lr_decay)


def adagrad_tf(G: Array, eps: float, initial: float) -> Array:
    return G[-1] / np.sqrt(initial + (G**2).sum(0) + eps)


def adadelta(G: Array, rho: float, eps: float) -> Array:
    """Zeiler 2012, algorithm 1."""
    u: list[Array] = []
    for t in range(1, len(G) + 1):
        squares = mean(np.square(u), rho) if u else np.zeros_like(G[0])
        u.append(np.sqrt((squares + eps) / (mean(G[:t] ** 2, rho) + eps)) * G[t - 1])
    return u[-1]


def variance(G: Array, alpha: float) -> Array:
    """v - m² = Σ p_i·(g_i - m)² + (1 - Σ p_i)·m² for weights p_i, which cannot be negative."""
    m = mean(G, alpha)
    return mean((G - m) ** 2, alpha) + alpha ** len(G) * m**2


def rmsprop(G: Array, alpha: float, eps: float) -> Array:
    """Hinton, lecture 6e."""
    return G[-1] / (np.sqrt(mean(G**2, alpha)) + eps)


def rmsprop_centered(G: Array, alpha: float, eps: float) -> Array:
    """Graves 2013, arXiv:1308.0850."""
    return G[-1] / (np.sqrt(variance(G, alpha)) + eps)


def rmsprop_momentum(G: Array, alpha: float, eps: float, momentum: float) -> Array:
    return velocity(heads(partial(rmsprop, alpha=alpha, eps=eps), G), momentum)


def rmsprop_centered_momentum(G: Array, alpha: float, eps: float, momentum: float) -> Array:
    return velocity(heads(partial(rmsprop_centered, alpha=alpha, eps=eps), G), momentum)


def rmsprop_tf(
    w: Array, gradient: Gradient, lr: Rate, *, alpha: float, eps: float, momentum: float, initial: float,
    weight_decay: float, centered: bool = False,
) -> Iterator[Array]:  # fmt: skip
    """TensorFlow: ε within the root, the rate within the velocity."""
    G: list[Array] = []
    steps: list[Array] = []
    for t in count(1):
        G.append(gradient(w, t))
        of = variance(np.array(G), alpha) if centered else mean(np.array(G) ** 2, alpha)
        steps.append(lr(t) * G[-1] / np.sqrt(of + initial * alpha**t + eps))
        w = w - velocity(np.array(steps), momentum) - lr(t) * weight_decay * w
        yield w


def rprop(
    w: Array, gradient: Gradient, lr: Rate, *, shrink: float, grow: float, shortest: float, longest: float
) -> Iterator[Array]:
    """Riedmiller & Braun 1993, in the form that forgets a gradient after a change of sign (iRprop-)."""
    length = np.full_like(w, lr(1))
    last = np.zeros_like(w)
    for t in count(1):
        g = np.array(gradient(w, t))
        for i in np.ndindex(g.shape):
            if g[i] * last[i] > 0:
                length[i] = min(length[i] * grow, longest)
            elif g[i] * last[i] < 0:
                length[i] = max(length[i] * shrink, shortest)
                g[i] = 0
        w = w - np.sign(g) * length
        last = g
        yield w


def asgd(
    w: Array, gradient: Gradient, lr: Rate, *, lambd: float, power: float, t0: float, weight_decay: float
) -> Iterator[tuple[Array, Array]]:
    """Polyak & Juditsky 1992 with the rates of torch; the average is the mean of all weights after t0 + 1."""
    averaged: list[Array] = []
    for t in count(1):
        eta = lr(t) / (1 + lambd * lr(t) * (t - 1)) ** power
        g = gradient(w, t) + weight_decay * w
        w = w - eta * lambd * w - eta * g
        if t - 1 - t0 <= 1:
            averaged = []
        averaged.append(w)
        yield w, np.mean(averaged, axis=0)


def ftrl(
    w: Array, gradient: Gradient, lr: Rate, *, power: float, initial: float, l1: float, l2: float,
    beta: float, l2_shrinkage: float,
) -> Iterator[Array]:  # fmt: skip
    """McMahan et al. 2013, algorithm 1 and section 3.1 (σ₁ + … + σ_t = 1/η_t); power and 2·l2 are Keras's.

    The shrinkage is TensorFlow's: the gradient of l2_shrinkage·w² is in the sum, and not in the squares."""
    z, squares, before = np.zeros_like(w), np.full_like(w, initial), (initial**power + beta) / lr(1)
    for t in count(1):
        g = gradient(w, t)
        squares = squares + g**2
        inverse = (squares**power + beta) / lr(t)
        z = z + (g + 2 * l2_shrinkage * w) - (inverse - before) * w
        w = np.where(np.abs(z) <= l1, 0, (np.sign(z) * l1 - z) / (inverse + 2 * l2))
        before = inverse
        yield w


def sign_sgd(G: Array) -> Array:
    """Bernstein et al. 2018, arXiv:1802.04434, algorithm 1."""
    return np.sign(G[-1])


def signum(G: Array, momentum: float) -> Array:
    """The same, algorithm 2."""
    return np.sign(mean(G, momentum))


DECAY = {"lr": 0.03, "weight_decay": 0.1}
MEANS = {"alpha": 0.8, "eps": 1e-3}
PAPERS = [
    Paper("sgd", coupled(sgd), {"lr": 0.2, "weight_decay": 0.1}),
    Paper("momentum", coupled(momentum), {**DECAY, "momentum": 0.8, "dampening": 0.3}),
    Paper("nesterov", coupled(nesterov), {**DECAY, "momentum": 0.8}),
    Paper("momentumtf", momentum_tf, {**DECAY, "momentum": 0.8}),
    Paper("nesterovtf", nesterov_tf, {**DECAY, "momentum": 0.8}),
    Paper("adagrad", coupled(adagrad), {**DECAY, "lr_decay": 0.02, "eps": 1e-3, "initial": 0.3}),
    Paper("adagradtf", decoupled(adagrad_tf), {**DECAY, "eps": 1e-3, "initial": 0.3}),
    Paper("adadelta", coupled(adadelta), {"lr": 0.7, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    Paper("rmsprop", coupled(rmsprop), {**DECAY, **MEANS}),
    Paper("rmspropmomentum", coupled(rmsprop_momentum), {**DECAY, **MEANS, "momentum": 0.8}),
    Paper("rmspropcentered", coupled(rmsprop_centered), {**DECAY, **MEANS}),
    Paper("rmspropcenteredmomentum", coupled(rmsprop_centered_momentum), {**DECAY, **MEANS, "momentum": 0.8}),
    Paper("rmsproptf", rmsprop_tf, {**DECAY, **MEANS, "momentum": 0.7, "initial": 0.5}),
    Paper(
        "rmsproptfcentered",
        partial(rmsprop_tf, centered=True),
        {**DECAY, **MEANS, "momentum": 0.7, "initial": 0.5},
    ),
    Paper("rprop", rprop, {"lr": 0.1, "shrink": 0.4, "grow": 1.3, "shortest": 0.03, "longest": 0.3}),
    Paper("asgd", asgd, {**DECAY, "lambd": 0.05, "power": 0.6, "t0": 20.0}, ships=True),
    Paper(
        "ftrl",
        ftrl,
        {"lr": 0.3, "power": 0.6, "initial": 0.2, "l1": 0.5, "l2": 0.2, "beta": 0.3},
        ({"lr": 0.2, "l1": 0.1, "beta": 0.2, "l2_shrinkage": 0.15},),
    ),
    Paper("signsgd", decoupled(sign_sgd), DECAY),
    Paper("signum", decoupled(signum), {**DECAY, "momentum": 0.8}),
]
