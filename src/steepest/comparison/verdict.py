"""`Verdict`: who is better, by how much, how sure that is, and how soon each came to the target."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np

from steepest.comparison.plan import LEVEL
from steepest.comparison.runs import Result
from steepest.comparison.statistics import bca, holm, least_pairs, pairs_needed, sign_flip, time_to

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


def level_of(earlier: Sequence[int], strategies: int) -> float:
    """What to test at after verdicts on so many seeds each: LEVEL/2ᵏ after k of them, so that the chance of a
    false claim in any is below 2·LEVEL. With seeds too few to separate anything nothing was risked."""
    level = LEVEL
    for seeds in sorted(earlier):
        if seeds >= least_pairs(level / max(strategies - 1, 1)):
            level /= 2
    return level


def noted(path: Path) -> list[int]:
    """The seeds of every verdict on all of its runs, as verdict.json holds them."""
    return json.loads(path.read_text(encoding="utf-8")).get("looks", []) if path.exists() else []


@dataclass(frozen=True)
class Standing:
    """One strategy by itself.   mean, spread   of the metric that is judged, over the seeds that have one
    failed    runs that ended without a number;   reached   runs that came to the target and held it
    time      the median of their times to the target, a miss counted as the longest run
    lr        the rate of its runs, the median where each has measured its own
    spent     means of steps, seconds and gradient evaluations, searches included
    metrics   means of all that was measured at the end, test/… among it"""

    strategy: str
    lr: float | None
    runs: int
    failed: int
    mean: float
    spread: float
    reached: int
    time: float
    spent: Mapping[str, float]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What the runs so far allow to be said.

    metric, falls  what is judged, and whether less of it is better
    target         the median of the reference's last evaluations; None where it has none
    limit          the longest run, which stands for the time of a run that misses the target
    differences    of the metric, for every two strategies
    times          logarithms of ratios of times to the target, for every strategy over the reference
    done, asked    runs
    unit           what times to the target are counted in
    earlier        seeds of the verdicts before this one;   level  what it is tested at for them"""

    metric: str
    falls: bool
    reference: str
    target: float | None
    limit: float
    standings: Sequence[Standing]
    differences: Sequence[Finding]
    times: Sequence[Finding]
    done: int
    asked: int
    earlier: Sequence[int]
    level: float
    unit: str = "time"


def judged(
    names: Sequence[str],
    reference: str,
    results: Sequence[Result],
    *,
    metric: str,
    falls: bool,
    asked: int,
    earlier: Sequence[int] = (),
    unit: str = "time",
) -> Verdict:
    """The verdict on runs that have ended, of these strategies, beside the reference, after earlier ones."""
    runs = {name: {one.seed: one for one in results if one.strategy == name} for name in names}
    target = _target(runs[reference])
    limit = max((one.at[-1] for one in results if one.at), default=math.nan)
    reached = {name: _times(runs[name], target, limit, falls) for name in names}
    others = [name for name in names if name != reference]
    level = level_of(earlier, len(names))
    later = level_of([*earlier, max(map(len, runs.values()))], len(names))
    values = {name: {seed: one.value for seed, one in held.items()} for name, held in runs.items()}
    times = {name: {seed: at or None for seed, (at, _) in held.items()} for name, held in reached.items()}
    differences = [_pairs(a, b, values, operator.sub) for a, b in combinations(names, 2)]
    ratios = [_pairs(a, reference, times, _log_ratio) for a in others] if target is not None else []
    return Verdict(
        metric=metric,
        falls=falls,
        reference=reference,
        target=target,
        limit=limit,
        standings=[_standing(name, runs[name], reached[name], limit) for name in names],
        differences=findings(differences, level, later),
        times=findings(ratios, level, later),
        done=len(results),
        asked=asked,
        earlier=earlier,
        level=level,
        unit=unit,
    )


def _target(runs: Mapping[int, Result]) -> float | None:
    """The median of the last evaluations of the runs that did not fail."""
    last = [one.values[-1] for one in runs.values() if not one.failed and one.values]
    return median(last) if last else None


def _times(
    runs: Mapping[int, Result], target: float | None, limit: float, falls: bool
) -> dict[int, tuple[float, bool]]:
    """(time to the target, whether it was reached) of each seed; a run that misses it has the whole time.

    A run that failed has missed it, whatever it came to on the way: it ships nothing."""
    if target is None:
        return {}
    sign = 1.0 if falls else -1.0
    found = {}
    for seed, one in runs.items():
        whole = not one.failed and len(one.at) > 0
        time = time_to(one.at, [sign * v for v in one.values], sign * target) if whole else math.inf
        found[seed] = (min(time, limit), math.isfinite(time))
    return found


def _log_ratio(a: float, b: float) -> float:
    return math.log(a / b)


def _pairs(
    first: str,
    second: str,
    numbers: Mapping[str, Mapping[int, float | None]],
    less: Callable[[float, float], float],
) -> Pairs:
    """What `less` makes of both numbers of every seed that the two strategies have in common."""
    common = sorted(numbers[first].keys() & numbers[second].keys())
    both = [(numbers[first][seed], numbers[second][seed]) for seed in common]
    told = [less(a, b) for a, b in both if a is not None and b is not None]
    return Pairs(first, second, told, len(common) - len(told))


def _standing(
    name: str, runs: Mapping[int, Result], reached: Mapping[int, tuple[float, bool]], limit: float
) -> Standing:
    held = list(runs.values())
    values = [one.value for one in held if one.value is not None]
    good = [one.metrics for one in held if not one.failed]
    kinds = dict.fromkeys(kind for metrics in good for kind in metrics)
    rates = [one.lr for one in held if one.lr is not None]
    return Standing(
        strategy=name,
        lr=median(rates) if rates else None,
        runs=len(held),
        failed=sum(one.failed for one in held),
        mean=fmean(values) if values else math.nan,
        spread=stdev(values) if len(values) > 1 else math.nan,
        reached=sum(hit for _, hit in reached.values()),
        time=median(time for time, _ in reached.values()) if reached else math.nan,
        spent={key: fmean(one.spent[key] for one in held) for key in (held[0].spent if held else ())},
        metrics={kind: fmean(one[kind] for one in good if kind in one) for kind in kinds},
    )
