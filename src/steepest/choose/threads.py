"""How many threads: updates timed under some counts. Only for budgets in seconds: it asks the clock."""

from __future__ import annotations

import os
import time

import torch

from steepest.choose.trial import Trial
from steepest.evidence import Evidence
from steepest.train.job import Job

WARM, TIMED = 2, 5
"""Updates before, and updates of which the shortest counts: others may use the machine too."""


def threads(job: Job) -> Evidence:
    """The number of threads under which an update is shortest; fewer where they are as good within 5 %."""
    began, usual = time.perf_counter(), torch.get_num_threads()
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    trial, lasted = Trial(job, 10**6), {}
    try:
        for count in sorted({1, max(free // 2, 1), free}):
            torch.set_num_threads(count)
            lasted[count] = _shortest(trial)
    finally:
        torch.set_num_threads(usual)
    best = min(lasted.values())
    chosen = next(count for count, seconds in lasted.items() if seconds <= 1.05 * best)
    rows = [
        {"threads": count, "ms": 1e3 * seconds, "kept": count == chosen} for count, seconds in lasted.items()
    ]
    why = f"{1e3 * lasted[chosen]:.3g} ms an update, the shortest of {TIMED}"
    return Evidence("num_threads", chosen, why, rows, time.perf_counter() - began, gradients=trial.done)


def _shortest(trial: Trial) -> float:
    trial.advance(trial.done + WARM)
    found = float("inf")
    for _ in range(TIMED):
        began = time.perf_counter()
        trial.advance(trial.done + 1)
        found = min(found, time.perf_counter() - began)
    return found
