"""The runs of a comparison: each done once, in turns, gone on with after a break; and what they tell."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from steepest import evidence
from steepest.comparison import Place
from steepest.comparison.comparison import Comparison
from steepest.comparison.plan import planned, resolved
from steepest.comparison.runs import APART, Stopped, complete, result_of, so_far
from steepest.optim.errors import UserError
from steepest.optim.rule import Number, Rule


class Trainer:
    """Leaves run folders as `fit` does, which came to `result(settings)` each, and keeps count."""

    def __init__(self, result=lambda settings: 0.5, stop_after=None):
        self.result, self.stop_after, self.trained = result, stop_after, []

    def __call__(self, folder: Path, settings) -> None:
        self.trained.append((folder.name, settings))
        folder.mkdir(parents=True, exist_ok=True)
        recipe, _ = resolved(settings)
        (folder / "recipe.toml").write_text(recipe.to_toml())
        if self.stop_after is not None and len(self.trained) > self.stop_after:
            return
        value = self.result(settings)
        bad = not math.isfinite(value)
        rows = [f"{step},{step / 10},{step / 100},{value + 1 / step}" for step in (10, 20, 40)]
        rows = [*rows[:2], "25,2.5,0.25,"] if bad else rows
        (folder / "metrics.csv").write_text("\n".join(["step,epoch,seconds,val/loss", *rows]) + "\n")
        told = {"status": "failed" if bad else "finished", "step": 40, "seconds": 0.4, "why": "the budget"}
        (folder / "result.json").write_text(json.dumps(told | {"metrics": {"val/loss": value}}))


class Silent:
    """Shows nothing, and remembers what it was told."""

    def __init__(self):
        self.rates, self.runs = [], []

    def trial(self, strategy, lr):
        pass

    def decided(self, choice):
        self.rates.append(choice.choice)

    def begins(self, strategy, seed, done):
        pass

    def ended(self, result):
        self.runs.append((result.strategy, result.seed))


def plan(asked=None, seeds=2, **settings):
    asked = asked or {"adamw": {"lr": 0.1}, "sgd": {"lr": 0.2}}
    return planned(asked, {"data": "iris", "budget": "40 steps", **settings}, seeds=seeds)


def names(trainer):
    return [name for name, _ in trainer.trained]


def test_strategies_take_turns_within_a_seed(tmp_path):
    trainer, told = Trainer(), Silent()
    complete(plan(), Place(tmp_path), trainer, told)
    assert names(trainer) == ["adamw-seed-0", "sgd-seed-0", "adamw-seed-1", "sgd-seed-1"]
    assert told.runs == [("adamw", 0), ("sgd", 0), ("adamw", 1), ("sgd", 1)]
    assert [settings["seed"] for _, settings in trainer.trained] == [0, 0, 1, 1]


def test_what_is_done_is_not_done_again_and_more_seeds_are_added(tmp_path):
    complete(plan(), Place(tmp_path), Trainer(), Silent())
    again, more = Trainer(), Trainer()
    complete(plan(), Place(tmp_path), again, Silent())
    complete(plan(seeds=3), Place(tmp_path), more, Silent())
    assert names(again) == []
    assert names(more) == ["adamw-seed-2", "sgd-seed-2"]


def test_a_run_that_comes_back_undone_stops_the_comparison_and_is_gone_on_with(tmp_path):
    with pytest.raises(Stopped):
        complete(plan(), Place(tmp_path), Trainer(stop_after=2), Silent())
    assert len(so_far(plan(), Place(tmp_path))) == 2
    later = Trainer()
    complete(plan(), Place(tmp_path), later, Silent())
    assert names(later) == ["adamw-seed-1", "sgd-seed-1"]


def test_a_run_that_failed_is_a_result_and_the_others_go_on(tmp_path):
    trainer = Trainer(lambda settings: math.nan if settings["rule"] == "sgd" else 0.5)
    complete(plan(), Place(tmp_path), trainer, Silent())
    found = so_far(plan(), Place(tmp_path))
    assert [one.failed for one in found] == [False, True, False, True]
    assert len(trainer.trained) == 4


def test_a_rate_is_measured_by_short_runs_on_a_seed_of_their_own(tmp_path):
    asked = plan(asked={"adamw": {}, "sgd": {"lr": 0.2}}, seeds=1, seed=3)
    trainer, told = Trainer(lambda settings: abs(math.log10(settings["lr"] / 1e-2))), Silent()
    complete(asked, Place(tmp_path), trainer, told)
    trials, runs = trainer.trained[:-2], trainer.trained[-2:]
    assert {settings["seed"] for _, settings in trials} == {3 + APART}
    assert {settings["budget"] for _, settings in trials} == {"20 steps"}
    assert [settings["lr"] for _, settings in runs] == [pytest.approx(1e-2), 0.2]
    assert told.rates == ["lr of adamw"]
    (choice,) = evidence.read(Place(tmp_path).evidence)
    assert choice.decided == pytest.approx(1e-2)


def test_a_measured_rate_is_measured_once_and_its_trials_are_kept(tmp_path):
    asked = plan(asked={"adamw": {}, "sgd": {"lr": 0.2}}, seeds=1)
    with pytest.raises(Stopped):
        complete(asked, Place(tmp_path), Trainer(stop_after=3), Silent())
    second, told = Trainer(), Silent()
    complete(asked, Place(tmp_path), second, told)
    assert len(second.trained) == 2 + 2  # two trials of five were left, and the two runs
    again = Trainer()
    complete(plan(asked={"adamw": {}, "sgd": {"lr": 0.2}}, seeds=2), Place(tmp_path), again, Silent())
    assert names(again) == ["adamw-seed-1", "sgd-seed-1"]


def test_a_rate_is_measured_by_a_metric_that_is_to_rise_too(tmp_path):
    class Rising(Trainer):
        def __call__(self, folder, settings):
            super().__call__(folder, settings)
            told = json.loads((folder / "result.json").read_text())
            told["metrics"] = {"val/accuracy": 1 - told["metrics"]["val/loss"]}
            (folder / "result.json").write_text(json.dumps(told))

    asked = plan(asked={"adamw": {}, "sgd": {"lr": 0.2}}, seeds=1, monitor="val/accuracy")
    trainer = Rising(lambda settings: abs(math.log10(settings["lr"] / 1e-2)))
    complete(asked, Place(tmp_path), trainer, Silent())
    assert trainer.trained[-2][1]["lr"] == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("equal", "budget", "at"),
    [
        ("steps", "40 steps", [10, 20, 40]),
        ("time", "9s", [0.1, 0.2, 0.4]),
        ("gradients", "40 steps", [20, 40, 80]),
        ("gradients", "4 epochs", [2, 4, 8]),
    ],
)
def test_a_curve_lies_over_what_is_equal(tmp_path, equal, budget, at):
    asked = planned(
        {"sam+adamw": {"lr": 0.1}, "sgd": {"lr": 0.1}},
        {"data": "iris", "budget": budget},
        seeds=1,
        equal=equal,
    )
    complete(asked, Place(tmp_path), Trainer(), Silent())
    found = so_far(asked, Place(tmp_path))[0]
    assert list(found.at) == pytest.approx(at)
    assert list(found.values) == pytest.approx([0.6, 0.55, 0.525])
    assert found.spent == {"steps": 40, "seconds": 0.4, "gradients": 80}


def test_a_rule_of_ones_own_has_its_cost_while_it_is_at_hand(tmp_path):
    @dataclass(frozen=True)
    class Twice(Rule):
        lr: Number = 0.1

        @staticmethod
        def perturb(xp, w, g):
            return g

    asked = plan({"twice": Twice(), "sgd": {"lr": 0.2}}, seeds=1)
    Place(tmp_path).plan.write_text(asked.relative_to(tmp_path).to_toml())
    complete(asked, Place(tmp_path), Trainer(), Silent())
    spent = [one.spent["gradients"] for one in so_far(asked, Place(tmp_path))]
    assert spent == [80, 40]
    assert [one.spent["gradients"] for one in Comparison(tmp_path).results] == [40, 40]


def test_rows_without_the_metric_are_no_points_of_the_curve(tmp_path):
    Trainer(lambda settings: math.nan)(
        tmp_path / "sgd-seed-0", plan().settings_of(plan().strategies[1], 0, 0.1)
    )
    found = result_of(plan(), "sgd", 0, tmp_path / "sgd-seed-0")
    assert list(found.at) == [10, 20]
    assert found.failed


def test_results_are_one_run_a_line_that_any_reader_of_json_takes(tmp_path):
    trainer = Trainer(lambda settings: math.nan if settings["rule"] == "sgd" else 0.5)
    complete(plan(), Place(tmp_path), trainer, Silent())

    def strict(text):
        raise AssertionError(text)

    lines = Place(tmp_path).results.read_text().splitlines()
    read = [json.loads(line, parse_constant=strict) for line in lines]
    assert [(one["strategy"], one["seed"]) for one in read] == [
        ("adamw", 0),
        ("sgd", 0),
        ("adamw", 1),
        ("sgd", 1),
    ]


def test_a_comparison_is_opened_from_its_folder_and_judged(tmp_path):
    trainer = Trainer(lambda s: (0.2 if s["rule"] == "sgd" else 0.5) + 0.001 * (s["seed"] * 7 % 5))
    asked = plan(seeds=8)
    Place(tmp_path).plan.write_text(asked.relative_to(tmp_path).to_toml())
    complete(asked, Place(tmp_path), trainer, Silent())
    opened = Comparison(tmp_path)
    assert len(opened.results) == 16
    assert opened.verdict.target == pytest.approx(0.5 + 1 / 40 + 0.001 * 2, abs=2e-3)
    assert opened.best == "sgd"
    assert opened.run("sgd", 3).recipe.seed == 3


def test_the_report_is_one_page_without_network_and_the_same_each_time(tmp_path):
    asked = plan(seeds=6)
    Place(tmp_path).plan.write_text(asked.relative_to(tmp_path).to_toml())
    complete(asked, Place(tmp_path), Trainer(lambda s: s["lr"] + 0.01 * s["seed"] * s["lr"]), Silent())
    page = Comparison(tmp_path).report().read_text()
    assert "default-src 'none'" in page
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert 'href="adamw-seed-0/report.html"' in page
    verdict = json.loads(Place(tmp_path).verdict.read_text())
    assert verdict["best"] == "adamw"
    assert {"sentences", "differences", "times", "standings", "target"} <= verdict.keys()
    assert Comparison(tmp_path).report().read_text() == page


def test_the_page_of_a_comparison_with_no_run_yet_stands(tmp_path):
    Place(tmp_path).plan.write_text(plan().relative_to(tmp_path).to_toml())
    opened = Comparison(tmp_path)
    assert "0 of 4 runs are done" in opened.report().read_text()
    assert opened.best is None


def test_names_that_are_no_markup_stay_text(tmp_path):
    asked = plan(
        asked={"a": {"lr": 0.1, "init": "<script>alert(1)</script>.safetensors"}, "sgd": {"lr": 0.2}}, seeds=1
    )
    Place(tmp_path).plan.write_text(asked.relative_to(tmp_path).to_toml())
    assert "<script" not in Comparison(tmp_path).report().read_text()


def test_a_folder_without_a_comparison_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no compare\.toml"):
        Comparison(tmp_path)


def test_the_folder_keeps_on_how_many_seeds_it_was_judged(tmp_path):
    """Each number once, however often it is looked at; runs that are not all done are no verdict."""

    def judged(seeds, stop_after=None):
        asked = plan(seeds=seeds)
        Place(tmp_path).plan.write_text(asked.relative_to(tmp_path).to_toml())
        trainer = Trainer(lambda s: 0.5 + 0.01 * math.sin(s["seed"] + s["lr"]), stop_after)
        with suppress(Stopped):
            complete(asked, Place(tmp_path), trainer, Silent())
        opened = Comparison(tmp_path)
        opened.report()
        return opened.verdict.level, json.loads(Place(tmp_path).verdict.read_text())["looks"]

    assert judged(3) == (0.05, [3])
    assert judged(6) == (0.05, [3, 6])
    assert judged(6) == (0.05, [3, 6])
    assert judged(8, stop_after=1) == (0.025, [3, 6])
    assert judged(8) == (0.025, [3, 6, 8])
    assert judged(9) == (0.0125, [3, 6, 8, 9])
    assert "tested at 1.25 %" in Place(tmp_path).report.read_text()
