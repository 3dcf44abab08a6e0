"""A small GPT on the letters of tinyshakespeare: what loss does a rule reach, and in how many steps?

2 layers of width 64, 4 heads, 64 letters of context, 107,000 weights; batches of 32 windows, 2,000 steps, one
thread; gradients clipped to norm 1; rates rise over 5 % of the steps and fall along a half wave to zero. The
validation loss is the mean over 256 fixed windows of the last tenth of the text, every 50 steps.

Moments in 16 or 8 bits are those of the same rule. muon, muonmatched and other matrix rules move the hidden
matrices; AdamW moves the rest, at --rest-lr where it is given.

python benchmarks/gpt.py run --data ../shared/data --rule adamw --lr 1e-3,2e-3,4e-3 --seeds 0
python benchmarks/gpt.py run --data ../shared/data --rule adamw --lr 4e-3 --seeds 0,1,2 --moments bfloat16
python benchmarks/gpt.py summary

A run that stands in results/gpt.jsonl already is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import RESULTS, write
from scipy.stats import t as student
from torch import nn

from steepest import rules, schedule
from steepest.torch import optimizer

LAYERS, WIDTH, HEADS, CONTEXT = 2, 64, 4, 64
BATCH, STEPS, EVERY, WINDOWS = 32, 2000, 50, 256
SETTINGS = ("rule", "moments", "lr", "rest_lr", "weight_decay", "steps", "seed")
"""What makes two runs the same run."""


class Block(nn.Module):
    """Attention and a network of two layers, each behind a norm and beside a shortcut; no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.gather = nn.Linear(WIDTH, WIDTH, bias=False)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, context, width)."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.query_key_value(self.norm1(x)).split(WIDTH, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.gather(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class GPT(nn.Module):
    """Letters in, scores of the next letter out; the embedding of letters is also the head."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, letters, bias=False)
        self.head.weight = self.letters.weight
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                into_shortcut = name.endswith(("gather.weight", "narrow.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if into_shortcut else 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, context) of letters."""
        h = self.letters(x) + self.places.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(h)))


