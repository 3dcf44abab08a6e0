"""Kill a training run with SIGKILL at random instants, resume it each time, compare with one left alone.

    python benchmarks/kill.py [--kills 20] [--steps 600] [--seed 0]

The run has what is hard to resume: shuffled and augmented data, dropout, batch normalisation, microbatches,
averaged weights, a rate that decays at plateaus with rewinds, and bad batches that the guard withholds. It
saves after every step, so that many kills fall inside a write. Compared bit for bit: every weight, every
state tensor, every saved number and every row of metrics.csv, except seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steepest.data.batches import batches
from steepest.torch import optimizer
from steepest.train import checkpoint
from steepest.train.loop import loop
from steepest.train.stopping import Stopping
from steepest.train.update import Guard


def network() -> nn.Module:
    """Convolution, batch normalisation and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(288, 10)
    )


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """256 pictures of noise around ten means; two of them are not numbers."""
    chance = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 10
    means = torch.randn(10, 1, 8, 8, generator=chance)
    pictures = means[labels] + torch.randn(256, 1, 8, 8, generator=chance)
    pictures[[17, 90]] = torch.nan
    return pictures, labels


def train(out: Path, steps: int, save_every: str = "1 step", opt: Any = None) -> None:
    """The run; begins or goes on, as the folder says."""
    torch.set_num_threads(1)
    net, (x, y) = network(), images()
    seen, labels = x[100:200].nan_to_num(), y[100:200]

    def evaluate() -> dict[str, float]:
        net.eval()
        with torch.no_grad():
            return {"loss": float(nn.functional.cross_entropy(net(seen), labels))}

    opt = optimizer(net, "adamw") if opt is None else opt(net.parameters())
    data = batches((x, y), 32, accumulate=2, augment="shift")
    with loop(
        net,
        opt,
        data,
        out=out,
        budget=f"{steps} steps",
        clip_norm=1.0,
        average=0.9,
        stopping=Stopping(patience=2, max_decays=10**6, raise_after=3),
        guard=Guard(strikes=2, rewinds=10**6, factor=0.9),
        evaluate=evaluate,
        evaluate_every="7 steps",
        save_every=save_every,
    ) as inside:
        for pictures, truth in inside:
            inside.step(nn.functional.cross_entropy(net(pictures), truth))


def warm() -> None:
    """Load the optimizer's kernel here, so that children are killed in training and not while they import."""
    net = network()
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer(net, "adamw").step()


def started(out: Path, steps: int) -> int:
    """The process id of a child that trains."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(out, steps)
            code = 0
        finally:
            os._exit(code)
    return child


def kill(out: Path, steps: int, longest: float, chance: random.Random) -> bool:
    """Run in a child process and kill it after up to `longest` seconds; whether it was killed, not done."""
    child = started(out, steps)
    time.sleep(chance.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the child failed by itself")
    return os.WIFSIGNALED(status)


def left_alone(out: Path, steps: int) -> float:
    """The same run in a child that nobody kills; its seconds."""
    began = time.monotonic()
    child = started(out, steps)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the run failed")
    return time.monotonic() - began


def remains(out: Path) -> dict[str, Any]:
    """All that a run left behind, without what the clock wrote."""
    place = out / "checkpoints"
    saved = checkpoint.read(checkpoint.path_of(place, checkpoint.steps(place)[0]))
    numbers, held = checkpoint.packed(saved.parts)
    numbers["progress"] = {k: v for k, v in numbers["progress"].items() if k != "seconds"}
    lines = (out / "metrics.csv").read_text().splitlines()
    rows = [[field for i, field in enumerate(line.split(",")) if i != 2] for line in lines]
    tensors = {name: t.numpy().tobytes() for name, t in held.items()}
    return {
        "step": saved.step,
        "tensors": tensors,
        "numbers": json.dumps(numbers, sort_keys=True),
        "rows": rows,
    }


def compare(alone: Path, killed: Path) -> list[str]:
    """What differs between two runs; empty when nothing does."""
    one, other = remains(alone), remains(killed)
    differ = [kind for kind in ("step", "numbers", "rows") if one[kind] != other[kind]]
    names = one["tensors"].keys() | other["tensors"].keys()
    return differ + sorted(name for name in names if one["tensors"].get(name) != other["tensors"].get(name))


def survive(kills: int, steps: int, seed: int, place: Path) -> tuple[int, int, list[str]]:
    """(kills, those inside a write, what differs in the end)."""
    warm()
    chance = random.Random(seed)
    lasted = left_alone(place / "alone", steps)
    struck = torn = 0
    while struck < kills and kill(place / "killed", steps, lasted / kills, chance):
        struck += 1
        torn += any((place / "killed" / "checkpoints").glob(".step-*"))
    left_alone(place / "killed", steps)
    return struck, torn, compare(place / "alone", place / "killed")


def main() -> None:
    """Record what became of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("kills", 20), ("steps", 600), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    from record import write  # the tests use all of this file but what records

    with tempfile.TemporaryDirectory() as place:
        struck, torn, differ = survive(asked.kills, asked.steps, asked.seed, Path(place))
        rows = len((Path(place) / "alone" / "metrics.csv").read_text().splitlines()) - 1
    write("kill", kills=struck, inside_a_write=torn, steps=asked.steps, rows=rows, different=differ)
    raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
