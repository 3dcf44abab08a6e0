"""The rate of a strategy that leaves it open: the best of a few short runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steepest.evidence import Evidence

STEP = math.sqrt(10)
"""Factor from one rate to the next: the best rate is then within a factor of 1.8 of one that is tried."""
AROUND = 2
"""Rates tried on either side of the rule's own."""
FARTHEST = 8
"""Most steps away from it that the search walks while the loss still falls that way."""
SHARE = 0.2
"""Of a run's budget that a trial has."""
LEAST = 20
"""Updates of a trial, at least."""
CHOICE = "lr of {}"
"""The name of the choice, for a strategy of that name."""
WORDS = {"y": "result", "said": "what short runs came to at each rate"}
"""What stands on its picture."""

Trial = Callable[[float], tuple[float, float]]
"""Rate → (what the short run came to, less being better, infinite where it failed; gradient evaluations)."""


def measured_rate(name: str, own: float, trial: Trial, known: Mapping[str, Any]) -> Evidence:
    """The rate with the lowest result among own·10^(k/2), k = -2, …, 2, and farther while an end is best.

    own    the rule's own rate;   known  more to be kept about the trials, such as their budget"""
    began = time.perf_counter()
    found = {place: trial(own * STEP**place) for place in range(-AROUND, AROUND + 1)}
    while (place := _beyond(found)) is not None:
        found[place] = trial(own * STEP**place)
    best = _best(found)
    works = math.isfinite(found[best][0])
    rate = own * STEP**best if works else own
    tried = [
        {"lr": own * STEP**k, "result": _told(found[k][0]), "gradients": found[k][1]} for k in sorted(found)
    ]
    return Evidence(
        choice=CHOICE.format(name),
        decided=rate,
        why=_why(own, len(found), known, works),
        candidates=tried,
        seconds=time.perf_counter() - began,
        gradients=round(sum(gradients for _, gradients in found.values())),
        picture=_picture(name, tried, rate),
    )


def _why(own: float, trials: int, known: Mapping[str, Any], works: bool) -> str:
    runs = f"{trials} short runs ({', '.join(f'{key} {value}' for key, value in known.items())})"
    if not works:
        return f"none of {runs} came to a number at any rate; the rule's own stands in"
    return f"the best of {runs} at rates a factor of {STEP:.3g} apart, around {own:g}, the rule's own"


def _picture(name: str, tried: Sequence[Mapping[str, Any]], rate: float) -> dict[str, Any]:
    results = [math.nan if one["result"] is None else one["result"] for one in tried]
    line = {"name": name, "x": [one["lr"] for one in tried], "y": results}
    return {"kind": "range", "lines": [line], "marks": [{"name": "taken", "x": rate}], **WORDS}


def _beyond(found: Mapping[int, tuple[float, float]]) -> int | None:
    """The next place to look at: past the end that is best so far, or below where nothing has worked."""
    best = _best(found)
    low, high = min(found), max(found)
    if not math.isfinite(found[best][0]) or best == low:
        return low - 1 if low > -FARTHEST else None
    return high + 1 if best == high and high < FARTHEST else None


def _best(found: Mapping[int, tuple[float, float]]) -> int:
    """The place of the lowest result; of equal ones the nearest to the rule's own rate."""
    return min(found, key=lambda place: (found[place][0], abs(place)))


def _told(result: float) -> float | None:
    return result if math.isfinite(result) else None
