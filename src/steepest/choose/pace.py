"""How many updates a budget in seconds holds, and how long those of other rules take, timed in the loop of
`fit` itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

from steepest.choose.arms import Arm
from steepest.choose.trial import Trial
from steepest.evidence import Evidence
from steepest.train import budget
from steepest.train.fitting import evaluation_seconds
from steepest.train.job import Job

WARM = 3
"""Updates that are not timed: the first ones make memory and kernels."""

TIMED = (5, 2000)
"""Fewest and most updates that are timed."""

SHARE, LONGEST = 0.02, 2.0
"""Of the budget, and seconds, that timing takes at most, where the fewest allow it."""

MARGIN = 0.9
"""Share of the time that is planned with. A run that ends early has lost little; one that is cut has lost the
fall of its rate."""

ROUNDS, EACH = 4, 2
"""How often rules are timed in turn, and updates of each time; the quickest counts, as what else the machine
does only adds."""


def horizon(job: Job, seconds: float) -> Evidence:
    """The updates that fit into so many seconds, evaluations shared out over them, timing included."""
    began, trial = time.perf_counter(), Trial(job, 10**9)
    trial.advance(WARM)
    started, until = time.perf_counter(), min(SHARE * seconds, LONGEST)
    while trial.done < WARM + TIMED[0] or time.perf_counter() - started < until:
        trial.advance(trial.done + TIMED[0])
        if trial.dead or trial.done >= TIMED[1]:
            break
    each = (time.perf_counter() - started) / max(trial.done - WARM, 1)
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    each += evaluation_seconds(job) / every if every else 0.0
    spent = time.perf_counter() - began
    steps = max(1, int(MARGIN * (seconds - spent) / each))
    why = f"{MARGIN:g} of {seconds:.3g} s at {1e3 * each:.3g} ms an update, evaluations included"
    return Evidence("horizon", steps, why, seconds=spent)


def slowness(job: Job, arms: Sequence[Arm]) -> Evidence:
    """Seconds of an update of each rule, in those of the first: {rule: ratio}."""
    trials = [Trial(job.having(arm.settings()), 10**9) for arm in arms]
    for trial in trials:
        trial.advance(WARM)
    rounds = [[_timed(trial) for trial in trials] for _ in range(ROUNDS)]
    first, *others = map(min, zip(*rounds, strict=True))
    found = {arm.rule: other / first for arm, other in zip(arms[1:], others, strict=True)}
    said = ", ".join(f"{rule} takes {ratio:.3g} times as long" for rule, ratio in found.items())
    why = f"an update of {said} as one of {arms[0].rule}: arms of it race for as many seconds, not updates"
    return Evidence("pace", found, why, gradients=len(arms) * (WARM + ROUNDS * EACH))


def _timed(trial: Trial) -> float:
    began = time.perf_counter()
    trial.advance(trial.done + EACH)
    return time.perf_counter() - began
