"""The suite's commands.

python -m benchmarks.suite prepare --data ../shared/data
python -m benchmarks.suite lengths                        each workload once with AdamW; what it costs
python -m benchmarks.suite pool --trials 16 --jobs 2      quasi-random trials of three optimizers
python -m benchmarks.suite targets --jobs 2               ten new seeds of the best trial; writes targets.json
python -m benchmarks.suite methods --seeds 0-4 --jobs 2   the opponents; --methods "adamw,muon" for some
python -m benchmarks.suite methods --methods "auto,optuna" --lengths 5,10
python -m benchmarks.suite grid --seeds 0-4 --jobs 2      the rate chosen alone beside 15 fixed rates
python -m benchmarks.suite calibrate --jobs 2             what the constants of the choice are set by
python -m benchmarks.suite score --against "nadamw point" [--picture profile.png]
python -m benchmarks.suite finals --against auto --lengths 5,10   where methods end; needs no targets

--only mnist_mlp,letter_mlp+tanh for some workloads. A run that stands in benchmarks/results/suite is skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread a run

from benchmarks.suite import cache, calibrate, frozen, scores, workloads
from benchmarks.suite import finals as ends
from benchmarks.suite import grid as rates
from benchmarks.suite.ours import ASIDE, METHODS
from benchmarks.suite.pool import RATES, SEED, trials
from benchmarks.suite.running import Wanted, run
from steepest.optim.errors import UserError


def prepare(options: argparse.Namespace) -> None:
    """The data of the core and of what else is asked for."""
    needed = {workloads.named(name).data for name in options.only}
    cache.prepare(options.data, {name: workloads.READERS[name] for name in sorted(needed)})


def lengths(options: argparse.Namespace) -> None:
    """Each workload once, by AdamW with a cosine, at the standard length."""
    run(
        [Wanted("lengths", name, "adamw cosine", seed) for seed in options.seeds for name in options.only],
        options.jobs,
    )


def pool(options: argparse.Namespace) -> None:
    """Trials in turn over workloads and optimizers, so that what disturbs the clock disturbs all."""
    lists = {rule: trials(rule, options.trials) for rule in RATES}
    wanted = [
        Wanted("pool", name, rule, SEED, trial=number, config=lists[rule][number])
        for number in range(options.trials)
        for name in options.only
        for rule in lists
    ]
    run(wanted, options.jobs)


def targets(options: argparse.Namespace) -> None:
    """Ten new seeds of the best trial and of the default after an epoch; then the table is written."""
    while wanted := frozen.unknown(options.only):
        run(wanted, options.jobs)
    frozen.write(options.only)


def methods(options: argparse.Namespace) -> None:
    """Methods in turn within each seed and workload."""
    unknown = set(options.methods) - set(METHODS)
    if unknown:
        raise UserError(f"There is no method {sorted(unknown)[0]!r}. Known: {', '.join(METHODS)}.")
    wanted = [
        Wanted("methods", name, one, seed, length)
        for length in options.lengths
        for seed in options.seeds
        for name in options.only
        for one in options.methods
    ]
    run(wanted, options.jobs)


def grid(options: argparse.Namespace) -> None:
    """The rate chosen alone and a grid of rates; then the table of what the choice costs."""
    for length in options.lengths:
        run(rates.wanted(options.only, options.seeds, length), options.jobs)
        print(rates.report(options.only, length))


def calibrated(options: argparse.Namespace) -> None:
    """Two rules over a grid of rates, early and whole; then what choices cost that are made early."""
    calibrate.calibrate(options.only, options.jobs)
    print(calibrate.report(options.only))


def score(options: argparse.Namespace) -> None:
    """The tables, and the picture where it is asked for."""
    for length in options.lengths:
        print(scores.report(options.only, options.against, length, options.clock, options.picture))


def finals(options: argparse.Namespace) -> None:
    """Where methods end, beside one of them; for any length and any workload."""
    for length in options.lengths:
        print(ends.report(options.only, options.against, length) + "\n")


def numbers(text: str) -> list[int]:
    """0,1,2 or 0-4."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    core = ",".join(one.name for one in workloads.CORE)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for verb in (prepare, lengths, pool, targets, methods, grid, calibrated, score, finals):
        name = "calibrate" if verb is calibrated else verb.__name__
        command = commands.add_parser(name, help=verb.__doc__)
        command.set_defaults(verb=verb)
        command.add_argument("--only", default=core, help="workloads, with commas; the core where left out")
        command.add_argument("--data", type=Path, required=verb is prepare, help="folder of the raw data")
        command.add_argument("--jobs", type=int, default=1, help="processes side by side, of one thread each")
        command.add_argument("--seeds", type=numbers, default="0-4" if verb in (methods, grid) else "0")
        command.add_argument("--trials", type=int, default=16, help="of each optimizer")
        command.add_argument("--methods", default=",".join(one for one in METHODS if one not in ASIDE))
        usual = "1" if verb is grid else "1.5"
        command.add_argument("--lengths", default=usual, help="budgets in standard lengths, with commas")
        command.add_argument(
            "--against", default="nadamw point", help="the method that others are held against"
        )
        command.add_argument("--clock", choices=("evaluations", "seconds"), default="evaluations")
        command.add_argument("--picture", type=Path, help="where to draw the performance profile")
    options = parser.parse_args(given)
    options.only, options.methods = options.only.split(","), options.methods.split(",")
    options.lengths = [float(part) for part in options.lengths.split(",")]
    return options


def main() -> None:
    """Run the command; a mistake of the caller's is one sentence."""
    options = arguments()
    try:
        if options.data and options.verb is not prepare:
            prepare(options)
        options.verb(options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
