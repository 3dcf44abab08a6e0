"""Runs: what is asked for, minus what stands in the results, one after another or side by side."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.suite import ledger, ours, workloads
from benchmarks.suite.clock import Watch
from benchmarks.suite.methods import Config
from benchmarks.suite.pool import as_method


@dataclass(frozen=True)
class Wanted:
    """One run.   file: where its record goes;  length: the budget in standard lengths

    trial: number of a trial of the pool, whose settings are `config`; else `method` is one of METHODS."""

    file: str
    workload: str
    method: str
    seed: int
    length: float = 1.0
    trial: int | None = None
    config: Config | None = None

    def record(self) -> dict[str, Any]:
        """What names the run in the results."""
        own = ("workload", "method", "trial", "length", "seed")
        return {"suite": workloads.VERSION, **{name: getattr(self, name) for name in own}}


def trained(wanted: Wanted) -> dict[str, Any]:
    """Carry out a run: its curve, both clocks, the metric at the end, and that of the test set."""
    task = workloads.named(wanted.workload).task(wanted.seed)
    watch = Watch(task, round(wanted.length * task.steps))
    one = ours.METHODS[wanted.method] if wanted.config is None else as_method(wanted.config)
    config = one(task, watch.budget, wanted.seed, watch)
    return wanted.record() | {"config": config, **watch.summary()}


def carried_out(wanted: Wanted) -> str:
    """Carry out a run and write it down, unless another process has done so meanwhile."""
    torch.set_num_threads(1)
    if ledger.identity(wanted.record()) in ledger.known(wanted.file):
        return f"{wanted.workload}, {wanted.method}: known already"
    record = trained(wanted)
    ledger.append(wanted.file, record)
    end = "diverged" if record["diverged"] else f"{record['final']:.4f}"
    trial = "" if wanted.trial is None else f" {wanted.trial}"
    return f"{wanted.workload}, {wanted.method}{trial}, seed {wanted.seed}: {end}, {record['seconds']:.1f} s"


def run(wanted: Sequence[Wanted], jobs: int = 1) -> None:
    """All runs that are not known, `jobs` side by side with one thread each."""
    known = {name: ledger.known(name) for name in {one.file for one in wanted}}
    left = [one for one in wanted if ledger.identity(one.record()) not in known[one.file]]
    print(f"{len(wanted) - len(left)} of {len(wanted)} runs are known, {len(left)} to do", flush=True)
    began = time.time()
    for done, line in enumerate(_each(left, jobs), start=1):
        ahead = (time.time() - began) / done * (len(left) - done)
        print(f"[{done}/{len(left)}, {ahead / 60:.0f} min left] {line}", flush=True)


def _each(left: Sequence[Wanted], jobs: int) -> Any:
    if jobs == 1:
        return map(carried_out, left)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by each new process when it imports torch
    workers = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    return workers.map(carried_out, left)
