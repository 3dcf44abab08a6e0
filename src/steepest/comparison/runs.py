"""The runs of a comparison, one after the other, and what each came to; first the rates that are open."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from steepest import evidence as records
from steepest.comparison import Place
from steepest.comparison.plan import Plan, resolved
from steepest.comparison.strategies import Strategy, axis_of, gradients_a_step, part_of
from steepest.evidence import Evidence
from steepest.files import Folder, write_atomic
from steepest.optim import rules
from steepest.recipe import Recipe
from steepest.run import Run
from steepest.train import settled
from steepest.train.given import MARK, separate
from steepest.train.stopping import sign

DONE = ("finished", "failed")


@dataclass(frozen=True)
class Result:
    """One run.   value   the metric that is judged, of the weights that the run ships; None where it failed
    at, values      the same metric at each evaluation, over what is equal
    spent           steps, seconds and gradient evaluations, all of the run and of its search
    metrics         all others at the end, test/… among them"""

    strategy: str
    seed: int
    folder: str
    status: str
    why: str
    value: float | None
    at: Sequence[float]
    values: Sequence[float]
    spent: dict[str, float]
    metrics: dict[str, float]
    lr: float | None

    @property
    def failed(self) -> bool:
        """Whether there is nothing to judge."""
        return self.value is None


def is_done(folder: Path) -> bool:
    """Whether the run in this folder has come to an end, good or bad."""
    return Folder(folder).recipe.exists() and Run(folder).status in DONE


def result_of(plan: Plan, strategy: str, seed: int, folder: Path) -> Result:
    """What the run in a folder, which has ended, came to."""
    run = Run(folder)
    recipe = run.recipe
    told = json.loads(Folder(folder).result.read_text())
    cost = _cost(plan, strategy, recipe)
    column, _ = axis_of(plan.equal, plan.budget)
    at, values = _curve(folder, column, recipe.monitor)
    resolved = run.resolved
    lost = resolved.lost  # by a search, and not given back
    lr = resolved.measured.get("lr") if recipe.lr == "auto" else recipe.lr
    each = cost if plan.equal == "gradients" else 1.0
    return Result(
        strategy=strategy,
        seed=seed,
        folder=folder.name,
        status=run.status,
        why=str(told.get("why", "")),
        value=_value(run),
        at=[(x + lost) * each for x in at] if column == "step" else [x * each for x in at],
        values=values,
        spent={
            "steps": run.steps + lost,
            "seconds": told.get("seconds", 0.0),
            "gradients": (run.steps + lost) * cost,
        },
        metrics={name: number for name, number in run.metrics.items() if math.isfinite(number)},
        lr=lr if isinstance(lr, float) else None,
    )


def write_results(path: Path, results: Sequence[Result]) -> None:
    """results.jsonl: one run a line."""
    lines = (json.dumps(plain(asdict(one)), ensure_ascii=False) for one in results)
    write_atomic(path, "".join(line + "\n" for line in lines).encode())


def _curve(folder: Path, column: str, monitor: str) -> tuple[list[float], list[float]]:
    """The metric at each evaluation that gave one; rows of the guard hold none."""
    file = Folder(folder).metrics
    if not file.exists():
        return [], []
    rows = Run(folder).history
    if column not in rows.columns or monitor not in rows.columns:
        return [], []
    held = rows.select(pl.col(column, monitor).cast(pl.Float64, strict=False)).drop_nulls()
    return held[column].to_list(), held[monitor].to_list()


def _value(run: Run) -> float | None:
    """The metric that a run goes by, of the weights that it ships; None where it failed."""
    value = run.metrics.get(run.recipe.monitor, math.nan)
    return value if run.status == "finished" and math.isfinite(value) else None


def _cost(plan: Plan, strategy: str, recipe: Recipe) -> float:
    """Gradient evaluations of one step; those of ordinary rules where nobody can tell: of a rule that the run
    itself chose, and of a person's own that is not at hand."""
    settings = next(one.settings for one in plan.strategies if one.name == strategy)
    own = separate({**plan.shared, **settings})[1].rule
    if own is not None:
        return gradients_a_step(own)
    name = recipe.rule.removeprefix(MARK)
    if not rules.knows(name):
        return 1.0
    seldom = {key: value for key, value in recipe.hyper.items() if key == "every"}
    return gradients_a_step(rules.named(name, **seldom))


