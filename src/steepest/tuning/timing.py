"""Updates timed in the loop of `fit` itself: how many a budget in seconds holds, how long those of other
rules take, and how many threads are best. Only for budgets in seconds: it asks the clock."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from steepest.evidence import Evidence
from steepest.train import budget
from steepest.train.fitting import evaluation_seconds
from steepest.train.job import Job
from steepest.tuning.candidates import Candidate
from steepest.tuning.preflight import Again, read_once
from steepest.tuning.trial import Trial

WARM = 3
"""Updates that are not timed: the first ones make memory and kernels."""

TIMED = (5, 2000)
"""Fewest and most updates that are timed for the length of a run."""

SHARE, LONGEST = 0.02, 2.0
"""Of the budget, and seconds, that timing takes at most, where the fewest updates allow it."""

MARGIN = 0.9
"""Share of the time that is planned with. A run that ends early has lost little; one that is cut has lost the
fall of its rate."""

ROUNDS, EACH = 4, 6
"""How often rules are timed in turn, and updates of each time; the quickest counts, as what else the machine
does only adds."""

BY_THREADS = 5
"""Updates at most, of each number of threads, of which the shortest counts."""


def updates_left(job: Job, seconds: float) -> Evidence:
    """The updates that fit into so many seconds, evaluations shared out over them, timing included."""
    began = time.perf_counter()
    timed = replace(job, source=Again(job.source)) if read_once(job) else job
    each = _each(Trial(timed, 10**9), min(SHARE * seconds, LONGEST))
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    each += evaluation_seconds(job) / every if every else 0.0
    spent = time.perf_counter() - began
    steps = max(1, int(MARGIN * (seconds - spent) / each))
    why = f"{MARGIN:g} of {seconds:.3g} s at {1e3 * each:.3g} ms an update, evaluations included"
    return Evidence("horizon", steps, why, seconds=spent)


def slowness(job: Job, candidates: Sequence[Candidate]) -> Evidence:
    """Seconds of an update of each rule, in those of the first: {rule: ratio}; 1 for one that dies of its own
    default rate, of which nothing is known."""
    trials = [Trial(job.having(one.settings()), 10**9) for one in candidates]
    for trial in trials:
        trial.advance(WARM)
    rounds = [[_timed(trial) for trial in trials] for _ in range(ROUNDS)]
    first, *others = map(min, zip(*rounds, strict=True))
    known = {one.rule: other / first for one, other in zip(candidates[1:], others, strict=True)}
    found = {rule: ratio if 0 < ratio < math.inf else 1.0 for rule, ratio in known.items()}
    said = ", ".join(f"{rule} takes {ratio:.3g} times as long" for rule, ratio in found.items())
    usual = candidates[0].rule
    why = f"an update of {said} as one of {usual}: arms of it race for as many seconds, not updates"
    return Evidence("slowness", found, why, gradients=len(candidates) * (WARM + ROUNDS * EACH))


def threads(job: Job, seconds: float) -> Evidence:
    """The number of threads under which an update is shortest; fewer where they are as good within 5 %.

    seconds: the budget"""
    began, usual = time.perf_counter(), torch.get_num_threads()
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts, lasted, made = sorted({1, max(free // 2, 1), free}), {}, 0
    try:
        for count in counts:
            torch.set_num_threads(count)
            marks = _marks(Trial(job, 10**6), WARM + BY_THREADS, 1, SHARE * seconds / len(counts))
            spans = [after - before for before, after in pairwise(marks)]
            lasted[count], made = min(spans[WARM:] or spans, default=math.inf), made + len(spans)
    finally:
        torch.set_num_threads(usual)
    best = min(lasted.values())
    chosen = next(count for count, seconds in lasted.items() if seconds <= 1.05 * best)
    rows = [
        {"threads": count, "ms": 1e3 * seconds, "kept": count == chosen} for count, seconds in lasted.items()
    ]
    why = f"{1e3 * lasted[chosen]:.3g} ms an update, the shortest of up to {BY_THREADS}"
    return Evidence("num_threads", chosen, why, rows, time.perf_counter() - began, gradients=made)


def _marks(trial: Trial, updates: int, fewest: int, most: float) -> list[float]:
    """Times before the first and after each of so many updates; of fewer, beyond the WARM and the `fewest`,
    once `most` seconds have gone by since they were warm.

    All in one go: to leave a trial and to come back to it copies all that it holds."""
    marks = [time.perf_counter()]
    for _ in trial.updates(trial.done + updates):
        marks.append(time.perf_counter())
        if len(marks) > WARM + fewest and marks[-1] - marks[WARM] >= most:
            break
    return marks


def _each(trial: Trial, most: float) -> float:
    """Seconds of an update, of as many as fit into `most`."""
    marks = _marks(trial, WARM + TIMED[1], TIMED[0], most)
    if len(marks) > WARM + 1:
        return (marks[-1] - marks[WARM]) / (len(marks) - 1 - WARM)
    return (time.perf_counter() - marks[0]) / max(len(marks) - 1, 1)  # it died


def _timed(trial: Trial) -> float:
    """Seconds of an update, without what it takes to come back to the trial; infinite where it is dead."""
    marks = _marks(trial, EACH, EACH, math.inf)[1:]
    return math.inf if trial.dead or len(marks) < 2 else (marks[-1] - marks[0]) / (len(marks) - 1)
