"""What follows from the candidate that won: its name, decay, clipping, stopping, and the course of the
rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from steepest.evidence import Evidence
from steepest.optim.rule import Rule, coupled
from steepest.train import budget
from steepest.train.job import Job
from steepest.train.resolved import Resolved
from steepest.train.settled import rule_of
from steepest.tuning import constants
from steepest.tuning.candidates import Candidate
from steepest.tuning.constants import (
    COUPLED_FEW,
    COUPLED_MANY,
    DECAY_CAP,
    GAIN,
    LEADS,
    MANY_EPOCHS,
    PATIENCE,
    PATIENT,
    REMEMBERED,
    TAU,
)
from steepest.tuning.halving import Halving, Standing
from steepest.tuning.journal import Search, unmeasured


def weight_decay(rule: Rule, lr: float, updates: int, epochs: float | None) -> Evidence:
    """The weight decay of a run of so many updates at a peak rate.   min(cap, 1/(lr·memory))

    memory = 1/(lr·weight_decay): the updates that a weight is remembered: τ of the run or a few epochs."""
    if not hasattr(rule, "weight_decay"):
        return Evidence("weight_decay", None, f"{type(rule).__name__} has none")
    if type(rule).couple is coupled:
        many = epochs is not None and epochs > MANY_EPOCHS
        long = "an unknown number of" if epochs is None else f"{epochs:.3g}"
        value = COUPLED_MANY if many else COUPLED_FEW
        return Evidence("weight_decay", value, f"the usual one inside the gradient, for {long} epochs")
    memory = min(TAU, math.inf if epochs is None else REMEMBERED / epochs) * updates
    asked = 1 / (lr * memory) if lr else math.inf
    long = f"{memory:.4g} of {updates} updates at {lr:.3g}"
    why = f"weights are remembered for {long}"
    if memory < TAU * updates:
        why += f": {REMEMBERED:g} epochs"
    if asked > DECAY_CAP:
        why = f"the largest that is taken; {long} ask for {asked:.3g}"
    return Evidence("weight_decay", min(DECAY_CAP, asked), why)


USUAL = 6
"""Evaluations without gain where nobody knows how many there will be: as under a level schedule."""

SMALL = 0.002
"""Largest gain that is asked for, as a share of the loss: early differences are noisier than later ones."""


def stopping(job: Job, halving: Halving, candidate: int, updates: int) -> Evidence:
    """Patience and least gain of the machine that lowers the rate before it ends a run.

    min_delta = GAIN·sd(L_now - L_before)/√n, pairs of held-out losses of one candidate; at most SMALL·L"""
    every = budget.parse(job.recipe.evaluate_every, "evaluate_every").steps(job.source.per_epoch)
    planned = updates // every if every else 0
    usual = max(PATIENCE, math.ceil(PATIENT * planned)) if planned else USUAL
    patience = job.asked.patience or usual
    gain, why = _gain(job, halving, candidate)
    least = f"a gain of {gain:.2g}" if gain else "any gain"
    of = f" of {planned}" if planned else ""
    why = f"{patience}{of} evaluations without {least} lower the rate; {why}"
    return Evidence("stop", {"patience": patience, "min_delta": gain}, why)


def _gain(job: Job, halving: Halving, candidate: int) -> tuple[float, str]:
    rows, before = job.prepared.sizes.get("val"), halving.before.get(candidate)
    if job.recipe.monitor != "val/loss" or not halving.held.batches or before is None or not rows:
        return 0.0, "no noise was measured"
    now = np.asarray(halving.results[candidate]["scores"])
    apart = now - np.asarray(before["scores"])
    if len(apart) < 2 or not np.isfinite(apart).all():
        return 0.0, "no noise was measured"
    error = float(np.std(apart, ddof=1)) / math.sqrt(rows)
    why = f"{GAIN:g} standard errors of a difference of losses on {rows} rows, at most {SMALL:g} of the loss"
    return min(GAIN * error, SMALL * abs(float(now.mean()))), why


SAME = 1e-3
"""Part of a loss within which what it counts as is not told apart from it."""

POINTS = 1000
"""Steps at which a curve of the rate is looked at."""

_TOO_FEW = "so few updates at a rate that is not measured go further where it does not fall"


def settled(search: Search, halving: Halving, ranked: Sequence[Standing], index: int) -> Candidate:
    """The candidate that won, at the rate that successive halving points to; told with what it was won
    against."""
    candidate, step = halving.candidates[index], halving.results[index]["step"]
    own = next(one for one in ranked if one.trial == index)
    why, kept = f"{_lead(halving, ranked, own)}, after {_long(halving)} each", step
    rows = [halving.row(one, one is own) for one in ranked]
    if "lr" in search.open and index:
        candidate = candidate.at(halving.between(index) * halving.risen(index))
        why += _between(halving, index, candidate.lr) + _cut(halving, index)
    told = {"rule", "lr"} & search.open
    if "rule" in told and halving.plan.rules == 1:
        told -= {"rule"}
        alone = f"{halving.plan.updates} updates hold a race of rates, not of rules"
        search.tell(unmeasured("rule", candidate.rule, alone))
    for setting in sorted(told, reverse=True):
        search.tell(Evidence(setting, getattr(candidate, setting), why, rows, reused=kept))
        kept = 0  # told once: lines are added up
    return candidate


def _between(halving: Halving, index: int, lr: float) -> str:
    """That the rate lies between those that were compared, where it does."""
    own = halving.candidates[index].lr * halving.risen(index)
    return "" if lr == own else f"; the parabola through its neighbours points to {lr:.3g}"


def _cut(halving: Halving, index: int) -> str:
    """That a rise ends with the search: no higher rate was seen."""
    if halving.risen(index) == 1.0:
        return ""
    return f"; it is the height that a rise over {halving.warmup} updates had come to by then, and ends at"


def _long(halving: Halving) -> str:
    return halving.long(halving.plan.rungs[len(halving.losses) - 1])


def _lead(halving: Halving, ranked: Sequence[Standing], own: Standing) -> str:
    """How the winner stands beside the next best."""
    rest = [one for one in ranked if one is not own]
    if not rest:
        return f"alone on the last rung, {halving.held.loss} {halving.loss(own.trial):.4g}"
    behind, error = rest[0].behind - own.behind, max(rest[0].error, own.error)
    apart = f"{abs(behind):.2g} ± {error:.2g} {'behind' if behind >= 0 else 'ahead, which may be chance'}"
    name, other = (halving.candidates[one.trial].name for one in (own, rest[0]))
    also = f" ({_loss(halving, rest[0])})" if _differs(halving, rest[0]) else ""
    return f"{name} has a {halving.held.loss} of {_loss(halving, own)}; {other}{also} is {apart}"


def _loss(halving: Halving, one: Standing) -> str:
    """The loss of a candidate, and what it counts as by the trend and its rule's credit."""
    counted = f", which counts as {one.loss:.4g} by trend and credit" if _differs(halving, one) else ""
    return f"{halving.loss(one.trial):.4g}{counted}"


