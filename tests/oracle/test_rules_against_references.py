"""Layer-wise, averaged and parameter-free rules, and wrappers, against other people's code in float64.

Each library is skipped where it is not installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from steepest import rules, wrap
from steepest.optim.engines import on_numpy
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

STEPS = 50
SHAPES = ((5,), (3, 4), (33,), (1,))
EPS = np.finfo(np.float64).eps
ADAM = {"eps": 1e-3, "weight_decay": 0.1}
BETAS = {"beta1": 0.8, "beta2": 0.97}
FREE = {"power": 1.5, "warmup": 7, "weight_decay": 0.1}

Arrays = Sequence[np.ndarray]


def start() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape) for shape in SHAPES]


def gradients(weights: Arrays, t: int) -> list[np.ndarray]:
    draw = np.random.default_rng(t)
    return [0.5 * w + draw.normal(size=w.shape) for w in weights]


def ours(rule: Rule) -> tuple[Arrays, Arrays]:
    """All weights after 50 steps, and the weights to test."""
    rows, shared = [(w, *rule.init(on_numpy.NUMPY, w)) for w in start()], [dict(rule.shared) for _ in SHAPES]
    for t in range(1, STEPS + 1):
        pushed = gradients([w for w, *_ in rows], t)
        given = [(w, g, *slots) for (w, *slots), g in zip(rows, pushed, strict=True)]
        rows, shared = on_numpy.step_all(rule, t, t, given, shared)
    k, _ = rule.constants(HOST, STEPS, shared[0])
    return [w for w, *_ in rows], [rule.evaluate(on_numpy.NUMPY, k, w, *slots) for w, *slots in rows]


def of_torch(make: Callable[[list[torch.nn.Parameter]], Any]) -> tuple[Arrays, Arrays]:
    """The same by a torch optimizer, whose modes are train() and eval() where it has them."""
    weights = [torch.nn.Parameter(torch.tensor(w)) for w in start()]
    optimizer = make(weights)
    switch = getattr(optimizer, "train", lambda: None)
    switch()
    for t in range(1, STEPS + 1):
        for w, g in zip(weights, gradients([w.detach().numpy() for w in weights], t), strict=True):
            w.grad = torch.tensor(g)
        optimizer.step()
    trained = [w.detach().numpy().copy() for w in weights]
    getattr(optimizer, "eval", lambda: None)()
    return trained, [w.detach().numpy() for w in weights]


def of_optax(transformation: Any) -> tuple[Arrays, Arrays]:
    """The same by a gradient transformation, in 64 bits."""
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    with jax.enable_x64(True):
        weights = [jax.numpy.asarray(w) for w in start()]
        state = transformation.init(weights)
        for t in range(1, STEPS + 1):
            pushed = list(map(jax.numpy.asarray, gradients(list(map(np.asarray, weights)), t)))
            moves, state = transformation.update(pushed, state, weights)
            weights = optax.apply_updates(weights, moves)
        trained = list(map(np.asarray, weights))
    return trained, trained


def assert_alike(rule: Rule, theirs: tuple[Arrays, Arrays], roundings: float = 10.0) -> None:
    """Ten roundings a step, of numbers of order one, in the weights to train and those to test."""
    for found, expected in zip(ours(rule), theirs, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=roundings * STEPS * EPS)


def library(name: str) -> Any:
    return pytest.importorskip(name)


def test_schedule_free_sgd_is_the_authors() -> None:
    authors = library("schedulefree").SGDScheduleFree
    numbers = {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.1, "r": 1.5, "warmup_steps": 7}
    rule = rules.ScheduleFreeSGD(lr=0.3, beta=0.8, **FREE)
    assert_alike(rule, of_torch(lambda weights: authors(weights, **numbers)))


def test_schedule_free_adamw_is_the_authors() -> None:
    authors = library("schedulefree").AdamWScheduleFree
    numbers = {"lr": 0.03, "betas": (0.8, 0.97), "r": 1.5, "warmup_steps": 7, **ADAM}
    rule = rules.ScheduleFreeAdamW(lr=0.03, **BETAS, eps=1e-3, **FREE)
    assert_alike(rule, of_torch(lambda weights: authors(weights, **numbers)))


def test_schedule_free_around_a_rule_is_the_authors_wrapper() -> None:
    authors = library("schedulefree").ScheduleFreeWrapperReference
    inner = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1}
    rule = wrap.schedule_free(rules.Momentum(**inner), beta=0.8, power=1.0)
    theirs = of_torch(lambda weights: authors(torch.optim.SGD(weights, **inner), momentum=0.8, r=1.0))
    assert_alike(rule, theirs)


PRODIGY = [
    ({}, {}),
    ({"growth": 1.3}, {"growth_rate": 1.3}),
    ({"coefficient": 2.0}, {"d_coef": 2.0}),
    ({"bias_correction": True}, {"use_bias_correction": True}),
    (
        {"bias_correction": True, "safeguard_warmup": True},
        {"use_bias_correction": True, "safeguard_warmup": True},
    ),
]


@pytest.mark.parametrize(("own", "authors_own"), PRODIGY)
def test_prodigy_is_the_authors(own: dict[str, Any], authors_own: dict[str, Any]) -> None:
    """w₀ - w loses digits while steps are of size d₀: a rounding there counts 1/d₀ times."""
    authors = library("prodigyopt").Prodigy
    numbers = {"betas": (0.8, 0.97), "d0": 1e-3, **ADAM, **authors_own}
    rule = rules.Prodigy(**BETAS, initial=1e-3, **ADAM, **own)
    assert_alike(rule, of_torch(lambda weights: authors(weights, **numbers)), roundings=1e3)


def test_prodigy_debiased_is_optax() -> None:
    contrib = library("optax").contrib
    rule = rules.Prodigy(**BETAS, bias_correction=True, **ADAM)
    assert_alike(rule, of_optax(contrib.prodigy(1.0, betas=(0.8, 0.97), **ADAM)))


@pytest.mark.parametrize("growth", [float("inf"), 1.2])
def test_d_adaptation_is_that_of_pytorch_optimizer(growth: float) -> None:
    """Which adds its sums up in float32: d, and so a step, is right to as many digits."""
    theirs = library("pytorch_optimizer").DAdaptAdam
    numbers = {"betas": (0.8, 0.97), "growth_rate": growth, "weight_decouple": True, **ADAM}
    rule = rules.DAdaptAdam(**BETAS, growth=growth, **ADAM)
    single = float(np.finfo(np.float32).eps)
    assert_alike(rule, of_torch(lambda weights: theirs(weights, **numbers)), roundings=single / EPS)


def test_dog_and_dowg_are_optax() -> None:
    contrib = library("optax").contrib
    dog = contrib.dog(1.0, init_step=("heuristic", 1e-3), weight_decay=0.1)
    assert_alike(rules.DoG(reps=1e-3, weight_decay=0.1), of_optax(dog))
    assert_alike(rules.DoWG(weight_decay=0.1), of_optax(contrib.dowg(1.0, weight_decay=0.1)))


def test_lamb_is_optax_and_so_is_adamw_with_a_trust_ratio() -> None:
    theirs = of_optax(library("optax").lamb(0.01, **ADAM))
    assert_alike(rules.LAMB(lr=0.01, **ADAM), theirs)
    assert_alike(wrap.trust_ratio(rules.AdamW(lr=0.01, **ADAM)), theirs)


def test_lamb_and_lars_are_timm(timms: Callable[[str], Any]) -> None:
    lamb = {"lr": 0.01, "max_grad_norm": None, "always_adapt": True, **ADAM}
    lars = {"lr": 0.1, "momentum": 0.8, "trust_coeff": 0.02, "weight_decay": 0.1, "always_adapt": True}
    assert_alike(rules.LAMB(lr=0.01, **ADAM), of_torch(lambda weights: timms("lamb").Lamb(weights, **lamb)))
    rule = rules.LARS(lr=0.1, momentum=0.8, trust=0.02, weight_decay=0.1)
    assert_alike(rule, of_torch(lambda weights: timms("lars").Lars(weights, **lars)))


@pytest.mark.parametrize("size", [0.01, 1.0])
def test_mars_is_timm(timms: Callable[[str], Any], size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small gradients are not shortened, so that the first step shows what they are corrected by."""
    plain = gradients
    monkeypatch.setattr(f"{__name__}.gradients", lambda ws, t: [size * g for g in plain(ws, t)])
    numbers = {"lr": 0.03, "gamma": 0.1, **ADAM}
    theirs = of_torch(
        lambda weights: timms("mars").Mars(weights, betas=(0.8, 0.97), optimize_1d=True, **numbers)
    )
    assert_alike(rules.MARS(**BETAS, **numbers), theirs)


