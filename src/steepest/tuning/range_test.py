"""A range test of a candidate: its rule on a copy of the network, under a rate that grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from itertools import count, islice
from statistics import median
from typing import Any

import numpy as np
import torch

from steepest.data import rng
from steepest.data.batches import count as examples_of
from steepest.optim.lr_finder import GROWTH, Edge, edge
from steepest.train import memory
from steepest.train.growth import steady
from steepest.train.job import Job
from steepest.tuning.candidates import Candidate
from steepest.tuning.constants import FORWARD, RANGE
from steepest.tuning.trial import Trial

ENDLESS = 10**9
"""Updates that no test reaches."""

LOWER = 1e-3
"""What the range begins at, in shares of the usual one, where the loss left from the first rates on."""


def range_test(job: Job, candidate: Candidate, steps: int, asked: Callable[[], object]) -> dict[str, Any]:
    """The edge of divergence of a candidate in about so many updates, as JSON knows it."""
    begin, most = candidate.lr / RANGE[0], candidate.lr * RANGE[1]
    growth = max(GROWTH, (most / begin) ** (1 / steps))
    found, spent = _once(job, candidate, begin, growth, most, asked)
    if found.diverged and not found.fell:
        lower, more = _once(job, candidate, begin * LOWER, growth, begin, asked)
        found = lower if lower.diverged else found  # else the edge lies where it was seen, above these rates
        spent += more
    return asdict(found) | {"gradients": round(spent)}


def _once(
    job: Job, candidate: Candidate, begin: float, growth: float, most: float, asked: Callable[[], object]
) -> tuple[Edge, float]:
    """(the edge, gradient evaluations: of all rates beforehand a forward pass, of those tried the rest)."""
    now, number = [begin], count()
    tried = job.having(candidate.settings(), lambda step: now[0])
    trial = Trial(replace(tried, source=steady(tried.source)), ENDLESS)
    still = _still(trial.job, math.ceil(math.log(most / begin, growth)) + 2)

    def step(rate: float) -> float:
        now[0] = rate
        asked()
        return next(going, math.nan) - still[next(number)]  # a trial that died is over

    with closing(trial.updates(ENDLESS)) as going:
        found = edge(step, start=begin, growth=growth, most=most)
    return found, len(found.rates) + FORWARD * len(still)


def _still(job: Job, updates: int) -> list[float]:
    """How far the loss of each batch lies above the usual one, under the weights of the start.

    What is left of the losses of a range test without that is what its rates have done."""
    with rng.preserved(job.model), torch.no_grad():
        rng.begin(job.recipe.seed)
        windows = islice(job.source.start(0), updates)
        losses = [_mean(job, window) for window in windows]
    usual = median(losses)
    return [loss - usual if math.isfinite(loss) else 0.0 for loss in losses]


def _mean(job: Job, window: list[Any]) -> float:
    parts = [
        found for batch in window for found in memory.by_parts(job.outputs, batch, memory.fewest(job.model))
    ]
    losses = [float(job.losses(outputs, part)) for outputs, part in parts]
    return float(np.average(losses, weights=[examples_of(part) for _, part in parts]))
