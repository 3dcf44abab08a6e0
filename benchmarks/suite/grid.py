"""The rate chosen alone: `auto rate` beside a grid of rates, everything else the same.

regret      the final metric of `auto rate`, search on the clock, over the lowest of the grid of that seed
rate alone  the metric that the grid has at the chosen rate (a line between the logarithms of its neighbours)
            over that lowest: what the choice costs where the search is for nothing
other seeds what the rate costs that is best in the mean of the other seeds: hindsight, and no choice
The lowest of 15 finals is a lucky one, which makes all three larger than 1 for the best rate there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.suite import ledger, workloads
from benchmarks.suite.running import Wanted
from benchmarks.suite.scores import Record, aligned, final
from steepest.optim.errors import UserError

FILE = "grid"
METHOD = "adamw linear"
CHOSEN = "auto rate"
RATES = [float(lr) for lr in np.geomspace(1e-4, 1e-1, 15)]
SAME = {
    "rule": "adamw",
    "beta1": 0.9,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "warmup": 0.0,
    "schedule": "linear",
}
"""What `auto rate` fixes, in the words of the suite."""

WITHIN = (0.03, 0.10)
"""Regret that is aimed at: in the median, and at worst."""


def wanted(names: Sequence[str], seeds: Sequence[int], length: float) -> list[Wanted]:
    """The chosen rate and the whole grid, in turn over workloads and seeds."""
    return [
        one
        for seed in seeds
        for name in names
        for one in (
            Wanted(FILE, name, CHOSEN, seed, length),
            *(
                Wanted(FILE, name, METHOD, seed, length, number, SAME | {"lr": lr})
                for number, lr in enumerate(RATES)
            ),
        )
    ]


@dataclass(frozen=True)
class Cell:
    """What one seed of one workload tells; the columns of the table.   others: nan where there is one seed"""

    best: float
    chosen: float
    regret: float
    alone: float
    others: float


def report(names: Sequence[str], length: float, records: Iterable[Record] | None = None) -> str:
    """The table: medians over seeds by workload, then median and worst of all workloads × seeds."""
    held = list(ledger.read(FILE) if records is None else records)
    costs = ("regret", "worst", "rate alone", "worst", "other seeds", "worst")
    rows = [["workload", "seeds", "best rate", "chosen", *costs]]
    every: list[Cell] = []
    for name in names:
        cells = _cells(held, name, length)
        best, chosen = (float(np.median([getattr(c, of) for c in cells])) for of in ("best", "chosen"))
        rows.append([name, str(len(cells)), f"{best:.2g}", f"{chosen:.2g}", *_shown(cells)])
        every += cells
    rows.append(["all", str(len(every)), "", "", *_shown(every)])
    median, worst = WITHIN
    aim = f"aimed at: {1 + median:.2f} in the median, {1 + worst:.2f} at worst"
    return f"The rate chosen alone, {length:g} standard lengths; {aim}\n" + aligned(rows)


def _cells(records: Sequence[Record], name: str, length: float) -> list[Cell]:
    """A cell for every seed with a whole grid."""
    own = [
        one
        for one in records
        if (one["suite"], one["workload"], one["length"]) == (workloads.VERSION, name, length)
    ]
    chosen = {one["seed"]: one for one in own if one["method"] == CHOSEN}
    finals = {seed: _finals(own, seed) for seed in sorted(chosen)}
    whole = {seed: found for seed, found in finals.items() if len(found) == len(RATES)}
    if not whole:
        raise UserError(f"There is no whole grid of {name}. Run `python -m benchmarks.suite grid`.")
    return [_cell(chosen[seed], seed, whole) for seed in whole]


def _finals(records: Sequence[Record], seed: int) -> list[float]:
    tried = [one for one in records if one["method"] == METHOD and one["seed"] == seed]
    return [final(one) for one in sorted(tried, key=lambda one: one["trial"])]


def _cell(chosen: Record, seed: int, finals: Mapping[int, Sequence[float]]) -> Cell:
    own, lr = finals[seed], rate_of(chosen)
    least = min(own)
    others = [np.log(found) for other, found in finals.items() if other != seed]
    hindsight = own[int(np.argmin(np.mean(others, axis=0)))] / least if others else math.nan
    return Cell(RATES[own.index(least)], lr, final(chosen) / least, at(lr, own) / least, hindsight)


def rate_of(chosen: Record) -> float:
    """The rate of a run of `auto rate`."""
    found: dict[str, Any] = chosen["config"]["chosen"]
    return float(found.get("lr") or math.nan)


def at(lr: float, finals: Sequence[float]) -> float:
    """The grid between its points; at its ends what is beyond them. Infinite beside a point that diverged,
    nan where no rate was chosen."""
    if math.isnan(lr):
        return math.nan
    place = float(np.clip(np.interp(math.log(lr), np.log(RATES), range(len(RATES))), 0, len(RATES) - 1))
    left, part = int(place), place - int(place)
    if part == 0.0:
        return finals[left]
    if not all(map(math.isfinite, finals[left : left + 2])):
        return math.inf
    logs = math.log(finals[left]), math.log(finals[left + 1])
    return math.exp(logs[0] + part * (logs[1] - logs[0]))


def _shown(cells: Sequence[Cell]) -> list[str]:
    """Median and worst of each cost."""
    columns = [[getattr(cell, of) for cell in cells] for of in ("regret", "alone", "others")]
    known = [[cost for cost in column if not math.isnan(cost)] or [math.nan] for column in columns]
    return [f"{value:.3f}" for column in known for value in (np.median(column), max(column))]
