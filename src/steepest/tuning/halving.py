"""Successive halving: candidates side by side on rungs, compared in pairs; worse ones are dropped."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from steepest.evidence import Evidence
from steepest.optim.schedule import Constant, WarmUp
from steepest.train import checkpoint
from steepest.train.job import Job
from steepest.tuning.candidates import Candidate, alike, below, beyond, protected
from steepest.tuning.constants import (
    ALIKE,
    CLEARLY_WORSE,
    CREDIT,
    HALFWAY,
    HARDLY,
    NEARLY,
    SEED_NOISE,
    TIE,
    TREND,
    WORSE,
)
from steepest.tuning.journal import Journal, plain
from steepest.tuning.plan import Plan, going_on
from steepest.tuning.trial import Held, Trial, losses, score


@dataclass(frozen=True)
class Standing:
    """A candidate after a rung.   loss: its mean score;  behind: the best's lead;  z: that in standard
    errors"""

    trial: int
    loss: float
    behind: float
    error: float

    @property
    def z(self) -> float:
        """Standard errors behind the best."""
        return self.behind / self.error if self.behind else 0.0


def standings(scores: Mapping[int, Sequence[float]]) -> list[Standing]:
    """All candidates, the best first; of equal ones the one that comes first.

    behind = mean(Lₐ - L_best)   error² = var(Lₐ - L_best)/n + (SEED_NOISE·L_best)²"""
    means = {trial: float(np.mean(losses)) for trial, losses in scores.items()}
    best = min(means, key=lambda trial: (_ordered(means[trial]), trial))
    found = [_against(trial, scores[trial], scores[best], trial == best) for trial in scores]
    return sorted(found, key=lambda one: (_ordered(one.loss), one.trial))


def credited(
    scores: Mapping[int, Sequence[float]], credit: Mapping[int, float], start: float
) -> dict[int, Sequence[float]]:
    """Losses as if each candidate had come `credit` times as far from the loss of the start, in logarithms: a
    loss
    that is nearly nothing does not fall below it.   L ← L·(mean L/start)^(credit - 1)"""
    return {trial: _scaled(losses, start, credit[trial] - 1) for trial, losses in scores.items()}


def expected(scores: Sequence[float], before: Sequence[float]) -> list[float]:
    """Losses as they would be if a candidate went on as it came.   L ← L·(mean L/mean L₁)^TREND"""
    return _scaled(scores, float(np.mean(before)), TREND)


def _scaled(scores: Sequence[float], before: float, power: float) -> list[float]:
    """Losses after so much more of the way from `before`; as they are where there are no logarithms."""
    now = float(np.mean(scores))
    if not (now > 0 and before > 0 and math.isfinite(now) and math.isfinite(before)):
        return list(scores)
    return [loss * (now / before) ** power for loss in scores]


def survivors(ranked: Sequence[Standing], protected: Sequence[int], start: float, most: int) -> list[int]:
    """The candidates that go on to the next rung; protected ones always do, and the best.

    start: the loss before the first update;   most: how many the plan has room for"""
    half = math.ceil(len(ranked) / 2)
    kept = [
        one.trial
        for place, one in enumerate(ranked)
        if place == 0 or _goes_on(one, place < half, _share(one, ranked[0], start))
    ]
    return list(dict.fromkeys([kept[0], *protected, *kept[1:]]))[: max(most, 1 + len(protected))]


def winner(candidates: Sequence[Candidate], ranked: Sequence[Standing], default: int, start: float) -> int:
    """The best candidate; the default where it cannot be told from it, or where nothing has been learnt
    yet."""
    tied = any(one.trial == default and one.z <= TIE for one in ranked)
    return default if tied or start <= ranked[0].loss else _inner(candidates, ranked)


def _inner(candidates: Sequence[Candidate], ranked: Sequence[Standing]) -> int:
    """The best candidate, or, where it is the highest rate of its rule that is left, the next lower one that
    is as
    good: what is beyond was not seen for as long, and a rate that is too high costs more than one too low."""
    own = [one for one in ranked if alike(candidates[one.trial], candidates[ranked[0].trial])]
    highest, *lower = sorted(own, key=lambda one: candidates[one.trial].lr, reverse=True)
    as_good = [one for one in lower if one.z <= ALIKE]
    return as_good[0].trial if as_good and highest is ranked[0] else ranked[0].trial


def lower(candidates: Sequence[Candidate], ranked: Sequence[Standing], best: int) -> int:
    """The next lower rate than the best candidate's where it is hardly behind: after a single rung high rates
    lead
    that a second one would show to stand still."""
    below = [
        one
        for one in ranked
        if alike(candidates[one.trial], candidates[best]) and candidates[one.trial].lr < candidates[best].lr
    ]
    following = max(below, key=lambda one: candidates[one.trial].lr, default=None)
    return following.trial if following is not None and following.z <= HARDLY else best


def peak(candidates: Sequence[Candidate], best: int, losses: Mapping[int, float]) -> float:
    """The rate between those that were tried: the lowest point of the parabola through the best candidate and
    its
    neighbours, over logarithms; the best candidate's own where it is outermost, not the lowest of the three,
    or
    beside one that is not finite.

    losses  of candidates at the end of one rung"""
    order = sorted(
        (a for a in losses if alike(candidates[a], candidates[best])), key=lambda a: candidates[a].lr
    )
    place = order.index(best)
    three = order[max(place - 1, 0) : place + 2]
    x, y = [math.log(candidates[a].lr) for a in three], [losses[a] for a in three]
    if len(three) < 3 or not all(map(math.isfinite, y)) or y[1] > min(y):
        return candidates[best].lr
    curvature, slope, _ = np.polyfit(np.subtract(x, x[1]), y, 2)
    inside = np.clip(-slope / (2 * curvature), x[0] - x[1], x[2] - x[1]) if curvature > 0 else 0.0
    return math.exp(x[1] + float(inside))


def _share(one: Standing, best: Standing, start: float) -> float:
    """How far a candidate has come, in shares of the way of the best."""
    if not math.isfinite(one.loss) or start <= best.loss:
        return float(one.trial == best.trial)
    return (start - one.loss) / (start - best.loss)


def _goes_on(one: Standing, upper: bool, share: float) -> bool:
    if not math.isfinite(one.loss) or (one.z > CLEARLY_WORSE and share < HALFWAY):
        return False
    return upper or one.z <= WORSE or share >= NEARLY


def _against(trial: int, losses: Sequence[float], best: Sequence[float], is_best: bool) -> Standing:
    mean, least = float(np.mean(losses)), float(np.mean(best))
    noise = SEED_NOISE * abs(least) + 1e-30  # a loss of exactly 0 has no noise of its own
    if is_best or not math.isfinite(mean):
        return Standing(trial, mean, 0.0 if is_best else math.inf, noise)
    n = min(len(losses), len(best))
    apart = np.asarray(losses[-n:]) - np.asarray(best[-n:])
    spread = float(np.var(apart, ddof=1) / n) if n > 1 else 0.0
    return Standing(trial, mean, float(np.mean(apart)), math.sqrt(spread + noise**2))


def _ordered(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


POINTS = 60
"""Points of a curve that is kept for the report."""


@dataclass
class Halving:
    """Candidates side by side on one job.

    candidates    those to begin with; others join them on the first rung
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
    candidates: list[Candidate]
    climbs: bool
    warmup: int | None
    asked: Callable[[], object]
    late: Callable[[], bool]
    charge: Callable[[float], object]
    slow: Mapping[str, float] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    before: dict[int, dict[str, Any]] = field(default_factory=dict)  # results of the rung before
    losses: list[dict[int, float]] = field(default_factory=list)  # mean scores of each rung, by candidate
    _trials: dict[int, Trial] = field(default_factory=dict)
    _start: float | None = None

    def run(self, trial: int, to: int) -> dict[str, Any]:
        """Let a candidate go on to an update: {"step", "scores", "losses", "norms", "dead"}."""
        before = self.results.get(trial)
        if before and (before["dead"] or before["step"] >= to):
            return before
        result = self.journal.once(f"arm-{trial}-{to}", lambda: self._measured(trial, to, before))
        self.results[trial] = result
        self.charge(result["step"] - (before["step"] if before else 0) + self.held.cost)
        if before and before["step"] < result["step"]:
            self.before[trial] = before
            shutil.rmtree(checkpoint.path_of(self.place(trial), before["step"]), ignore_errors=True)
        return result

    def decide(self, tell: Callable[[Evidence], object]) -> list[Standing]:
        """Run all rungs, the first candidate to the last of them; the standings at the end, the best
        first."""
        alive, ranked = list(range(len(self.candidates))), []
        for number, end in enumerate(self.plan.rungs, start=1):
            ranked = self._ranked(alive, end)
            if number == 1 and self.climbs:
                ranked = self._climbed(ranked, end)
            self.losses.append({one.trial: one.loss for one in ranked})
            alive = self._survivors(ranked)
            last = number == len(self.plan.rungs) or self._cut(number)
            tell(self._told(number, end, ranked, [ranked[0].trial] if last else alive))
            if last:
                break
        return ranked

    def _survivors(self, ranked: list[Standing]) -> list[int]:
        always = protected(self.candidates, [one.trial for one in ranked])
        return survivors(ranked, always, self.start(), going_on(len(ranked)))

    def between(self, trial: int) -> float:
        """The rate that the scores of the latest rung point to on which the neighbours of a candidate ran
        too; an
        earlier one may lower it alone, since high rates lead early."""
        *earlier, latest = self.losses
        lr = peak(self.candidates, trial, latest)
        for rung in reversed(earlier):
            if lr == self.candidates[trial].lr:
                lr = min(lr, peak(self.candidates, trial, rung))
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
        """Let all candidates go on under other settings, as a process that resumes would begin them."""
        self.job = job
        self._trials.clear()

    def place(self, trial: int) -> Path:
        """Where the states of a candidate lie."""
        return self.journal.place / f"arm-{trial}"

    def job_of(self, trial: int) -> Job:
        """The job of a candidate."""
        one = self.candidates[trial]
        free = None if self.warmup is None else WarmUp(Constant(one.lr), self.fewer(trial, self.warmup))
        return self.job.having(one.settings(), free)

    def fewer(self, trial: int, updates: int) -> int:
        """The updates of a candidate that take as long as so many of the recipe's rule."""
        return max(round(updates / self.slow.get(self.candidates[trial].rule, 1.0)), min(updates, 1))

    def _ranked(self, candidates: Sequence[int], end: int) -> list[Standing]:
        found = {
            trial: self._expected(self.run(trial, self.fewer(trial, end)), trial) for trial in candidates
        }
        credit = {trial: self._credit(trial, end) for trial in candidates}
        return standings(credited(found, credit, self.start()))

    def _expected(self, result: dict[str, Any], trial: int) -> list[float]:
        before = self.before.get(trial)
        return expected(result["scores"], before["scores"]) if before else result["scores"]

    def _credit(self, trial: int, end: int) -> float:
        by_rung = CREDIT.get(self.candidates[trial].rule)
        return 1.0 if by_rung is None else by_rung[self.plan.rungs.index(end)]

    def risen(self, trial: int) -> float:
        """The share of its rate that a candidate had come to: less than 1 where a rise outlasts successive
        halving."""
        rise = self.fewer(trial, self.warmup) if self.warmup else 0
        return min(1.0, self.results[trial]["step"] / rise) if rise else 1.0

    def loss(self, trial: int) -> float:
        """The mean score of a candidate on its latest rung."""
        return fmean(self.results[trial]["scores"])

    def _climbed(self, ranked: list[Standing], end: int) -> list[Standing]:
        """The standings with rates further out, while the outermost is best and the plan has room; where all
        have died, with lower ones."""
        while len(self.candidates) < self.plan.candidates:
            alive = ranked[0].loss < math.inf
            further = beyond(self.candidates, ranked[0].trial) if alive else below(self.candidates)
            if further is None:
                break
            self.candidates.append(further)
            ranked = self._ranked(range(len(self.candidates)), end)
        return ranked

    def _measured(self, trial: int, to: int, before: dict[str, Any] | None) -> dict[str, Any]:
        running = self._trials.get(trial) or self._thawed(trial, before)
        running.advance(to, self.asked)
        running.save(self.place(trial))
        return {
            "step": running.done,
            "scores": score(running, self.held),
            "losses": running.losses,
            "norms": running.norms,
            "dead": running.dead,
        }

    def _thawed(self, trial: int, before: dict[str, Any] | None) -> Trial:
        running = self._trials[trial] = Trial(self.job_of(trial), self.fewer(trial, self.plan.updates))
        if before:
            running.resume(self.place(trial), before["step"])
        return running

    def _cut(self, number: int) -> bool:
        return self.journal.once(f"cut-{number}", lambda: self.late())

    def _told(self, number: int, end: int, ranked: Sequence[Standing], going: Sequence[int]) -> Evidence:
        best = ranked[0]
        names = ", ".join(self.candidates[trial].name for trial in sorted(going))
        loss, leads = self.loss(best.trial), self.candidates[best.trial].name
        why = f"after {self.long(end)} each; {self.held.loss} {loss:.4g} for {leads}"
        rows = [self.row(one, one.trial in going) for one in ranked]
        start = self.held.cost if number == 1 and self.held.batches else 0.0
        return Evidence(
            f"rung {number}",
            names,
            f"{why}; {len(ranked)} arms on {self.held.examples or 'their own'} examples",
            rows,
            seconds=sum(
                self.journal.took.get(f"arm-{one.trial}-{self.fewer(one.trial, end)}", 0.0) for one in ranked
            ),
            gradients=round(start + sum(self._made(one.trial) + self.held.cost for one in ranked)),
            picture={
                "kind": "curves",
                "lines": [self._curve(one.trial) for one in ranked],
                "leads": self.candidates[best.trial].name,
                "y": "training loss",
                "said": "arms: the loss of each batch before it is trained on",
            },
        )

    def long(self, end: int) -> str:
        """How long candidates have trained to this end of the default's."""
        return f"the time of {end} updates of {self.job.recipe.rule}" if self.slow else f"{end} updates"

    def _made(self, trial: int) -> int:
        """Updates of a candidate on its latest rung."""
        before = self.before.get(trial)
        return self.results[trial]["step"] - (before["step"] if before else 0)

    def row(self, one: Standing, goes_on: bool) -> dict[str, Any]:
        """A candidate as evidence shows it."""
        row: dict[str, Any] = {
            "arm": self.candidates[one.trial].name,
            "updates": self.results[one.trial]["step"],
        }
        row |= {"loss": plain(self.loss(one.trial)), "counted": plain(one.loss)}
        behind = {"behind": plain(one.behind), "error": plain(one.error)}
        return row | behind | {"kept": goes_on, "dead": self.results[one.trial]["dead"]}

    def _curve(self, trial: int) -> dict[str, Any]:
        losses = self.results[trial]["losses"]
        every = max(1, -(-len(losses) // POINTS))
        blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
        means = [plain(sum(block) / len(block)) for block in blocks]
        steps = [min(i + every, len(losses)) for i in range(0, len(losses), every)]
        return {"name": self.candidates[trial].name, "x": steps, "y": means}
