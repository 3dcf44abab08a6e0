"""What `loop` costs beside a bare loop with the same optimizer, in µs a step.

    python benchmarks/loop.py [--blocks 400] [--steps 20]

Both train the same two-layer network on the same batches, in short blocks that alternate
bare, ours, ours, bare in one process on one thread. Measured: the median of the paired differences with a
bootstrap 95 % interval, its share of a bare step, and whether the weights came out identical.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from record import write
from torch import Tensor, nn

from steepest.data.order import Plan
from steepest.torch import optimizer
from steepest.train.loop import loop

BATCH = 64
Maker = Callable[[nn.Module], torch.optim.Optimizer]


def network(width: int) -> nn.Module:
    """Two layers, the same weights every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def bare(net: nn.Module, make: Maker, data: tuple[Tensor, Tensor], steps: int) -> Iterator[float]:
    """Seconds of each block of a loop without anything around it."""
    x, y = data
    optimizer = make(net)
    updates = Plan(len(x), BATCH).updates(0)
    while True:
        began = time.perf_counter()
        for _ in range(steps):
            index = torch.from_numpy(next(updates)[2])
            loss = nn.functional.cross_entropy(net(x.index_select(0, index)), y.index_select(0, index))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        yield time.perf_counter() - began


def ours(
    net: nn.Module, make: Maker, data: tuple[Tensor, Tensor], steps: int, guard: bool
) -> Iterator[float]:
    """Seconds of each block of the same loop inside `loop`."""
    with loop(net, make(net), data, epochs=10**6, evaluate_every="1000000 epochs", guard=guard) as inside:
        began = time.perf_counter()
        for x, y in inside:
            inside.step(nn.functional.cross_entropy(net(x), y))
            if inside.done % steps == 0:
                yield time.perf_counter() - began
                began = time.perf_counter()


def interval(differences: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    chance = np.random.default_rng(0)
    medians = np.median(chance.choice(differences, (draws, len(differences))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def paired(width: int, make: Maker, blocks: int, steps: int, guard: bool) -> dict[str, float | bool]:
    """The comparison for one width, optimizer and guard."""
    x = torch.randn(BATCH * 100, 64)
    data = (x, torch.randint(0, 10, (len(x),)))
    nets = network(width), network(width)
    plain, safe = bare(nets[0], make, data, steps), ours(nets[1], make, data, steps, guard)
    next(plain), next(safe)
    took = np.empty((blocks, 2))
    for i in range(blocks):
        for which in (0, 1) if i % 2 else (1, 0):
            took[i, which] = next((plain, safe)[which])
    safe.close()
    each = took / steps * 1e6
    low, high = interval(each[:, 1] - each[:, 0])
    same = all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))
    whole, more = float(np.median(each[:, 0])), float(np.median(each[:, 1] - each[:, 0]))
    return {
        "bare_us": whole,
        "more_us": more,
        "low": low,
        "high": high,
        "share": more / whole,
        "identical": same,
    }


def main() -> None:
    """One record a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=400)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    makers = {
        "steepest AdamW": lambda net: optimizer(net, "adamw"),
        "torch AdamW": lambda net: torch.optim.AdamW(net.parameters()),
    }
    for width, steps in ((128, asked.steps), (16384, max(1, asked.steps * 2 // 5))):
        for name, make in makers.items():
            for guard in (False, True):
                n = asked.blocks if width < 1000 else max(1, asked.blocks // 8)
                found = paired(width, make, n, steps, guard)
                write("loop", network=f"64-{width}-10", optimizer=name, guard=guard, n=n, threads=1, **found)


if __name__ == "__main__":
    main()
