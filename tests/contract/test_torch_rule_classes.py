"""Optimizers made of rules: their arguments are the hyperparameters, numbers, tensors or schedules."""

import copy
import inspect
import io
import pickle
from dataclasses import fields
from typing import Any

import pytest
import torch

import steepest.torch as ours
from each import each
from steepest import rules
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.schedule import Exponential

TORCHS = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
MADE = [name for name in (rule.__name__ for rule in rules.RULES) if name not in TORCHS]
STEPS = 8


def weights() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((5, 4), (3, 7))]


def move(optimizer: RuleOptimizer, steps: range) -> None:
    own = [w for group in optimizer.param_groups for w in group["params"]]
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for w in own:
            w.grad = torch.randn(w.shape, generator=draw)
        names = optimizer.template(0).extra_inputs  # given here, so that no closure is needed
        reads = {"reads": {name: [w.grad.square() for w in own] for name in names}} if names else {}
        optimizer.step(**reads)


def values(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [w.detach().clone() for group in optimizer.param_groups for w in group["params"]]


def assert_equal(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def test_every_rule_has_a_class_that_is_listed() -> None:
    assert set(MADE) <= set(ours.__all__)
    assert set(ours.__all__) <= set(dir(ours))
    assert all(isinstance(getattr(ours, name), type) for name in MADE)
    with pytest.raises(AttributeError, match="Adamm"):
        ours.Adamm  # noqa: B018


@each("name", MADE)
def test_arguments_are_the_rules_fields(name: str) -> None:
    rule, made = getattr(rules, name), getattr(ours, name)
    signature = inspect.signature(made)
    flat: list[Any] = []
    for argument in [one for one in signature.parameters.values() if one.kind == one.POSITIONAL_OR_KEYWORD][
        1:
    ]:
        flat += argument.default if isinstance(argument.default, tuple) else [argument.default]
    assert flat == [field.default for field in fields(rule)]
    assert rule.__doc__.split("\n")[0] in made.__doc__
    assert str(signature) in made.__doc__
    assert (made.__name__, made.__module__) == (name, "steepest.torch")


@each("name", MADE, push=3)
def test_a_class_moves_as_its_rule_and_survives_copies_and_checkpoints(name: str) -> None:
    mine, plain = getattr(ours, name)(weights()), RuleOptimizer(weights(), getattr(rules, name)())
    move(mine, range(STEPS // 2))
    move(plain, range(STEPS // 2))
    assert_equal(mine, plain)
    again = getattr(ours, name)([torch.nn.Parameter(w) for w in values(mine)])
    file = io.BytesIO()
    torch.save(mine.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    copies = [mine, again, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))]
    for one in copies:
        move(one, range(STEPS // 2, STEPS))
    for one in copies[1:]:
        assert_equal(mine, one)


def test_numbers_may_be_tensors_that_are_read_at_every_step() -> None:
    rate, beta1 = torch.tensor(0.1), torch.tensor(0.9)
    mine = ours.Signum(weights(), lr=rate, momentum=beta1)
    assert mine.param_groups[0]["lr"] is rate
    move(mine, range(1))
    rate.fill_(0.5)
    beta1.fill_(0.5)
    move(mine, range(1, 2))
    plain = ours.Signum(weights(), lr=float(torch.tensor(0.1)), momentum=float(torch.tensor(0.9)))
    move(plain, range(1))
    plain.param_groups[0].update(lr=0.5, momentum=0.5)
    move(plain, range(1, 2))
    assert_equal(mine, plain)
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        ours.Lion(weights(), lr=torch.ones(2))


@pytest.mark.parametrize("name", ["AdamW", "Lion", "RMSprop"])
def test_any_number_may_be_a_schedule(name: str) -> None:
    """Of torch's classes and of rules', for all weights or for a group."""
    curve, flat = Exponential(0.1, 0.5), 0.25
    mine = getattr(ours, name)([{"params": [w]} for w in weights()], lr=curve, weight_decay=curve)
    own = weights()
    grouped = getattr(ours, name)(
        [{"params": own[:1], "lr": curve}, {"params": own[1:]}], lr=flat, weight_decay=curve
    )
    plain, plain_grouped = (getattr(ours, name)([{"params": [w]} for w in weights()]) for _ in range(2))
    for step in range(STEPS):
        for group in plain.param_groups:
            group.update(lr=curve(step + 1), weight_decay=curve(step + 1))
        for group, lr in zip(plain_grouped.param_groups, (curve(step + 1), flat), strict=True):
            group.update(lr=lr, weight_decay=curve(step + 1))
        for one in (mine, grouped, plain, plain_grouped):
            move(one, range(step, step + 1))
        assert mine.param_groups[0]["lr"] == curve(step + 1)
    assert_equal(mine, plain)
    assert_equal(grouped, plain_grouped)


@pytest.mark.parametrize("name", ["AdamW", "Adan"])
def test_one_of_the_betas_may_be_a_schedule(name: str) -> None:
    curve = Exponential(0.9, 0.9)
    betas = getattr(ours, name)(weights()).param_groups[0]["betas"]
    mine, plain = getattr(ours, name)(weights(), betas=(curve, *betas[1:])), getattr(ours, name)(weights())
    for step in range(STEPS):
        plain.param_groups[0]["betas"] = (curve(step + 1), *betas[1:])
        move(mine, range(step, step + 1))
        move(plain, range(step, step + 1))
    assert_equal(mine, plain)
    again = pickle.loads(pickle.dumps(mine))
    move(mine, range(STEPS, STEPS + 1))
    move(again, range(STEPS, STEPS + 1))
    assert_equal(mine, again)
    assert again.param_groups[0]["betas"][0] == curve(STEPS + 1)


def test_a_number_of_a_group_goes_before_the_rules_schedule() -> None:
    first, second = weights()
    optimizer = RuleOptimizer(
        [{"params": [first], "lr": 0.5}, {"params": [second]}], rules.SGD(lr=Exponential(1.0, 0.5))
    )
    move(optimizer, range(2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    move(optimizer, range(2, 3))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="speed"):
        ours.Lion(weights(), speed=1)
    with pytest.raises(UserError, match=r"betas of Lion must be 2 numbers, got \(0.9,\)"):
        ours.Lion(weights(), betas=(0.9,))
    with pytest.raises(UserError, match="Lion's lr"):
        ours.Lion(weights(), lr=-1.0)
    with pytest.raises(UserError, match="AdamW is one rule"):
        ours.AdamW([{"params": weights(), "rule": rules.Lion()}])
