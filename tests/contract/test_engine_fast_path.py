"""A step that follows its like gives the bits of one that is planned anew, and sees all that has changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from steepest import rules
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Rule
from steepest.schedule import Exponential

SHAPES = ((4, 4), (7,), (), (3, 2))


def optimizer_of(rule: Rule, **memory: Any) -> RuleOptimizer:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]
    return RuleOptimizer([{"params": weights[:2]}, {"params": weights[2:], "lr": 0.05}], rule, **memory)


def weights_of(optimizer: RuleOptimizer) -> list[torch.Tensor]:
    return [w for group in optimizer.param_groups for w in group["params"]]


def fill(optimizer: RuleOptimizer, step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for w in weights_of(optimizer):
        w.grad = torch.randn(w.shape, generator=draw)


def changed_rate(o: RuleOptimizer) -> None:
    o.param_groups[1]["lr"] *= 0.5


def tensor_rate(o: RuleOptimizer) -> None:
    o.param_groups[0]["lr"] = torch.tensor(0.02)


def filled_rate(o: RuleOptimizer) -> None:
    rate = o.param_groups[0]["lr"]
    if isinstance(rate, torch.Tensor):
        rate.fill_(0.07)


def turned(o: RuleOptimizer) -> None:
    o.param_groups[0]["maximize"] = True


def halved(o: RuleOptimizer) -> None:
    o.factor = 0.5


def scaled(o: RuleOptimizer) -> None:
    o.param_groups[1]["lr_scale"] = 0.1


def counted(o: RuleOptimizer) -> None:
    o.state[weights_of(o)[0]]["step"].fill_(50)


def without(o: RuleOptimizer) -> None:
    weights_of(o)[1].grad = None


def elsewhere(o: RuleOptimizer) -> None:
    weight = weights_of(o)[0]
    weight.data = weight.data.clone()


def laid_out_otherwise(o: RuleOptimizer) -> None:
    weight = weights_of(o)[0]
    weight.data = weight.data.t()


def gradient_laid_out_otherwise(o: RuleOptimizer) -> None:
    weight = weights_of(o)[0]
    assert weight.grad is not None
    weight.grad.data = weight.grad.data.t()


def replaced(o: RuleOptimizer) -> None:
    """Another weight in the same memory, with state of its own."""
    weight = torch.nn.Parameter(weights_of(o)[1].data)
    weight.grad = weights_of(o)[1].grad
    o.param_groups[0]["params"][1] = weight


def moved_to_another_group(o: RuleOptimizer) -> None:
    o.param_groups[1]["params"].insert(0, o.param_groups[0]["params"].pop())


def one_more(o: RuleOptimizer) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    o.add_param_group({"params": [weight]})


CHANGES = [
    [changed_rate], [tensor_rate, filled_rate], [turned], [halved], [scaled], [counted], [without],
    [elsewhere], [laid_out_otherwise], [gradient_laid_out_otherwise], [replaced], [moved_to_another_group],
    [one_more],
]  # fmt: skip


def names(changes: list[Callable[..., Any]]) -> str:
    return changes[0].__name__


@pytest.mark.parametrize("changes", CHANGES, ids=names)
def test_changes_are_seen_at_the_next_step(changes: list[Callable[[RuleOptimizer], None]]) -> None:
    usual, planned = (optimizer_of(rules.AdamW(lr=0.1, weight_decay=0.1)) for _ in range(2))
    for number in range(12):
        for optimizer in (usual, planned):
            fill(optimizer, number)
            if number >= 4 and number % 4 == 0 and number // 4 <= len(changes):
                changes[number // 4 - 1](optimizer)
        usual.step()
        planned._plan = None
        planned.step()
        for a, b in zip(weights_of(usual), weights_of(planned), strict=True):
            assert torch.equal(a, b), f"step {number}"
    for a, b in zip(weights_of(usual), weights_of(planned), strict=True):
        assert float(usual.state[a]["step"]) == float(planned.state[b]["step"])


def test_most_steps_are_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, taken = optimizer_of(rules.AdamW()), []
    for number in range(3):
        fill(optimizer, number)
        optimizer.step()
    steady = optimizer._plan.fast_path
    monkeypatch.setattr(optimizer._plan, "fast_path", lambda *a: taken.append(steady(*a)) or taken[-1])
    for number in range(5):
        fill(optimizer, number)  # at other places than before
        optimizer.step(scale=0.5)
    assert taken == [True] * 5
    optimizer.step(gradients=[w.grad for w in weights_of(optimizer)])
    assert taken == [True] * 6
    assert [int(optimizer.state[w]["step"]) for w in weights_of(optimizer)] == [9] * 4


@pytest.mark.parametrize("name", ["sgd", "lion", "nadam", "lamb", "adafactor", "adamw"])
def test_every_kind_of_rule_goes_on_as_if_planned_anew(name: str) -> None:
    usual, planned = (optimizer_of(rules.named(name)) for _ in range(2))
    for number in range(6):
        for optimizer in (usual, planned):
            fill(optimizer, number)
        planned._plan = None
        usual.step()
        planned.step()
    for a, b in zip(weights_of(usual), weights_of(planned), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "memory",
    [{"average": 0.9}, {"state_dtype": "bfloat16"}, {"state_dtype": "8bit"}, {"rounding": "stochastic"}],
)
def test_every_way_to_keep_numbers_goes_on_as_if_planned_anew(memory: dict[str, Any]) -> None:
    usual, planned = (optimizer_of(rules.AdamW(lr=0.1), **memory) for _ in range(2))
    for number in range(6):
        for optimizer in (usual, planned):
            fill(optimizer, number)
        planned._plan = None
        usual.step()
        planned.step()
    assert usual._plan.fast_path is not None
    for a, b in zip(weights_of(usual), weights_of(planned), strict=True):
        assert torch.equal(a, b)
        kept, again = usual.state[a], planned.state[b]
        assert all(torch.equal(kept[key], again[key]) for key in kept)


def test_schedules_go_on() -> None:
    optimizer = optimizer_of(rules.SGD(lr=Exponential(1.0, 0.5)))
    rates = []
    for number in range(4):
        fill(optimizer, number)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [Exponential(1.0, 0.5)(step) for step in (1, 2, 3, 4)]


def test_a_step_that_is_refused_leaves_everything() -> None:
    optimizer = optimizer_of(rules.AdamW())
    for number in range(3):
        fill(optimizer, number)
        optimizer.step()
    before = [w.detach().clone() for w in weights_of(optimizer)]
    with pytest.raises(Exception, match="gradients were given"):
        optimizer.step(gradients=[torch.ones(4, 4)])
    with pytest.raises(Exception, match="shape"):
        optimizer.step(gradients=[torch.ones(4, 4), torch.ones(7), torch.ones(()), torch.ones(2, 2)])
    assert all(torch.equal(a, b) for a, b in zip(weights_of(optimizer), before, strict=True))
    assert {int(optimizer.state[w]["step"]) for w in weights_of(optimizer)} == {3}
