"""The gradient of a batch at the weights of the step before (MARSExact): an extra pass, written out."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from steepest import rules, wrap
from steepest.commands import rule_path
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.torch import MARSExact

STEPS = 20
EPS = np.finfo(np.float64).eps
SIZES = (6, 3)
NUMBERS = {"lr": 0.02, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "gamma": 0.4, "weight_decay": 0.1}


def points() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(n, generator=draw, dtype=torch.float64)) for n in SIZES]


def noise(t: int, i: int) -> np.ndarray:
    """What a batch does to the loss of a weight: it tilts and bends it."""
    return np.random.default_rng([t, i]).uniform(0.5, 1.5, size=(2, SIZES[i]))


def slope(w: np.ndarray, t: int, i: int) -> np.ndarray:
    bend, tilt = noise(t, i)
    return 4 * bend * w**3 + tilt


def losses(ws: list[torch.nn.Parameter], t: int) -> torch.Tensor:
    pairs = [(w, *map(torch.from_numpy, noise(t, i))) for i, w in enumerate(ws)]
    return torch.stack([(bend * w**4 + tilt * w).sum() for w, bend, tilt in pairs]).sum()


def closure_of(ws: list[torch.nn.Parameter], t: int, sign: float = 1.0) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        for w in ws:
            w.grad = None
        loss = sign * losses(ws, t)
        loss.backward()
        return loss

    return closure


def written_out(
    *, lr: float, beta1: float, beta2: float, eps: float, gamma: float, weight_decay: float, scale: float = 1
) -> list[np.ndarray]:
    """Yuan et al. 2024, arXiv:2411.10438, algorithm 2, from x₀ = x₁."""
    found = []
    for i, start in enumerate(points()):
        w = before = start.detach().numpy().copy()
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t in range(1, STEPS + 1):
            g, past = scale * slope(w, t, i), scale * slope(before, t, i)
            c = g + gamma * beta1 / (1 - beta1) * (g - past)
            c = c / max(1.0, float(np.linalg.norm(c)))
            m, v = beta1 * m + (1 - beta1) * c, beta2 * v + (1 - beta2) * c**2
            u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
            before, w = w, w - lr * (u + weight_decay * w)
        found.append(w)
    return found


def stepped(optimizer: RuleOptimizer, ws: list[torch.nn.Parameter], sign: float = 1.0, **given: Any) -> None:
    for t in range(optimizer.steps + 1, STEPS + 1):
        loss = optimizer.step(closure_of(ws, t, sign), **given)
        assert loss.requires_grad


def near(ws: list[torch.nn.Parameter], expected: list[np.ndarray]) -> None:
    for w, x in zip(ws, expected, strict=True):
        np.testing.assert_allclose(w.detach().numpy(), x, rtol=0, atol=100 * STEPS * EPS)


def test_the_second_gradient_is_that_of_the_batch_at_the_last_weights() -> None:
    ws = points()
    stepped(RuleOptimizer(ws, rules.MARSExact(**NUMBERS)), ws)
    near(ws, written_out(**NUMBERS))
    approximate = points()
    stepped(RuleOptimizer(approximate, rules.MARS(**NUMBERS)), approximate)
    assert not torch.allclose(ws[0], approximate[0], atol=1e-3)


def test_it_is_scaled_as_the_first_is() -> None:
    ws = points()
    stepped(RuleOptimizer(ws, rules.MARSExact(**NUMBERS)), ws, scale=0.25)
    near(ws, written_out(**NUMBERS, scale=0.25))


def test_and_turned_round_where_the_loss_is_to_grow() -> None:
    ws = points()
    stepped(RuleOptimizer([{"params": ws, "maximize": True}], rules.MARSExact(**NUMBERS)), ws, sign=-1.0)
    near(ws, written_out(**NUMBERS))


def test_a_class_of_its_own_takes_a_closure() -> None:
    ws = points()
    numbers = {key: value for key, value in NUMBERS.items() if not key.startswith("beta")}
    stepped(MARSExact(ws, betas=(0.8, 0.9), **numbers), ws)
    near(ws, written_out(**NUMBERS))
    with pytest.raises(UserError, match=r"step\(closure\) with a function that calls backward"):
        MARSExact(ws).step()


def test_a_wrapper_around_it_leaves_its_second_pass() -> None:
    ws = points()
    stepped(RuleOptimizer(ws, wrap.lookahead(rules.MARSExact(**NUMBERS), every=2 * STEPS)), ws)
    near(ws, written_out(**NUMBERS))


def test_a_run_goes_on_to_the_same_bits() -> None:
    whole, parted = points(), points()
    stepped(RuleOptimizer(whole, rules.MARSExact(**NUMBERS)), whole)
    first = RuleOptimizer(parted, rules.MARSExact(**NUMBERS))
    for t in range(1, 8):
        first.step(closure_of(parted, t))
    second = RuleOptimizer(parted, rules.MARSExact(**NUMBERS))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(second, parted)
    assert all(map(torch.equal, whole, parted))


def test_weights_and_gradients_are_put_back_where_the_second_pass_fails() -> None:
    ws = points()
    optimizer = RuleOptimizer(ws, rules.MARSExact(**NUMBERS))
    optimizer.step(closure_of(ws, 1))
    before, seen = [w.detach().clone() for w in ws], []
    ordinary = closure_of(ws, 2)

    def closure() -> torch.Tensor:
        seen.append([w.detach().clone() for w in ws])
        if len(seen) == 2:
            raise ZeroDivisionError
        return ordinary()

    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    assert all(map(torch.equal, ws, before))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert ws[0].grad is not None
    np.testing.assert_allclose(ws[0].grad.numpy(), slope(before[0].numpy(), 2, 0), rtol=8 * EPS)


def test_both_passes_draw_the_same_random_numbers_and_the_next_step_others() -> None:
    ws = points()
    optimizer, drawn = RuleOptimizer(ws, rules.MARSExact(**NUMBERS)), []

    def closure() -> torch.Tensor:
        drawn.append(float(torch.rand(())))
        return closure_of(ws, 1)()

    for _ in range(3):
        optimizer.step(closure)
    first, second, again, third, same = drawn
    assert (second, third) == (again, same)
    assert len({first, second, third}) == 3


def test_weights_of_other_rules_stay_where_they_are() -> None:
    first, second = points()
    groups = [{"params": [first], "rule": rules.MARSExact(lr=0.1)}, {"params": [second]}]
    optimizer, seen = RuleOptimizer(groups, rules.SGD(lr=0.1)), []

    def closure() -> torch.Tensor:
        seen.append((first.detach().clone(), second.detach().clone()))
        return closure_of([first, second], 1)()

    for _ in range(2):
        optimizer.step(closure)
    (start, _), (now, held), (past, same) = seen
    assert torch.equal(past, start)
    assert not torch.equal(now, past)
    assert torch.equal(held, same)


def test_the_picture_of_its_path_shows_the_gradient_and_no_curvature() -> None:
    land = rule_path.VALLEY
    rule = rules.MARSExact(lr=0.02)
    exact = rule_path.path(rule, land)
    approximate = rule_path.path(rules.MARS(lr=0.02), land)
    np.testing.assert_allclose(exact, approximate, rtol=0, atol=1e3 * EPS)  # nothing is drawn by chance there
