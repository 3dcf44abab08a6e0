"""Both clocks, the grid of validations, the methods and the pool, on a task of a moment."""

import math
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.suite import methods, pool
from benchmarks.suite.cache import Parts
from benchmarks.suite.clock import POINTS, Watch
from benchmarks.suite.methods import METHODS, built
from benchmarks.suite.workloads import Task, Workload, classes, dense

pytestmark = pytest.mark.full


def tiny(steps: int = 50, norms: bool = False) -> Task:
    """Three classes told apart by the largest of three numbers."""
    x = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    train, validation, test = ((part, part.argmax(1)) for part in x.split(30))
    parts = Parts(train, validation, test)

    def normed(parts: Parts, wide: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    return Workload("tiny", "none", normed if norms else dense((8,), 3), classes, 10, steps).on(parts, 0)


def grid(watch: Watch) -> list[int]:
    return [point[0] for point in watch.curve]


def test_the_curve_has_the_points_of_the_grid_and_the_end() -> None:
    watch = Watch(tiny(), 55)
    model = watch.task.model()
    assert [watch(model, 1.0) for _ in range(55)] == [True] * 54 + [False]
    assert grid(watch) == [*range(50 // POINTS, 55, 50 // POINTS), 55]


def test_a_length_that_is_no_multiple_of_the_grid_has_as_many_points() -> None:
    watch = Watch(tiny(steps=33), 33)
    model = watch.task.model()
    while watch(model, 1.0):
        pass
    assert len(grid(watch)) == POINTS
    assert grid(watch) == [math.ceil(33 * i / POINTS) for i in range(1, POINTS + 1)]


def test_an_update_counts_what_it_cost() -> None:
    watch = Watch(tiny(), 50)
    model = watch.task.model()
    while watch(model, 1.0, evaluations=3):
        pass
    assert watch.evaluations == 51
    assert grid(watch) == [3 * i for i in range(1, 18)]


def test_validation_is_outside_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def measured(*_: Any) -> float:
        now[0] += 100
        return 1.0

    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(Task, "measured", measured)
    watch = Watch(tiny(), 4, _began=0.0)
    for _ in range(4):
        now[0] += 1
        watch(nn.Identity(), 1.0)
    assert watch.curve == [(2, 2.0, 1.0), (4, 4.0, 1.0)]
    assert watch.summary()["seconds"] == 4


@pytest.mark.parametrize("loss", [math.nan, math.inf, 200.5])
def test_a_run_that_diverges_ends_and_says_so(loss: float) -> None:
    watch = Watch(tiny(), 50)
    model = watch.task.model()
    assert watch(model, 2.0)
    assert watch(model, 199.5)
    assert not watch(model, loss)
    summary = watch.summary()
    assert summary["diverged"]
    assert summary["final"] is None
    assert summary["evaluations"] == 3


def test_what_is_validated_is_what_is_shown_and_the_training_goes_on_from_the_rest() -> None:
    watch = Watch(tiny(norms=True), 2)
    model: Any = watch.task.model()
    kept = model[0].weight.detach().clone()

    @contextmanager
    def shown():
        with torch.no_grad():
            model[0].weight.add_(1)
            yield
            model[0].weight.sub_(1)

    watch(model, 1.0, shown=shown)
    watch(model, 1.0, shown=shown)
    torch.testing.assert_close(model[0].weight, kept)
    other: Any = watch.task.model()
    with torch.no_grad():
        other[0].weight.add_(1)
    x, y = watch.task.validation
    stale = watch.task.measured(other, x, y)
    assert watch.curve[-1][2] != stale  # statistics of the norms were measured anew


@pytest.mark.parametrize("name", METHODS)
def test_every_method_spends_its_budget_and_learns(name: str) -> None:
    watch = Watch(tiny(200), 200)
    before = watch.task.measured(watch.task.model(), *watch.task.validation)
    METHODS[name](watch.task, 200, 0, watch)
    assert watch.evaluations == 200
    assert watch.curve[-1][2] < before
    assert watch.test is not None


def test_a_method_is_repeatable() -> None:
    curves = []
    for _ in range(2):
        watch = Watch(tiny(), 50)
        METHODS["muon"](watch.task, 50, 0, watch)
        curves.append([point[2] for point in watch.curve])
    assert curves[0] == curves[1]


def test_the_momentum_of_nadam_does_not_rise() -> None:
    weight = nn.Parameter(torch.ones(1))
    made = built(nn.ParameterList([weight]), methods.NADAMW | {"rule": "nadamw"})
    weight.grad = torch.ones(1)
    made.step()
    assert float(made.state[weight]["mu_product"]) == pytest.approx(methods.NADAMW["beta1"])


def test_rates_rise_and_fall_over_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    config = {
        "rule": "momentum",
        "lr": 0.1,
        "beta1": 0.9,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "schedule": "linear",
    }
    methods.with_torch(tiny(), 50, Watch(tiny(), 50), config)
    assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert rates[-1] < 0.1 / 44
    assert len(rates) == 50


def test_a_longer_list_of_trials_begins_with_the_shorter_and_fills_the_ranges() -> None:
    for rule, (low, high) in pool.RATES.items():
        many = pool.trials(rule, 32)
        assert many[:5] == pool.trials(rule, 5)
        rates = sorted(one["lr"] for one in many)
        assert low <= rates[0] < low * 1.3
        assert high / 1.3 < rates[-1] <= high
        assert {(one["warmup"], one["schedule"]) for one in many} >= {(w, "linear") for w in pool.WARMUPS}
    assert pool.trials("adamw", 2) != pool.trials("nadamw", 2)


def test_the_best_trial_is_one_that_came_to_an_end() -> None:
    ran = {"diverged": False, "final": 2.0}
    assert pool.best([{"diverged": True, "final": None}, ran, replaced(ran, final=3.0)]) is ran


def replaced(record: dict[str, Any], **new: Any) -> dict[str, Any]:
    return record | new


def test_a_task_is_frozen() -> None:
    assert replace(tiny(), seed=1).model() is not None
    with pytest.raises(AttributeError):
        tiny().seed = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_a_loss_that_was_small_when_a_method_handed_over_is_no_bound_for_what_follows() -> None:
    """A search that has learnt the data by heart tells of a first loss of nearly nothing."""
    watch, model = Watch(tiny(), 50), nn.Linear(3, 3)
    watch.begins(1.0)
    assert watch(model, 0.005, evaluations=10)
    assert watch(model, 0.9), "less than it began with"
    assert not watch(model, 101.0)
    assert watch.diverged
