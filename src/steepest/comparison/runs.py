"""The runs of a comparison, one after the other: those that have ended are kept, one that was cut goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from steepest import evidence as records
from steepest.comparison import conditions, rates, results
from steepest.comparison.cost import gradients_a_step
from steepest.comparison.place import Place
from steepest.comparison.plan import Plan, resolved
from steepest.comparison.results import Result
from steepest.comparison.strategies import Strategy
from steepest.evidence import Evidence
from steepest.run import Run
from steepest.train import settled
from steepest.train.stopping import sign

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
        if results.is_done(folder):
            continue
        told.begins(strategy.name, seed, done)
        train(folder, plan.settings_of(strategy, seed, measured[strategy.name]))
        if not results.is_done(folder):
            raise Stopped
        told.ended(results.read(plan, strategy.name, seed, folder))
        results.write(place.results, so_far(plan, place))


def so_far(plan: Plan, place: Place) -> list[Result]:
    """The results of all runs that have ended."""
    ended = ((one.name, seed, place.run(one.name, seed)) for one, seed in _turns(plan))
    return [results.read(plan, *run) for run in ended if results.is_done(run[2])]


def _turns(plan: Plan) -> Iterator[tuple[Strategy, int]]:
    yield from ((strategy, seed) for seed in plan.seed_numbers for strategy in plan.strategies)


def _rate(plan: Plan, place: Place, strategy: Strategy, train: Train, told: Told) -> float | None:
    """The rate of a strategy, measured once in the life of a comparison; None where it is pinned."""
    if not plan.measures_rate(strategy):
        return None
    kept = (one for one in records.read(place.evidence) if one.choice == rates.CHOICE.format(strategy.name))
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
    short = conditions.part_of(settings["budget"], rates.SHARE, rates.LEAST)

    def trial(lr: float) -> tuple[float, float]:
        folder = place.trial(strategy.name, lr)
        if not results.is_done(folder):
            told.trial(strategy.name, lr)
            train(folder, settings | {"lr": lr, "budget": short})
        if not results.is_done(folder):
            raise Stopped
        return _come_to(folder), Run(folder).steps * gradients_a_step(rule)

    return rates.measured_rate(strategy.name, rule.lr, trial, {"budget": short, "seed": seed})


def _come_to(folder: Path) -> float:
    """The metric that a run goes by, as less is better; infinite where there is none."""
    run = Run(folder)
    value = run.metrics.get(run.recipe.monitor, math.nan)
    good = run.status == "finished" and math.isfinite(value)
    return sign(run.recipe.monitor, run.recipe.mode) * value if good else math.inf
