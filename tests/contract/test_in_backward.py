"""Updates during backward(): the same weights, few gradients alive, and a word where it cannot work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import steepest.torch as st
from steepest import rules
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.schedule import Constant

DEPTH, WIDTH = 12, 32


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*layers).to(dtype)


def backward(model: nn.Module, step: int, dtype: torch.dtype = torch.float32) -> None:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, WIDTH, generator=generator).to(dtype)
    model(x).square().sum().backward()


def trained(
    inside: bool, make: Callable[[nn.Module], RuleOptimizer], dtype: torch.dtype = torch.float32
) -> Any:
    model = net(dtype)
    optimizer = make(model)
    if inside:
        st.in_backward(optimizer)
    for step in range(6):
        backward(model, step, dtype)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer.state_by_name() | dict(model.state_dict())


CASES: dict[str, Callable[[nn.Module], RuleOptimizer]] = {
    "adamw": lambda model: st.optimizer(model, "adamw"),
    "two groups": lambda model: st.optimizer(model, "adamw", {"*bias": "lion"}, lr_scale={"0.*": 0.5}),
    "8 bits": lambda model: st.optimizer(model, "adamw", state_dtype="8bit", average=0.9, seed=5),
    "shared": lambda model: st.optimizer(model, rules.ScheduleFreeSGD(lr=0.1)),
    "sums per weight": lambda model: st.optimizer(model, "lamb"),
    "schedule": lambda model: st.optimizer(model, rules.SGD(lr=Constant(0.1))),
    "drop-in": lambda model: st.SGD(model.parameters(), lr=0.1, momentum=0.9, maximize=True),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_weights_and_the_state_are_those_of_ordinary_steps(name: str) -> None:
    ordinary, inside = trained(False, CASES[name]), trained(True, CASES[name])
    assert ordinary.keys() == inside.keys()
    assert [key for key in ordinary if not torch.equal(ordinary[key], inside[key])] == []


def test_so_they_are_in_bfloat16_rounded_by_chance() -> None:
    def make(model: nn.Module) -> RuleOptimizer:
        return st.optimizer(model, "adamw", rounding="stochastic", state_dtype="bfloat16")

    ordinary, inside = (trained(way, make, torch.bfloat16) for way in (False, True))
    assert all(torch.equal(ordinary[key], inside[key]) for key in ordinary)


def alive(inside: bool) -> tuple[int, int]:
    """(gradients, bytes of gradients) that are alive at once, at the most, while backward() runs."""
    model = net()
    optimizer = st.optimizer(model, "adamw")
    most = (0, 0)

    def look(_: torch.Tensor) -> None:
        nonlocal most
        found = [w.grad.nbytes for w in model.parameters() if w.grad is not None]
        most = max(most, (len(found), sum(found)))

    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(look)
    if inside:
        st.in_backward(optimizer)  # after `look`, which so sees the gradient that has just come
    backward(model, 0)
    return most


def test_few_gradients_are_alive_at_once() -> None:
    count, size = alive(inside=False)
    few, less = alive(inside=True)
    assert count == 2 * DEPTH
    assert few == 1
    assert less <= size / DEPTH


def test_weights_without_a_gradient_keep_what_the_model_shares() -> None:
    """As `WeightGroup` has it: the group's scalars advance for all of its weights."""
    kept = []
    for inside in (False, True):
        model = net()
        optimizer = st.optimizer(model, rules.ScheduleFreeSGD(lr=0.1))
        if inside:
            st.in_backward(optimizer)
        for step in range(5):
            for weight in model[0].parameters():
                weight.requires_grad_(step != 2)
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
        kept.append(optimizer.state_by_name() | dict(model.state_dict()))
    assert [key for key in kept[0] if not torch.equal(kept[0][key], kept[1][key])] == []


