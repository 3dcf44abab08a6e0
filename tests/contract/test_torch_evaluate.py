"""`with optimizer.evaluate():` the weights to test and to ship, and the trained ones again afterwards."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import steepest.torch as ours
from steepest import rules, wrap
from steepest.optim.engines import on_numpy
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

STEPS = 12
AVERAGING: dict[str, Rule] = {
    "asgd": rules.ASGD(t0=3),
    "averaged": wrap.averaged(rules.AdamW(), kept=0.9),
    "lookahead": wrap.lookahead(rules.SGD(lr=0.1), every=5),
    "schedulefreeadamw": rules.ScheduleFreeAdamW(lr=0.1, warmup=4),
    "schedulefreesgd": rules.ScheduleFreeSGD(lr=0.1),
}


def weights(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw, dtype=dtype)) for shape in ((17, 5), (33,))]


def move(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for w in optimizer.param_groups[0]["params"]:
            w.grad = torch.randn(w.shape, generator=draw, dtype=w.dtype)
        optimizer.step()


def numbers(optimizer: torch.optim.Optimizer) -> list[bytes]:
    return [w.detach().numpy().tobytes() for w in optimizer.param_groups[0]["params"]]


def oracle(rule: Rule, start: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """The weights to ship of the reference engine."""
    w, slots, shared = start, rule.init(on_numpy.NUMPY, start), dict(rule.shared)
    for step, g in enumerate(gradients, 1):
        before = shared
        w, slots, shared = on_numpy.step(rule, step, step, w, g, slots, shared)
    k, _ = rule.constants(on_numpy.HOST, len(gradients), before)
    return rule.evaluate(on_numpy.NUMPY, k, w, *slots)


@pytest.mark.parametrize("name", AVERAGING)
def test_the_model_holds_the_weights_to_ship_inside_and_the_trained_ones_after(name: str) -> None:
    optimizer = RuleOptimizer(weights(), AVERAGING[name])
    move(optimizer, range(STEPS))
    trained = numbers(optimizer)
    gradients = []
    for step in range(STEPS):
        draw = torch.Generator().manual_seed(step)
        gradients.append(torch.randn((17, 5), generator=draw, dtype=torch.float64).numpy())
    expected = oracle(AVERAGING[name], weights()[0].detach().numpy(), gradients)
    with optimizer.evaluate():
        inside = optimizer.param_groups[0]["params"][0].detach().numpy()
        np.testing.assert_allclose(inside, expected, rtol=0, atol=64 * STEPS * np.finfo(np.float64).eps)
        assert numbers(optimizer) != trained
    assert numbers(optimizer) == trained
    assert not optimizer._optimizer_step_pre_hooks, "steps would stay slower than before"
    move(optimizer, range(STEPS, STEPS + 1))
    assert numbers(optimizer) != trained


def test_the_weights_come_back_where_the_block_fails() -> None:
    optimizer = RuleOptimizer(weights(), AVERAGING["averaged"])
    move(optimizer, range(STEPS))
    trained = numbers(optimizer)
    with pytest.raises(ZeroDivisionError), optimizer.evaluate():
        _ = 1 / 0
    assert numbers(optimizer) == trained
    move(optimizer, range(1))


def test_blocks_within_blocks_change_nothing() -> None:
    optimizer = RuleOptimizer(weights(), AVERAGING["averaged"])
    move(optimizer, range(STEPS))
    trained = numbers(optimizer)
    with optimizer.evaluate():
        shipped = numbers(optimizer)
        with optimizer.evaluate():
            assert numbers(optimizer) == shipped
        assert numbers(optimizer) == shipped
    with optimizer.evaluate():
        assert numbers(optimizer) == shipped
    assert numbers(optimizer) == trained


@pytest.mark.parametrize("home", [rules.AdamW(), AVERAGING["averaged"]], ids=["plain", "never moved"])
def test_without_an_average_the_weights_stay(home: Rule) -> None:
    optimizer = RuleOptimizer(weights(), home)
    if not home.evaluates():
        move(optimizer, range(STEPS))
    before = numbers(optimizer)
    with optimizer.evaluate():
        assert numbers(optimizer) == before


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda optimizer, state: optimizer.step(),
    "state_dict": lambda optimizer, state: optimizer.state_dict(),
    "load_state_dict": lambda optimizer, state: optimizer.load_state_dict(state[0]),
    "state_by_name": lambda optimizer, state: optimizer.state_by_name(),
    "load_state_by_name": lambda optimizer, state: optimizer.load_state_by_name(state[1]),
    "copy": lambda optimizer, state: copy.deepcopy(optimizer),
}


@pytest.mark.parametrize("what", REFUSED)
def test_steps_and_checkpoints_are_refused_inside(what: str) -> None:
    optimizer = RuleOptimizer(weights(), AVERAGING["averaged"])
    move(optimizer, range(STEPS))
    trained, state = numbers(optimizer), (optimizer.state_dict(), optimizer.state_by_name())
    with optimizer.evaluate():
        shipped = numbers(optimizer)
        with pytest.raises(UserError, match=r"inside `with optimizer.evaluate\(\)`"):
            REFUSED[what](optimizer, state)
        assert numbers(optimizer) == shipped
    assert numbers(optimizer) == trained
    assert optimizer.steps == STEPS
    REFUSED[what](optimizer, state)


def test_torchs_average_is_what_is_shipped() -> None:
    theirs, mine = (home.ASGD(weights(), lr=0.1, t0=2) for home in (torch.optim, ours))
    move(theirs, range(STEPS))
    move(mine, range(STEPS))
    with mine.evaluate():
        for x, y in zip(theirs.param_groups[0]["params"], mine.param_groups[0]["params"], strict=True):
            atol = 8 * STEPS * torch.finfo(torch.float32).eps  # torch keeps eta in float32
            torch.testing.assert_close(y.detach(), theirs.state[x]["ax"], rtol=0, atol=atol)


def test_weights_of_16_bits_hold_the_average_rounded() -> None:
    optimizer = RuleOptimizer(weights(torch.bfloat16), AVERAGING["averaged"])
    move(optimizer, range(STEPS))
    trained = [w.detach().clone() for w in optimizer.param_groups[0]["params"]]
    with optimizer.evaluate():
        for w in optimizer.param_groups[0]["params"]:
            assert torch.equal(w.detach(), optimizer.state[w]["averaged"].to(torch.bfloat16))
    for w, before in zip(optimizer.param_groups[0]["params"], trained, strict=True):
        assert torch.equal(w.detach(), before)


@pytest.mark.parametrize(
    "rule", [rules.AdamW(lr=0.1), AVERAGING["schedulefreesgd"]], ids=["plain", "averaging"]
)
def test_an_average_that_the_optimizer_keeps_goes_before_the_rules(rule: Rule) -> None:
    """d = min(0.9, (1+t)/(10+t)), written out."""
    optimizer = RuleOptimizer(weights(), rule, average=0.9)
    expected = [w.detach().clone() for w in weights()]
    for step in range(STEPS):
        move(optimizer, range(step, step + 1))
        d = min(0.9, (2 + step) / (11 + step))
        for a, w in zip(expected, optimizer.param_groups[0]["params"], strict=True):
            a.lerp_(w.detach(), 1 - d)
    trained = numbers(optimizer)
    with optimizer.evaluate():
        for a, w in zip(expected, optimizer.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(
                w.detach(), a, rtol=0, atol=64 * STEPS * torch.finfo(torch.float64).eps
            )
    assert numbers(optimizer) == trained