def plain(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


STEP = math.sqrt(10)
"""Factor from one rate to the next: the best rate is then within a factor of 1.8 of one that is tried."""
AROUND = 2
"""Rates tried on either side of the rule's own."""
FARTHEST = 8
"""Most steps away from it that the search walks while the loss still falls that way."""
SHARE = 0.2
"""Of a run's budget that a trial has."""
LEAST = 20
"""Updates of a trial, at least."""
CHOICE = "lr of {}"
"""The name of the choice, for a strategy of that name."""
SAID = "what short runs came to at each rate"
"""What stands over its picture."""

Trial = Callable[[float], tuple[float, float]]
"""Rate → (what the short run came to, less being better, infinite where it failed; gradient evaluations)."""


def measured_rate(name: str, own: float, trial: Trial, known: Mapping[str, Any]) -> Evidence:
    """The rate with the lowest result among own·10^(k/2), k = -2, …, 2, and farther while an end is best.

    own    the rule's own rate;   known  more to be kept about the trials, such as their budget"""
    began = time.perf_counter()
    found = {place: trial(own * STEP**place) for place in range(-AROUND, AROUND + 1)}
    while (place := _beyond(found)) is not None:
        found[place] = trial(own * STEP**place)
    best = _best(found)
    works = math.isfinite(found[best][0])
    rate = own * STEP**best if works else own
    tried = [
        {"lr": own * STEP**place, "result": result if math.isfinite(result) else None, "gradients": spent}
        for place, (result, spent) in sorted(found.items())
    ]
    runs = f"{len(found)} short runs ({', '.join(f'{key} {value}' for key, value in known.items())})"
    why = f"the best of {runs} at rates a factor of {STEP:.3g} apart, around {own:g}, the rule's own"
    line = {"name": name, "x": [one["lr"] for one in tried], "y": [one["result"] for one in tried]}
    marks = [{"name": "taken", "x": rate}]
    return Evidence(
        choice=CHOICE.format(name),
        decided=rate,
        why=why if works else f"none of {runs} came to a number at any rate; the rule's own stands in",
        candidates=tried,
        seconds=time.perf_counter() - began,
        gradients=round(sum(spent for _, spent in found.values())),
        picture={"kind": "range", "lines": [line], "marks": marks, "y": "result", "said": SAID},
    )


def _beyond(found: Mapping[int, tuple[float, float]]) -> int | None:
    """The next place to look at: past the end that is best so far, or below where nothing has worked."""
    best = _best(found)
    low, high = min(found), max(found)
    if not math.isfinite(found[best][0]) or best == low:
        return low - 1 if low > -FARTHEST else None
    return high + 1 if best == high and high < FARTHEST else None


def _best(found: Mapping[int, tuple[float, float]]) -> int:
    """The place of the lowest result; of equal ones the nearest to the rule's own rate."""
    return min(found, key=lambda place: (found[place][0], abs(place)))


APART = 1_000_000
"""From the first seed of the runs to that of the trials of rates: a rate is not chosen by what judges it."""

Train = Callable[[Path, Mapping[str, Any]], object]
"""Trains a run of these settings in this folder, or goes on with it; it may end without being done."""


class Told(Protocol):
    """Whoever shows how a comparison goes."""

    def trial(self, strategy: str, lr: float) -> None:
        """A short run begins."""

    def decided(self, choice: Evidence) -> None:
        """A rate is measured."""

    def begins(self, strategy: str, seed: int, done: int) -> None:
        """A run begins, after `done` others."""

    def ended(self, result: Result) -> None:
        """A run has ended."""


class Stopped(Exception):
    """A run was stopped from outside and can be gone on with; so can the comparison."""


def complete(plan: Plan, place: Place, train: Train, told: Told) -> None:
    """Do what is left of a comparison. Raises Stopped where a run came back undone.

    Strategies take turns within a seed: what changes on the machine in the meantime meets all alike."""
    measured = {one.name: _rate(plan, place, one, train, told) for one in plan.strategies}
    for done, (strategy, seed) in enumerate(_turns(plan)):
        folder = place.run(strategy.name, seed)
        if is_done(folder):
            continue
        told.begins(strategy.name, seed, done)
        _train(train, folder, plan.settings_of(strategy, seed, measured[strategy.name]))
        told.ended(result_of(plan, strategy.name, seed, folder))
        write_results(place.results, so_far(plan, place))


def _train(train: Train, folder: Path, settings: Mapping[str, Any]) -> None:
    train(folder, settings)
    if not is_done(folder):
        raise Stopped


def so_far(plan: Plan, place: Place) -> list[Result]:
    """The results of all runs that have ended."""
    ended = ((one.name, seed, place.run(one.name, seed)) for one, seed in _turns(plan))
    return [result_of(plan, *run) for run in ended if is_done(run[2])]


def _turns(plan: Plan) -> Iterator[tuple[Strategy, int]]:
    yield from ((strategy, seed) for seed in plan.seed_numbers for strategy in plan.strategies)


def _rate(plan: Plan, place: Place, strategy: Strategy, train: Train, told: Told) -> float | None:
    """The rate of a strategy, measured once in the life of a comparison; None where it is pinned."""
    if not plan.measures_rate(strategy):
        return None
    kept = (one for one in records.read(place.evidence) if one.choice == CHOICE.format(strategy.name))
    choice = next(kept, None)
    if choice is None:
        choice = _measured(plan, place, strategy, train, told)
        records.append(place.evidence, choice)
        told.decided(choice)
    return float(choice.decided)


def _measured(plan: Plan, place: Place, strategy: Strategy, train: Train, told: Told) -> Evidence:
    seed = plan.seed_numbers[0] + APART
    settings = plan.settings_of(strategy, seed, None)
    recipe, given = resolved(settings)
    rule = settled.rule_of(recipe.provisional(), given)
    short = part_of(settings["budget"], SHARE, LEAST)

    def trial(lr: float) -> tuple[float, float]:
        folder = place.trial(strategy.name, lr)
        if not is_done(folder):
            told.trial(strategy.name, lr)
            _train(train, folder, settings | {"lr": lr, "budget": short})
        return _come_to(folder), Run(folder).steps * gradients_a_step(rule)

    return measured_rate(strategy.name, rule.lr, trial, {"budget": short, "seed": seed})


def _come_to(folder: Path) -> float:
    """The metric that a run goes by, as less is better; infinite where there is none."""
    run = Run(folder)
    value = _value(run)
    return math.inf if value is None else sign(run.recipe.monitor, run.recipe.mode) * value