def test_it_goes_on_after_a_checkpoint() -> None:
    model, again = net(), net()
    first, second = (st.optimizer(one, "adamw") for one in (model, again))
    for optimizer in (first, second):
        st.in_backward(optimizer)
    for step in range(3):
        backward(model, step)
        first.step()
    again.load_state_dict(model.state_dict())
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        for one, optimizer in ((model, first), (again, second)):
            backward(one, step)
            optimizer.step()
    assert first.steps == second.steps == 6
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_removed_it_is_over() -> None:
    model = net()
    optimizer = st.optimizer(model, rules.SGD(lr=0.1))
    handle = st.in_backward(optimizer)
    backward(model, 0)
    optimizer.step()
    handle.remove()
    before = [w.detach().clone() for w in model.parameters()]
    backward(model, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.steps == 2


def test_a_group_that_comes_later_is_updated_too() -> None:
    model, late = net(), nn.Linear(WIDTH, WIDTH)
    optimizer = st.optimizer(model, rules.SGD(lr=0.1))
    st.in_backward(optimizer)
    optimizer.add_param_group({"params": list(late.named_parameters())})
    before = late.weight.detach().clone()
    late(model(torch.ones(2, WIDTH))).sum().backward()
    assert not torch.equal(before, late.weight)
    assert late.weight.grad is None


def two(inside: bool, **kept: Any) -> tuple[RuleOptimizer, torch.Tensor, torch.Tensor]:
    """An optimizer of two groups of one weight each, of which only the first moves."""
    a, b = (nn.Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2))
    groups = [{"params": [a], "lr": 0.1, "maximize": True}, {"params": [b], "lr": 0.0}]
    optimizer = RuleOptimizer(groups, rules.SGD(), **kept)
    if inside:
        st.in_backward(optimizer)
    return optimizer, a, b


def turned(optimizer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    optimizer.param_groups.reverse()


def moved_over(optimizer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    first, second = optimizer.param_groups
    first["params"], second["params"] = [b], [a]


def in_place(optimizer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    first, second = optimizer.param_groups
    first["params"][0], second["params"][0] = b, a


def taken_out(optimizer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    del optimizer.param_groups[1]


@pytest.mark.parametrize("change", [turned, moved_over, in_place, taken_out])
def test_a_weight_follows_the_group_that_it_is_in(change: Callable[..., None]) -> None:
    ends = []
    for inside in (False, True):
        optimizer, a, b = two(inside, rounding="stochastic", seed=3)
        for step in range(6):
            (0.37 * (a.sum() + b.sum())).backward()
            optimizer.step()
            for weight in (a, b):
                weight.grad = None
            if step == 2:
                change(optimizer, a, b)
        ends.append(torch.cat([a.detach(), b.detach()]))
    assert torch.equal(*ends)


def test_a_weight_that_was_taken_out_keeps_its_gradient() -> None:
    optimizer, a, b = two(True)
    del optimizer.param_groups[0]
    (a.sum() + b.sum()).backward()
    assert torch.equal(a.detach(), torch.ones_like(a))
    assert (a.grad is None, b.grad is None) == (False, True)


REFUSED: dict[str, tuple[Callable[[Any, nn.Module], Any], str]] = {
    "a closure": (lambda optimizer, _: optimizer.step(lambda: 1.0), "given a closure"),
    "a scale": (lambda optimizer, _: optimizer.step(scale=0.5), "given a scale"),
    "gradients": (lambda optimizer, _: optimizer.step(gradients=[]), "given gradients"),
    "the norm": (lambda optimizer, _: optimizer.gradient_norm(), "all gradients at once"),
    "once more": (lambda optimizer, _: st.in_backward(optimizer), "already"),
    "two batches": (lambda _, model: (backward(model, 0), backward(model, 1)), "ran twice before step"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_work_is_refused(name: str) -> None:
    act, words = REFUSED[name]
    model = net()
    optimizer = st.optimizer(model, "adamw")
    st.in_backward(optimizer)
    with pytest.raises(UserError, match=words):
        act(optimizer, model)


@pytest.mark.parametrize("rule", [rules.Prodigy(), rules.AdaHessian()])
def test_rules_that_see_the_whole_model_are_refused(rule: Rule) -> None:
    optimizer = st.optimizer(net(), rule)
    with pytest.raises(UserError, match="in_backward"):
        st.in_backward(optimizer)
    assert optimizer.updates_in_backward is None


def test_within_evaluate_backward_moves_nothing() -> None:
    model = net()
    optimizer = st.optimizer(model, "adamw", average=0.9)
    st.in_backward(optimizer)
    backward(model, 0)
    optimizer.step()
    with optimizer.evaluate(), pytest.raises(UserError, match="evaluate"):
        backward(model, 1)