def text(data: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(letters to train on, letters to validate on, how many different ones there are)."""
    path = data / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        sys.exit(
            f"There is no {path}. It is karpathy/char-rnn's tinyshakespeare (1,115,394 characters, public "
            "domain); give the folder that holds tinyshakespeare/input.txt as --data."
        )
    raw = path.read_text(encoding="utf-8")
    number = {letter: i for i, letter in enumerate(sorted(set(raw)))}
    coded = torch.tensor([number[letter] for letter in raw])
    cut = int(0.9 * len(coded))
    return coded[:cut], coded[cut:], len(number)


def windows(coded: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(letters, the letters that follow each of them) of windows that start there."""
    places = starts[:, None] + torch.arange(CONTEXT)
    return coded[places], coded[places + 1]


def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross entropy in nats a letter."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


@torch.no_grad()
def validated(model: nn.Module, held_out: torch.Tensor) -> float:
    """Mean loss over fixed windows, spread evenly."""
    starts = torch.linspace(0, len(held_out) - CONTEXT - 1, WINDOWS).long()
    x, y = windows(held_out, starts)
    return float(loss(model, x, y))


def rule_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `optimizer` for one run."""
    steps = settings["steps"]

    def rated(name: str, lr: float) -> Any:
        rule = rules.named(name, lr=schedule.named("cosine", lr, steps, steps // 20))
        return replace(rule, beta2=0.99) if name == "adamw" else rule

    rule = rated(settings["rule"], settings["lr"])
    if settings["weight_decay"] is not None:
        rule = replace(rule, weight_decay=settings["weight_decay"])
    options: dict[str, Any] = {"rule": rule}
    if settings["rest_lr"] is not None:
        rest = rated("adamw", settings["rest_lr"])
        options["rest"] = replace(rest, weight_decay=getattr(rule, "weight_decay", 0.0))
    if settings["moments"] != "float32":
        options["state_dtype"] = settings["moments"]
    return options


def train(settings: dict[str, Any], letters: tuple[torch.Tensor, torch.Tensor, int]) -> dict[str, Any]:
    """One run: its curve [[step, loss], …], seconds of the processor and of updates alone."""
    learned, held_out, count = letters
    torch.manual_seed(settings["seed"])
    model = GPT(count)
    made = optimizer(model, **rule_of(settings))
    draw = torch.Generator().manual_seed(settings["seed"])
    curve, began, updating = [], time.process_time(), 0.0
    for step in range(1, settings["steps"] + 1):
        starts = torch.randint(len(learned) - CONTEXT, (BATCH,), generator=draw)
        made.zero_grad()
        loss(model, *windows(learned, starts)).backward()
        before = time.process_time()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        made.step()
        updating += time.process_time() - before
        if step % EVERY == 0 or step == settings["steps"]:
            curve.append([step, validated(model, held_out)])
    spent = time.process_time() - began
    state = sum(x.nbytes for entry in made.state.values() for x in entry.values() if torch.is_tensor(x))
    return {"curve": curve, "final": curve[-1][1], "seconds": spent, "updates": updating, "state": state}


def known() -> Iterator[dict[str, Any]]:
    """The runs that stand in the results file."""
    path = RESULTS / "gpt.jsonl"
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The settings of each run that was asked for."""
    for lr in map(float, options.lr.split(",")):
        for seed in map(int, options.seeds.split(",")):
            chosen = vars(options) | {"lr": lr, "seed": seed}
            yield {name: chosen[name] for name in SETTINGS}


def run(options: argparse.Namespace) -> None:
    """Train what was asked for and does not stand in the results yet."""
    torch.set_num_threads(1)
    letters = text(options.data)
    for settings in wanted(options):
        if any(all(old[name] == settings[name] for name in SETTINGS) for old in known()):
            print(f"known already: {settings}")
        else:
            write("gpt", **settings, **train(settings, letters))


def method(one: dict[str, Any]) -> tuple[Any, ...]:
    """What a run is called without its rate, length and seed."""
    return one["rule"], one["moments"], one["weight_decay"]


def summary(options: argparse.Namespace) -> None:
    """A table of all runs, and how many steps each method needs for the loss of tuned AdamW."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in known():
        found[(*method(one), one["lr"], one["rest_lr"], one["steps"])].append(one)
    print(f"{'rule':<14}{'moments':<10}{'decay':>6}{'lr':>9}{'rest':>9}{'steps':>6}{'n':>3}  final (sd)")
    for name, runs in sorted(found.items(), key=lambda entry: tuple(map(str, entry[0]))):
        final = [one["final"] for one in runs]
        sd = f"±{statistics.stdev(final):.4f}" if len(final) > 1 else ""
        ms = 1e3 * statistics.median(one["updates"] / one["steps"] for one in runs)
        rule, moments, decay, lr, rest, steps = ("-" if part is None else part for part in name)
        print(
            f"{rule:<14}{moments:<10}{decay:>6}{lr:>9}{rest:>9}{steps:>6}{len(runs):>3}  "
            f"{statistics.mean(final):.4f} {sd} update {ms:.2f} ms, state {runs[0]['state']:,} bytes"
        )
    compare(found)


def compare(found: dict[tuple[Any, ...], list[dict[str, Any]]]) -> None:
    """Every other method against the best AdamW of full length in float32, paired by seed."""
    ours = [name for name in found if name[:2] == ("adamw", "float32") and name[-1] == STEPS]
    if not ours:
        return
    best = min(ours, key=lambda name: [one["final"] for one in found[name] if one["seed"] == 0])
    reference = {one["seed"]: one for one in found[best]}
    print(f"\nAgainst AdamW, lr {best[3]:g}, {len(reference)} seeds; final loss, and steps to the same:")
    for name, runs in sorted(found.items(), key=lambda entry: tuple(map(str, entry[0]))):
        pairs = [(one, reference[one["seed"]]) for one in runs if one["seed"] in reference]
        if name != best and pairs:
            shorter = "" if name[-1] == STEPS else f", {name[-1]} steps"
            print(f"  {name[0]}, {name[1]}, lr {name[3]:g}{shorter}: {against(pairs)}")


def against(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Difference of final losses, and the ratio of the steps to the final loss of the second of each pair."""
    worse = [one["final"] - other["final"] for one, other in pairs]
    reached = [(other["steps"], first_at(one["curve"], other["final"])) for one, other in pairs]
    ratios = [math.log(steps / step) for steps, step in reached if step is not None]
    missed = len(pairs) - len(ratios)
    fewer = f"; {interval(ratios, '.3f', math.exp)} times fewer steps" if ratios else ""
    never = f"; {missed} of {len(pairs)} never as low" if missed else ""
    return f"loss {interval(worse, '+.4f')}{fewer}{never}"


def first_at(curve: list[list[float]], target: float) -> float | None:
    """The step from which on a curve is at or below the target, between two evaluations along a line."""
    above = [i for i, (_, value) in enumerate(curve) if value > target]
    if not above or above[-1] == len(curve) - 1:
        return None if above else curve[0][0]
    (a, high), (b, low) = curve[above[-1]], curve[above[-1] + 1]
    return a + (b - a) * (high - target) / (high - low)


def interval(values: list[float], form: str, shown: Callable[[float], float] = float) -> str:
    """Mean with its 95 % interval by Student's t over seeds."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{shown(mean):{form}} (one seed)"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{shown(mean):{form}} [{shown(mean - half):{form}}, {shown(mean + half):{form}}]"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    runs = verbs.add_parser("run")
    runs.set_defaults(verb=run)
    runs.add_argument("--data", type=Path, required=True)
    runs.add_argument("--rule", default="adamw")
    runs.add_argument("--lr", default="4e-3", help="one or more, with commas between them")
    runs.add_argument("--seeds", default="0", help="one or more, with commas between them")
    runs.add_argument("--moments", default="float32", choices=("float32", "bfloat16", "8bit"))
    runs.add_argument("--rest-lr", type=float, help="rate of AdamW for what a matrix rule does not take")
    runs.add_argument("--weight-decay", type=float, default=0.1)
    runs.add_argument("--steps", type=int, default=STEPS)
    verbs.add_parser("summary").set_defaults(verb=summary)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    chosen.verb(chosen)
