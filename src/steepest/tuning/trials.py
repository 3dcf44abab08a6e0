"""Short runs under drawn settings: how long they are, how they are scored, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch

from steepest.data.batches import batches, count
from steepest.data.rng import preserved
from steepest.optim.batch import Stochastic
from steepest.optim.errors import UserError
from steepest.train import memory
from steepest.train.evaluation import Evaluation
from steepest.train.fitting import averages, renew
from steepest.train.job import Job
from steepest.tuning.constants import FORWARD, SCORED
from steepest.tuning.trial import Trial

RUNGS = (0.25, 0.5, 1.0)
"""Shares of a trial at which it is scored and may be pruned, each twice the last: successive halving's."""

TRIALS = 20
"""Whole trials that a budget is cut into; pruned ones make room for more."""

FEWEST = 25
"""Updates of the shortest trial, with scores: below, a loss tells more of the start than of the settings."""

SCORES_PART = 0.2
"""Largest share of a trial that its scores are to cost; the rest of FEWEST is training in any case."""


@dataclass(frozen=True)
class Terms:
    """What all trials have in common.

    updates   of a whole trial, in batches of `size` examples, the recipe's
    held      batches of held-out examples;   score  what one score costs, in updates
    trials    how many whole ones the budget holds"""

    updates: int
    size: int
    held: tuple[Any, ...]
    score: float
    trials: int

    @property
    def cost(self) -> float:
        """What a whole trial costs, in updates."""
        return self.updates + len(RUNGS) * self.score


@dataclass(frozen=True)
class Ended:
    """What a trial came to.   loss: the last score;   cost: in updates;   rung: how many scores were taken

    died    whether numbers were not finite;   curve  (cost of training so far, score) at each rung"""

    loss: float
    cost: float
    rung: int
    died: bool
    curve: tuple[tuple[float, float], ...]


def terms(job: Job, allowed: int) -> Terms:
    """The terms on which so many updates are spent. Raises UserError where nothing could be compared."""
    if job.prepared.val is None:
        raise UserError(
            "Trials are compared by their loss on the validation part, and there is none. Give val=0.15, or "
            "data of its own."
        )
    _check_batch(job)
    size, most = job.size, max(min(TRIALS, allowed // FEWEST), 2)
    wanted = SCORES_PART * allowed / most / len(RUNGS) * size / FORWARD
    held = _held(job, int(min(max(wanted, SCORED[0]), SCORED[1])), size)
    score = sum(count(batch[0]) for batch in held) * FORWARD / size
    least = max(FEWEST, round(FEWEST * (1 - SCORES_PART) + len(RUNGS) * score, 6))
    trials = min(most, int(allowed / least))
    if trials < 2:
        raise UserError(
            f"The budget of the search is {allowed} updates. It must hold two trials of {math.ceil(least)} "
            "at least, their scores among them, or nothing is compared. Give a larger --budget."
        )
    updates = math.floor(round(allowed / trials - len(RUNGS) * score, 6))
    return Terms(updates, size, held, score, trials)


def run(
    job: Job,
    settings: Mapping[str, Any],
    under: Terms,
    goes_on: Callable[[int, float], bool],
    asked: Callable[[], object],
) -> Ended:
    """Train a copy of the job's network under these settings, as far as `goes_on` (rung, score) lets it.

    A larger batch makes fewer updates: all trials see as many examples."""
    tried = job.having(settings)
    size = tried.recipe.batch_size if isinstance(tried.recipe.batch_size, int) else under.size
    total = max(round(under.updates * under.size / size), len(RUNGS))
    trial, curve = Trial(tried, total), []
    for rung, share in enumerate(RUNGS, start=1):
        trial.advance(max(round(share * total), rung), asked)
        score = math.inf if trial.dead else loss_of(trial, under.held)
        curve.append((_trained(trial, size) / under.size, score))
        if trial.dead or not math.isfinite(score) or (rung < len(RUNGS) and not goes_on(rung, score)):
            break
    trained, score = curve[-1]
    return Ended(
        score, trained + len(curve) * under.score, len(curve), not math.isfinite(score), tuple(curve)
    )


def _trained(trial: Trial, size: int) -> float:
    """The examples that a trial has seen, each as often as it came."""
    varied = trial.job.source.varied
    return trial.done * size if varied is None else varied.epochs(trial.done) * varied.examples


def _check_batch(job: Job) -> None:
    varied = job.source.varied
    if varied is not None and not isinstance(varied.policy, Stochastic):
        raise UserError(
            f"Trials are compared after as many examples, and under batch_size={str(varied.policy)!r} a "
            'trial takes as many as it finds on its way. Take a number, "full" or a stochastic batch, or '
            'engine="steepest".'
        )


@torch.no_grad()
def loss_of(trial: Trial, held: tuple[Any, ...]) -> float:
    """The mean loss on held-out examples of the weights that a run of these settings would ship."""
    subject, job = trial.subject, trial.job
    averaged = subject.average.swapped if subject.average is not None else None
    shipped = subject.descent.evaluated if subject.descent.averages else averaged
    measured = Evaluation(job.model, partial(_mean, job, held), "val/loss", shipped)
    return measured(0.0)[1]


def _mean(job: Job, held: tuple[Any, ...]) -> dict[str, float]:
    if averages(job):
        renew(job)
    with preserved(job.model, training=False):
        seen = (found for batch in held for found in memory.by_parts(job.outputs, batch))
        parts = [(count(part[0]), float(job.losses(outputs, part))) for outputs, part in seen]
    examples = sum(number for number, _ in parts)
    return {"loss": sum(number * loss for number, loss in parts) / examples}


def _held(job: Job, examples: int, size: int) -> tuple[Any, ...]:
    """So many examples of the validation part, or all, the same for every trial."""
    at_once = min(size, examples)
    source = batches(job.prepared.val, at_once, seed=job.recipe.seed)
    windows = islice(source.once(), -(-examples // at_once))
    return tuple(batch for window in windows for batch in window)
