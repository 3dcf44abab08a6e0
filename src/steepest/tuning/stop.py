"""When to stop: how long to wait, and what counts as gain, from the measured noise of evaluations."""

from __future__ import annotations

import math

import numpy as np

from steepest.evidence import Evidence
from steepest.train import budget
from steepest.train.job import Job
from steepest.tuning.constants import GAIN, PATIENCE, PATIENT
from steepest.tuning.race import Race

USUAL = 6
"""Evaluations without gain where nobody knows how many there will be: as under a level schedule."""

SMALL = 0.002
"""Largest gain that is asked for, as a share of the loss: early differences are noisier than later ones."""


def stopping(job: Job, race: Race, arm: int, updates: int) -> Evidence:
    """Patience and least gain of the machine that lowers the rate before it ends a run.

    min_delta = GAIN·sd(L_now - L_before)/√n, pairs of held-out losses of one arm; at most SMALL·L"""
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    planned = updates // every if every else 0
    usual = max(PATIENCE, math.ceil(PATIENT * planned)) if planned else USUAL
    patience = job.asked.patience or usual
    gain, why = _gain(job, race, arm)
    least = f"a gain of {gain:.2g}" if gain else "any gain"
    of = f" of {planned}" if planned else ""
    why = f"{patience}{of} evaluations without {least} lower the rate; {why}"
    return Evidence("stop", {"patience": patience, "min_delta": gain}, why)


def _gain(job: Job, race: Race, arm: int) -> tuple[float, str]:
    rows, before = job.prepared.sizes.get("val"), race.before.get(arm)
    if job.recipe.monitor != "val/loss" or not race.held.batches or before is None or not rows:
        return 0.0, "no noise was measured"
    now = np.asarray(race.results[arm]["scores"])
    apart = now - np.asarray(before["scores"])
    if len(apart) < 2 or not np.isfinite(apart).all():
        return 0.0, "no noise was measured"
    error = float(np.std(apart, ddof=1)) / math.sqrt(rows)
    why = f"{GAIN:g} standard errors of a difference of losses on {rows} rows, at most {SMALL:g} of the loss"
    return min(GAIN * error, SMALL * abs(float(now.mean()))), why
