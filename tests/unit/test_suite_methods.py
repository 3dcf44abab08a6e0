"""The methods that measure: all that they spend is on the clock, and a grid says what a chosen rate costs."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steepest
from benchmarks.suite import grid, methods, ours
from benchmarks.suite.__main__ import arguments
from benchmarks.suite.cache import Parts
from benchmarks.suite.clock import Watch
from benchmarks.suite.ours import AUTO, RATE, Batches, fitted
from benchmarks.suite.running import Wanted
from benchmarks.suite.workloads import Task, Workload, classes, dense
from steepest.commands import lifecycle
from steepest.train.update import Diverged
from steepest.tuning.constants import SHORT

pytestmark = pytest.mark.full


def tiny(steps: int = 600, n: int = 95) -> Task:
    """Three classes told apart by the largest of three numbers."""
    x = torch.randn(3 * n, 3, generator=torch.Generator().manual_seed(0))
    train, validation, test = ((part, part.argmax(1)) for part in x.split(n))
    return Workload("tiny", "none", dense((8,), 3), classes, 10, steps).on(Parts(train, validation, test), 0)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than training here, and nobody looks at them."""
    monkeypatch.setattr(lifecycle, "write_report", lambda folder: folder)


def ran(name: str, budget: int) -> tuple[Watch, dict[str, Any]]:
    watch = Watch(tiny(budget), budget)
    return watch, ours.METHODS[name](watch.task, budget, 0, watch)


def test_fit_reads_the_batches_of_the_task_in_its_order() -> None:
    task = tiny()
    read, expected = Batches(task), task.batches()
    for epoch in range(3):
        read.set_epoch(epoch)
        for x, y in read:
            for one, other in zip((x, y), next(expected), strict=True):
                assert torch.equal(one, other)
    assert len(read) == len(list(read)) == 10


@pytest.mark.parametrize(("name", "budget"), [("auto", 30), ("auto", 150), ("auto", 300), ("auto rate", 500)])
def test_a_search_is_on_the_clock_before_the_first_update(name: str, budget: int) -> None:
    watch, config = ran(name, budget)
    spent = math.ceil(config["chosen"]["gradients"])
    assert watch.evaluations == budget
    assert watch.curve[0][0] >= spent + 1
    assert (spent > 0) == (budget >= SHORT)  # below, nothing can be measured
    assert watch.curve[-1][0] == budget
    assert watch.test is not None
    assert not watch.diverged


def test_auto_is_repeatable_and_says_what_it_chose() -> None:
    (first, config), (second, _) = ran("auto", 500), ran("auto", 500)
    assert [point[::2] for point in first.curve] == [point[::2] for point in second.curve]
    choices = {one["choice"]: one for one in config["evidence"]}
    assert {"rule", "lr", "weight_decay", "clip_norm", "schedule"} <= choices.keys()
    assert config["chosen"]["rule"] == choices["rule"]["decided"]
    assert choices["rung 1"]["candidates"]
    assert config["asked"] == AUTO


