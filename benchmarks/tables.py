"""`fit` with nothing said on small tables, whose validation parts are small too: where its runs end.

Budgets are in steps, so that a run is a function of its seed and of the code: two versions of the code are
compared in pairs, and a pair that does the same ends in the same bits. One line a run in
results/tables.jsonl; a run that stands there under this name of the code is skipped.

python benchmarks/tables.py CODE [--seeds 0-4] [--budgets 400,2000] [--data iris,wine] [--against OTHER]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: bits depend on the threads

from record import RESULTS, surroundings

import steepest

DATA = ("iris", "wine", "breast_cancer", "diabetes", "digits")
IDENTITY = ("code", "data", "budget", "seed")
"""What tells a run from others."""


def known() -> dict[tuple[Any, ...], dict[str, Any]]:
    """All runs that stand in the results."""
    path = RESULTS / "tables.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {tuple(one[name] for name in IDENTITY): one for one in map(json.loads, lines)}


def trained(data: str, budget: int, seed: int) -> dict[str, Any]:
    """Losses at the end of one run, what it chose, and whether it began again on its way."""
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        run = steepest.fit(data, budget=f"{budget} steps", seed=seed, num_threads=1, out=f"{folder}/run")
        back = [one.decided for one in run.evidence if one.choice == "insurance"]
        losses = {name: run.metrics[name] for name in ("val/loss", "test/loss")}
        names = ("rule", "lr", "batch_size")
        chosen = {one.choice: one.decided for one in run.evidence if one.choice in names}
    return losses | {"chosen": chosen, "back": any(one != "kept" for one in back)}


def measure(options: argparse.Namespace) -> None:
    """Every run that is not known yet, in turn over the tables."""
    held = known()
    for seed in options.seeds:
        for budget in options.budgets:
            for data in options.data:
                one = (options.code, data, budget, seed)
                if one in held:
                    continue
                found = dict(zip(IDENTITY, one, strict=True)) | trained(data, budget, seed)
                with open(RESULTS / "tables.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(found | surroundings()) + "\n")
                ends = f"{found['val/loss']:.4g} {found['test/loss']:.4g}"
                print(*one, ends, "began again" if found["back"] else "", flush=True)


def compared(code: str, other: str) -> Iterator[str]:
    """By table and budget: pairs, those that began again on their way, geometric means of ratios of ends."""
    held = known()
    cells = sorted({key[1:3] for key in held if key[0] == code})
    for data, budget in cells:
        seeds = [key[3] for key in held if key[:3] == (code, data, budget) and (other, *key[1:]) in held]
        pairs = [(held[code, data, budget, seed], held[other, data, budget, seed]) for seed in seeds]
        if not pairs:
            continue
        went = [(one, beside) for one, beside in pairs if beside["back"] or one["back"]]
        ratios = {
            name: statistics.geometric_mean(one[name] / beside[name] for one, beside in pairs)
            for name in ("val/loss", "test/loss")
        }
        lower = sum(one["test/loss"] < beside["test/loss"] for one, beside in went)
        ends = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        yield f"{data} {budget}: {len(pairs)} pairs, ratios of ends {ends}"
        yield f"    {len(went)} began again in one of them; of these {lower} end lower on test"


def numbers(text: str) -> list[int]:
    """0,1,2 or 0-4."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]


def main() -> None:
    """Measure, then compare where another code is named."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("code", help="a name for the code that is installed")
    parser.add_argument("--seeds", type=numbers, default="0-4")
    parser.add_argument("--budgets", type=numbers, default="400,2000")
    parser.add_argument("--data", type=lambda text: text.split(","), default=",".join(DATA))
    parser.add_argument("--against", help="a name that stands in the results already")
    options = parser.parse_args()
    measure(options)
    if options.against is not None:
        print(*compared(options.code, options.against), sep="\n")


if __name__ == "__main__":
    main()
