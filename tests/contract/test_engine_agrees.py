"""Every engine moves weights as the float64 reference does, by every rule, at every size."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from each import each
from steepest import rules
from steepest.optim.engines import on_numba, on_numpy
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Rule

STEPS = 30
SHAPES = ((0,), (1,), (5,), (16,), (33,), (1000,))
MATRICES = ((1, 1), (4, 3), (3, 8), (16, 16), (33,), (2, 3, 2, 2))
NAMES = sorted(rules.registry())
WITH_KERNELS = [name for name in NAMES if not rules.registry()[name].whole]


def rule_of(name: str) -> Rule:
    """The rule with weight decay on, and eps large enough that no denominator is pure rounding error."""
    knobs = {"weight_decay": 0.1, "eps": 1e-3, "lr": 0.01}
    known = {*rules.registry()[name].numbers()}
    return rules.named(name, **{knob: value for knob, value in knobs.items() if knob in known})


def shapes_of(rule: Rule) -> list[tuple[int, ...]]:
    return [shape for shape in (MATRICES if rule.whole else SHAPES) if rule.takes(shape)]


def gradients(shape: tuple[int, ...], step: int) -> np.ndarray:
    """Numbers that float32 holds exactly, and away from zero, where a sign would be a rounding error."""
    size = math.prod(shape)
    draw = np.random.default_rng([size, step])
    values = draw.uniform(0.5, 2, size) * np.where(np.arange(size) % 3 == 0, -1, 1)
    return values.astype(np.float32).astype(np.float64).reshape(shape)


def start(shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    return np.random.default_rng(size).normal(size=shape).astype(np.float32).astype(np.float64)


def read(rule: Rule, shape: tuple[int, ...], step: int) -> list[np.ndarray]:
    """What a rule reads besides: for all of its arrays the same positive numbers."""
    return [np.abs(gradients(shape, step))] * len(rule.extra_inputs)


def shaken(g: np.ndarray, nudge: float, t: int) -> np.ndarray:
    """Gradients of which each number is off by a rounding of its own."""
    return g * (1 + nudge * np.random.default_rng([7, t]).normal(size=g.shape)) if nudge else g


@cache
def reference(rule: Rule, nudge: float = 0.0) -> list[np.ndarray]:
    """The weights of all shapes after all steps, moved together; from numbers off by `nudge`."""
    shapes = shapes_of(rule)
    rows = [(start(shape) * (1 + nudge), *rule.init(NUMPY, start(shape))) for shape in shapes]
    shared = [dict(rule.shared) for _ in shapes]
    for t in range(1, STEPS + 1):
        pairs = zip(rows, shapes, strict=True)
        arrays = [
            (w, shaken(gradients(shape, t), nudge, t), *read(rule, shape, t), *slots)
            for (w, *slots), shape in pairs
        ]
        rows, shared = on_numpy.step_all(rule, t, t, arrays, shared)
    return [w for w, *_ in rows]


def moved(rule: Rule, dtype: torch.dtype) -> tuple[list[np.ndarray], RuleOptimizer]:
    shapes = shapes_of(rule)
    weights = [torch.nn.Parameter(torch.tensor(start(shape), dtype=dtype)) for shape in shapes]
    optimizer = RuleOptimizer(weights, rule)
    for t in range(1, STEPS + 1):
        take(optimizer, rule, shapes, t, dtype)
    return [w.detach().double().numpy() for w in weights], optimizer


def take(
    optimizer: RuleOptimizer, rule: Rule, shapes: list[tuple[int, ...]], t: int, dtype: torch.dtype
) -> None:
    """One step from the gradients of time t."""
    own = [torch.tensor(gradients(shape, t), dtype=dtype) for shape in shapes]
    besides = [[torch.tensor(x, dtype=dtype) for x in read(rule, shape, t)] for shape in shapes]
    columns = (
        dict(zip(rule.extra_inputs, map(list, zip(*besides, strict=True)), strict=True))
        if rule.extra_inputs
        else None
    )
    optimizer.step(gradients=own, reads=columns)


def tolerance(dtype: torch.dtype) -> float:
    """A few roundings a step of numbers of size one, which later steps pass on a few times."""
    return 8 * STEPS * float(torch.finfo(dtype).eps)


def assert_near(found: list[np.ndarray], rule: Rule, dtype: torch.dtype) -> None:
    """Rules of whole arrays pass roundings on many times: eigenvectors turn where values are close."""
    wanted, atol = reference(rule), [4 * tolerance(dtype)] * len(found)
    if rule.whole:
        eps = float(torch.finfo(dtype).eps)
        off = [np.abs(a - b).max() for a, b in zip(wanted, reference(rule, eps), strict=True)]
        atol = [one + 8 * STEPS * most for one, most in zip(atol, off, strict=True)]
    for w, value, most in zip(found, wanted, atol, strict=True):
        np.testing.assert_allclose(w, value, rtol=0, atol=most)


KERNELS = [(name, torch.float32) for name in WITH_KERNELS] + [(n, torch.float64) for n in WITH_KERNELS[::4]]
"""Every rule in float32, and every fourth in float64: compiling is what takes the time."""


@each(("name", "dtype"), KERNELS)
def test_kernels_agree_with_the_reference(name: str, dtype: torch.dtype) -> None:
    found, optimizer = moved(rule_of(name), dtype)
    assert all(isinstance(x, on_numba.Table) for x in optimizer._plan.weight_groups[0].engines), (
        "no kernel ran"
    )
    assert_near(found, rule_of(name), dtype)


@each("name", NAMES)
def test_the_plain_engine_agrees_with_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_numba, "table", lambda *_: None)
    found, _ = moved(rule_of(name), torch.float64)
    assert_near(found, rule_of(name), torch.float64)


@each("name", NAMES, push=3)
def test_a_16_bit_weight_is_off_by_its_own_rounding_alone(name: str) -> None:
    rule = rule_of(name)
    shape = shapes_of(rule)[-1]
    weight = torch.nn.Parameter(torch.tensor(start(shape), dtype=torch.bfloat16))
    optimizer = RuleOptimizer([weight], rule)
    before = weight.detach().double().numpy()
    take(optimizer, rule, [shape], 1, torch.bfloat16)
    rounded = [
        torch.tensor(x, dtype=torch.bfloat16).double().numpy()
        for x in (gradients(shape, 1), *read(rule, shape, 1))
    ]
    slots = rule.init(NUMPY, before)
    (((expected, *slots),), _) = on_numpy.step_all(
        rule, 1, 1, [(before, *rounded, *slots)], [dict(rule.shared)]
    )
    eps = float(torch.finfo(torch.bfloat16).eps)
    np.testing.assert_allclose(weight.detach().double().numpy(), expected, rtol=eps, atol=eps * eps)
    kept = [v for key, v in optimizer.state[weight].items() if v.dim()]
    assert {slot.dtype for slot in kept} <= {torch.float32}
    for slot, value in [] if rule.whole else zip(kept, slots, strict=True):
        np.testing.assert_allclose(slot.double().numpy(), value, rtol=tolerance(torch.float32))


@each("name", NAMES)
@each("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_weight_or_state(name: str, bad: float) -> None:
    rule, where = rule_of(name), (2, 3)
    if name == "signsgd" and bad == float("inf"):
        pytest.skip("a sign is finite, and there is no state")
    weight = torch.nn.Parameter(torch.ones(4, 8))
    optimizer = RuleOptimizer([weight], rule)
    gradient = torch.ones(4, 8)
    gradient[where] = bad
    optimizer.step(gradients=[gradient], reads={name: [torch.ones(4, 8)] for name in rule.extra_inputs})
    everything = [weight.detach(), *optimizer.state[weight].values()]
    assert any(not x.isfinite().all() for x in everything)
    if not rule.whole and not rule.sums:  # others look at many elements before they move one
        elsewhere = torch.ones(4, 8, dtype=torch.bool)
        elsewhere[where] = False
        assert all(x[elsewhere].isfinite().all() for x in everything if x.dim())


@each("name", ["adamw", "lion", "momentum"])
def test_scale_multiplies_every_gradient(name: str) -> None:
    results = []
    for scale in (1.0, 0.25):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 100))
        optimizer = RuleOptimizer([weight], rule_of(name))
        for t in range(1, 6):
            weight.grad = torch.tensor(gradients((100,), t), dtype=torch.float32) / scale
            optimizer.step(scale=scale)
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=0)
