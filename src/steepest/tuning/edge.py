"""The edge of divergence: the largest rate at which the loss still falls, found by a rate that grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from steepest.tuning.constants import GROWTH, SUGGESTED

FIRST = 5
"""Losses at the start that others are measured against."""

SMOOTHED = (1.5, 1.2)
"""Largest growth at which a loss is the median with its neighbours on either side, and with those next to
them; further apart they belong to other rates."""

FELL, GONE = 0.02, 0.1
"""Shares of the first loss by which a loss must change to count as fallen, and as gone: less is how the
weights happen to suit a batch."""

IN_A_ROW = 3
"""Losses above the bound that make a divergence: one may be a hard batch."""


@dataclass(frozen=True)
class Edge:
    """What a range test has found.

    rate      the largest at which the loss still fell; the last tried where it never rose
    diverged  whether the loss was seen to leave for good; else `rate` is only a lower bound
    fell      whether the loss fell at all
    rates, losses  the curve: the loss of each update, before it, and its rate
    why       the same as a clause"""

    rate: float
    diverged: bool
    fell: bool
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    why: str

    @property
    def suggestion(self) -> float:
        """A rate to train with, as far below the edge as what the test has not seen asks for."""
        return self.rate / SUGGESTED


def edge(
    step: Callable[[float], float], *, start: float = 1e-6, growth: float = GROWTH, most: float = 10.0
) -> Edge:
    """The edge of divergence of whatever `step` trains.

    step    makes one update at the rate that it is given and returns the loss before it, on a fresh batch
    start, growth, most  the first rate, the factor to the next, and the last

    A rate shows in the loss of the update after it, and smoothing looks both ways, so that nothing lags."""
    rates: list[float] = []
    losses: list[float] = []
    rate = start
    while rate <= most * growth and not _gone(losses):  # the last one shows the effect of `most`
        losses.append(step(rate))
        rates.append(rate)
        rate *= growth
    return read_off(rates, losses)


def read_off(rates: Sequence[float], losses: Sequence[float]) -> Edge:
    """The edge in a curve that was measured."""
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    wide = sum(rates[1] <= rates[0] * growth for growth in SMOOTHED) if len(rates) > 1 else 0
    smooth = [median(finite[max(0, i - wide) : i + wide + 1]) for i in range(len(finite))]
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    first, noise = _start(finite)
    drop, least = first - smooth[lowest], max(noise, FELL * abs(first))
    fell = drop > least
    rose = smooth[-1] - smooth[lowest] > max(least, drop / 2)
    diverged = _gone(losses) or (fell and rose)
    # The loss at `lowest` is what the rate before it has done. Without noise it falls on for some steps while
    # the steepest direction grows back from nearly nothing: 2 to 4 times the true edge, as measured.
    if diverged and not fell:
        lowest = _last_at_start(finite, first + least)
    rate = rates[max(lowest - 1, 0)] if diverged else rates[max(len(rates) - 2, 0)]
    how = "the loss fell up to" if fell else "the loss stayed up to"
    how = how if diverged else "the loss did not leave up to"
    return Edge(rate, diverged, fell, tuple(rates), tuple(losses), f"{how} a rate of {rate:.2g}")


def _gone(losses: Sequence[float]) -> bool:
    """Whether a curve ends in divergence: not finite, or clearly above its start for some steps.

    bound = start + max(noise, 0.3·drop, 0.1·|start|)"""
    if losses and not math.isfinite(losses[-1]):
        return True
    if len(losses) < FIRST + IN_A_ROW:
        return False
    begin, noise = _start(losses)
    bound = begin + max(noise, 0.3 * max(0.0, begin - min(losses)), GONE * abs(begin))
    return all(loss > bound for loss in losses[-IN_A_ROW:])


def _start(losses: Sequence[float]) -> tuple[float, float]:
    """Median and range of the first losses; the range of five is 2.3 standard deviations."""
    first = losses[:FIRST]
    return median(first), max(first) - min(first)


def _last_at_start(losses: Sequence[float], bound: float) -> int:
    """The last place at which the loss was no higher than at the start."""
    return max((i for i, loss in enumerate(losses) if loss <= bound), default=0)
