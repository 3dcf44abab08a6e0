"""How many threads: updates timed under some counts. Only for budgets in seconds: it asks the clock."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import torch

from steepest.evidence import Evidence
from steepest.train.job import Job
from steepest.tuning.trial import Trial

WARM, TIMED = 2, 5
"""Updates before, and updates at most of which the shortest counts: others may use the machine too."""

SHARE = 0.02
"""Of the budget, for all counts together, where three updates of each take no longer."""


def threads(job: Job, seconds: float) -> Evidence:
    """The number of threads under which an update is shortest; fewer where they are as good within 5 %.

    seconds: the budget"""
    began, usual = time.perf_counter(), torch.get_num_threads()
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts, lasted, made = sorted({1, max(free // 2, 1), free}), {}, 0
    try:
        for count in counts:
            torch.set_num_threads(count)
            spans = _spans(Trial(job, 10**6), SHARE * seconds / len(counts))
            lasted[count], made = min(spans[WARM:] or spans, default=float("inf")), made + len(spans)
    finally:
        torch.set_num_threads(usual)
    best = min(lasted.values())
    chosen = next(count for count, seconds in lasted.items() if seconds <= 1.05 * best)
    rows = [
        {"threads": count, "ms": 1e3 * seconds, "kept": count == chosen} for count, seconds in lasted.items()
    ]
    why = f"{1e3 * lasted[chosen]:.3g} ms an update, the shortest of up to {TIMED}"
    return Evidence("num_threads", chosen, why, rows, time.perf_counter() - began, gradients=made)


def _spans(trial: Trial, most: float) -> list[float]:
    """Seconds of each update, as many as fit into `most`: all in one go, since to leave a trial and to come
    back to it copies all that it holds."""
    marks = [time.perf_counter()]
    for _ in trial.updates(WARM + TIMED):
        marks.append(time.perf_counter())
        if len(marks) > WARM + 1 and marks[-1] - marks[0] >= most:
            break
    return [after - before for before, after in pairwise(marks)]
