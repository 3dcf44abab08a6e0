"""Train in one framework, go on in another: state moves by name, and kernels with their axes."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from each import each

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("keras", reason="Keras is not installed")

import jax
import jax.numpy as jnp
import keras

from steepest import rules
from steepest.keras import optimizer
from steepest.optax import transformation
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own

FIRST, THEN = 100, 30
EPS = float(np.finfo(np.float32).eps)
SHAPES = {"conv": (4, 3, 2, 2), "dense": (5, 4), "bias": (5,)}
"""As torch has them. Keras and flax have (2, 2, 3, 4), (4, 5) and (5,)."""
LAYOUTS = {"conv": "conv", "dense": "transpose", "bias": "same"}
RULES = {
    "momentum": rules.Momentum(lr=0.01, weight_decay=0.1),
    "adamw": rules.AdamW(lr=0.01, weight_decay=0.1),
    "nadam": rules.NAdam(lr=0.01),
    "lion": rules.Lion(lr=0.001, weight_decay=0.1),
    "lamb": rules.LAMB(lr=0.01),
    "prodigy": rules.Prodigy(initial=1e-3),
    "adafactor": rules.Adafactor(lr=0.01),
}
Weights = dict[str, np.ndarray]
Named = dict[str, Any]


class End(NamedTuple):
    """Weights with torch's axes, and the state by name."""

    weights: Weights
    state: Named


def axes(shape: tuple[int, ...], torchs: bool) -> tuple[int, ...]:
    """The permutation of a kernel's axes to torch's, or from them."""
    n = len(shape)
    if n < 2:
        return tuple(range(n))
    return (n - 1, n - 2, *range(n - 2)) if torchs else (*range(2, n), 1, 0)


def start() -> Weights:
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(weights: Weights, t: int, nudge: float = 0.0) -> Weights:
    """Of a bowl around 0.5, with noise, and off by a share `nudge` of itself."""
    draw, off = np.random.default_rng([1, t]), np.random.default_rng([2, t])
    found = {name: weights[name] - 0.5 + draw.normal(size=shape) for name, shape in SHAPES.items()}
    return {
        name: (g * (1 + nudge * off.choice([-1, 1], g.shape))).astype(np.float32) for name, g in found.items()
    }


def turned(weights: Weights) -> Weights:
    return {name: w.transpose(axes(w.shape, torchs=False)).copy() for name, w in weights.items()}


def back(weights: Any) -> Weights:
    return {
        name: np.array(weights[name].transpose(axes(shape, torchs=True))) for name, shape in SHAPES.items()
    }


def in_torch(rule: Rule, begin: Weights, steps: range, state: Named, names: Any, nudge: float = 0.0) -> End:
    weights = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in begin.items()}
    by = RuleOptimizer([(f"net.{name}", w) for name, w in weights.items()], rule)
    if state:
        by.load_state_by_name(state, names)
    values = {name: w.detach().numpy() for name, w in weights.items()}
    for t in steps:
        by.step(gradients=[torch.tensor(g) for g in gradients(values, t, nudge).values()])
    return End({name: w.copy() for name, w in values.items()}, by.state_by_name())


def in_keras(rule: Rule, begin: Weights, steps: range, state: Named, names: Any) -> End:
    with keras.name_scope("layer"):
        weights = {name: keras.Variable(w, name=name) for name, w in turned(begin).items()}
    by = optimizer(rule, decay_all=True)
    by.build(list(weights.values()))
    if state:
        by.load_state_by_name(state, names)
    for t in steps:
        values = back({name: keras.ops.convert_to_numpy(w) for name, w in weights.items()})
        by.apply([keras.ops.convert_to_tensor(g) for g in turned(gradients(values, t)).values()])
    return End(back({name: keras.ops.convert_to_numpy(w) for name, w in weights.items()}), by.state_by_name())


def in_jax(rule: Rule, begin: Weights, steps: range, state: Named, names: Any) -> End:
    tx = transformation(rule)
    params = {"params": jax.tree.map(jnp.asarray, turned(begin))}
    held, step = tx.load_state_by_name(params, state, names) if state else tx.init(params), jax.jit(tx.apply)
    for t in steps:
        values = back(jax.tree.map(np.asarray, params["params"]))
        params, held = step(held, params, {"params": turned(gradients(values, t))})
    return End(back(jax.tree.map(np.asarray, params["params"])), tx.state_by_name(held, params))


