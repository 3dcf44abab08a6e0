"""Hyperparameters that cannot be: the sentence says what the number means, and what may have been meant."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import steepest.torch as ours
from steepest import rules
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.torch import optimizer

MEANING = {
    "lr": "It is the learning rate, by which a direction is multiplied",
    "weight_decay": "It is the pull of a weight towards zero",
    "momentum": "It is the share of the last velocity that is kept",
    "beta1": "It is the share of the first moment that is kept",
    "beta2": "It is the share of the second moment that is kept",
}

WRONG = [
    ("lr", -1e-3, "Did you mean 0.001?"),
    ("lr", math.nan, ""),
    ("lr", math.inf, ""),
    ("lr", True, "must be a number"),
    ("lr", "0.1", "Did you mean 0.1?"),
    ("lr", None, "must be a number"),
    ("lr", 1j, "must be a number"),
    ("weight_decay", -0.1, "It pulls towards zero already. Did you mean 0.1?"),
    ("weight_decay", math.inf, ""),
    ("weight_decay", False, "must be a number"),
    ("beta1", 90, "Did you mean 0.9?"),
    ("beta2", 1.0, ""),
    ("beta2", 99.9, "Did you mean 0.999?"),
    ("beta2", "0.99", "Did you mean 0.99?"),
    ("momentum", 9, "Did you mean 0.9?"),
    ("momentum", math.nan, ""),
    ("momentum", True, "must be a number"),
]


def weight() -> nn.Parameter:
    return nn.Parameter(torch.ones(3))


def entries(name: str, value: Any) -> dict[str, Any]:
    """As torch's arguments and groups have it."""
    betas = {"beta1": {"betas": (value, 0.999)}, "beta2": {"betas": (0.9, value)}}
    return betas.get(name, {name: value})


def rule(name: str) -> Any:
    return rules.Momentum if name == "momentum" else rules.AdamW


def drop_in(name: str) -> Any:
    return ours.SGD if name == "momentum" else ours.AdamW


HOMES: dict[str, Callable[[str, Any], Any]] = {
    "rule": lambda name, value: rule(name)(**{name: value}),
    "name of a rule": lambda name, value: rules.named(rule(name).__name__, **{name: value}),
    "drop-in": lambda name, value: drop_in(name)([weight()], **entries(name, value)),
    "drop-in's group": lambda name, value: drop_in(name)([{"params": [weight()], **entries(name, value)}]),
    "class of a rule": lambda name, value: (
        ours.Momentum([weight()], **entries(name, value))
        if name == "momentum"
        else ours.LAMB([weight()], **entries(name, value))
    ),
    "group": lambda name, value: RuleOptimizer(
        [{"params": [weight()], **entries(name, value)}], rule(name)()
    ),
}


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_the_sentence_says_what_the_number_means_and_what_was_meant(
    home: str, name: str, value: Any, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        HOMES[home](name, value)
    sentence = str(caught.value)
    assert f"'s {name} must" in sentence
    assert MEANING[name] in sentence
    assert words in sentence
    assert "not supported between" not in sentence


@pytest.mark.parametrize("given", [(0.9,), 0.9, (0.9, 0.99, 0.999), "0.9"])
@pytest.mark.parametrize("home", ["drop-in", "group", "class"])
def test_betas_are_as_many_as_the_rule_has(home: str, given: Any) -> None:
    homes: dict[str, Callable[[], Any]] = {
        "drop-in": lambda: ours.AdamW([{"params": [weight()], "betas": given}]),
        "group": lambda: RuleOptimizer([{"params": [weight()], "betas": given}], rules.AdamW()),
        "class": lambda: ours.LAMB([weight()], betas=given),
    }
    with pytest.raises(UserError, match=r"betas of .* must be 2 numbers, got"):
        homes[home]()


def test_a_refused_group_is_not_there_and_the_others_go_on() -> None:
    first, other = weight(), weight()
    for opt in (ours.AdamW([first]), ours.LAMB([first]), RuleOptimizer([first], "adamw")):
        for wrong in ({"lr": math.nan}, {"lr_scale": -1.0}, {"lr_scale": "twice"}, {"weight_decay": "0.1"}):
            with pytest.raises(UserError):
                opt.add_param_group({"params": [other], **wrong})
            assert len(opt.param_groups) == len(opt.memories) == len(opt.rules) == 1
        first.grad, other.grad = torch.ones(3), torch.ones(3)
        before = first.detach().clone()
        opt.step()
        assert not torch.equal(before, first.detach())
        assert torch.equal(other.detach(), torch.ones(3))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "0.1", None])
def test_a_number_written_into_a_group_later_stops_the_step(value: Any) -> None:
    w = weight()
    opt = ours.AdamW([w])
    w.grad = torch.ones(3)
    opt.step()
    before, moment = w.detach().clone(), opt.state[w]["exp_avg"].clone()
    opt.param_groups[0]["lr"] = value
    with pytest.raises(UserError, match="AdamW's lr must"):
        opt.step()
    assert torch.equal(w.detach(), before)
    assert torch.equal(opt.state[w]["exp_avg"], moment)


@pytest.mark.parametrize(("name", "value", "meant"), [("lr", 3e4, "0.0003"), ("weight_decay", 1e2, "0.01")])
def test_a_number_that_is_rarely_meant_is_asked_about(name: str, value: float, meant: str) -> None:
    with pytest.warns(UserWarning, match=f"AdamW's {name} is .*Did you mean {meant}"):
        made = rules.AdamW(**{name: value})
    assert getattr(made, name) == value
    with pytest.warns(UserWarning, match=f"Did you mean {meant}"):
        ours.AdamW([weight()], **{name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rules.AdamW(**{name: value / 1000})


def test_what_is_no_rule_is_named() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"AdamW is a class of rules\. Make one of it: AdamW\(lr=…\)"):
        optimizer(net, rules.AdamW)  # pyright: ignore[reportArgumentType]
    for home in (lambda one: optimizer(net, one), lambda one: RuleOptimizer(net.parameters(), one)):
        for wrong in (None, 3, ["adamw"]):
            with pytest.raises(UserError, match="A rule must be one, such as"):
                home(wrong)
    with pytest.raises(UserError, match="A rule must be one"):
        optimizer(net, "adamw", {"weight": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"was given generator\. Give it the torch\.nn\.Module"):
        optimizer(net.parameters(), "adamw")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [-1.0, math.nan, "half"])
def test_factors_of_rates_are_numbers(value: Any) -> None:
    with pytest.raises(UserError, match=r"lr_scale must .*It is what the learning rate of some weights"):
        optimizer(nn.Linear(2, 2), "adamw", lr_scale={"weight": value})
