"""Every engine moves weights as the float64 reference does, by every rule, at every size."""

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.engine import on_numba, on_numpy
from steepest.engine.optimizer import RuleOptimizer
from steepest.rule import Rule

STEPS = 30
SIZES = (0, 1, 5, 16, 33, 1000)
NAMES = sorted(rules.registry())


def rule_of(name: str) -> Rule:
    """The rule with weight decay on, and eps large enough that no denominator is pure rounding error."""
    knobs = {"weight_decay": 0.1, "eps": 1e-3, "lr": 0.01}
    known = {*rules.registry()[name].numbers()}
    return rules.named(name, **{knob: value for knob, value in knobs.items() if knob in known})


def gradients(size: int, step: int) -> np.ndarray:
    """Numbers that float32 holds exactly, and away from zero, where a sign would be a rounding error."""
    draw = np.random.default_rng([size, step])
    values = draw.uniform(0.5, 2, size) * np.where(np.arange(size) % 3 == 0, -1, 1)
    return values.astype(np.float32).astype(np.float64)


def start(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=size).astype(np.float32).astype(np.float64)


def reference(rule: Rule, size: int) -> np.ndarray:
    w, slots, shared = start(size), rule.init(np, start(size)), dict(rule.shared)
    for t in range(1, STEPS + 1):
        w, slots, shared = on_numpy.step(rule, t, t, w, gradients(size, t), slots, shared)
    return w


def moved(rule: Rule, dtype: torch.dtype) -> tuple[list[np.ndarray], RuleOptimizer]:
    weights = [torch.nn.Parameter(torch.tensor(start(size), dtype=dtype)) for size in SIZES]
    optimizer = RuleOptimizer(weights, rule)
    for t in range(1, STEPS + 1):
        for w, size in zip(weights, SIZES, strict=True):
            w.grad = torch.tensor(gradients(size, t), dtype=dtype)
        optimizer.step()
    return [w.detach().double().numpy() for w in weights], optimizer


def tolerance(dtype: torch.dtype) -> float:
    """A few roundings a step of numbers of size one, which later steps pass on a few times."""
    return 8 * STEPS * float(torch.finfo(dtype).eps)


def assert_near(found: list[np.ndarray], rule: Rule, atol: float) -> None:
    for w, size in zip(found, SIZES, strict=True):
        np.testing.assert_allclose(w, reference(rule, size), rtol=0, atol=atol * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_the_reference(name: str, dtype: torch.dtype) -> None:
    found, optimizer = moved(rule_of(name), dtype)
    assert all(isinstance(part.engine, on_numba.Table) for part in optimizer._plans[0].parts), "no kernel ran"
    assert_near(found, rule_of(name), tolerance(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_engine_agrees_with_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_numba, "table", lambda *_: None)
    found, _ = moved(rule_of(name), torch.float64)
    assert_near(found, rule_of(name), tolerance(torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_a_16_bit_weight_is_off_by_its_own_rounding_alone(name: str) -> None:
    rule = rule_of(name)
    weight = torch.nn.Parameter(torch.tensor(start(33), dtype=torch.bfloat16))
    optimizer = RuleOptimizer([weight], rule)
    before = weight.detach().double().numpy()
    weight.grad = torch.tensor(gradients(33, 1), dtype=torch.bfloat16)
    g = weight.grad.double().numpy()
    optimizer.step()
    expected, slots, _ = on_numpy.step(rule, 1, 1, before, g, rule.init(np, before), dict(rule.shared))
    eps = float(torch.finfo(torch.bfloat16).eps)
    np.testing.assert_allclose(weight.detach().double().numpy(), expected, rtol=eps, atol=eps * eps)
    kept = [v for key, v in optimizer.state[weight].items() if v.dim()]
    for slot, value in zip(kept, slots, strict=True):
        assert slot.dtype == torch.float32
        np.testing.assert_allclose(slot.double().numpy(), value, rtol=tolerance(torch.float32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_weight_or_state(name: str, bad: float) -> None:
    weight = torch.nn.Parameter(torch.ones(40))
    optimizer = RuleOptimizer([weight], rule_of(name))
    weight.grad = torch.ones(40)
    weight.grad[7] = bad
    optimizer.step()
    everything = [weight.detach(), *optimizer.state[weight].values()]
    assert any(not x.isfinite().all() for x in everything)
    assert all(x[:7].isfinite().all() and x[8:].isfinite().all() for x in everything if x.dim())


@pytest.mark.parametrize("name", ["adamw", "lion", "momentum"])
def test_scale_multiplies_every_gradient(name: str) -> None:
    results = []
    for scale in (1.0, 0.25):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 100))
        optimizer = RuleOptimizer([weight], rule_of(name))
        for t in range(1, 6):
            weight.grad = torch.tensor(gradients(100, t), dtype=torch.float32) / scale
            optimizer.step(scale=scale)
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=0)
