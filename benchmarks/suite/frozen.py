"""The targets: set once from the pool and ten new seeds of its best, then frozen in targets.json.

hard  the median over the seeds of the metric at the end of the best trial (not the lucky best). A trial that
      diverges with half of the seeds was lucky in the pool; the next best takes its place
easy  best + 0.1·(default after an epoch - best), where a run has nine tenths of the way behind it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import surroundings
from benchmarks.suite import ledger, workloads
from benchmarks.suite.pool import best
from benchmarks.suite.running import Wanted
from steepest.data.order import parts
from steepest.optim.errors import UserError

VERSION = 1
"""Of the targets; times to targets of another version are not compared."""
PATH = Path(__file__).parent / "targets.json"
SEEDS = range(100, 110)
DEFAULT = "adamw"
EASY = 0.1


def needed(name: str) -> list[Wanted]:
    """The runs that the targets of a workload are made of, as far as can be said by now: where the best trial
    turns out to be unstable, others are needed after it was run."""
    winner = _winner(name)
    early = round(epoch(name), 6)
    tuned = [
        Wanted("targets", name, winner["method"], seed, trial=winner["trial"], config=winner["config"])
        for seed in SEEDS
    ]
    return tuned + [Wanted("targets", name, DEFAULT, seed, early) for seed in SEEDS]


def epoch(name: str) -> float:
    """One epoch in standard lengths; a fifth where it is longer, as for letters."""
    workload = workloads.named(name)
    updates = parts(len(workload.task(0).train[0]), workload.batch_size)
    return min(updates / workload.steps, 0.2)


def unknown(names: Sequence[str]) -> list[Wanted]:
    """The needed runs that do not stand in the results."""
    known = ledger.known("targets")
    wanted = (one for name in names for one in needed(name))
    return [one for one in wanted if ledger.identity(one.record()) not in known]


def write(names: Sequence[str]) -> None:
    """Enter the targets of these workloads. One that stands already stays: frozen is frozen."""
    held = read() if PATH.exists() else {"version": VERSION, "suite": workloads.VERSION, "targets": {}}
    for name in names:
        held["targets"].setdefault(name, _target(name))
    held["made"] = surroundings()
    PATH.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def read() -> dict[str, Any]:
    """The frozen table. Raises UserError where there is none, or one of another suite."""
    if not PATH.exists():
        raise UserError("There are no targets yet. Run `python -m benchmarks.suite targets` after the pool.")
    held = json.loads(PATH.read_text(encoding="utf-8"))
    if (held["version"], held["suite"]) != (VERSION, workloads.VERSION):
        raise UserError(
            f"{PATH.name} holds version {held['version']} for suite {held['suite']}; this is version "
            f"{VERSION} for suite {workloads.VERSION}. Move it away and set the targets anew."
        )
    return held


def _winner(name: str) -> dict[str, Any]:
    records = [
        one for one in ledger.read("pool") if one["workload"] == name and one["suite"] == workloads.VERSION
    ]
    if not any(not one["diverged"] for one in records):
        raise UserError(
            f"No trial of {name} has come to an end. Run `python -m benchmarks.suite pool` first."
        )
    return best([one for one in records if _stable(one)])


def _stable(trial: dict[str, Any]) -> bool:
    """Whether most seeds of a trial of the pool have not diverged, of those that were run."""
    same = ("suite", "workload", "method", "trial")
    ran = (one for one in ledger.read("targets") if all(one[name] == trial[name] for name in same))
    return 2 * sum(one["diverged"] for one in ran) < len(SEEDS)


def _target(name: str) -> dict[str, Any]:
    wanted = needed(name)
    asked = {ledger.identity(one.record()): one for one in wanted}
    records = [one for one in ledger.read("targets") if ledger.identity(one) in asked]
    tuned = [one for one in records if one["trial"] is not None]
    default = [one["final"] for one in records if one["trial"] is None]
    hard, untuned = median(_final(one) for one in tuned), median(default)
    return {
        "hard": hard,
        "easy": hard + EASY * (untuned - hard),
        "default_after_epoch": untuned,
        "best": tuned[0]["config"],
        "runs": len(tuned),
    }


def _final(record: dict[str, Any]) -> float:
    """A seed with which the best trial diverges counts as infinitely bad."""
    return float("inf") if record["diverged"] else record["final"]
