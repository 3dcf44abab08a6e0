"""The drop-in optimizers: torch.optim's arguments, numbers, state, checkpoints, complaints and hooks."""

import copy
import io
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import steepest.torch as ours
from steepest.errors import UserError

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "weight_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.9}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("Adam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"betas": (0.8, 0.99)}),
    ("AdamW", {"amsgrad": True}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
]
SHAPES = ((17, 5), (33,), ())
STEPS = 8


def weights() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64)) for shape in SHAPES]


def move(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for w in optimizer.param_groups[0]["params"]:
            w.grad = torch.randn(w.shape, generator=draw, dtype=w.dtype)
        optimizer.step()


def pair(name: str, arguments: dict[str, Any]) -> tuple[torch.optim.Optimizer, Any]:
    return getattr(torch.optim, name)(weights(), **arguments), getattr(ours, name)(weights(), **arguments)


def assert_same(a: torch.optim.Optimizer, b: torch.optim.Optimizer, steps: int = STEPS) -> None:
    atol = 64 * steps * torch.finfo(torch.float64).eps
    if isinstance(a, torch.optim.NAdam):  # torch keeps mu_product in float32
        atol += steps * a.defaults["lr"] * torch.finfo(torch.float32).eps
    for x, y in zip(a.param_groups[0]["params"], b.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_numbers_and_state_are_torchs(name: str, arguments: dict[str, Any]) -> None:
    theirs, mine = pair(name, arguments)
    move(theirs, range(STEPS))
    move(mine, range(STEPS))
    assert_same(theirs, mine)
    for x, y in zip(theirs.param_groups[0]["params"], mine.param_groups[0]["params"], strict=True):
        kept = {key: value for key, value in theirs.state[x].items() if value is not None}
        assert kept.keys() <= mine.state[y].keys()
        for key, value in kept.items():
            torch.testing.assert_close(mine.state[y][key].double(), value.double(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_checkpoints_pass_both_ways(name: str, arguments: dict[str, Any]) -> None:
    theirs, mine = pair(name, arguments)
    move(theirs, range(STEPS))
    move(mine, range(STEPS))
    forth, back = pair(name, arguments)
    for new, old in ((forth, mine), (back, theirs)):
        for w, value in zip(new.param_groups[0]["params"], old.param_groups[0]["params"], strict=True):
            w.data.copy_(value.detach())
        file = io.BytesIO()
        torch.save(old.state_dict(), file)
        file.seek(0)
        new.load_state_dict(torch.load(file, weights_only=True))
    for optimizer in (theirs, mine, forth, back):
        move(optimizer, range(STEPS, 2 * STEPS))
    for optimizer in (mine, forth, back):
        assert_same(theirs, optimizer, 2 * STEPS)


def test_arguments_and_complaints_are_torchs() -> None:
    weight = [torch.nn.Parameter(torch.zeros(1))]
    for name in {name for name, _ in CASES}:
        with pytest.raises(ValueError, match="Invalid learning rate"):
            getattr(ours, name)(weight, lr=-1.0)
        with pytest.raises(TypeError):
            getattr(ours, name)(weight, speed=3)
    with pytest.raises(ValueError, match="Invalid beta parameter at index 1"):
        ours.AdamW(weight, betas=(0.9, 1.5))
    with pytest.raises(UserError, match="differentiable"):
        ours.AdamW(weight, differentiable=True)


def test_hooks_see_the_step() -> None:
    optimizer = ours.AdamW(weights())
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    handle = register_optimizer_step_pre_hook(lambda *_: seen.append("anywhere"))
    move(optimizer, range(1))
    handle.remove()
    assert sorted(seen) == ["after", "anywhere", "before"]


def test_the_profiler_sees_the_step() -> None:
    optimizer = ours.AdamW(weights())
    with torch.profiler.profile() as profile:
        move(optimizer, range(1))
    assert any("Optimizer.step#AdamW.step" in event.key for event in profile.key_averages())


def test_schedulers_set_the_rate() -> None:
    theirs, mine = pair("AdamW", {"lr": 0.1})
    schedules = [torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=2 * STEPS) for o in (theirs, mine)]
    for step in range(STEPS):
        for optimizer, schedule in zip((theirs, mine), schedules, strict=True):
            move(optimizer, range(step, step + 1))
            schedule.step()
    assert_same(theirs, mine)


def test_hyperparameters_may_be_tensors_written_in_place() -> None:
    rate = torch.tensor(0.1)
    mine, theirs = ours.AdamW(weights(), lr=rate), torch.optim.AdamW(weights(), lr=0.1)
    move(mine, range(1))
    rate.fill_(0.5)
    move(mine, range(1, 2))
    move(theirs, range(1))
    theirs.param_groups[0]["lr"] = 0.5
    move(theirs, range(1, 2))
    for x, y in zip(theirs.param_groups[0]["params"], mine.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=float(torch.finfo(torch.float32).eps))


def test_closures_are_run_with_gradients_on() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ours.SGD([weight], lr=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure)) == 3.0
    assert torch.equal(weight.detach(), torch.zeros(3))


def test_a_deep_copy_goes_on_alone() -> None:
    mine = ours.NAdam(weights())
    move(mine, range(STEPS))
    twin = copy.deepcopy(mine)
    move(twin, range(STEPS, 2 * STEPS))
    assert mine.steps == STEPS
    move(mine, range(STEPS, 2 * STEPS))
    for x, y in zip(mine.param_groups[0]["params"], twin.param_groups[0]["params"], strict=True):
        assert x is not y
        assert torch.equal(x, y)


def test_lion_is_its_authors() -> None:
    """Chen et al. 2023, algorithm 2, written out."""
    mine = ours.Lion(weights(), lr=0.01, weight_decay=0.1)
    expected = [w.detach().clone() for w in weights()]
    momenta = [torch.zeros_like(w) for w in expected]
    for step in range(STEPS):
        move(mine, range(step, step + 1))
        for w, m, p in zip(expected, momenta, mine.param_groups[0]["params"], strict=True):
            w.mul_(1 - 0.01 * 0.1).sub_(0.01 * (0.9 * m + 0.1 * p.grad).sign())
            m.mul_(0.99).add_(p.grad, alpha=0.01)
    for w, p in zip(expected, mine.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=0, atol=64 * STEPS * torch.finfo(torch.float64).eps)