def test_what_fit_ships_counts_and_its_evaluations_are_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that is too high, so that the last weights are not the best ones."""
    evaluations: list[float] = []
    looked = ours.Counted.looked

    def noted(self: ours.Counted, steps: Any, row: Any) -> None:
        evaluations.append(row["val/loss"])
        looked(self, steps, row)

    monkeypatch.setattr(ours.Counted, "looked", noted)
    watch, settings = Watch(tiny(200), 200), {"rule": "sgd", "lr": 1.0, "schedule": "constant"}
    fitted(watch.task, 200, watch, settings, looks=5)
    assert len(evaluations) == 5
    assert watch.evaluations == 200
    assert watch.curve[-1][2] == pytest.approx(min(evaluations), rel=1e-5)
    assert min(evaluations) < evaluations[-1]


def test_fit_at_a_given_rate_is_the_point_of_the_grid() -> None:
    """So that nothing but the rate differs between `auto rate` and the grid."""
    steps, lr = 60, grid.RATES[10]
    one, other = Watch(tiny(steps), steps), Watch(tiny(steps), steps)
    fitted(one.task, steps, one, RATE | {"lr": lr})
    methods.with_torch(other.task, steps, other, grid.SAME | {"lr": lr})
    rounding = steps * float(np.finfo(np.float32).eps)
    assert [point[0] for point in one.curve] == [point[0] for point in other.curve]
    assert [point[2] for point in one.curve] == pytest.approx([p[2] for p in other.curve], rel=10 * rounding)


def test_trials_of_optuna_and_the_run_after_them_fill_the_budget() -> None:
    pytest.importorskip("optuna")
    watch, config = ran("optuna", 300)
    trials = next(one for one in config["evidence"] if one["candidates"])
    assert watch.evaluations == watch.curve[-1][0] == 300
    assert 0 < trials["gradients"] <= ours.SHARES["optuna"] * 300
    assert watch.curve[0][0] > trials["gradients"]
    assert config["chosen"]["rule"]


def test_a_run_that_blows_up_counts_as_diverged() -> None:
    watch = Watch(tiny(), 40)
    fitted(watch.task, 40, watch, {"rule": "sgd", "lr": 900.0, "schedule": "constant", "weight_decay": 0.0})
    assert watch.diverged
    assert watch.summary()["final"] is None
    assert watch.evaluations < 40


def test_a_run_that_fit_gives_up_counts_as_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = steepest.fit

    def gives_up(*data: Any, **settings: Any) -> None:
        fit(*data, **settings)
        raise Diverged("said by the test")

    monkeypatch.setattr(steepest, "fit", gives_up)
    watch = Watch(tiny(), 40)
    fitted(watch.task, 40, watch, RATE | {"lr": 1e-2, "budget": "5 steps"})
    assert watch.summary()["diverged"]
    assert watch.summary()["evaluations"] == 5


def test_a_run_that_ends_early_is_measured_where_it_ends() -> None:
    watch = Watch(tiny(), 40)
    fitted(watch.task, 40, watch, RATE | {"lr": 1e-2, "budget": "25 steps"})
    assert watch.summary()["evaluations"] == watch.curve[-1][0] == 25
    assert watch.test is not None


def test_nothing_is_printed_and_nothing_left(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ran("auto", 100)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_comes_after_the_last_update_is_outside_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    watch = Watch(tiny(), 3, _began=0.0)
    for _ in range(3):
        now[0] += 1
        watch(nn.Sequential(nn.Flatten(), nn.Linear(3, 3)), 1.0)
    now[0] += 50
    assert watch.summary()["seconds"] == 3


def test_methods_for_other_budgets_are_run_when_named() -> None:
    usual = arguments(["methods"]).methods
    assert "auto" in usual
    assert not set(usual) & set(ours.ASIDE)
    assert set(ours.ASIDE) < set(ours.METHODS)


# --- the grid ---


def records(chosen: float, loss: float, seed: int = 0, **finals: float | None) -> list[dict[str, Any]]:
    """A bowl over the logarithm of the rate with its lowest point, 1, at the seventh rate."""
    made = [
        one.record() | {"diverged": False, "final": 1 + 0.1 * (one.trial - 6) ** 2, "config": one.config}
        if one.trial is not None
        else one.record() | {"diverged": False, "final": loss, "config": {"chosen": {"lr": chosen}}}
        for one in grid.wanted(["letter_mlp"], [seed], 1.0)
    ]
    for record in made:
        if (name := f"at{record['trial']}") in finals:
            record |= {"final": finals[name], "diverged": finals[name] is None}
    return made


def row(table: str, name: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith(name)).split()


def test_a_grid_is_a_chosen_rate_and_fifteen_fixed_ones_for_each_seed() -> None:
    wanted = grid.wanted(["letter_mlp", "mnist_mlp"], [0, 1], 1.0)
    assert len(wanted) == 2 * 2 * 16
    assert len({(one.workload, one.seed, one.method, one.trial) for one in wanted}) == len(wanted)
    rates = [one.config["lr"] for one in wanted if one.config and one.workload == "mnist_mlp"][:15]
    assert rates == pytest.approx(np.geomspace(1e-4, 1e-1, 15))
    assert all(isinstance(one, Wanted) and one.file == "grid" for one in wanted)


def test_regret_is_against_the_lowest_of_the_same_seed() -> None:
    every = [*records(grid.RATES[6], 1.02), *records(grid.RATES[8], 1.3, seed=1, at7=1.05, at8=1.2, at6=1.1)]
    table = grid.report(["letter_mlp"], 1.0, every)
    name, seeds, best, chosen, *costs = row(table, "letter_mlp")
    median, worst, alone, worst_alone, others, worst_others = costs
    assert (name, seeds) == ("letter_mlp", "2")
    assert grid.RATES[6] < float(best) < grid.RATES[7] < float(chosen) < grid.RATES[8]
    assert [float(median), float(worst)] == pytest.approx([(1.02 + 1.3 / 1.05) / 2, 1.3 / 1.05], abs=1e-3)
    assert [float(alone), float(worst_alone)] == pytest.approx([(1 + 1.2 / 1.05) / 2, 1.2 / 1.05], abs=1e-3)
    assert [float(others), float(worst_others)] == pytest.approx([(1.1 + 1.1 / 1.05) / 2, 1.1], abs=1e-3)
    assert row(table, "all")[1:] == ["2", *costs]


def test_a_rate_between_two_of_the_grid_lies_between_them() -> None:
    finals = [1 + 0.1 * (i - 6) ** 2 for i in range(15)]
    assert grid.at(grid.RATES[3], finals) == pytest.approx(finals[3])
    between = math.sqrt(grid.RATES[3] * grid.RATES[4])
    assert grid.at(between, finals) == pytest.approx(math.sqrt(finals[3] * finals[4]))
    assert grid.at(1.0, finals) == finals[-1]
    assert grid.at(1e-9, finals) == finals[0]


def test_what_is_not_known_is_left_out_of_medians() -> None:
    cells = [grid.Cell(1, 1, 1.2, math.nan, math.nan), grid.Cell(1, 1, 1.4, 1.1, 1.0)]
    for order in (cells, cells[::-1]):
        assert grid._shown(order) == ["1.300", "1.400", "1.100", "1.100", "1.000", "1.000"]
    assert math.isnan(grid.at(math.nan, [1.0] * 15))


def test_points_that_diverged_are_no_best_and_infinite_beside() -> None:
    table = grid.report(["letter_mlp"], 1.0, records(grid.RATES[13] * 1.2, 1.1, at14=None))
    assert row(table, "letter_mlp")[4:] == ["1.100", "1.100", "inf", "inf", "nan", "nan"]


def test_a_seed_with_half_a_grid_does_not_count() -> None:
    half = [*records(1e-3, 1.1), *records(1e-3, 9.0, seed=1)[:8]]
    assert row(grid.report(["letter_mlp"], 1.0, half), "letter_mlp")[1] == "1"
    with pytest.raises(Exception, match="no whole grid of letter_mlp"):
        grid.report(["letter_mlp"], 1.0, half[:8])
