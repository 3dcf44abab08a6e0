"""What one update of all weights costs: AdamW of steepest against torch.optim's, fused and default.

Both move their own copy of the same weights in one process, in blocks of steps that alternate; what counts is
the median of the ratios of neighbouring blocks. Blocks of 1 show an update whose code has left the caches,
longer ones an update that follows its like. And in fresh processes: the first use of a kernel, which
compiles it, and the first use when it lies in the disk cache, apart from importing Numba and from making the
optimizer, for which torch imports its compiler.

python benchmarks/update.py [pairs]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from record import write

import steepest.torch

SMALL = [(64, 128), (128,), (128, 128), (128,), (128, 10), (10,)]
MANY = [(64, 64, 3, 3), (64,), (64,)] * 54
LARGE = [(25_000_000,)]
CASES = {
    "6 tensors, 26k": (SMALL, (1, 20, 200)),
    "162 tensors, 2M": (MANY, (1, 5, 50)),
    "1 tensor, 25M": (LARGE, (1,)),
}
FIRST_USE = """
import time, numba, torch, steepest.torch as st
weight = torch.nn.Parameter(torch.zeros(10))
weight.grad = torch.ones(10)
optimizer = st.AdamW([weight])
began = time.perf_counter()
optimizer.step()
print(time.perf_counter() - began)
"""

Step = Callable[[], object]


def stepper(kind: type[torch.optim.Optimizer], shapes: Sequence[tuple[int, ...]], **options: bool) -> Step:
    """The step of an optimizer of weights of these shapes, warmed up."""
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    step = kind(weights, **options).step
    for _ in range(3):
        step()
    return step


def seconds(step: Step, block: int) -> float:
    """Time of one step, over a block of them."""
    began = time.perf_counter()
    for _ in range(block):
        step()
    return (time.perf_counter() - began) / block


def compare(ours: Step, theirs: Step, block: int, pairs: int) -> dict[str, float]:
    """Medians of both in µs, and of the paired ratios with their quartiles."""
    times = []
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        took = {step: seconds(step, block) for step in order}
        times.append((took[ours], took[theirs]))
    low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
    mine, other = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
    return {"ours_us": mine, "theirs_us": other, "ratio": ratio, "quartile_1": low, "quartile_3": high}


def updates(pairs: int) -> None:
    """Every case against fused and default."""
    for case, (shapes, blocks) in CASES.items():
        n = pairs if len(shapes) > 1 else max(pairs // 10, 5)
        ours = stepper(steepest.torch.AdamW, shapes)
        for name, options in {"fused": {"fused": True}, "default": {}}.items():
            theirs = stepper(torch.optim.AdamW, shapes, **options)
            for block in blocks:
                found = compare(ours, theirs, block, n)
                threads = torch.get_num_threads()
                write("update", case=case, against=name, block=block, n=n, threads=threads, **found)


def first_use(times: int) -> None:
    """Seconds until the first step is done, with an empty cache folder and with a filled one."""
    empty, filled = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            for found in (empty, filled):
                environment = {**os.environ, "STEEPEST_CACHE": folder}
                command = [sys.executable, "-c", FIRST_USE]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                found.append(float(done.stdout))
    write("update", case="first use of a kernel", n=times, seconds=statistics.median(empty))
    write("update", case="first use from the cache", n=times, seconds=statistics.median(filled))


if __name__ == "__main__":
    updates(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    first_use(5)
