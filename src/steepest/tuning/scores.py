"""Scores: the losses of held-out examples, one by one, so that two arms can be compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from steepest.data.batches import batches, count
from steepest.data.rng import preserved
from steepest.train import budget, memory
from steepest.train.average import renew_statistics
from steepest.train.job import Job
from steepest.tuning.constants import FEWEST_ROWS, FORWARD, SCORED, SEEN, STATISTICS
from steepest.tuning.trial import Trial

Shown = Callable[[], AbstractContextManager[None]]
"""What puts other weights into the network for a while."""


@dataclass(frozen=True)
class Held:
    """What arms are scored on: examples that none of them trains on, the same for all.

    batches   of the examples, in order;   examples  how many
    cost      of one score, in gradient evaluations;   why  where they are not of a validation part"""

    batches: tuple[Any, ...]
    examples: int
    cost: float
    why: str = ""

    @property
    def loss(self) -> str:
        """What the mean of a score is called."""
        return "held-out loss" if self.batches else "loss on training batches"


def held_out(job: Job, allowed: float, scores: int) -> Held:
    """Examples for so many scores that together may cost `allowed` gradient evaluations."""
    if why := too_few(job):
        stands_in = "losses of training batches, each taken before it is trained on, stand in"
        return Held((), 0, 0.0, f"{why}; {stands_in}")
    size = job.size
    wanted = int(min(max(allowed / scores * size / FORWARD, SCORED[0]), SCORED[1]))
    at_once = min(size, max(wanted // 16, 8))  # a loss that gives one number a batch then gives 16
    source = batches(job.prepared.val, at_once, seed=job.recipe.seed)
    taken = tuple(window[0] for window in islice(source.once(), -(-wanted // at_once)))
    examples = sum(count(batch) for batch in taken)
    return Held(taken, examples, examples / job.size * FORWARD + renewal(job))


def too_few(job: Job) -> str:
    """Why arms cannot be compared on the validation part; empty where they can."""
    rows = job.prepared.sizes.get("val")
    if job.prepared.val is not None and (rows is None or rows >= FEWEST_ROWS):
        return ""
    return f"the validation part has {rows or 'no'} rows, too few to compare on"


def least(job: Job) -> float:
    """Gradient evaluations that the examples of a score cost at least, which is to say something."""
    return SCORED[0] / job.size * FORWARD


def renewal(job: Job) -> float:
    """Gradient evaluations that batch norms cost in each score, which are measured anew."""
    return _renewed(job.model) * FORWARD


def evaluations(job: Job, updates: int) -> float:
    """Gradient evaluations that the looks of a run at its validation part come to."""
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    rows = job.prepared.sizes.get("val")
    if not every or not rows:
        return 0.0
    return updates // every * FORWARD * rows / job.size


def score(trial: Trial, held: Held) -> list[float]:
    """The loss of each held-out example under averaged weights; infinite for a dead trial."""
    if trial.dead:
        return [math.inf]
    if not held.batches:
        return trial.losses[-max(round(SEEN * len(trial.losses)), min(len(trial.losses), 5)) :]
    return losses(trial.job, held, _shown(trial))


def losses(job: Job, held: Held, shown: Shown = nullcontext) -> list[float]:
    """The loss of each held-out example, batch norms measured anew."""
    model = job.model
    with preserved(model, training=False), shown(), torch.no_grad():
        renew_statistics(model, (job.inputs(w[0]) for w in islice(job.source.once(), _renewed(model))))
        return np.concatenate([_losses(job, batch) for batch in held.batches]).tolist()


def _losses(job: Job, batch: Any) -> np.ndarray:
    found = memory.by_parts(job.losses_by_example, batch)
    return torch.cat([losses.reshape(-1) for losses, _ in found]).cpu().double().numpy()


def _shown(trial: Trial) -> Shown:
    """What puts the weights to score into the network: a rule's own average, or one beside it."""
    return trial.subject.descent.evaluated if trial.subject.descent.averages else trial.average.swapped


def _renewed(model: torch.nn.Module) -> int:
    return STATISTICS if memory.normed(model) else 0
