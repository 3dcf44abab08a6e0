"""Two ways to do a thing, timed in turn: what counts is the ratio of neighbours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

Step: TypeAlias = Callable[[], object]


def seconds(step: Step, block: int = 1) -> float:
    """Time of one step, over a block of them."""
    began = time.perf_counter()
    for _ in range(block):
        step()
    return (time.perf_counter() - began) / block


def compare(ours: Step, theirs: Step, block: int, pairs: int) -> dict[str, float]:
    """Medians of both in µs, and of the paired ratios with their quartiles."""
    times = []
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        took = {step: seconds(step, block) for step in order}
        times.append((took[ours], took[theirs]))
    low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
    mine, other = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    return {"ours_us": mine, "theirs_us": other, "ratio": ratio, "quartile_1": low, "quartile_3": high}


def fastest(steps: dict[str, Step], times: int) -> str:
    """The name of the step with the smallest median; all are timed in turn."""
    took = {name: [] for name in steps}
    for _ in range(times):
        for name, step in steps.items():
            took[name].append(seconds(step))
    return min(steps, key=lambda name: statistics.median(took[name]))
