"""What trials draw: ranges read off what rules declare, and the settings that a draw stands for."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from each import each
from steepest import UserError, rules
from steepest.optim.rule import Rule
from steepest.recipe import Recipe
from steepest.schedule import Cosine
from steepest.train.given import separate
from steepest.train.job import Job, build
from steepest.tuning import space as ranges
from steepest.tuning.space import Range, space


def job(examples: int = 200, **settings: Any) -> Job:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(examples, 4)).astype(np.float32)
    data = (x, (x.sum(1) > 0).astype(np.int64))
    written, given = separate({"data": data, "model": "mlp", "hidden": [8], **settings})
    return build(Recipe.of(written), given)


@each("kind", rules.RULES, ids=lambda kind: kind.__name__)
def test_every_number_of_every_range_is_one_that_its_rule_takes(kind: type[Rule]) -> None:
    rule = kind()
    for name, one in ranges.of_rule(rule).items():
        ends = one.choices or (one.turned(one.low), one.turned(one.high))
        for value in ends:
            replace(rule, **{name: int(value) if one.whole else value})  # refuses what is out of range


@each("kind", rules.RULES, ids=lambda kind: kind.__name__)
def test_the_default_lies_in_its_range(kind: type[Rule]) -> None:
    rule = kind()
    for name, one in ranges.of_rule(rule).items():
        if name != "weight_decay" or rule.weight_decay:  # type: ignore[attr-defined]
            assert one.holds(getattr(rule, name)), (name, str(one))


@each("kind", rules.RULES, ids=lambda kind: kind.__name__)
def test_every_rule_has_a_range_of_rates(kind: type[Rule]) -> None:
    found = ranges.usual(kind())["lr"]
    assert found.log
    assert found.high / found.low == pytest.approx(ranges.REACH**2)


def test_a_number_without_a_bound_is_drawn_by_its_logarithm() -> None:
    found = ranges.of_rule(rules.AdamW(eps=1e-6))["eps"]
    assert (found.low, found.high, found.log) == (pytest.approx(1e-8), pytest.approx(1e-4), True)


def test_a_share_near_one_is_drawn_by_its_distance_from_one() -> None:
    found = ranges.of_rule(rules.AdamW())["beta2"]
    assert found.drawn == "1 - beta2"
    assert (found.turned(found.low), found.turned(found.high)) == (pytest.approx(0.9999), pytest.approx(0.99))
    assert ranges.of_rule(rules.AdamW())["beta1"].high == 1.0  # 0.9 as far as 0, not below


def test_between_two_bounds_it_is_drawn_evenly_and_the_open_one_is_not_reached() -> None:
    found = ranges.of_rule(rules.Momentum())["dampening"]
    assert (found.low, found.log, found.rest) == (0, False, False)
    assert 0.95 < found.high < 1


def test_counts_and_switches_are_there_where_they_are_declared() -> None:
    found = ranges.of_rule(rules.Muon())
    assert found["nesterov"].choices == (False, True)
    assert (found["steps"].low, found["steps"].high, found["steps"].whole) == (2, 20, True)
    assert {"batch_axes", "coefficients"}.isdisjoint(found)
    assert "seed" not in ranges.of_rule(rules.Dion())


def test_usual_are_rate_decay_shares_and_switches() -> None:
    assert set(ranges.usual(rules.AdamW())) == {"lr", "weight_decay", "beta1", "beta2"}
    assert set(ranges.usual(rules.Muon())) == {"lr", "weight_decay", "momentum", "nesterov"}


def test_weight_decay_that_is_off_is_searched_around_the_usual_one() -> None:
    inside, beside = ranges.of_rule(rules.SGD())["weight_decay"], ranges.of_rule(rules.Lion())["weight_decay"]
    assert inside.low < 5e-4 < inside.high < beside.high <= ranges.LARGEST_DECAY


@each("one", [Range("a", 1.0, 2.0), Range("b", 0.001, 0.1, log=True, rest=True)])
def test_a_range_says_its_ends(one: Range) -> None:
    ends = sorted((one.turned(one.low), one.turned(one.high)))
    assert str(one).startswith(f"{ends[0]:.4g} to {ends[1]:.4g}")


# --- the space of a job ---


def lowest(name: str, one: Range) -> Any:
    return one.choices[0] if one.choices else one.low


def test_only_what_is_open_is_drawn() -> None:
    found = space(job(rule="nesterov", lr="auto", weight_decay=1e-3, batch_size=16, schedule="cosine"))
    asked: list[str] = []

    def draw(name: str, one: Range) -> Any:
        asked.append(name)
        return lowest(name, one)

    settings = found.settings_of(draw)
    assert asked == ["lr"]
    assert settings == {"rule": "nesterov", "lr": pytest.approx(1e-5), "weight_decay": 1e-3, "hyper": {}}


def test_numbers_of_several_rules_are_told_apart() -> None:
    found = space(job(rule="auto", lr="auto", weight_decay="auto"))
    assert len(found.rules) > 2
    names: list[str] = []

    def draw(name: str, one: Range) -> Any:
        names.append(name)
        return "lion" if name == "rule" else lowest(name, one)

    settings = found.settings_of(draw)
    assert names[0] == "rule"
    assert all(name.startswith("lion ") for name in names[1:])
    assert set(settings["hyper"]) == {"beta1", "beta2"}
    rules.named("lion", lr=settings["lr"], weight_decay=settings["weight_decay"], **settings["hyper"])


def test_a_rule_without_weight_decay_is_given_none() -> None:
    without = next(kind for kind in rules.RULES if "weight_decay" not in {f.name for f in fields(kind)})
    found = space(job(rule=without.__name__.lower(), lr="auto"))
    assert found.settings_of(lowest)["weight_decay"] is None


def test_a_rate_that_is_pinned_holds_for_every_rule() -> None:
    found = space(job(rule="auto", lr=0.02))
    assert found.settings_of(lowest)["lr"] == 0.02
    assert "lr" not in found.ranges("lion")


def test_a_rule_is_searched_with_its_rate_and_decay_where_nobody_has_said_them() -> None:
    """Else rules would be ranked at their default rates, which says little of them."""
    left = space(job(rule="auto"))
    assert {"lr", "weight_decay"} <= set(left.ranges("lion")) & set(left.ranges("adamw"))
    assert {"lr", "weight_decay"}.isdisjoint(
        space(job(rule="auto", lr=0.02, weight_decay=0.1)).ranges("lion")
    )
    scheduled = space(job(rule="auto", schedule=Cosine(1e-2, 100))).ranges("lion")
    assert "weight_decay" in scheduled
    assert "lr" not in scheduled
    assert {"lr", "weight_decay"}.isdisjoint(space(job(rule="lion", batch_size="auto")).ranges("lion"))


def test_hyperparameters_are_searched_where_they_are_named() -> None:
    found = space(job(rule="muon", lr="auto", hidden=[8, 8]), ("steps", "nesterov"))
    settings = found.settings_of(lowest)
    assert settings["hyper"] == {"steps": 2, "nesterov": False}


def test_hyperparameters_that_were_given_are_kept() -> None:
    found = space(job(rule="adamw", lr="auto", hyper={"beta1": 0.8}), ("beta2",))
    assert found.settings_of(lowest)["hyper"] == {"beta1": 0.8, "beta2": pytest.approx(0.9999)}


def test_batches_leave_an_epoch_several_updates() -> None:
    sizes = space(job(examples=1000, batch_size="auto")).settings["batch_size"].choices
    assert sizes == (16, 32, 64)  # of 700 examples to train on
    assert not space(job(examples=60, batch_size="auto")).settings


def test_the_recipes_own_batch_is_among_those_that_are_tried_and_one_alone_is_not_searched() -> None:
    found = space(job(examples=300, batch_size="auto"))  # of 210 to train on, of which eight times 16
    assert found.settings["batch_size"].choices == (16, 64)
    assert found.default() == {"batch_size": 64}
    assert not space(job(examples=120, batch_size="auto")).settings  # 64 alone


def test_points_are_all_draws_of_choices_and_none_where_numbers_are_drawn() -> None:
    found = space(job(examples=300, batch_size="auto", schedule="auto"))
    assert [tuple(point.values()) for point in found.points()] == [
        (size, schedule) for size in (16, 64) for schedule in ("linear", "cosine", "constant")
    ]
    assert all(found.settings_of(lambda name, _, at=point: at[name]) for point in found.points())
    assert space(job(schedule="auto", lr="auto")).points() == []


def test_the_default_is_the_first_to_be_tried() -> None:
    drawn = space(job(rule="auto", lr="auto", schedule="auto", batch_size="auto", examples=1000)).default()
    assert drawn["rule"] == "adamw"
    assert drawn["adamw lr"] == 1e-3
    assert drawn["adamw 1 - beta1"] == pytest.approx(0.1)
    assert drawn["batch_size"] == 64
    assert drawn["schedule"] == "linear"


@each("name", ["stop", "clip_norm", "num_threads"])
def test_what_trials_cannot_tell_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"do not tell '{name}'"):
        space(job(lr="auto", **{name: "auto"}))


def test_a_hyperparameter_that_no_rule_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"has no 'beta3'.*beta1"):
        space(job(rule="adamw", lr="auto"), ("beta3",))


def test_ranges_are_finite() -> None:
    every = [one for kind in rules.RULES for one in ranges.of_rule(kind()).values() if not one.choices]
    assert all(math.isfinite(one.low) and one.low < one.high < math.inf for one in every)
    assert all(one.low > 0 for one in every if one.log)
