"""What the constants of the measured choice are set by: two rules over a grid of rates, on every workload.

prefix  a fifth of the standard length under a level rate: the metric of averaged weights at thirteen places
whole   the standard length under a line to zero: the metric of the weights and of their average, 25 times

The report tells what a rate costs at the end that was chosen early: the lowest point of the parabola over
what is expected of early metrics, L·(L/L₁)^θ with L₁ at a third of the time, read off whole runs.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.suite import ledger, workloads
from benchmarks.suite.scores import Record, aligned
from benchmarks.suite.workloads import Task
from steepest import rules
from steepest.torch import optimizer
from steepest.train.evaluation import Average, renew_statistics
from steepest.tuning.candidates import Candidate
from steepest.tuning.halving import peak

FILE = "calibration"
SEED = 100
"""Start and order; no method is measured with it."""
RULES = ("adamw", "muonmatched")
LRS = [float(lr) for lr in np.geomspace(3e-4, 3e-2, 7)]
DECAY = 0.1
RISE = 0.01
"""Share of the run in which the rate rises."""
EARLY = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)
POINTS = 25
SHARES = (0.03, 0.045, 0.06, 0.1)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Cell:
    """One run.   rate: its place in LRS"""

    workload: str
    rule: str
    kind: str
    rate: int

    def record(self) -> Record:
        """What names it in the results."""
        method, lr = f"{self.rule} {self.kind}", LRS[self.rate]
        named = {"workload": self.workload, "method": method, "trial": self.rate, "length": 1.0, "seed": SEED}
        return {"suite": workloads.VERSION, **named, "rule": self.rule, "kind": self.kind, "lr": lr}


def calibrate(names: Sequence[str], jobs: int) -> None:
    """All cells that are not known yet."""
    known = ledger.known(FILE)
    cells = [
        Cell(name, rule, kind, rate)
        for kind in ("prefix", "whole")
        for rate in range(len(LRS))
        for rule in RULES
        for name in names
    ]
    left = [cell for cell in cells if ledger.identity(cell.record()) not in known]
    os.environ["OMP_NUM_THREADS"] = "1"  # read by each new process when it imports torch
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as workers:
        for number, line in enumerate(workers.map(carried_out, left), start=1):
            print(f"[{number}/{len(left)}] {line}", flush=True)


def carried_out(cell: Cell) -> str:
    """Carry out one and write it down."""
    torch.set_num_threads(1)
    task = workloads.named(cell.workload).task(SEED)
    curve = descended(task, cell)
    ledger.append(FILE, cell.record() | {"steps": task.steps, "curve": curve})
    return f"{cell.workload}, {cell.rule} {LRS[cell.rate]:.2g}, {cell.kind}: {curve[-1][1:]}"


def descended(task: Task, cell: Cell) -> list[tuple[int, float, float]]:
    """(update, metric, metric of the average) at each place; shorter where the run diverged."""
    model, steps, lr = task.model(), task.steps, LRS[cell.rate]
    made, average = (
        optimizer(model, rules.named(cell.rule, lr=lr, weight_decay=DECAY)),
        Average(model, 0.9999),
    )
    places = looks(steps, cell.kind)
    first, curve = math.nan, []
    for done, (x, y) in enumerate(task.batches(), start=1):
        for group in made.param_groups:
            group["lr"] = lr * height(done, steps, cell.kind)
        made.zero_grad()
        loss = task.loss(model, x, y)
        loss.backward()
        made.step()
        average.update()
        first = loss.item() if done == 1 else first
        if not loss.item() <= 100 * first:
            break
        if done in places:
            curve.append((done, task.measured(model, *task.validation), averaged(task, model, average)))
        if done == places[-1]:
            break
    return curve


def looks(steps: int, kind: str) -> list[int]:
    """Updates after which a run is looked at."""
    shares = EARLY if kind == "prefix" else [k / POINTS for k in range(1, POINTS + 1)]
    return sorted({max(round(steps * share), 1) for share in shares})


def height(step: int, steps: int, kind: str) -> float:
    """The rate at an update, as a share of its peak."""
    rise = min(1.0, step / max(1, round(RISE * steps)))
    return rise if kind == "prefix" else rise * (1 - (step - 1) / steps)


def averaged(task: Task, model: nn.Module, average: Average) -> float:
    """The metric of averaged weights; the model is afterwards as before."""
    held = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with average.swapped():
        renew_statistics(model, (x for x, _ in islice(task.batches(), 8)))
        found = task.measured(model, *task.validation)
    with torch.no_grad():
        for buffer, before in held:
            buffer.copy_(before)
    return found


# --- what they tell ---


def report(names: Sequence[str], records: Iterable[Record] | None = None) -> str:
    """What early choices cost, by rule, share of the run and power; then both rules beside each other."""
    held = [one for one in (ledger.read(FILE) if records is None else records) if one["workload"] in names]
    parts = [
        f"{rule}: regret in the median of workloads and at worst\n" + _costs(held, rule) for rule in RULES
    ]
    return "\n\n".join([*parts, "final metric at the best rate\n" + _finals(held, names)])


def _costs(held: Sequence[Record], rule: str) -> str:
    rows = [["chosen after", *(f"θ = {power:g}" for power in POWERS)]]
    for share in SHARES:
        cells = [[regret(held, rule, name, share, power) for power in POWERS] for name in _whole(held, rule)]
        rows.append([f"{share:.1%}", *(f"{np.median(c):.3f} {max(c):.3f}" for c in zip(*cells, strict=True))])
    return aligned(rows)


def regret(held: Sequence[Record], rule: str, name: str, share: float, power: float) -> float:
    """The final metric at the rate that was chosen after a share of the run, over that of the best rate."""
    early = {one["lr"]: _expected(one, share, power) for one in _of(held, rule, name, "prefix")}
    candidates = [Candidate(rule, lr) for lr in sorted(early)]
    losses = dict(enumerate(early[candidate.lr] for candidate in candidates))
    chosen = peak(candidates, min(losses, key=losses.__getitem__), losses)
    x, y = zip(
        *sorted((math.log(lr), math.log(final)) for lr, final in _last(held, rule, name).items()), strict=True
    )
    return math.exp(float(np.interp(math.log(chosen), x, y)) - min(y))


def _finals(held: Sequence[Record], names: Sequence[str]) -> str:
    rows = [["workload", *RULES]]
    for name in names:
        best = [
            min(_last(held, rule, name).items(), key=lambda pair: pair[1], default=None) for rule in RULES
        ]
        rows.append([name, *("" if b is None else f"{b[1]:.4g} at {b[0]:.2g}" for b in best)])
    return aligned(rows)


def _of(held: Sequence[Record], rule: str, name: str, kind: str) -> list[Record]:
    wanted = (rule, name, kind)
    return [one for one in held if (one["rule"], one["workload"], one["kind"]) == wanted and one["curve"]]


def _whole(held: Sequence[Record], rule: str) -> list[str]:
    """Workloads with runs of both kinds over three rates or more."""
    names = dict.fromkeys(one["workload"] for one in held)
    kinds = ("prefix", "whole")
    return [name for name in names if all(len(_of(held, rule, name, kind)) > 2 for kind in kinds)]


def _last(held: Sequence[Record], rule: str, name: str) -> dict[float, float]:
    """Final metrics of the average by rate, of runs that came to their end."""
    whole = _of(held, rule, name, "whole")
    return {one["lr"]: one["curve"][-1][2] for one in whole if one["curve"][-1][0] == one["steps"]}


def _expected(one: Record, share: float, power: float) -> float:
    """What a metric counts as in the race."""
    now, before = _at(one, share), _at(one, share / 3)
    return now * (now / before) ** power if math.isfinite(now) else math.inf


def _at(one: Record, share: float) -> float:
    """The metric of the average at the place next to a share of the run; infinite where it had diverged."""
    found: list[Any] = min(one["curve"], key=lambda place: abs(place[0] / one["steps"] - share))
    return found[2] if found[0] >= 0.8 * share * one["steps"] else math.inf
