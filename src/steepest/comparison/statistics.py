"""Statistics of comparisons: intervals, tests and times to a target, for few and paired runs.

Pairs share start, split and order of batches; what is judged is one number a pair, the difference of losses
or the logarithm of a ratio of times. A claim needs both: an interval without zero and a small `sign_flip`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

DRAWS = 10_000
"""Resamples; the error of a 95 % end is then about 0.2 % of probability."""

EVERY = 40
"""Pairs up to which all signs are tried, half of the pairs at a time: 2²⁰ sums each."""

FLIPS = 10 * DRAWS
"""Draws of signs for more pairs than that: no p is then below 2/FLIPS."""

ROUNDING = 1e-13
"""Of the sum of sizes: sums that differ by less are equal."""

Statistic = Callable[..., np.ndarray | float]


def bca(
    values: Sequence[float] | np.ndarray,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval of a statistic (Efron 1987).

    Of one value, or of values that are all equal, nothing is known of their spread: (nan, nan). With fewer
    than about ten values the interval is too short; it then covers 80 to 90 % instead of 95 %."""
    held = np.asarray(values, np.float64)
    if len(held) < 2 or np.ptp(held) == 0:
        return np.nan, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (held,),
            statistic,
            n_resamples=draws,
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)


def sign_flip(differences: Sequence[float] | np.ndarray, draws: int = FLIPS) -> float:
    """Two-sided p that the mean of paired differences is zero, were each sign a coin's.

    All 2ⁿ signs count up to EVERY pairs; n pairs cannot give less than 2/2ⁿ, so that five never reach 0.05
    and six do. Of more pairs so many signs are drawn."""
    held = np.asarray(differences, np.float64)
    if len(held) < 2:
        return 1.0
    if len(held) <= EVERY:
        return _of_every_sign(held)

    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(x, axis)

    found = stats.permutation_test(
        (held,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=DRAWS,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _of_every_sign(held: np.ndarray) -> float:
    """The share of the sums under all signs that are as far from zero as the one that was seen: each sum of
    one half of the pairs with as many of the other half, in order, as bring it there."""
    one, other = _sums(held[: len(held) // 2]), _sums(held[len(held) // 2 :])
    away = abs(held.sum()) - ROUNDING * np.abs(held).sum()
    beyond = len(other) - np.searchsorted(other, away - one)
    return min(1.0, 2 * float(beyond.sum() / (len(one) * len(other))))


def _sums(held: np.ndarray) -> np.ndarray:
    """All sums under all signs, in order."""
    sums = np.zeros(1)
    for difference in held:
        sums = np.concatenate((sums - difference, sums + difference))
    return np.sort(sums)


def least_pairs(level: float = 0.05) -> int:
    """Fewest pairs with which the sign-flip test can fall to this level: the least n with 2/2ⁿ ≤ level."""
    return math.ceil(math.log2(2 / level))


def pairs_needed(
    differences: Sequence[float] | np.ndarray, level: float = 0.05, power: float = 0.8, most: int = 1000
) -> int | None:
    """Pairs that would show such a mean difference amid such a spread, with this chance; None: over `most`.

    Of the two-sided t test at `level`, and never fewer than the sign-flip test needs. The mean and the spread
    are taken as seen: from few pairs the number is a rough one."""
    held = np.asarray(differences, np.float64)
    mean, spread = (abs(held.mean()), held.std(ddof=1)) if len(held) > 1 else (0.0, 0.0)
    if mean == 0:
        return None
    pairs = np.arange(least_pairs(level), most + 1)
    if spread == 0:
        return int(pairs[0])
    away = np.minimum(mean / spread * np.sqrt(pairs), 30)  # beyond 30 the chance is 1, and its tail a NaN
    enough = stats.nct.sf(stats.t.isf(level / 2, pairs - 1), pairs - 1, away) >= power
    return int(pairs[np.argmax(enough)]) if enough.any() else None


def holm(ps: Sequence[float] | np.ndarray) -> np.ndarray:
    """The same p, so enlarged that a limit on each is one on a single error among all (Holm 1979).

    p₍ᵢ₎ ← max over j ≤ i of (m - j + 1)·p₍ⱼ₎, at most 1"""
    held = np.asarray(ps, np.float64)
    order = np.argsort(held)
    enlarged = np.maximum.accumulate(held[order] * np.arange(len(held), 0, -1))
    adjusted = np.empty_like(held)
    adjusted[order] = np.minimum(enlarged, 1)
    return adjusted


def time_to(times: Sequence[float], values: Sequence[float], target: float) -> float:
    """When a curve first is at or below a target, and at the next point too; else infinity.

    Between two points along a line. The last point has none after it, and counts by itself."""
    t, v = np.asarray(times, np.float64), np.asarray(values, np.float64)
    reached = v <= target
    holds = reached & np.append(reached[1:], True)
    if not holds.any():
        return np.inf
    first = int(np.argmax(holds))
    if first == 0:
        return float(t[0])
    share = (v[first - 1] - target) / (v[first - 1] - v[first])
    return float(t[first - 1] + share * (t[first] - t[first - 1])) if np.isfinite(share) else float(t[first])


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of the middle half: moved by no single outlier, and steadier than the median."""
    return float(stats.trim_mean(np.asarray(values, np.float64), 0.25))


def improvement(ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> float:
    """The chance that one of ours is below one of theirs, ties by half (Mann & Whitney 1947)."""
    a, b = np.asarray(ours, np.float64)[:, None], np.asarray(theirs, np.float64)
    return float(np.mean((a < b) + 0.5 * (a == b)))


def stratified(
    strata: Sequence[np.ndarray],
    statistic: Callable[[Sequence[np.ndarray]], float],
    level: float = 0.95,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The bootstrap interval of a number that is made of several samples, each resampled by itself along its
    first axis: of tasks that are given, and of seeds that are not.

    Of n rows n - 1 are drawn, with which the variance of a mean is that of s²/n and not (n - 1)/n of it, half
    where there are two; with so few the interval is too short all the same, as Student's t says."""
    chance, sizes = np.random.default_rng(0), [max(len(rows) - 1, 1) for rows in strata]

    def drawn() -> list[np.ndarray]:
        return [rows[chance.integers(len(rows), size=size)] for rows, size in zip(strata, sizes, strict=True)]

    resampled = [statistic(drawn()) for _ in range(draws)]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