def test_cautious_with_a_clamp_is_timm(timms: Callable[[str], Any]) -> None:
    lion = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1, "caution": True}
    rule = wrap.cautious_clamped(rules.Lion(lr=0.01, weight_decay=0.1))
    assert_alike(rule, of_torch(lambda weights: timms("lion").Lion(weights, **lion)))


def test_lookahead_is_that_of_pytorch_optimizer() -> None:
    theirs = library("pytorch_optimizer").Lookahead
    path, _ = of_torch(lambda weights: theirs(torch.optim.Adam(weights, lr=0.01), k=6, alpha=0.3))
    found, _ = ours(wrap.lookahead(rules.Adam(lr=0.01), every=6, share=0.3))
    for one, other in zip(found, path, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=10 * STEPS * EPS)


@pytest.mark.parametrize("way", ["reset", "pullback"])
def test_and_so_is_what_it_does_with_momentum(way: Any) -> None:
    theirs = library("pytorch_optimizer").Lookahead
    path, _ = of_torch(
        lambda weights: theirs(
            torch.optim.SGD(weights, lr=0.01, momentum=0.9), k=6, alpha=0.3, pullback_momentum=way
        )
    )
    found, _ = ours(wrap.lookahead(rules.Momentum(lr=0.01), every=6, share=0.3, momentum=way))
    for one, other in zip(found, path, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=10 * STEPS * EPS)
