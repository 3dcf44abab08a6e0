"""Rules by name, their numbers, and what a mistaken one is told."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest
import torch

import steepest.torch
from steepest import rules, schedule
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST, debias, unless_zero
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule


@pytest.mark.parametrize(
    "name", ["rmspropcentered", "RMSpropCentered", "rmsprop_centered", "rmsprop-centered"]
)
def test_a_rule_is_found_by_name_however_it_is_spelt(name: str) -> None:
    assert rules.named(name, lr=0.5) == rules.RMSpropCentered(lr=0.5)


def test_an_unknown_rule_is_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no update rule 'adammw'\. Did you mean 'adamw'"):
        rules.named("adammw")


def test_an_unknown_hyperparameter_is_met_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"SGD has no hyperparameter 'weight_deca'\. Did you mean 'weight_decay'"
    ):
        rules.named("sgd", weight_deca=0.1)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (1.0, r"AdamW's beta2 must lie in \[0, 1\), got 1\.0\. It is the share of the second moment"),
        (math.nan, r"must lie in \[0, 1\), got nan"),
        ("0.9", r"must be a number in \[0, 1\), got '0\.9'"),
        (True, r"must be a number in \[0, 1\), got True"),
        (None, r"must be a number in \[0, 1\), got None"),
    ],
)
def test_a_bad_hyperparameter_is_told_its_range_and_meaning(bad: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        rules.AdamW(beta2=bad)


@pytest.mark.parametrize("value", [1, np.float32(1), np.int64(1), torch.tensor(1.0)])
def test_numbers_of_any_kind_become_floats(value: Any) -> None:
    assert type(rules.SGD(lr=value).lr) is float


def test_a_schedule_is_kept_until_its_step() -> None:
    falling = schedule.Cosine(0.1, total=10)
    rule = rules.AdamW(lr=falling)
    assert rule.lr is falling
    assert rule.at(4) == rules.AdamW(lr=falling(4))


def test_a_rule_without_schedules_is_the_same_at_every_step() -> None:
    rule = rules.AdamW()
    assert rule.at(7) is rule


def test_rules_are_values() -> None:
    assert len({rules.SGD(lr=1), rules.SGD(lr=1.0), rules.SGD(lr=2.0)}) == 2
    with pytest.raises(FrozenInstanceError):
        rules.SGD().lr = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_rule_of_ones_own_needs_a_formula_and_no_more() -> None:
    @dataclass(frozen=True)
    class Sign(Rule):
        lr: Number = 0.1
        sharpness: Number = 1.0

        @staticmethod
        def direction(xp: Any, k: Any, w: Any, g: Any) -> tuple[Any, ...]:
            return (xp.sign(k.sharpness * g),)

    k, shared = Sign(lr=schedule.Constant(0.5)).at(1).constants(HOST, 1, {})
    assert (Sign.numbers(), shared, k.lr, k.sharpness) == (("lr", "sharpness"), {}, 0.5, 1.0)


def test_lion_has_the_numbers_of_its_paper() -> None:
    assert rules.Lion() == rules.Lion(lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0)


@pytest.mark.parametrize("rule", [rules.RMSpropCentered(), rules.RMSpropCenteredMomentum()], ids=str)
def test_a_variance_that_rounding_makes_negative_counts_as_zero(rule: Rule) -> None:
    k, _ = rule.constants(HOST, 1, {})
    slots = [np.array([1.0]), np.array([1.0 + 1e-7]), np.array([0.0])]
    u, *_ = rule.direction(np, k, np.array([0.0]), np.array([1.0]), *slots[: len(rule.slots)])
    assert u == pytest.approx(1 / rule.eps)


def test_the_abstract_rule_has_no_direction() -> None:
    with pytest.raises(NotImplementedError):
        Rule(lr=1.0).direction(np, None, 1.0, 1.0)


def test_shared_scalars_come_back_new() -> None:
    rule = rules.NAdam()
    _, first = rule.constants(HOST, 1, rule.shared)
    k, second = rule.constants(HOST, 2, first)
    assert 0 < second["mu_product"] < first["mu_product"] < 1 == rule.shared["mu_product"]
    assert k.mu_product == second["mu_product"]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("t", [1, 2, 50, 10_000])
def test_debias_is_one_minus_a_power(beta: float, t: int) -> None:
    """In exact terms: Σ (1 - β)·βⁱ for i < t."""
    exact = math.fsum((1 - beta) * beta**i for i in range(t))
    assert debias(HOST, beta, t) == pytest.approx(exact, rel=t * 2.0**-51)


@pytest.mark.parametrize(
    ("quantity", "written"),
    [
        (Quantity("x"), "[0, ∞)"),
        (Quantity("x", open=True), "(0, ∞)"),
        (Quantity("x", low=1, high=2.5), "[1, 2.5)"),
    ],
)
def test_a_range_is_written_as_in_mathematics(quantity: Quantity, written: str) -> None:
    assert quantity.range == written


@pytest.mark.parametrize("method", [Quantity("x").number, Quantity("x").count])
@pytest.mark.parametrize("bad", [-1, math.inf, math.nan, "1", True, None, [1]])
def test_a_quantity_is_a_finite_number_in_its_range(method: Callable[..., float], bad: Any) -> None:
    with pytest.raises(UserError, match=r"^size must .* in \[0, ∞\), got .* It is x \(no unit\)\."):
        method("size", bad)


def test_a_count_is_whole() -> None:
    assert Quantity("x").count("size", 3.0) == 3
    with pytest.raises(UserError, match=r"size must be a whole number in \[0, ∞\), got 2\.5"):
        Quantity("x").count("size", 2.5)


@pytest.mark.parametrize(
    ("knob", "given", "meant"),
    [
        ("beta1", 1.9, "0.9"),
        ("beta1", 90, "0.9"),
        ("beta1", -0.9, "0.9"),
        ("beta1", "0.9", "0.9"),
        ("beta2", 999, "0.999"),
        ("beta2", 99.9, "0.999"),
        ("beta2", 1.9999999, "0.9999999"),
        ("eps", -1e-8, "1e-08"),
        ("eps", "1e-8", "1e-08"),
        ("lr", np.float32(-0.5), "0.5"),
    ],
)
def test_what_was_meant_is_guessed_where_it_is_plain(knob: str, given: Any, meant: str) -> None:
    with pytest.raises(UserError, match=rf" Did you mean {meant}\?$"):
        rules.AdamW(**{knob: given})


@pytest.mark.parametrize("given", [1.0, math.nan, math.inf, None, True, "much", [0.9, 0.99]])
def test_what_was_meant_is_not_guessed_where_it_is_not_plain(given: Any) -> None:
    with pytest.raises(UserError, match=r"got .* It is .*\(per step\)\.$"):
        rules.AdamW(beta2=given)


def test_a_count_is_not_guessed_to_be_a_fraction() -> None:
    with pytest.raises(UserError, match=r"got 2\.5\. It is x \(no unit\)\.$"):
        Quantity("x").count("size", 2.5)


@pytest.mark.parametrize(
    ("knob", "reason"), [("lr", "Rules descend already"), ("weight_decay", "It pulls towards zero already")]
)
def test_a_sign_that_is_there_already_is_named(knob: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"{reason}\. Did you mean 0\.1\?$"):
        rules.AdamW(**{knob: -0.1})
    with pytest.raises(UserError, match=rf"{reason}\.$"):
        rules.AdamW(**{knob: -math.inf})


@pytest.mark.parametrize(
    ("quantity", "end"), [(Quantity("x", high=1, closed=True), 1), (Quantity("x", closed=True), math.inf)]
)
def test_a_closed_range_holds_its_end(quantity: Quantity, end: float) -> None:
    assert quantity.range.endswith("]")
    assert quantity.number("size", end) == end
    with pytest.raises(UserError, match="must lie in"):
        quantity.number("size", math.nan)


def normed(old: bool) -> type[Rule]:
    """A rule with all four of the parts that had another name, under the old names or the new ones."""

    def finalize(self: Any, xp: Any, t: Any, n: Any, squares: Any, **shared: Any) -> dict[str, Any]:
        return {"gain": 1 / unless_zero(xp, xp.sqrt(squares))}

    new = {"finalize": finalize, "fallback_lr_ratio": 0.5, "extra_inputs": ("d",), "perturb": None}
    before = dict(zip(("settle", "beside", "reads", "ascent"), new.values(), strict=True))
    body = {
        "__annotations__": {"lr": "Number"},
        "lr": 0.1,
        "sums": ("squares",),
        "measure": staticmethod(lambda xp, k, w, g, d: (d * d,)),
        "direction": staticmethod(lambda xp, k, w, g, d: (k.gain * g,)),
    }
    return dataclass(frozen=True)(type("Normed", (Rule,), body | (before if old else new)))


def test_a_rule_written_with_old_names_runs_as_one_with_new_ones() -> None:
    with pytest.warns(FutureWarning) as told:
        older = normed(old=True)
    assert {str(one.message).partition(";")[0] for one in told} == {
        "Normed.settle is called finalize now",
        "Normed.beside is called fallback_lr_ratio now",
        "Normed.ascent is called perturb now",
        "Normed.reads is called extra_inputs now",
    }
    found = []
    for kind in (older, normed(old=False)):
        assert (kind.extra_inputs, kind.fallback_lr_ratio) == (("d",), 0.5)
        weight = torch.ones(3)
        optimizer = RuleOptimizer([weight], kind(lr=0.1))
        for step in range(3):
            optimizer.step(gradients=[torch.ones(3) * step], reads={"d": [torch.full((3,), 2.0)]})
        found.append(weight)
    assert torch.equal(*found)
    assert not torch.equal(found[0], torch.ones(3))


def test_a_rule_written_with_old_names_finds_those_of_the_rule_it_is_made_of() -> None:
    with pytest.warns(FutureWarning, match="Slower.settle is called finalize now"):

        @dataclass(frozen=True)
        class Slower(rules.DoG):
            def settle(self, *arguments: Any, **shared: Any) -> dict[str, Any]:
                made = super().settle(*arguments, **shared)  # type: ignore[misc]
                return {name: 0.5 * value if name == "lr" else value for name, value in made.items()}

    assert rules.DoG.reads == rules.DoG.extra_inputs == ()  # type: ignore[attr-defined]
    weight = torch.ones(3)
    RuleOptimizer([weight], Slower()).step(gradients=[torch.ones(3)])
    assert not torch.equal(weight, torch.ones(3))


def test_moments_is_an_old_name_of_state_dtype() -> None:
    told = r"moments='8bit' is called state_dtype now"
    net = torch.nn.Linear(3, 3)
    made: list[Callable[[], Any]] = [
        lambda: RuleOptimizer([torch.ones(3)], "adamw", moments="8bit"),
        lambda: RuleOptimizer([{"params": [torch.ones(3)], "moments": "8bit"}], "adamw"),
        lambda: steepest.torch.AdamW([torch.ones(3)], moments="8bit"),
        lambda: steepest.torch.Lion([torch.ones(3)], moments="8bit"),
        lambda: steepest.torch.optimizer(net, "adamw", moments="8bit"),
    ]
    for make in made:
        with pytest.warns(FutureWarning, match=told):
            optimizer = make()
        assert {one.state_dtype for one in optimizer.memories} == {"8bit"}
