"""The question of a comparison: its conditions, its file, and the folder that it has."""

import numpy as np
import pytest

from steepest import rules, wrap
from steepest.batch import Growing, Stochastic
from steepest.comparison import Place
from steepest.comparison.plan import check_same, free, planned, read
from steepest.comparison.strategies import gradients_a_step, part_of
from steepest.optim.errors import UserError
from steepest.schedule import Cosine

TWO = {"adamw": {}, "sgd": {"lr": 0.1}}


def plan(asked=TWO, seeds=5, equal=None, **settings):
    return planned(asked, {"data": "iris", **settings}, seeds=seeds, equal=equal)


def test_what_is_equal_follows_from_the_budget():
    assert plan(budget="60s").equal == "time"
    assert plan(budget="500 steps").equal == "steps"
    assert plan(budget="20 epochs").equal == "steps"


@pytest.mark.parametrize(
    ("equal", "budget", "said"),
    [
        ("time", "500 steps", 'equal="time" cannot be held with a budget of 500 steps. Write budget="60s"'),
        ("steps", "60s", 'equal="steps" cannot be held with a budget of 60s'),
        ("gradients", "60s", 'equal="gradients" cannot be held'),
        ("tme", "60s", "Did you mean 'time'"),
        (None, "much", "budget must be an amount"),
        (None, "0 steps", "A budget of 0 steps trains nothing to compare. Write for example"),
        (None, "0s", "A budget of 0 seconds trains nothing to compare"),
    ],
)
def test_conditions_that_contradict_each_other_are_named(equal, budget, said):
    with pytest.raises(UserError, match=said):
        plan(equal=equal, budget=budget)


def test_epochs_are_equally_many_steps_for_one_batch_size_alone():
    asked = {"small": {"batch_size": 16}, "large": {"batch_size": 64}}
    with pytest.raises(UserError, match=r"Batch sizes differ \(small 16, large 64\)"):
        plan(asked, budget="20 epochs")
    plan(asked, budget="500 steps")
    plan({"adamw": {"batch_size": 16}, "sgd": {"batch_size": 16}}, budget="20 epochs")


@pytest.mark.parametrize("size", ["auto", "following", "growing 16 to 256", Growing(16, 256)], ids=str)
def test_epochs_are_no_number_of_steps_under_a_batch_that_a_run_moves(size):
    """Its growth follows the schedule by a power of the rule: as many epochs are not as many updates."""
    asked = {"schedule": "cosine", "batch_size": size}
    with pytest.raises(UserError, match=r"\(adamw\) 20 epochs are not equally many updates"):
        plan(budget="20 epochs", **asked)
    assert plan(budget="500 steps", **asked).equal == "steps"
    assert plan(budget="20 epochs", equal="gradients", **asked).equal == "gradients"


@pytest.mark.parametrize("size", [16, "full", "stochastic 16 to 32", Stochastic(16, 32)], ids=str)
def test_epochs_are_steps_under_a_batch_that_is_settled(size):
    assert plan(budget="20 epochs", batch_size=size).equal == "steps"


@pytest.mark.parametrize(
    ("rule", "cost"),
    [
        (rules.AdamW(), 1.0),
        (wrap.sam(rules.AdamW()), 2.0),
        (rules.AdaHessian(), 3.0),
        (rules.SophiaH(every=10), 1.2),
        (rules.SophiaG(every=10), 1.1),
    ],
)
def test_an_update_costs_what_its_passes_cost(rule, cost):
    assert gradients_a_step(rule) == pytest.approx(cost, rel=1e-15)


def test_equal_gradients_halve_the_steps_of_a_rule_of_two_passes():
    asked = plan({"adamw": {}, "sam+adamw": {}}, equal="gradients", budget="101 steps")
    budgets = [asked.settings_of(one, 0, 1e-3)["budget"] for one in asked.strategies]
    assert budgets == ["101 steps", "50 steps"]
    epochs = plan({"adamw": {}, "sam+adamw": {}}, equal="gradients", budget="3 epochs")
    assert epochs.settings_of(epochs.strategies[1], 0, 1e-3)["budget"] == "1.5 epochs"


def test_the_settings_of_a_run_are_those_of_all_then_its_own_then_seed_and_rate():
    asked = plan({"sgd": {"dropout": 0.5}, "adamw": {}}, dropout=0.1, budget="9 steps")
    one, other = asked.strategies
    assert asked.settings_of(one, 3, 0.7) | {"budget": ""} == {
        "data": "iris",
        "dropout": 0.5,
        "rule": "sgd",
        "seed": 3,
        "lr": 0.7,
        "budget": "",
    }
    assert asked.settings_of(other, 3, None)["dropout"] == 0.1
    assert "lr" not in asked.settings_of(other, 3, None)


def test_a_rate_is_measured_where_nobody_gives_one():
    adamw, sgd = plan().strategies
    assert plan().measures_rate(adamw)
    assert not plan().measures_rate(sgd)
    assert not plan(lr=0.1).measures_rate(adamw)
    assert not plan(schedule=Cosine(0.1, 20)).measures_rate(adamw)
    assert not plan({"a": {"rule": "auto"}, "sgd": {}}).measures_rate(
        plan({"a": {"rule": "auto"}, "sgd": {}}).strategies[0]
    )