RUN: dict[str, Callable[..., End]] = {"torch": in_torch, "keras": in_keras, "jax": in_jax}
NAMED: dict[str, Callable[[str], str]] = {
    "torch": lambda name: f"net.{name}",
    "keras": lambda name: f"layer/{name}",
    "jax": lambda name: f"params.{name}",
}


def names(here: str, there: str) -> dict[str, tuple[str, str]]:
    """The map of names: Keras and flax have the same axes."""
    layouts = LAYOUTS if "torch" in (here, there) else dict.fromkeys(LAYOUTS, "same")
    return {NAMED[here](name): (NAMED[there](name), layouts[name]) for name in SHAPES}


@cache
def half(framework: str, rule: str) -> End:
    return RUN[framework](RULES[rule], start(), range(1, FIRST + 1), {}, None)


@cache
def whole(rule: str, nudge: float = 0.0, single: bool = False) -> Weights:
    """Both halves in torch; single: with numbers that were rounded to float32, as JAX has them."""
    made = RULES[rule]
    rounded = {name: float(np.float32(getattr(made, name))) for name in made.numbers()}
    made = replace(made, **rounded) if single else made
    return in_torch(made, start(), range(1, FIRST + THEN + 1), {}, None, nudge).weights


def tolerance(rule: str) -> float:
    """A few roundings a step, and what the rule makes of rounded gradients and rounded numbers."""
    exact = whole(rule)
    largest = max(np.abs(w).max() for w in exact.values())
    off = [
        max(np.abs(w - other[name]).max() for name, w in exact.items())
        for other in (whole(rule, nudge=EPS), whole(rule, single=True))
    ]
    return 8 * ((FIRST + THEN) * EPS * largest + sum(off))


def apart(a: Weights, b: Weights) -> float:
    return max(np.abs(w - b[name]).max() for name, w in a.items())


@each("rule", RULES, push=2)
@each(("here", "there"), [*permutations(RUN, 2)])
def test_training_goes_on_in_another_framework(here: str, there: str, rule: str) -> None:
    before = half(here, rule)
    steps = range(FIRST + 1, FIRST + THEN + 1)
    after = RUN[there](RULES[rule], before.weights, steps, before.state, names(here, there))
    assert apart(after.weights, whole(rule)) <= tolerance(rule)
    assert after.state[f"{NAMED[there]('bias')}/step"] == FIRST + THEN


@pytest.mark.parametrize("rule", RULES)
def test_without_its_state_it_would_go_elsewhere(rule: str) -> None:
    """So that the test above means something: the bound is far below what a lost state costs."""
    steps = range(FIRST + 1, FIRST + THEN + 1)
    lost = in_torch(RULES[rule], half("torch", rule).weights, steps, {}, None)
    assert apart(lost.weights, whole(rule)) > 10 * tolerance(rule)


def test_a_state_comes_back_as_it_went() -> None:
    sent = half("torch", "adamw").state
    params = {"params": turned(start())}
    tx = transformation(RULES["adamw"])
    there = tx.state_by_name(tx.load_state_by_name(params, sent, names("torch", "jax")), params)
    assert there["params.conv/m"].shape == (2, 2, 3, 4)
    by = RuleOptimizer(
        [(f"net.{name}", torch.nn.Parameter(torch.tensor(w))) for name, w in start().items()], RULES["adamw"]
    )
    by.load_state_by_name(there, names("jax", "torch"))
    for key, value in by.state_by_name().items():
        assert torch.equal(value, sent[key]), key


def test_names_that_are_not_mapped_are_all_listed() -> None:
    sent = half("torch", "adamw").state
    tx = transformation(RULES["adamw"])
    some = {"net.bias": ("params.bias", "same"), "net.conv": ("params.cnov", "conv")}
    with pytest.raises(UserError) as caught:
        tx.load_state_by_name({"params": start()}, sent, some)
    assert "'net.dense' is not in the map" in str(caught.value)
    assert "'net.conv' is mapped to 'params.cnov', which is no weight here" in str(caught.value)


def test_weights_with_other_counts_fit_no_framework_with_one() -> None:
    w, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    by = RuleOptimizer([("a", w), ("b", other)], rules.AdamW())
    by.step(gradients=[torch.ones(2), None])
    by.step(gradients=[torch.ones(2), torch.ones(2)])
    with pytest.raises(UserError, match="'b' has had 1 updates of 2, and here all have one count"):
        transformation("adamw").load_state_by_name({"a": jnp.ones(2), "b": jnp.ones(2)}, by.state_by_name())
