"""The race: range tests, then arms on rungs; each is stopped, scored, and thawed where it goes on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from steepest.evidence import Evidence
from steepest.optim.schedule import Constant, WarmUp
from steepest.train import checkpoint
from steepest.train.job import Job
from steepest.tuning import rungs
from steepest.tuning.arms import Arm, below, beyond, protected
from steepest.tuning.constants import CREDIT
from steepest.tuning.journal import Journal
from steepest.tuning.ledger import plain
from steepest.tuning.plan import Plan, going_on
from steepest.tuning.rungs import Standing
from steepest.tuning.scores import Held, losses, score
from steepest.tuning.trial import Trial

POINTS = 60
"""Points of a curve that is kept for the report."""


@dataclass
class Race:
    """Arms side by side on one job.

    arms    those to begin with; others join them on the first rung
    climbs  whether rates beyond theirs may be tried
    warmup  updates of the rise, where the schedule is free; None: the job has a schedule of its own
    asked   called at every update; may raise to stop
    late    whether the clock says to commit
    charge  is told what each measurement costs, in gradient evaluations, scores included
    slow    seconds of an update, in those of the recipe's rule, by rule; empty where no clock counts"""

    job: Job
    journal: Journal
    plan: Plan
    held: Held
    arms: list[Arm]
    climbs: bool
    warmup: int | None
    asked: Callable[[], object]
    late: Callable[[], bool]
    charge: Callable[[float], object]
    slow: Mapping[str, float] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    before: dict[int, dict[str, Any]] = field(default_factory=dict)  # results of the rung before
    losses: list[dict[int, float]] = field(default_factory=list)  # mean scores of each rung, by arm
    _trials: dict[int, Trial] = field(default_factory=dict)
    _start: float | None = None

    def run(self, arm: int, to: int) -> dict[str, Any]:
        """Let an arm go on to an update: {"step", "scores", "losses", "norms", "dead"}."""
        before = self.results.get(arm)
        if before and (before["dead"] or before["step"] >= to):
            return before
        result = self.journal.once(f"arm-{arm}-{to}", lambda: self._measured(arm, to, before))
        self.results[arm] = result
        self.charge(result["step"] - (before["step"] if before else 0) + self.held.cost)
        if before and before["step"] < result["step"]:
            self.before[arm] = before
            shutil.rmtree(checkpoint.path_of(self.place(arm), before["step"]), ignore_errors=True)
        return result

    def race(self, tell: Callable[[Evidence], object]) -> list[Standing]:
        """Run all rungs, the first arm to the last of them; the standings at the end, the best first."""
        alive, ranked = list(range(len(self.arms))), []
        for number, end in enumerate(self.plan.rungs, start=1):
            ranked = self._ranked(alive, end)
            if number == 1 and self.climbs:
                ranked = self._climbed(ranked, end)
            self.losses.append({one.arm: one.loss for one in ranked})
            alive = self._survivors(ranked)
            last = number == len(self.plan.rungs) or self._cut(number)
            tell(self._told(number, end, ranked, [ranked[0].arm] if last else alive))
            if last:
                break
        return ranked

    def _survivors(self, ranked: list[Standing]) -> list[int]:
        always = protected(self.arms, [one.arm for one in ranked])
        return rungs.survivors(ranked, always, self.start(), going_on(len(ranked)))

    def between(self, arm: int) -> float:
        """The rate that the scores of the latest rung point to on which the neighbours of an arm ran too; an
        earlier one may lower it alone, since high rates lead early."""
        *earlier, latest = self.losses
        lr = rungs.peak(self.arms, arm, latest)
        for rung in reversed(earlier):
            if lr == self.arms[arm].lr:
                lr = min(lr, rungs.peak(self.arms, arm, rung))
        return lr

    def start(self) -> float:
        """The loss before the first update: on the held-out examples, else of the default's first batches."""
        if self._start is None:
            self._start = self._scored() if self.held.batches else self._seen()
        return self._start

    def _scored(self) -> float:
        self.charge(self.held.cost)
        return fmean(self.journal.once("start", lambda: losses(self.job, self.held)))

    def _seen(self) -> float:
        first = self.results[0]["losses"]
        return fmean(first[: max(len(first) // 10, 1)])

    def under(self, job: Job) -> None:
        """Let all arms go on under other settings, as a process that resumes would begin them."""
        self.job = job
        self._trials.clear()

    def place(self, arm: int) -> Path:
        """Where the states of an arm lie."""
        return self.journal.place / f"arm-{arm}"

    def job_of(self, arm: int) -> Job:
        """The job of an arm."""
        one = self.arms[arm]
        free = None if self.warmup is None else WarmUp(Constant(one.lr), self.fewer(arm, self.warmup))
        return self.job.having(one.settings(), free)

    def fewer(self, arm: int, updates: int) -> int:
        """The updates of an arm that take as long as so many of the recipe's rule."""
        return max(round(updates / self.slow.get(self.arms[arm].rule, 1.0)), min(updates, 1))

    def _ranked(self, arms: Sequence[int], end: int) -> list[Standing]:
        found = {arm: self._expected(self.run(arm, self.fewer(arm, end)), arm) for arm in arms}
        credit = {arm: self._credit(arm, end) for arm in arms}
        return rungs.standings(rungs.credited(found, credit, self.start()))

    def _expected(self, result: dict[str, Any], arm: int) -> list[float]:
        before = self.before.get(arm)
        return rungs.expected(result["scores"], before["scores"]) if before else result["scores"]

    def _credit(self, arm: int, end: int) -> float:
        by_rung = CREDIT.get(self.arms[arm].rule)
        return 1.0 if by_rung is None else by_rung[self.plan.rungs.index(end)]

    def risen(self, arm: int) -> float:
        """The share of its rate that an arm had come to: less than 1 where a rise outlasts the race."""
        rise = self.fewer(arm, self.warmup) if self.warmup else 0
        return min(1.0, self.results[arm]["step"] / rise) if rise else 1.0

    def loss(self, arm: int) -> float:
        """The mean score of an arm on its latest rung."""
        return fmean(self.results[arm]["scores"])

    def _climbed(self, ranked: list[Standing], end: int) -> list[Standing]:
        """The standings with rates further out, while the outermost is best and the plan has room; where all
        have died, with lower ones."""
        while len(self.arms) < self.plan.arms:
            alive = ranked[0].loss < math.inf
            further = beyond(self.arms, ranked[0].arm) if alive else below(self.arms)
            if further is None:
                break
            self.arms.append(further)
            ranked = self._ranked(range(len(self.arms)), end)
        return ranked

    def _measured(self, arm: int, to: int, before: dict[str, Any] | None) -> dict[str, Any]:
        trial = self._trials.get(arm) or self._thawed(arm, before)
        trial.advance(to, self.asked)
        trial.save(self.place(arm))
        return {
            "step": trial.done,
            "scores": score(trial, self.held),
            "losses": trial.losses,
            "norms": trial.norms,
            "dead": trial.dead,
        }

    def _thawed(self, arm: int, before: dict[str, Any] | None) -> Trial:
        trial = self._trials[arm] = Trial(self.job_of(arm), self.fewer(arm, self.plan.updates))
        if before:
            trial.load(self.place(arm), before["step"])
        return trial

    def _cut(self, number: int) -> bool:
        return self.journal.once(f"cut-{number}", lambda: self.late())

    def _told(self, number: int, end: int, ranked: Sequence[Standing], going: Sequence[int]) -> Evidence:
        best = ranked[0]
        names = ", ".join(self.arms[arm].name for arm in sorted(going))
        loss, leads = self.loss(best.arm), self.arms[best.arm].name
        why = f"after {self.long(end)} each; {self.held.loss} {loss:.4g} for {leads}"
        rows = [self.row(one, one.arm in going) for one in ranked]
        start = self.held.cost if number == 1 and self.held.batches else 0.0
        return Evidence(
            f"rung {number}",
            names,
            f"{why}; {len(ranked)} arms on {self.held.examples or 'their own'} examples",
            rows,
            seconds=sum(
                self.journal.took.get(f"arm-{one.arm}-{self.fewer(one.arm, end)}", 0.0) for one in ranked
            ),
            gradients=round(start + sum(self._made(one.arm) + self.held.cost for one in ranked)),
            picture={
                "kind": "curves",
                "lines": [self._curve(one.arm) for one in ranked],
                "leads": self.arms[best.arm].name,
                "y": "training loss",
                "said": "arms: the loss of each batch before it is trained on",
            },
        )

    def long(self, end: int) -> str:
        """How long arms have trained to this end of the default's."""
        return f"the time of {end} updates of {self.job.recipe.rule}" if self.slow else f"{end} updates"

    def _made(self, arm: int) -> int:
        """Updates of an arm on its latest rung."""
        before = self.before.get(arm)
        return self.results[arm]["step"] - (before["step"] if before else 0)

    def row(self, one: Standing, goes_on: bool) -> dict[str, Any]:
        """An arm as evidence shows it."""
        row: dict[str, Any] = {"arm": self.arms[one.arm].name, "updates": self.results[one.arm]["step"]}
        row |= {"loss": plain(self.loss(one.arm)), "counted": plain(one.loss)}
        behind = {"behind": plain(one.behind), "error": plain(one.error)}
        return row | behind | {"kept": goes_on, "dead": self.results[one.arm]["dead"]}

    def _curve(self, arm: int) -> dict[str, Any]:
        losses = self.results[arm]["losses"]
        every = max(1, -(-len(losses) // POINTS))
        blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
        means = [plain(sum(block) / len(block)) for block in blocks]
        steps = [min(i + every, len(losses)) for i in range(0, len(losses), every)]
        return {"name": self.arms[arm].name, "x": steps, "y": means}
