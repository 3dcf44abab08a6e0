"""Tables from the records of `methods` and the frozen targets; nothing else enters them.

time to a target  median over seeds; a miss is infinite in the tables, the budget and one more in ratios
ratio             geometric mean over workloads and both targets of the ratio of medians to another method's
gap               (final - tuned)/(untuned after an epoch - tuned), the mean of the middle half over all runs
beats             the chance that a final loss lies below one of the other method, mean over workloads
profile           share of (workload, target) within τ times the best median, mean over τ from 1 to 4
Intervals are 95 %, seeds resampled within workloads: they speak of these workloads, not of new ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.suite import frozen, ledger, workloads
from steepest.comparison import statistics
from steepest.optim.errors import UserError

TARGETS = ("hard", "easy")
FARTHEST = 4.0
"""τ up to which a profile is drawn and integrated; what takes longer counts as missed."""
CAP = 10.0
"""Largest gap that counts; a diverged run has this."""

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Runs of one length by (method, workload) and seed, and what they are held against."""

    runs: dict[tuple[str, str], dict[int, Record]]
    targets: dict[str, dict[str, Any]]
    names: Sequence[str]
    methods: Sequence[str]
    clock: str

    def times(self, method: str, workload: str, target: str) -> dict[int, float]:
        """Time to the target of each seed."""
        goal = self.targets[workload][target]
        return {seed: time_of(run, goal, self.clock) for seed, run in self.runs[method, workload].items()}

    def counted(self, method: str, workload: str, target: str) -> dict[int, float]:
        """The same with the budget and one more for a miss."""
        runs = self.runs[method, workload]
        found = self.times(method, workload, target)
        return {seed: min(time, spent(runs[seed], self.clock)[1]) for seed, time in found.items()}

    def finals(self, method: str, workload: str) -> dict[int, float]:
        """The metric at the end of each seed."""
        return {seed: final(run) for seed, run in self.runs[method, workload].items()}


def final(run: Record) -> float:
    """The metric at the end; infinite where the run diverged."""
    return math.inf if run["diverged"] else run["final"]


def time_of(run: Record, target: float, clock: str) -> float:
    """Evaluations or seconds to the target; infinite where it was missed."""
    # A diverged run ends at infinity; without that its last point would count by itself.
    end = [(run["budget"], run["seconds"], math.inf)] if run["diverged"] else []
    evaluations, seconds, values = zip(*run["curve"], *end, strict=True)
    return statistics.time_to(evaluations if clock == "evaluations" else seconds, values, target)


def spent(run: Record, clock: str) -> tuple[float, float]:
    """(what a run spent, what a miss counts in a ratio)."""
    per = 1.0 if clock == "evaluations" else run["seconds"] / max(run["evaluations"], 1)
    return per * run["evaluations"], per * (run["budget"] + 1)


def results(names: Sequence[str], length: float, clock: str) -> Results:
    """What stands in the files for these workloads. Raises UserError where a method lacks one of them."""
    runs: dict[tuple[str, str], dict[int, Record]] = defaultdict(dict)
    for run in ledger.read("methods"):
        if run["suite"] == workloads.VERSION and run["length"] == length and run["workload"] in names:
            runs[run["method"], run["workload"]][run["seed"]] = run
    methods = sorted({method for method, _ in runs})
    lacking = [f"{method} on {name}" for method in methods for name in names if (method, name) not in runs]
    if not methods or lacking:
        what = f"no run of {lacking[0]}" if lacking else "no run"
        raise UserError(
            f"There is {what} of length {length:g}. Run `python -m benchmarks.suite methods`, or use --only."
        )
    targets = frozen.read()["targets"]
    if untold := [name for name in names if name not in targets]:
        missing = ",".join(untold)
        raise UserError(f"There are no targets. Run `python -m benchmarks.suite targets --only {missing}`.")
    return Results(runs, targets, names, methods, clock)


def report(names: Sequence[str], against: str, length: float, clock: str, picture: Path | None = None) -> str:
    """All tables as text; the profile as a picture where a path is given."""
    found = results(names, length, clock)
    if against not in found.methods:
        raise UserError(f"There is no run of {against!r}. There are runs of {', '.join(found.methods)}.")
    if picture is not None:
        draw(found, picture)
    parts = [
        f"Suite {workloads.VERSION}, targets {frozen.VERSION}, budget {length:g} standard lengths, {clock}"
    ]
    parts += [medians(found, target) for target in TARGETS]
    return "\n\n".join([*parts, summary(found, against), paired(found, against)])


def medians(found: Results, target: str) -> str:
    """Median time to a target of each method and workload, with misses and the expected running time."""
    rows = [["workload", *found.methods]]
    rows += [
        [name, *(_cell(found, method, name, target) for method in found.methods)] for name in found.names
    ]
    return f"Time to the {target} target: median, expected running time, missed of all\n" + aligned(rows)


def _cell(found: Results, method: str, name: str, target: str) -> str:
    times = list(found.times(method, name, target).values())
    missed = sum(map(math.isinf, times))
    return f"{np.median(times):.4g} {expected(found, method, name, target):.4g} {missed}/{len(times)}"


def expected(found: Results, method: str, name: str, target: str) -> float:
    """All that was spent until targets or ends, by the number of successes (Hansen et al. 2021, COCO)."""
    runs, times = found.runs[method, name], found.times(method, name, target)
    total = sum(min(time, spent(runs[seed], found.clock)[0]) for seed, time in times.items())
    successes = sum(map(math.isfinite, times.values()))
    return total / successes if successes else math.inf


