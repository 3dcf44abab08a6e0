"""Where methods end, beside one of them: for budgets beyond that of the targets, and workloads without any.

end        the final metric, median over seeds
ratio      geometric mean over pairs of the same workload and seed; 95 %, seeds resampled within workloads
median     the same ratio, of the workload in the middle
on test    the same ratio of the metric on the test set, which no choice has seen
at best    the same ratio with each run at the lowest point of its curve, wherever its method stops
ends below pairs, and workloads by their medians
searched   the share of its budget that a call of fit did not train the run with: search and evaluations
reached    the pairs in which a method comes to where the other one ends, and at which part of its budget: the
           geometric mean, a miss counting as the whole budget and one more
A run that diverged ends nowhere: it has lost its pair. Ratios count as CAP at most.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from benchmarks.suite import ledger, workloads
from benchmarks.suite.scores import CAP, Record, aligned, final, spent, time_of
from steepest.comparison import statistics
from steepest.optim.errors import UserError

BEST = "best"
"""The metric at the lowest point of a curve, which a record does not hold by itself."""

Ends: TypeAlias = dict[tuple[str, int], Record]
"""Runs of one method and length by workload and seed."""


def report(names: Sequence[str], against: str, length: float, records: Iterable[Record] | None = None) -> str:
    """Both tables of one length."""
    held = _runs(ledger.read("methods") if records is None else records, names, length)
    if against not in held:
        raise UserError(
            f"There is no run of {against!r} of length {length:g}. There are runs of {', '.join(held)}."
        )
    title = f"Ends of runs of {length:g} standard lengths, beside {against}"
    return "\n\n".join([title, _ends(held, names), _beside(held, against), *_searched(held)])


def _runs(records: Iterable[Record], names: Sequence[str], length: float) -> dict[str, Ends]:
    held: dict[str, Ends] = defaultdict(dict)
    for one in records:
        if (one["suite"], one["length"]) == (workloads.VERSION, length) and one["workload"] in names:
            held[one["method"]][one["workload"], one["seed"]] = one
    return dict(sorted(held.items()))


def _ends(held: dict[str, Ends], names: Sequence[str]) -> str:
    rows = [["workload", *held]]
    for name in names:
        found = [[final(run) for (one, _), run in runs.items() if one == name] for runs in held.values()]
        rows.append([name, *(f"{np.median(ends):.4g} ({len(ends)})" if ends else "" for ends in found)])
    return aligned(rows)


def _beside(held: dict[str, Ends], against: str) -> str:
    columns = ("median", "worst", "on test", "at best", "ends below", "of workloads", "reached", "at")
    rows = [["method", f"ratio to {against}", *columns]]
    rows += [[method, *_line(runs, held[against])] for method, runs in held.items() if method != against]
    return aligned(rows)


def _searched(held: dict[str, Ends]) -> list[str]:
    """A line for each method that measures within its budget."""
    lines = []
    for method, runs in held.items():
        shares = {cell: share for cell, run in runs.items() if (share := _search(run)) is not None}
        if shares:
            worst = max(shares, key=lambda cell: shares[cell])
            middle = float(np.median(list(shares.values())))
            lines.append(
                f"{method} searched for {middle:.1%} of its budget in the median of {len(shares)} runs, for "
                f"{shares[worst]:.1%} at most ({worst[0]}, seed {worst[1]})"
            )
    return lines


def _search(run: Record) -> float | None:
    """What of the budget was not spent on the run's own updates; None where there was no search of fit's."""
    told = (run.get("config") or {}).get("evidence", [])
    lengths = [one["decided"] for one in told if one["choice"] == "horizon"]
    return 1 - lengths[-1] / run["budget"] if lengths else None


def _line(ours: Ends, theirs: Ends) -> list[str]:
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return ["no pair"]
    ratios, tested, best = (_ratios(ours, theirs, metric) for metric in ("final", "test", BEST))
    middle = {name: float(np.median(found)) for name, found in ratios.items()}
    worst = max(middle, key=lambda name: middle[name])
    parts = [_part(ours[cell], theirs[cell]) for cell in shared]
    return [
        _mean([np.log(found) for found in ratios.values()]),
        f"{float(np.median(list(middle.values()))):.3f}",
        f"{middle[worst]:.3f} {worst}",
        _mean([np.log(found) for found in tested.values()]),
        _mean([np.log(found) for found in best.values()]),
        _share([one < 1 for found in ratios.values() for one in found]),
        _share([one < 1 for one in middle.values()]),
        _share([part <= 1 for part in parts]),
        f"{math.exp(float(np.mean(np.log(parts)))):.3f}",
    ]


def _share(held: Sequence[bool]) -> str:
    return f"{sum(held)}/{len(held)}"


def _mean(strata: Sequence[np.ndarray]) -> str:
    """The geometric mean, with an interval where there is more than one seed."""

    def mean(drawn: Sequence[np.ndarray]) -> float:
        return float(np.mean([np.mean(one) for one in drawn]))

    if max(map(len, strata)) < 2:
        return f"{math.exp(mean(strata)):.3f}"
    low, high = np.exp(statistics.stratified(strata, mean))
    return f"{math.exp(mean(strata)):.3f} [{low:.3f}, {high:.3f}]"


def _ratios(ours: Ends, theirs: Ends, metric: str) -> dict[str, list[float]]:
    """Of one metric at the end of the pairs, by workload."""
    found: dict[str, list[float]] = defaultdict(list)
    for cell in sorted(ours.keys() & theirs.keys()):
        found[cell[0]].append(_ratio(ours[cell], theirs[cell], metric))
    return found


def _ratio(ours: Record, theirs: Record, metric: str) -> float:
    """Within 1/CAP and CAP."""
    if ours["diverged"] or theirs["diverged"]:
        return 1.0 if ours["diverged"] == theirs["diverged"] else CAP ** (1 if ours["diverged"] else -1)
    return min(max(_value(ours, metric) / _value(theirs, metric), 1 / CAP), CAP)


def _value(run: Record, metric: str) -> float:
    if metric != BEST:
        return float(run[metric])
    return min(run["final"], *(point[2] for point in run["curve"] if point[2] is not None))


def _part(ours: Record, theirs: Record) -> float:
    """The part of our budget after which we are where they end; a miss is one evaluation beyond it."""
    time = time_of(ours, final(theirs), "evaluations")
    return min(time, spent(ours, "evaluations")[1]) / ours["budget"]
