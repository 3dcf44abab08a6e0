"""`steepest fit digits` with default settings, and training alone against a bare torch loop.

1. The whole command in a fresh process, one run a seed: test accuracy and seconds, medians; with nothing
   said, which measures rule, rate, batch and decay, and in turn with `--lr none`, which measures nothing.
2. The same network, data, batch size, rule and epochs: the loop and AdamW of steepest, against a bare loop
   with torch.optim.AdamW and a shuffled DataLoader, in turn; median of the paired time ratios. Small
   networks show what a loop costs, the CNN what remains of it where the network itself takes the time.

python benchmarks/digits.py [seeds] [epochs]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from record import write
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from steepest.models import build
from steepest.torch import AdamW, loop

COMMAND = Path(sys.executable).with_name("steepest")
BATCH = 64
UNMEASURED = ("--lr", "none")
"""Options under which nothing is measured."""


def whole_command(seed: int, said: tuple[str, ...], out: Path) -> tuple[float, float]:
    """(test accuracy, seconds of wall time) of one run with nothing said but this."""
    command = [COMMAND, "fit", "digits", *said, "--seed", str(seed), "--out", out]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return json.loads((out / "result.json").read_text())["metrics"]["test/accuracy"], seconds


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures (n, 1, 8, 8) in 0…1, and their labels."""
    bunch = load_digits()
    pictures = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return pictures, torch.tensor(bunch.target)


NETWORKS = {"two layers": ("mlp", (128,)), "mlp": ("mlp", (256, 128)), "cnn": ("cnn", (256, 128))}
"""Name → preset and widths; "mlp" and "cnn" are those of `fit`."""


def network(name: str) -> torch.nn.Module:
    """One of NETWORKS, from the same start each time."""
    preset, hidden = NETWORKS[name]
    torch.manual_seed(0)
    return build(preset, (1, 8, 8), 10, hidden=hidden)


def bare(preset: str, pictures: torch.Tensor, labels: torch.Tensor, epochs: int) -> float:
    """Seconds of a loop as one would write it."""
    net = network(preset)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=BATCH, shuffle=True)
    began = time.perf_counter()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    return time.perf_counter() - began


def ours(preset: str, pictures: torch.Tensor, labels: torch.Tensor, epochs: int) -> float:
    """Seconds of steepest's loop with its guard on, nothing written."""
    net = network(preset)
    optimizer = AdamW(net.parameters(), lr=1e-3)
    began = time.perf_counter()
    with loop(net, optimizer, (pictures, labels), epochs=epochs, batch_size=BATCH) as steps:
        for x, y in steps:
            steps.step(F.cross_entropy(net(x), y))
    return time.perf_counter() - began


def measure_command(seeds: int) -> None:
    """Part 1."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            (said, seed): whole_command(seed, said, Path(folder, f"{seed}{''.join(said)}"))
            for seed in range(seeds)
            for said in ((), UNMEASURED)
        }
    for said in ((), UNMEASURED):
        note_command(said, [runs[said, seed] for seed in range(seeds)])


def note_command(said: tuple[str, ...], runs: list[tuple[float, float]]) -> None:
    """A line of what runs came to, one of each seed."""
    accuracies, seconds = map(list, zip(*runs, strict=True))
    medians = {
        "median_accuracy": statistics.median(accuracies),
        "median_seconds": statistics.median(seconds),
    }
    case = " ".join(("command", *said))
    write("digits", case=case, n=len(runs), **medians, accuracies=accuracies, seconds=seconds)


def measure_training(preset: str, pairs: int, epochs: int) -> None:
    """Part 2."""
    data = digits()
    torch.set_num_threads(1)  # as `fit` takes for networks of this size
    ours(preset, *data, epochs=1)
    bare(preset, *data, epochs=1)
    seconds = []
    for pair in range(pairs):
        order = (ours, bare) if pair % 2 else (bare, ours)
        took = {loop_of: loop_of(preset, *data, epochs) for loop_of in order}
        seconds.append((took[ours], took[bare]))
    ratio = statistics.median(mine / theirs for mine, theirs in seconds)
    settings = {"preset": preset, "epochs": epochs, "threads": torch.get_num_threads()}
    write("digits", case="training", n=pairs, median_ratio=ratio, **settings, seconds=seconds)


if __name__ == "__main__":
    seeds, epochs = (int(text) for text in (*sys.argv[1:], *("5", "10")[len(sys.argv) - 1 :]))
    measure_command(seeds)
    for preset in NETWORKS:
        measure_training(preset, 2 * seeds, epochs)