def pairs(ours: dict[int, float], theirs: dict[int, float]) -> np.ndarray:
    """(seeds, 2) of the seeds that both have."""
    return np.array([(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]).reshape(
        -1, 2
    )


def summary(found: Results, against: str) -> str:
    """One line a method: ratio, gap, chance to beat the other, profile, misses."""
    rows = [["method", f"ratio to {against}", "gap", f"beats {against}", "profile", "missed"]]
    for method in found.methods:
        times = [
            pairs(found.counted(method, name, target), found.counted(against, name, target))
            for name in found.names
            for target in TARGETS
        ]
        ends = [pairs(found.finals(method, name), found.finals(against, name)) for name in found.names]
        gaps = [gap(found, method, name) for name in found.names]
        missed = [
            t for name in found.names for aim in TARGETS for t in found.times(method, name, aim).values()
        ]
        rows.append(
            [
                method,
                _shown(times, ratio),
                _shown(gaps, lambda strata: statistics.interquartile_mean(np.concatenate(strata))),
                _shown(ends, beats),
                f"{profile_score(found, method):.3f}",
                f"{sum(map(math.isinf, missed))}/{len(missed)}",
            ]
        )
    return "Over all workloads\n" + aligned(rows)


def ratio(strata: Sequence[np.ndarray]) -> float:
    """The geometric mean over strata of the ratio of medians."""
    logs = [np.diff(np.log(np.median(rows, 0)))[0] for rows in strata]
    return float(np.exp(-np.mean(logs)))


def beats(strata: Sequence[np.ndarray]) -> float:
    """The mean over strata of the chance to end lower."""
    return float(np.mean([statistics.improvement(rows[:, 0], rows[:, 1]) for rows in strata]))


def gap(found: Results, method: str, name: str) -> np.ndarray:
    """0: as good as tuned by hand at the standard length; 1: as the default after an epoch."""
    target = found.targets[name]
    ends = np.array(list(found.finals(method, name).values()))
    return np.minimum((ends - target["hard"]) / (target["default_after_epoch"] - target["hard"]), CAP)


def _shown(strata: Sequence[np.ndarray], statistic: Callable[[Sequence[np.ndarray]], float]) -> str:
    low, high = statistics.stratified(strata, statistic)
    return f"{statistic(strata):.3f} [{low:.3f}, {high:.3f}]"


def paired(found: Results, against: str) -> str:
    """Each method against the other by workload: ratio of times to the hard target, paired by seed."""
    others = [one for one in found.methods if one != against]
    logs = {one: {name: _logs(found, one, against, name) for name in found.names} for one in others}
    overall = statistics.holm(
        [statistics.sign_flip(np.concatenate(list(logs[one].values()))) for one in others]
    )
    blocks = []
    for method, p in zip(others, overall, strict=True):
        rows = [["workload", "ratio", "95 %", "p (Holm)", "n"], *_lines(logs[method]), _all(logs[method], p)]
        blocks.append(f"{method} against {against}, hard target, paired by seed\n" + aligned(rows))
    return "\n\n".join(blocks)


def _lines(logs: dict[str, np.ndarray]) -> list[list[str]]:
    """A row a workload, its p corrected for their number."""
    corrected = statistics.holm([statistics.sign_flip(one) for one in logs.values()])
    bounds = [statistics.bca(one) for one in logs.values()]
    return [
        _row(name, float(one.mean()), bound, p, len(one))
        for (name, one), bound, p in zip(logs.items(), bounds, corrected, strict=True)
    ]


def _all(logs: dict[str, np.ndarray], p: float) -> list[str]:
    """The row of all workloads, seeds resampled within each; its p corrected for the number of methods."""
    strata = list(logs.values())

    def mean(drawn: Sequence[np.ndarray]) -> float:
        return float(np.mean([np.mean(one) for one in drawn]))

    bound, count = statistics.stratified(strata, mean), sum(map(len, strata))
    return _row("all pairs", mean(strata), bound, p, count)


def _logs(found: Results, method: str, against: str, name: str) -> np.ndarray:
    both = pairs(*(found.counted(one, name, "hard") for one in (method, against)))
    return np.log(both[:, 0] / both[:, 1])


def _row(name: str, mean: float, bound: tuple[float, float], p: float, count: int) -> list[str]:
    low, high = np.exp(bound)
    return [name, f"{np.exp(mean):.3f}", f"[{low:.3f}, {high:.3f}]", f"{p:.3f}", str(count)]


def factors(found: Results) -> dict[str, np.ndarray]:
    """How many times the best median each method takes, for each workload and target."""
    cells = [(name, target) for name in found.names for target in TARGETS]
    table = np.array(
        [[np.median(list(found.times(method, *cell).values())) for cell in cells] for method in found.methods]
    )
    best = table.min(0)
    within = np.where(np.isfinite(table), table / np.where(np.isfinite(best), best, 1), np.inf)
    return dict(zip(found.methods, within, strict=True))


def profile_score(found: Results, method: str) -> float:
    """1/(τ - 1)·∫ share dτ from 1 to FARTHEST, exactly: each cell adds what lies right of its factor."""
    own = factors(found)[method]
    return float(np.mean(np.clip(FARTHEST - own, 0, FARTHEST - 1)) / (FARTHEST - 1))


def draw(found: Results, path: Path) -> None:
    """The performance profile of Dolan and Moré."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for method, own in factors(found).items():
        near = np.sort(own[own <= FARTHEST])
        reached = np.arange(1, len(near) + 1) / len(own)
        x, y = [1.0, *near, FARTHEST], [0.0, *reached, reached[-1] if len(near) else 0.0]
        axes.step(x, y, where="post", label=method)
    axes.set(xlabel=f"τ, times the best in {found.clock}", ylabel="share of targets reached")
    axes.set(xlim=(1, FARTHEST), ylim=(0, 1.02))
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of even width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
