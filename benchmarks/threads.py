"""When several threads are worth it: the two constants that decide, held against measurement.

1. A training step of networks of growing size on one thread and on all, beside the operations of a forward
   pass: `steepest.train.machine.SHARED` is where `fit` stops taking one thread.
2. AdamW's kernel over growing weights, alone and on torch's threads:
   `steepest.optim.engines.kernels.compiled.PARALLEL_FROM`.

python benchmarks/threads.py [pairs]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

import torch
from cases import stepper
from paired import compare
from record import write
from torch.utils.flop_counter import FlopCounterMode

import steepest.torch
from steepest.models import build
from steepest.optim.engines import on_numba
from steepest.optim.engines.kernels import compiled

NETWORKS = {
    "mlp 256": ("mlp", (64,), (256,), 64),
    "mlp 512 512": ("mlp", (64,), (512, 512), 64),
    "mlp 1024 1024": ("mlp", (64,), (1024, 1024), 64),
    "mlp 2048 2048": ("mlp", (64,), (2048, 2048), 64),
    "cnn 8x8": ("cnn", (1, 8, 8), (256, 128), 64),
    "cnn 8x8, batch 512": ("cnn", (1, 8, 8), (256, 128), 512),
    "cnn 32x32": ("cnn", (3, 32, 32), (256, 128), 64),
}


def on(count: int, step: Callable[[], object]) -> Callable[[], object]:
    """The step, on that many threads."""

    def run() -> None:
        torch.set_num_threads(count)
        step()

    return run


def training(
    preset: str, shape: tuple[int, ...], hidden: tuple[int, ...], batch: int
) -> tuple[Callable[[], object], int]:
    """(a step forward and backward, operations of its forward pass)."""
    net, x = build(preset, shape, 10, hidden=hidden), torch.randn(batch, *shape)
    target = torch.randint(0, 10, (batch,))
    with FlopCounterMode(display=False) as counter:
        net(x)
    return lambda: torch.nn.functional.cross_entropy(net(x), target).backward(), counter.get_total_flops()


def main(pairs: int) -> None:
    """Both parts; ratios below 1 speak for several threads."""
    many = torch.get_num_threads()
    for name, network in NETWORKS.items():
        step, operations = training(*network)
        found = compare(on(many, step), on(1, step), 5, pairs)
        write("threads", case=name, operations=operations, threads=many, n=pairs, **found)
    torch.set_num_threads(many)
    with mock.patch.multiple(on_numba, PARALLEL_FROM=0), mock.patch.multiple(compiled, PARALLEL_FROM=0):
        for size in (1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 20):
            step = stepper(steepest.torch.AdamW, [(size // 8,)] * 8)
            found = compare(on(many, step), on(1, step), 5, pairs)
            write("threads", case="update", elements=size, threads=many, n=pairs, **found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
