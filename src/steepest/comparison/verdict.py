"""`Verdict`: who is better, by how much, how sure that is, and how soon each came to the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median, stdev

from steepest.comparison.findings import Finding, Pairs, findings
from steepest.comparison.looks import level_of
from steepest.comparison.results import Result
from steepest.comparison.statistics import time_to


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
    times = [_ratios(name, reference, reached) for name in others] if target is not None else []
    return Verdict(
        metric=metric,
        falls=falls,
        reference=reference,
        target=target,
        limit=limit,
        standings=[_standing(name, runs[name], reached[name], limit) for name in names],
        differences=findings([_differences(a, b, runs) for a, b in combinations(names, 2)], level, later),
        times=findings(times, level, later),
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


def _differences(first: str, second: str, runs: Mapping[str, Mapping[int, Result]]) -> Pairs:
    common = sorted(runs[first].keys() & runs[second].keys())
    values = [(runs[first][seed].value, runs[second][seed].value) for seed in common]
    told = [a - b for a, b in values if a is not None and b is not None]
    return Pairs(first, second, told, len(common) - len(told))


def _ratios(first: str, second: str, reached: Mapping[str, Mapping[int, tuple[float, bool]]]) -> Pairs:
    common = sorted(reached[first].keys() & reached[second].keys())
    times = [(reached[first][seed][0], reached[second][seed][0]) for seed in common]
    told = [math.log(a / b) for a, b in times if a > 0 and b > 0]
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
