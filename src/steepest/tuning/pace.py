"""How many updates a budget in seconds holds, and how long those of other rules take, timed in the loop of
`fit` itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from steepest.evidence import Evidence
from steepest.train import budget
from steepest.train.fitting import evaluation_seconds
from steepest.train.job import Job
from steepest.tuning.arms import Arm
from steepest.tuning.trial import Trial

WARM = 3
"""Updates that are not timed: the first ones make memory and kernels."""

TIMED = (5, 2000)
"""Fewest and most updates that are timed."""

SHARE, LONGEST = 0.02, 2.0
"""Of the budget, and seconds, that timing takes at most, where the fewest allow it."""

MARGIN = 0.9
"""Share of the time that is planned with. A run that ends early has lost little; one that is cut has lost the
fall of its rate."""

ROUNDS, EACH = 4, 6
"""How often rules are timed in turn, and updates of each time; the quickest counts, as what else the machine
does only adds."""


def horizon(job: Job, seconds: float) -> Evidence:
    """The updates that fit into so many seconds, evaluations shared out over them, timing included."""
    began = time.perf_counter()
    each = _each(Trial(job, 10**9), min(SHARE * seconds, LONGEST))
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    each += evaluation_seconds(job) / every if every else 0.0
    spent = time.perf_counter() - began
    steps = max(1, int(MARGIN * (seconds - spent) / each))
    why = f"{MARGIN:g} of {seconds:.3g} s at {1e3 * each:.3g} ms an update, evaluations included"
    return Evidence("horizon", steps, why, seconds=spent)


def _each(trial: Trial, most: float) -> float:
    """Seconds of an update, of as many as fit into `most`: all in one go, since to leave a trial and to come
    back to it copies all that it holds."""
    marks = [time.perf_counter()]
    for _ in trial.updates(WARM + TIMED[1]):
        marks.append(time.perf_counter())
        if len(marks) > WARM + TIMED[0] and marks[-1] - marks[WARM] >= most:
            break
    if len(marks) > WARM + 1:
        return (marks[-1] - marks[WARM]) / (len(marks) - 1 - WARM)
    return (time.perf_counter() - marks[0]) / max(len(marks) - 1, 1)  # it died


def slowness(job: Job, arms: Sequence[Arm]) -> Evidence:
    """Seconds of an update of each rule, in those of the first: {rule: ratio}; 1 for one that dies of its own
    default rate, of which nothing is known."""
    trials = [Trial(job.having(arm.settings()), 10**9) for arm in arms]
    for trial in trials:
        trial.advance(WARM)
    rounds = [[_timed(trial) for trial in trials] for _ in range(ROUNDS)]
    first, *others = map(min, zip(*rounds, strict=True))
    known = {arm.rule: other / first for arm, other in zip(arms[1:], others, strict=True)}
    found = {rule: ratio if 0 < ratio < math.inf else 1.0 for rule, ratio in known.items()}
    said = ", ".join(f"{rule} takes {ratio:.3g} times as long" for rule, ratio in found.items())
    why = f"an update of {said} as one of {arms[0].rule}: arms of it race for as many seconds, not updates"
    return Evidence("slowness", found, why, gradients=len(arms) * (WARM + ROUNDS * EACH))


def _timed(trial: Trial) -> float:
    """Seconds of an update, without what it takes to come back to the trial; infinite where it is dead."""
    marks = [time.perf_counter() for _ in trial.updates(trial.done + EACH)]
    return math.inf if trial.dead or len(marks) < 2 else (marks[-1] - marks[0]) / (len(marks) - 1)
