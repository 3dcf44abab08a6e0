"""Every rule against its paper, derived a second way and in float64.

The rules carry state from step to step. Here nothing is carried: each direction is a closed form in all
gradients so far (G, a row a step), moving averages being sums over it. Nesterov's rule is run as in the
paper, with the gradient taken at a point ahead of the weights.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from steepest import rules
from steepest.engine import on_numpy
from steepest.rule import Rule

STEPS = 50
SIZE = 7
EPS = np.finfo(np.float64).eps

Direction = Callable[[np.ndarray], np.ndarray]


def gradient(w: np.ndarray, t: int) -> np.ndarray:
    """Of a quadratic with curvatures from 0.1 to 1, with noise that depends on the step alone."""
    return np.linspace(0.1, 1, SIZE) * (w - 2) + np.random.default_rng(t).normal(size=SIZE)


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE)


def mean(G: np.ndarray, kept: float) -> np.ndarray:
    """Moving average from zero.   Σ (1 - β)·β^(t-i)·g_i"""
    return (1 - kept) * kept ** np.arange(len(G) - 1, -1, -1.0) @ G


def true_mean(G: np.ndarray, kept: float) -> np.ndarray:
    """The same with weights that sum to one."""
    return mean(G, kept) / mean(np.ones(len(G)), kept)


def velocity(G: np.ndarray, kept: float) -> np.ndarray:
    return kept ** np.arange(len(G) - 1, -1, -1.0) @ G


def heads(direction: Direction, G: np.ndarray) -> np.ndarray:
    """The directions of all steps up to the last."""
    return np.stack([direction(G[:t]) for t in range(1, len(G) + 1)])


def sgd(G: np.ndarray) -> np.ndarray:
    return G[-1]


def momentum(G: np.ndarray, kept: float, dampening: float) -> np.ndarray:
    undamped = np.where(np.arange(len(G)) == 0, 1, 1 - dampening)[:, None]
    return velocity(undamped * G, kept)


def adagrad(G: np.ndarray, lr_decay: float, eps: float, initial: float) -> np.ndarray:
    return G[-1] / (np.sqrt(initial + (G**2).sum(0)) + eps) / (1 + (len(G) - 1) * lr_decay)


def adadelta(G: np.ndarray, rho: float, eps: float) -> np.ndarray:
    u: list[np.ndarray] = []
    for t in range(1, len(G) + 1):
        squares = mean(np.square(u), rho) if u else np.zeros(SIZE)
        u.append(np.sqrt((squares + eps) / (mean(G[:t] ** 2, rho) + eps)) * G[t - 1])
    return u[-1]


def rmsprop(G: np.ndarray, alpha: float, eps: float) -> np.ndarray:
    return G[-1] / (np.sqrt(mean(G**2, alpha)) + eps)


def rmsprop_centered(G: np.ndarray, alpha: float, eps: float) -> np.ndarray:
    """v - m² = Σ p_i·(g_i - m)² + (1 - Σ p_i)·m² for weights p_i, which cannot be negative."""
    m = mean(G, alpha)
    return G[-1] / (np.sqrt(mean((G - m) ** 2, alpha) + alpha ** len(G) * m**2) + eps)


def with_velocity(G: np.ndarray, direction: Direction, kept: float) -> np.ndarray:
    return velocity(heads(direction, G), kept)


def adam(G: np.ndarray, beta1: float, beta2: float, eps: float) -> np.ndarray:
    return true_mean(G, beta1) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def amsgrad(G: np.ndarray, beta1: float, beta2: float, eps: float) -> np.ndarray:
    largest = heads(partial(mean, kept=beta2), G**2).max(0)
    return true_mean(G, beta1) / (np.sqrt(largest / (1 - beta2 ** len(G))) + eps)


def adamax(G: np.ndarray, beta1: float, beta2: float, eps: float) -> np.ndarray:
    ages = np.arange(len(G) - 1, -1, -1.0)[:, None]
    return true_mean(G, beta1) / (beta2**ages * (np.abs(G) + eps)).max(0)


def nadam(G: np.ndarray, beta1: float, beta2: float, eps: float, psi: float) -> np.ndarray:
    mu = beta1 * (1 - 0.5 * 0.96 ** (psi * np.arange(1, len(G) + 2)))
    now = (1 - mu[-2]) / (1 - np.prod(mu[:-1])) * G[-1]
    ahead = mu[-1] / (1 - np.prod(mu)) * mean(G, beta1)
    return (now + ahead) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def lion(G: np.ndarray, beta1: float, beta2: float) -> np.ndarray:
    return np.sign(beta1 * mean(G[:-1], beta2) + (1 - beta1) * G[-1])


BETAS = {"beta1": 0.8, "beta2": 0.97, "eps": 1e-3}
MEANS = {"alpha": 0.9, "eps": 1e-3}
COUPLED: list[tuple[Rule, Direction]] = [
    (rules.SGD(lr=0.2, weight_decay=0.1), sgd),
    (
        rules.Momentum(lr=0.05, momentum=0.8, dampening=0.3, weight_decay=0.1),
        partial(momentum, kept=0.8, dampening=0.3),
    ),
    (
        rules.Adagrad(lr=0.2, lr_decay=0.02, eps=1e-3, initial=0.3, weight_decay=0.1),
        partial(adagrad, lr_decay=0.02, eps=1e-3, initial=0.3),
    ),
    (rules.Adadelta(lr=0.7, rho=0.8, eps=1e-3, weight_decay=0.1), partial(adadelta, rho=0.8, eps=1e-3)),
    (rules.RMSprop(lr=0.02, **MEANS, weight_decay=0.1), partial(rmsprop, **MEANS)),
    (
        rules.RMSpropMomentum(lr=0.02, **MEANS, momentum=0.8, weight_decay=0.1),
        partial(with_velocity, direction=partial(rmsprop, **MEANS), kept=0.8),
    ),
    (rules.RMSpropCentered(lr=0.02, **MEANS, weight_decay=0.1), partial(rmsprop_centered, **MEANS)),
    (
        rules.RMSpropCenteredMomentum(lr=0.02, **MEANS, momentum=0.8, weight_decay=0.1),
        partial(with_velocity, direction=partial(rmsprop_centered, **MEANS), kept=0.8),
    ),
    (rules.Adam(lr=0.05, **BETAS, weight_decay=0.1), partial(adam, **BETAS)),
    (rules.AMSGrad(lr=0.05, **BETAS, weight_decay=0.1), partial(amsgrad, **BETAS)),
    (rules.Adamax(lr=0.05, **BETAS, weight_decay=0.1), partial(adamax, **BETAS)),
    (
        rules.NAdam(lr=0.05, **BETAS, momentum_decay=0.1, weight_decay=0.1),
        partial(nadam, **BETAS, psi=0.1),
    ),
]
"""Rules whose decay is part of the gradient."""

DECOUPLED: list[tuple[Rule, Direction]] = [
    (rules.AdamW(lr=0.05, **BETAS, weight_decay=0.1), partial(adam, **BETAS)),
    (rules.AMSGradW(lr=0.05, **BETAS, weight_decay=0.1), partial(amsgrad, **BETAS)),
    (
        rules.NAdamW(lr=0.05, **BETAS, momentum_decay=0.1, weight_decay=0.1),
        partial(nadam, **BETAS, psi=0.1),
    ),
    (rules.Lion(lr=0.02, beta1=0.8, beta2=0.95, weight_decay=0.1), partial(lion, beta1=0.8, beta2=0.95)),
]
"""Rules whose decay is a pull of its own."""


def identity(case: object) -> str:
    return type(case).__name__ if isinstance(case, Rule) else ""


def trajectory(rule: Rule) -> np.ndarray:
    """Weights after each step, by the rule and the reference engine."""
    w, slots, shared, path = start(), rule.init(np, start()), dict(rule.shared), []
    for t in range(1, STEPS + 1):
        w, slots, shared = on_numpy.step(rule, t, t, w, gradient(w, t), slots, shared)
        path.append(w)
    return np.stack(path)


def expected(direction: Direction, lr: float, coupled: float, decoupled: float) -> np.ndarray:
    """Weights after each step, by the closed form; the two kinds of decay as in Loshchilov & Hutter 2019."""
    w, G, path = start(), np.empty((0, SIZE)), []
    for t in range(1, STEPS + 1):
        G = np.vstack([G, gradient(w, t) + coupled * w])
        w = (1 - lr * decoupled) * w - lr * direction(G)
        path.append(w)
    return np.stack(path)


def tolerance(path: np.ndarray) -> float:
    """Ten roundings a step, of numbers as large as the largest weight."""
    return 10 * STEPS * EPS * np.abs(path).max()


@pytest.mark.parametrize(("rule", "direction"), COUPLED, ids=identity)
def test_a_rule_with_coupled_decay_follows_its_closed_form(rule: Rule, direction: Direction) -> None:
    path = expected(direction, rule.lr, coupled=rule.weight_decay, decoupled=0)
    np.testing.assert_allclose(trajectory(rule), path, rtol=0, atol=tolerance(path))


@pytest.mark.parametrize(("rule", "direction"), DECOUPLED, ids=identity)
def test_a_rule_with_decoupled_decay_follows_its_closed_form(rule: Rule, direction: Direction) -> None:
    path = expected(direction, rule.lr, coupled=0, decoupled=rule.weight_decay)
    np.testing.assert_allclose(trajectory(rule), path, rtol=0, atol=tolerance(path))


def test_nesterov_is_the_papers_method_seen_from_the_point_ahead() -> None:
    """Sutskever et al. 2013, equations 3 and 4: v ← μv - lr·∇f(θ + μv), θ ← θ + v; the rule holds θ + μv."""
    lr, kept, decay, theta, v, path = 0.05, 0.8, 0.1, start(), np.zeros(SIZE), []
    for t in range(1, STEPS + 1):
        ahead = theta + kept * v
        v = kept * v - lr * (gradient(ahead, t) + decay * ahead)
        theta = theta + v
        path.append(theta + kept * v)
    found = trajectory(rules.Nesterov(lr=lr, momentum=kept, weight_decay=decay))
    np.testing.assert_allclose(found, np.stack(path), rtol=0, atol=tolerance(np.stack(path)))


def test_every_rule_is_derived_here() -> None:
    derived = {type(rule) for rule, _ in COUPLED + DECOUPLED} | {rules.Nesterov}
    assert derived == set(rules.registry().values())
