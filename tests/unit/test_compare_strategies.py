"""What may be compared with what, and what strategies share."""

import pytest

from steepest import rules
from steepest.comparison.strategies import Strategy, check, from_command, strategies_of, with_inherited
from steepest.optim.errors import UserError


def by_name(asked):
    return {one.name: dict(one.settings) for one in strategies_of(asked)}


def test_a_name_of_a_rule_stands_for_the_rule():
    assert by_name({"sgd": {"lr": 0.1}, "fast": {"rule": "lion"}, "cautious+adamw": {}}) == {
        "sgd": {"lr": 0.1, "rule": "sgd"},
        "fast": {"rule": "lion"},
        "cautious+adamw": {"rule": "cautious+adamw"},
    }
    assert by_name(["sgd", "lion"]) == {"sgd": {"rule": "sgd"}, "lion": {"rule": "lion"}}


def test_settings_of_another_rule_than_the_name_says_are_taken_as_they_are():
    assert by_name({"sgd": {"rule": "momentum"}, "lion": {}})["sgd"] == {"rule": "momentum"}


def test_a_rule_object_is_a_strategy_with_its_own_rate():
    one, other = strategies_of({"a": rules.Lion(lr=3e-4), "sgd": {}})
    assert one.pinned
    assert one.written["rule"] == "lion"
    assert one.written["lr"] == 3e-4
    assert not other.pinned


@pytest.mark.parametrize("lr", [0.1, None, "auto"])
def test_a_rate_that_is_given_is_pinned_whatever_it_is(lr):
    assert Strategy("a", {"rule": "sgd", "lr": lr}).pinned


def test_a_schedule_object_brings_its_rate():
    assert Strategy("a", {"rule": "sgd", "schedule": lambda step: 0.1}).pinned


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sgd": {}}, "two strategies or more, got sgd"),
        ({}, "two strategies or more, got none"),
        ("adamw", "several strategies"),
        (None, "takes several strategies, got None. Write"),
        (rules.Lion(), "takes several strategies, got "),
        ({"sgd": {}, "SGD": {}}, "'SGD' is given twice"),
        (["adamw", "sgd", "adamw"], "'adamw' is given twice"),
        ({"a/b": {"lr": 1}, "sgd": {}}, "named by letters"),
        ({"..": {"lr": 1}, "sgd": {}}, "named by letters"),
        ({3: {}, "sgd": {}}, "named by letters"),
        ({"sgd": 0.1, "adamw": {}}, "must be a dict of settings or a Rule, got float"),
        ({"admw": {}, "sgd": {}}, "no settings, and is no rule. Did you mean 'adamw'"),
        ({"sgd": {"learning": 0.1}, "adamw": {}}, "'learning', which is no setting"),
        ({"sgd": {"lerning_rate": 0.1}, "adamw": {}}, "Here it is called lr"),
        ({"sgd": {"seed": 1}, "adamw": {}}, "seed is the same for all"),
        ({"sgd": {"budget": "9 steps"}, "adamw": {}}, "budget is the same for all"),
        ({"sgd": {"val": 0.3}, "adamw": {}}, "val is the same for all"),
    ],
)
def test_what_cannot_be_compared_is_named(asked, said):
    with pytest.raises(UserError, match=said):
        strategies_of(asked)


def test_strategies_that_do_the_same_are_one_too_many():
    twice = strategies_of({"sgd": {}, "plain": {"rule": "sgd"}})
    with pytest.raises(UserError, match="'sgd' and 'plain' are the same"):
        check(twice, {"data": "iris"})
    with pytest.raises(UserError, match="are the same"):
        check(strategies_of({"a": {"dropout": 0.0}, "b": {"hidden": [256, 128]}}), {"data": "iris"})


def test_functions_that_differ_make_strategies_that_differ():
    both = strategies_of({"a": {"schedule": lambda step: 0.1}, "b": {"schedule": lambda step: 0.2}})
    check(both, {"data": "iris"})


def test_strategies_of_different_losses_are_not_judged_by_the_loss():
    asked = strategies_of({"plain": {"rule": "sgd"}, "smooth": {"rule": "sgd", "label_smoothing": 0.1}})
    with pytest.raises(UserError, match=r"differ in label_smoothing \(plain: 0.0, smooth: 0.1\)"):
        check(asked, {"data": "iris"})
    check(asked, {"data": "iris", "monitor": "val/accuracy"})


def test_a_recipe_gives_its_rate_to_no_one_and_its_rules_numbers_to_its_rule_alone():
    recipe = {"data": "iris", "rule": "adamw", "lr": 1e-3, "weight_decay": 0.1, "hyper": {"beta1": 0.8}}
    found, shared = with_inherited(strategies_of({"adamw": {}, "sgd": {}, "wide": {"hidden": [9]}}), recipe)
    settings = {one.name: one.settings for one in found}
    assert shared == {"data": "iris", "rule": "adamw"}
    assert settings["adamw"] == {"rule": "adamw", "weight_decay": 0.1, "hyper": {"beta1": 0.8}}
    assert settings["sgd"] == {"rule": "sgd"}
    assert settings["wide"] == {"hidden": [9], "weight_decay": 0.1, "hyper": {"beta1": 0.8}}


def test_what_a_strategy_says_stands_above_the_recipe():
    recipe = {"data": "iris", "rule": "adamw", "weight_decay": 0.1}
    found, _ = with_inherited(strategies_of({"a": {"weight_decay": 0.5}, "b": {"lr": 1.0}}), recipe)
    assert found[0].settings["weight_decay"] == 0.5
    assert found[1].settings["weight_decay"] == 0.1


def test_patience_is_that_of_the_schedule_it_was_settled_for():
    recipe = {"data": "iris", "rule": "adamw", "schedule": "plateau", "patience": 6}
    found, shared = with_inherited(strategies_of({"adamw": {}, "cosine": {"schedule": "cosine"}}), recipe)
    assert "patience" not in shared
    assert found[0].settings["patience"] == 6
    assert "patience" not in found[1].settings


def test_the_command_line_writes_strategies_as_rules_and_as_settings():
    assert from_command("adamw, sgd", ["wide: hidden=[512, 64] lr=1e-3 budget=growing 64 to 1024"]) == {
        "adamw": {"rule": "adamw"},
        "sgd": {"rule": "sgd"},
        "wide": {"hidden": [512, 64], "lr": 1e-3, "budget": "growing 64 to 1024"},
    }
    assert from_command(None, []) == {}


@pytest.mark.parametrize(
    ("named", "sides", "said"),
    [
        ("sgd,sgd", [], "given twice"),
        ("sgd", ["wide"], "--strategy takes"),
        ("sgd", ["a: lr"], "--strategy takes"),
    ],
)
def test_a_slip_on_the_command_line_is_named(named, sides, said):
    with pytest.raises(UserError, match=said):
        from_command(named, sides)


def test_what_a_measured_schedule_has_brought_goes_with_it():
    recipe = {"data": "iris", "rule": "adamw", "schedule": "linear", "average": 0.9999, "stop": "lower"}
    asked = strategies_of({"sgd": {}, "cosine": {"schedule": "cosine"}})
    found, shared = with_inherited(asked, recipe, {"average"})
    assert shared == {"data": "iris", "rule": "adamw", "schedule": "linear", "stop": "lower"}
    assert found[0].settings["average"] == 0.9999
    assert "average" not in found[1].settings
