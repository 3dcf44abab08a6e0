"""The methods that measure: `fit` with "auto", and the search by Optuna with the same total budget.

Everything is on the clock. What a search spends is counted when it hands over, before the first update of the
run that follows: until then there is no model to validate.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

import steepest
from benchmarks.suite.cache import Pair
from benchmarks.suite.clock import Watch
from benchmarks.suite.methods import METHODS as OPPONENTS
from benchmarks.suite.methods import Config, Method
from benchmarks.suite.workloads import Task
from steepest.data.order import parts
from steepest.evidence import Evidence
from steepest.files import Folder
from steepest.recipe import Recipe
from steepest.train import machine
from steepest.train.given import separate
from steepest.train.job import build
from steepest.train.loop import Loop
from steepest.train.update import Diverged
from steepest.tuning.constants import FORWARD
from steepest.tuning.optuna_search import search

AUTO: Config = dict.fromkeys(("rule", "lr", "schedule", "weight_decay", "clip_norm", "stop"), "auto")
"""What is measured; the batch is the workload's, as it is for all methods."""

LOOKS = 0.03
"""Share of the budget for evaluations of fit's own, where it is to find out which weights to ship."""

RATE: Config = {"rule": "adamw", "lr": "auto", "schedule": "linear", "weight_decay": 0.0}
"""The rate alone. Without decay, so that it does not matter which weights would be spared from it."""

UNSAID: Config = {}
"""`fit` where nothing is said: rule, rate, schedule and decay are measured; the batch is a loader's."""

FIXED: Config = {"lr": None}
"""`fit` where nothing is measured: AdamW at its default rate, lowered at plateaus."""

POINT: Config = {
    "rule": "muonmatched",
    "lr": 0.01,
    "weight_decay": 0.1,
    "schedule": "linear",
    "average": 0.9999,
}
"""What `auto` mostly comes to, at one rate for all and without a search: the rest is what measuring adds."""

SEARCHED: Config = dict.fromkeys(("rule", "lr", "schedule", "weight_decay"), "auto")
"""What Optuna draws: all that trials can tell about."""

SHARES = {"optuna": 0.5, "optuna fifth": 0.2}
"""Shares of the budget that its trials take; the rest trains anew under the best of them."""

ASIDE = ("auto rate", "fit", "fit fixed", "muonmatched point", *SHARES)
"""Methods that are run when they are named: one is for the grid of rates, two for `fit` where nothing
is said, one for what measuring adds, the others for budgets of several standard lengths."""


class Batches:
    """The batches of a task, in its own order, as `fit` reads them from a loader: a whole batch at a time,
    where a Dataset would cost seconds for each example that the opponents do not pay."""

    def __init__(self, task: Task):
        self._task, self._epoch = task, 0
        self._size = parts(len(task.train[0]), task.batch_size)

    def __len__(self) -> int:
        return self._size

    def set_epoch(self, epoch: int) -> None:
        """The order of this epoch is next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Pair]:
        return islice(self._task.batches(position=self._epoch * self._size), self._size)


@dataclass
class Counted:
    """Tells a watch of every update of `fit`, and with the first one of what was spent before it.

    place  of the run, whose search has left there what it took;   spent  what else came before
    each   cost of an evaluation of fit's own;   owed  what these have cost and is not on the clock yet"""

    watch: Watch
    model: nn.Module
    place: Path
    spent: int = 0
    each: float = 0.0
    owed: float = 0.0
    loss: float = math.nan

    def looked(self, steps: Loop, row: Mapping[str, Any]) -> None:
        """Fit has evaluated."""
        self.owed += self.each

    def __call__(self, steps: Loop) -> None:
        whole, now = int(self.owed), steps.loss()
        self.owed -= whole
        cost = 1 + whole
        if not self.watch.evaluations:
            cost += self.spent + math.ceil(steepest.Run(self.place).resolved.gradients)
        if math.isfinite(now):  # what is not finite was kept from the weights
            self.loss = now
        shown = steps.evaluated if steps.averages else nullcontext
        if not self.watch(self.model, self.loss, cost, shown):
            steps.stop("the suite's budget is used up, or the loss is a hundred times the first")