def _differs(halving: Halving, one: Standing) -> bool:
    loss = halving.loss(one.trial)
    return abs(one.loss - loss) > SAME * abs(loss)


def clip(search: Search, halving: Halving) -> float | None:
    """Ten medians of the norms that the default met; no clipping where none was finite."""
    norms = [norm for norm in halving.results[0]["norms"] if math.isfinite(norm)]
    if not norms:
        search.tell(unmeasured("clip_norm", None, "no gradient of the default had a finite norm"))
        return None
    value = constants.CLIP * median(norms)
    why = f"{constants.CLIP:g} × the median of {len(norms)} gradient norms of the default"
    search.tell(Evidence("clip_norm", value or None, why))
    return value or None


def finished(
    search: Search, candidate: Candidate, updates: int | None, halving: Halving | None, index: int = 0
) -> Resolved:
    """All that is left open, from the candidate that won and its comparison; and where the run begins."""
    step = halving.results[index]["step"] if halving is not None else 0
    search.settings |= candidate.settings()
    if "weight_decay" in search.open:
        _decay(search, candidate, updates)
    if halving is not None and updates is not None:
        _watched(search, halving, index, updates)
    schedule = _schedule(search, halving, index, updates)
    won = None if halving is None else index
    return Resolved(search.settings, schedule, won, step, candidate.name, search.gradients, step)


def _watched(search: Search, halving: Halving, index: int, updates: int) -> None:
    if "clip_norm" in search.open and "clip_norm" not in search.settings:
        clip(search, halving)
    if "stop" in search.open or _ours(search):
        evidence = stopping(search.job, halving, index, updates)
        search.told(evidence)
        search.settings |= {**evidence.decided, "stop": "lower"}


def _ours(search: Search) -> bool:
    """Whether the course of a rate that was measured is ours, with nobody to say when the rate must fall: one
    that led early and is too high for the rest would spoil a run that has gone well."""
    return {"lr", "schedule"} <= search.open and search.job.asked.stop is None


def _decay(search: Search, candidate: Candidate, updates: int | None) -> None:
    per_epoch = search.job.source.per_epoch
    if updates is None:
        usual = search.job.recipe.weight_decay
        search.tell(unmeasured("weight_decay", usual, "the length of the run is not known"))
        return
    epochs = updates / per_epoch if per_epoch else None
    job = search.job.having(candidate.settings())
    rule = rule_of(job.recipe, job.given)
    search.tell(weight_decay(rule, candidate.lr or _highest(rule, updates), updates, epochs))


def _highest(rule: Rule, updates: int) -> float:
    """The highest rate of a rule whose rate is a function of the step."""
    return max(float(rule.at(step).lr) for step in range(1, updates + 1, max(updates // POINTS, 1)))


def _schedule(
    search: Search, halving: Halving | None, index: int, updates: int | None
) -> dict[str, int] | None:
    if "schedule" not in search.open:
        return None
    known = (halving is not None and halving.losses) or (
        "rule" in search.open and search.settings["rule"] in LEADS
    )
    if updates is None or ("lr" in search.open and not known):
        few = "the length of the run is not known" if updates is None else _TOO_FEW
        search.tell(unmeasured("schedule", "plateau", few))
        search.settings["schedule"] = "plateau"
        return None
    step = halving.results[index]["step"] if halving is not None else 0
    warmup = 0 if halving is None or halving.warmup is None else halving.fewer(index, halving.warmup)
    if index and "lr" in search.open:
        warmup = min(warmup, step)
    begin = max(step, warmup)
    level = f"level up to update {step}, where the search ends; then " if step else ""
    if warmup > step:
        level = f"a rise over {warmup} updates; then "
    why = f"{level}a line to zero at the end of the budget, which is known"
    search.tell(Evidence("schedule", "linear", why))
    search.settings["schedule"] = "linear"
    _average(search)
    return {"warmup": warmup, "begin": begin}


def _average(search: Search) -> None:
    """An average of the weights beside a rate that stays high: as good as a fallen rate at any moment."""
    job = search.job.having(search.settings)
    if job.recipe.average is not None or rule_of(job.recipe, job.given).evaluates():
        return
    why = "tested and shipped is the mean of about the last ninth of updates until then, without their noise"
    search.told(Evidence("average", constants.WATCHED, why))
    search.settings["average"] = constants.WATCHED
