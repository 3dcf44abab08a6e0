"""`Finding`: what paired runs allow to be said of two strategies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steepest.comparison.power import least_pairs, pairs_needed
from steepest.comparison.statistics import bca, holm, sign_flip

LEVEL = 0.05
"""Chance of one false claim or more among all of one kind that a verdict makes: differences, or times."""
POWER = 0.8
"""Chance with which as many more seeds as are named would separate strategies that differ as seen."""
MOST = 1000
"""Seeds beyond which their number is not named."""


@dataclass(frozen=True)
class Pairs:
    """One number a seed in which both strategies can be judged: what `first` has over `second`.

    lost   seeds in which one of them has no number"""

    first: str
    second: str
    values: Sequence[float]
    lost: int = 0


@dataclass(frozen=True)
class Finding:
    """The mean over pairs with its 95 % interval (BCa), and the p of the sign-flip test.

    p          as it is;   adjusted  after Holm, among all findings of the verdict's kind
    separable  both agree: the interval leaves out 0, and the adjusted p is below the verdict's level. Pairs
               that are alike to the digit have no interval; the test then decides alone
    more       seeds that would separate them were the difference as seen; None: over MOST, or none at all"""

    first: str
    second: str
    mean: float
    spread: float
    low: float
    high: float
    p: float
    adjusted: float
    pairs: int
    lost: int
    among: int
    separable: bool
    more: int | None

    @property
    def known(self) -> bool:
        """Whether there are pairs enough for a spread."""
        return self.pairs > 1

    @property
    def same(self) -> bool:
        """Whether no pair shows any difference."""
        return self.pairs > 0 and self.mean == 0 and (self.spread == 0 or self.pairs == 1)


def findings(groups: Sequence[Pairs], level: float = LEVEL, later: float = LEVEL) -> list[Finding]:
    """Every group judged, with one chance of error for all;   later: that of a verdict on more seeds."""
    ps = [sign_flip(group.values) for group in groups]
    judged = zip(groups, ps, holm(ps).tolist(), strict=True)
    return [_finding(*each, len(groups), level, later) for each in judged]


def _finding(group: Pairs, p: float, adjusted: float, among: int, level: float, later: float) -> Finding:
    held = np.asarray(group.values, np.float64)
    low, high = bca(held)
    alike = len(held) > 1 and np.ptp(held) == 0 and held[0] != 0
    separable = bool(adjusted < level and (low > 0 or high < 0 or alike))
    return Finding(
        first=group.first,
        second=group.second,
        mean=float(held.mean()) if len(held) else math.nan,
        spread=float(held.std(ddof=1)) if len(held) > 1 else math.nan,
        low=low,
        high=high,
        p=p,
        adjusted=adjusted,
        pairs=len(held),
        lost=group.lost,
        among=among,
        separable=separable,
        more=None if separable else _more(held, later / among),
    )


def _more(held: np.ndarray, level: float) -> int | None:
    """Seeds beyond these; with one pair or none, those without which no test can say anything."""
    if len(held) < 2:
        return least_pairs(level) - len(held)
    needed = pairs_needed(held, level, POWER, MOST)
    return None if needed is None else max(1, needed - len(held))