def look(task: Task) -> float:
    """Gradient evaluations of one look at the validation part."""
    return FORWARD * len(task.validation[0]) / task.batch_size


def settings_of(task: Task, budget: int, settings: Mapping[str, Any], looks: int = 1) -> dict[str, Any]:
    """The arguments of `fit`, which evaluates `looks` times. One is at the end and tells nothing: the suite
    validates."""
    updates = budget - (math.ceil(looks * look(task)) if looks > 1 else 0)
    usual = {"budget": f"{updates} steps", "evaluate_every": f"{-(-updates // looks)} steps"}
    return task.for_fit() | {"data": Batches(task), "num_threads": 1} | usual | dict(settings)


def fitted(
    task: Task, budget: int, watch: Watch, settings: Mapping[str, Any], spent: int = 0, looks: int = 1
) -> Config:
    """One call of `fit`, silent, in a folder that is gone afterwards; what was asked and what was chosen."""
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        place, given = Path(folder) / "run", settings_of(task, budget, settings, looks)
        watch.begins(float(task.loss(task.model().eval(), *next(task.batches())).detach()))
        counted = Counted(watch, given["model"], place, spent, look(task) if looks > 1 else 0.0)
        try:
            hooks: Config = {"on_step": counted, "on_evaluation": counted.looked}
            steepest.fit(given.pop("data"), out=place, **hooks, **given)
        except Diverged:
            watch.diverged = True
        run = steepest.Run(place)
        chosen = {**run.chosen, "gradients": run.resolved.gradients}
        found = {"asked": dict(settings), "chosen": chosen, "evidence": told(run.evidence)}
    if not watch.diverged and watch.evaluations < watch.budget:
        watch.evaluations += math.ceil(counted.owed)
        watch.finish(given["model"])  # the weights that fit ships
    return found


def told(evidence: list[Evidence]) -> list[dict[str, Any]]:
    """Decisions as they stand in a record, without their pictures."""
    kept = ("choice", "decided", "why", "gradients")
    return [
        {name: getattr(one, name) for name in kept} | {"candidates": [dict(row) for row in one.candidates]}
        for one in evidence
    ]


def affordable(task: Task, budget: int) -> int:
    """How many looks LOOKS of a budget pays for."""
    return max(int(LOOKS * budget / look(task)), 1)


def with_fit(settings: Mapping[str, Any], task: Task, budget: int, seed: int, watch: Watch) -> Config:
    """`fit` with nothing said but these settings; the weights of the best evaluation."""
    return fitted(task, budget, watch, settings, looks=affordable(task, budget))


def auto_rate(task: Task, budget: int, seed: int, watch: Watch) -> Config:
    """The rate of AdamW measured, within the budget; a line to zero."""
    return fitted(task, budget, watch, RATE)


def by_optuna(share: float, task: Task, budget: int, seed: int, watch: Watch) -> Config:
    """TPE and the median pruner on short trials, then a run of its own with what is left of the budget."""
    evidence: list[Evidence] = []
    written, given = separate(settings_of(task, budget, SEARCHED))
    with TemporaryDirectory() as folder, machine.kept():
        job = build(Recipe.of(written), given)
        chosen = search(job, Folder(folder), round(share * budget), evidence.append)
    spent = math.ceil(chosen.gradients)
    found = fitted(task, budget - spent, watch, chosen.measured, spent, affordable(task, budget))
    return found | {"asked": SEARCHED, "chosen": dict(chosen.measured), "evidence": told(evidence)}


METHODS: dict[str, Method] = {
    **OPPONENTS,
    "auto": partial(with_fit, AUTO),
    "fit": partial(with_fit, UNSAID),
    "fit fixed": partial(with_fit, FIXED),
    "muonmatched point": partial(with_fit, POINT),
    "auto rate": auto_rate,
    **{name: partial(by_optuna, share) for name, share in SHARES.items()},
}
"""All methods by name."""