def test_seeds_follow_each_other_from_the_shared_one_on():
    assert list(plan(seeds=3).seed_numbers) == [0, 1, 2]
    assert list(plan(seeds=2, seed=7).seed_numbers) == [7, 8]


@pytest.mark.parametrize(
    ("sides", "seeds"), [("adamw sgd", 6), ("adamw sgd lion", 7), ("adamw sgd lion adam", 8)]
)
def test_without_a_number_there_are_as_few_seeds_as_can_separate(sides, seeds):
    assert plan(sides.split(), seeds=None).seeds == seeds


@pytest.mark.parametrize("seeds", [0, -1, 2.5, True, "five"])
def test_a_number_of_seeds_that_is_none_is_refused(seeds):
    with pytest.raises(UserError, match="seeds must be a whole number from 1 on"):
        plan(seeds=seeds)


def test_the_reference_is_one_of_the_strategies():
    assert plan().reference == "adamw"
    assert planned(TWO, {"data": "iris"}, reference="sgd").reference == "sgd"
    with pytest.raises(UserError, match="Did you mean 'sgd'"):
        planned(TWO, {"data": "iris"}, reference="sdg")


def test_a_setting_that_no_recipe_takes_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="dropout"):
        plan({"sgd": {"dropout": 2.0}, "adamw": {}})
    with pytest.raises(UserError, match="no hyperparameter 'beta9'"):
        plan({"adamw": {"hyper": {"beta9": 0.1}}, "sgd": {}})


def test_the_file_holds_the_question(tmp_path):
    asked = plan({"adamw": {"lr": None, "hidden": (64, 32)}, "sgd": {}}, budget="9 steps", val=0.2)
    (tmp_path / "compare.toml").write_text(asked.relative_to(tmp_path).to_toml())
    held = read(tmp_path / "compare.toml")
    assert held.asked() == asked.asked()
    assert (held.seeds, held.equal, held.reference, held.names) == (5, "steps", "adamw", ("adamw", "sgd"))
    assert held.settings_of(held.strategies[0], 1, None)["lr"] == "none"


def test_paths_are_seen_from_the_file_and_mean_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "c"
    place.mkdir(parents=True)
    asked = plan(val="./v.csv")
    (place / "compare.toml").write_text(asked.relative_to(place).to_toml())
    assert '"../../v.csv"' in (place / "compare.toml").read_text()
    assert read(place / "compare.toml").asked() == asked.asked()


def test_the_number_of_seeds_is_not_part_of_the_question_and_all_else_is():
    assert plan(seeds=5).asked() == plan(seeds=9).asked()
    assert plan().asked() != plan(dropout=0.1).asked()
    assert plan().asked() != plan({"adamw": {}, "sgd": {"lr": 0.2}}).asked()
    assert plan().asked() != plan(data_fingerprint="ab").asked()


def test_objects_are_named_as_a_file_cannot_hold_them():
    asked = planned({"a": {"schedule": lambda step: 0.1}, "sgd": {}}, {"data": (np.eye(4), np.arange(4))})
    assert asked.objects() == ["data", "a: schedule"]
    assert plan().objects() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("seeds = ", "cannot be read"), ("seeds = 3", "lacks format"), ("format = 9", "lacks seeds")],
)
def test_a_damaged_file_is_named(tmp_path, text, said):
    (tmp_path / "compare.toml").write_text(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "compare.toml")


@pytest.mark.parametrize("name", ["compare-x-1", "compare-x-2", "compare-2"])
def test_a_name_that_ends_in_a_number_keeps_it(tmp_path, name):
    for folder in (name, f"{name}-2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "anything").touch()
    assert free(tmp_path / name, plan()).path.name == f"{name}-3"


def test_a_share_of_a_budget_has_a_least_length_and_is_never_longer_than_the_whole():
    assert part_of("1000 steps", 0.2, 20) == "200 steps"
    assert part_of("50 steps", 0.2, 20) == "20 steps"
    assert part_of("9 steps", 0.2, 20) == "9 steps"
    assert part_of("20 epochs", 0.2, 20) == "4 epochs"
    assert part_of("60s", 0.2, 20) == "12 seconds"


def test_the_same_question_has_its_folder_and_another_one_the_next(tmp_path):
    def put(name, asked):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compare.toml").write_text(asked.relative_to(tmp_path / name).to_toml())

    first, path = plan(seeds=5), tmp_path / "compare-iris"
    assert free(path, first).path == path
    put("compare-iris", first)
    assert free(path, plan(seeds=9)).path == path
    assert free(path, plan(seeds=4)).path == tmp_path / "compare-iris-2"
    other = plan(dropout=0.5)
    put("compare-iris-2", other)
    assert free(path, other).path == tmp_path / "compare-iris-2"
    assert free(path, plan(dropout=0.7)).path == tmp_path / "compare-iris-3"


def test_what_differs_from_the_question_in_a_folder_is_named(tmp_path):
    place = Place(tmp_path)
    place.plan.write_text(plan(seeds=5).relative_to(tmp_path).to_toml())
    check_same(place, plan(seeds=6))
    with pytest.raises(UserError, match=r"strategies.sgd.lr 0.1, now 0.2; shared.dropout None, now 0.5"):
        check_same(place, plan({"adamw": {}, "sgd": {"lr": 0.2}}, dropout=0.5))
    with pytest.raises(UserError, match="with 5 seeds, and 4 are fewer"):
        check_same(place, plan(seeds=4))
