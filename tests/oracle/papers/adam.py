"""Adam and the rules that differ from it by a term: closed forms in all gradients so far."""

from __future__ import annotations

from functools import partial

import numpy as np

from papers.closed import ages, coupled, decoupled, heads, mean, true_mean
from papers.paper import Array, Paper


def adam(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """Kingma & Ba 2015, arXiv:1412.6980, algorithm 1."""
    return true_mean(G, beta1) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def adam_tf(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """The same paper's section 2, last paragraph: α_t = α·√(1-β₂ᵗ)/(1-β₁ᵗ), and ε beside the raw root."""
    rate = np.sqrt(1 - beta2 ** len(G)) / (1 - beta1 ** len(G))
    return rate * mean(G, beta1) / (np.sqrt(mean(G**2, beta2)) + eps)


def adam_inside(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    return true_mean(G, beta1) / np.sqrt(true_mean(G**2, beta2) + eps)


def amsgrad(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """Reddi et al. 2018, algorithm 2, with the corrections of Adam as torch places them."""
    largest = heads(partial(mean, kept=beta2), G**2).max(0)
    return true_mean(G, beta1) / (np.sqrt(largest / (1 - beta2 ** len(G))) + eps)


def amsgrad_tf(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    largest = heads(partial(mean, kept=beta2), G**2).max(0)
    rate = np.sqrt(1 - beta2 ** len(G)) / (1 - beta1 ** len(G))
    return rate * mean(G, beta1) / (np.sqrt(largest) + eps)


def amsgrad_hat(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    largest = heads(partial(true_mean, kept=beta2), G**2).max(0)
    return true_mean(G, beta1) / (np.sqrt(largest) + eps)


def adamax(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """Adam's paper, section 7.1, with ε beside each gradient as torch has it."""
    faded = beta2 ** ages(G).reshape(-1, *[1] * (G.ndim - 1))
    return true_mean(G, beta1) / (faded * (np.abs(G) + eps)).max(0)


def adamax_tf(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    faded = beta2 ** ages(G).reshape(-1, *[1] * (G.ndim - 1))
    return true_mean(G, beta1) / ((faded * np.abs(G)).max(0) + eps)


def nadam(G: Array, beta1: float, beta2: float, eps: float, momentum_decay: float) -> Array:
    """Dozat 2016, with the schedule of momenta μ_t = β₁(1 - ½·0.96^(t·ψ))."""
    mu = beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * np.arange(1, len(G) + 2)))
    now = (1 - mu[-2]) / (1 - np.prod(mu[:-1])) * G[-1]
    ahead = mu[-1] / (1 - np.prod(mu)) * mean(G, beta1)
    return (now + ahead) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def nadam_simple(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """Dozat 2016 with one momentum: that of the next step is the average with a gradient of 0 to come."""
    still_to_come = np.concatenate([G, np.zeros_like(G[:1])])
    now = (1 - beta1) / (1 - beta1 ** len(G)) * G[-1]
    return (true_mean(still_to_come, beta1) + now) / (np.sqrt(true_mean(G**2, beta2)) + eps)


def lion(G: Array, beta1: float, beta2: float) -> Array:
    """Chen et al. 2023, arXiv:2302.06675, algorithm 2."""
    before = mean(G[:-1], beta2) if len(G) > 1 else np.zeros_like(G[0])
    return np.sign(beta1 * before + (1 - beta1) * G[-1])


def qhadam(G: Array, beta1: float, beta2: float, eps: float, nu1: float, nu2: float) -> Array:
    """Ma & Yarats 2019, arXiv:1810.06801, section 5 (QHAdam)."""
    up = (1 - nu1) * G[-1] + nu1 * true_mean(G, beta1)
    return up / (np.sqrt((1 - nu2) * G[-1] ** 2 + nu2 * true_mean(G**2, beta2)) + eps)


def laprop(G: Array, beta1: float, beta2: float, eps: float) -> Array:
    """Ziyin et al. 2020, arXiv:2002.04839, algorithm 1: normalised first, averaged then."""
    normalised = heads(lambda H: H[-1] / (np.sqrt(true_mean(H**2, beta2)) + eps), G)
    return true_mean(normalised, beta1)


BETAS = {"beta1": 0.8, "beta2": 0.97, "eps": 1e-3}
SETTINGS = {"lr": 0.05, "weight_decay": 0.1, **BETAS}
PAPERS = [
    Paper("adam", coupled(adam), SETTINGS),
    Paper("adamw", decoupled(adam), SETTINGS),
    Paper("adamtf", decoupled(adam_tf), SETTINGS),
    Paper("adaminside", coupled(adam_inside), SETTINGS),
    Paper("amsgrad", coupled(amsgrad), SETTINGS),
    Paper("amsgradw", decoupled(amsgrad), SETTINGS),
    Paper("amsgradtf", decoupled(amsgrad_tf), SETTINGS),
    Paper("amsgradhat", coupled(amsgrad_hat), SETTINGS),
    Paper("adamax", coupled(adamax), SETTINGS),
    Paper("adamaxtf", decoupled(adamax_tf), SETTINGS),
    Paper("nadam", coupled(nadam), {**SETTINGS, "momentum_decay": 0.1}),
    Paper("nadamw", decoupled(nadam), {**SETTINGS, "momentum_decay": 0.1}),
    Paper("nadamtf", decoupled(partial(nadam, momentum_decay=1.0)), SETTINGS),
    Paper("nadamsimple", coupled(nadam_simple), SETTINGS),
    Paper("nadamwsimple", decoupled(nadam_simple), SETTINGS),
    Paper("lion", decoupled(lion), {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1}),
    Paper("qhadam", decoupled(qhadam), {**SETTINGS, "nu1": 0.6, "nu2": 0.9}),
    Paper("laprop", decoupled(laprop), SETTINGS),
]
