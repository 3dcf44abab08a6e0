"""What follows from the arm that won: its name, decay, clipping, stopping, and the course of the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from steepest.evidence import Evidence
from steepest.optim.rule import Rule
from steepest.train.settled import rule_of
from steepest.tuning import constants
from steepest.tuning.arms import Arm
from steepest.tuning.constants import LEADS
from steepest.tuning.decay import weight_decay
from steepest.tuning.ledger import Chosen, Search, unmeasured
from steepest.tuning.race import Race
from steepest.tuning.rungs import Standing
from steepest.tuning.stop import stopping

SAME = 1e-3
"""Part of a loss within which what it counts as is not told apart from it."""

POINTS = 1000
"""Steps at which a curve of the rate is looked at."""

_TOO_FEW = "so few updates at a rate that is not measured go further where it does not fall"


def settled(search: Search, race: Race, ranked: Sequence[Standing], index: int) -> Arm:
    """The arm that won, at the rate that the race points to; told with what it was won against."""
    arm, step = race.arms[index], race.results[index]["step"]
    own = next(one for one in ranked if one.arm == index)
    why, kept = f"{_lead(race, ranked, own)}, after {_long(race)} each", step
    rows = [race.row(one, one is own) for one in ranked]
    if "lr" in search.open and index:
        arm = arm.at(race.between(index) * race.risen(index))
        why += _between(race, index, arm.lr) + _cut(race, index)
    told = {"rule", "lr"} & search.open
    if "rule" in told and race.plan.rules == 1:
        told -= {"rule"}
        alone = f"{race.plan.updates} updates hold a race of rates, not of rules"
        search.tell(unmeasured("rule", arm.rule, alone))
    for setting in sorted(told, reverse=True):
        search.tell(Evidence(setting, getattr(arm, setting), why, rows, reused=kept))
        kept = 0  # told once: lines are added up
    return arm


def _between(race: Race, index: int, lr: float) -> str:
    """That the rate lies between those that raced, where it does."""
    own = race.arms[index].lr * race.risen(index)
    return "" if lr == own else f"; the parabola through its neighbours points to {lr:.3g}"


def _cut(race: Race, index: int) -> str:
    """That a rise ends with the search: no higher rate was seen."""
    if race.risen(index) == 1.0:
        return ""
    return f"; it is the height that a rise over {race.warmup} updates had come to by then, and ends at"


def _long(race: Race) -> str:
    return race.long(race.plan.rungs[len(race.losses) - 1])


def _lead(race: Race, ranked: Sequence[Standing], own: Standing) -> str:
    """How the winner stands beside the next best."""
    rest = [one for one in ranked if one is not own]
    if not rest:
        return f"alone on the last rung, {race.held.loss} {race.loss(own.arm):.4g}"
    behind, error = rest[0].behind - own.behind, max(rest[0].error, own.error)
    apart = f"{abs(behind):.2g} ± {error:.2g} {'behind' if behind >= 0 else 'ahead, which may be chance'}"
    name, other = (race.arms[one.arm].name for one in (own, rest[0]))
    also = f" ({_loss(race, rest[0])})" if _differs(race, rest[0]) else ""
    return f"{name} has a {race.held.loss} of {_loss(race, own)}; {other}{also} is {apart}"


def _loss(race: Race, one: Standing) -> str:
    """The loss of an arm, and what it counts as by the trend and its rule's credit."""
    counted = f", which counts as {one.loss:.4g} by trend and credit" if _differs(race, one) else ""
    return f"{race.loss(one.arm):.4g}{counted}"


def _differs(race: Race, one: Standing) -> bool:
    loss = race.loss(one.arm)
    return abs(one.loss - loss) > SAME * abs(loss)


def clip(search: Search, race: Race) -> float | None:
    """Ten medians of the norms that the default met; no clipping where none was finite."""
    norms = [norm for norm in race.results[0]["norms"] if math.isfinite(norm)]
    if not norms:
        search.tell(unmeasured("clip_norm", None, "no gradient of the default had a finite norm"))
        return None
    value = constants.CLIP * median(norms)
    why = f"{constants.CLIP:g} × the median of {len(norms)} gradient norms of the default"
    search.tell(Evidence("clip_norm", value or None, why))
    return value or None


def finished(search: Search, arm: Arm, updates: int | None, race: Race | None, index: int = 0) -> Chosen:
    """All that is left open, from the arm and its race; and where the run begins."""
    step = race.results[index]["step"] if race is not None else 0
    search.settings |= arm.settings()
    if "weight_decay" in search.open:
        _decay(search, arm, updates)
    if race is not None and updates is not None:
        _watched(search, race, index, updates)
    schedule = _schedule(search, race, index, updates)
    won = None if race is None else index
    return Chosen(search.settings, schedule, won, step, arm.name, search.gradients, step)


def _watched(search: Search, race: Race, index: int, updates: int) -> None:
    if "clip_norm" in search.open and "clip_norm" not in search.settings:
        clip(search, race)
    if "stop" in search.open or _ours(search):
        evidence = stopping(search.job, race, index, updates)
        search.told(evidence)
        search.settings |= {**evidence.decided, "stop": "lower"}


def _ours(search: Search) -> bool:
    """Whether the course of a rate that was measured is ours, with nobody to say when the rate must fall: one
    that led early and is too high for the rest would spoil a run that has gone well."""
    return {"lr", "schedule"} <= search.open and search.job.asked.stop is None


def _decay(search: Search, arm: Arm, updates: int | None) -> None:
    per_epoch = search.job.source.per_epoch
    if updates is None:
        usual = search.job.recipe.weight_decay
        search.tell(unmeasured("weight_decay", usual, "the length of the run is not known"))
        return
    epochs = updates / per_epoch if per_epoch else None
    job = search.job.having(arm.settings())
    rule = rule_of(job.recipe, job.given)
    search.tell(weight_decay(rule, arm.lr or _highest(rule, updates), updates, epochs))


def _highest(rule: Rule, updates: int) -> float:
    """The highest rate of a rule whose rate is a function of the step."""
    return max(float(rule.at(step).lr) for step in range(1, updates + 1, max(updates // POINTS, 1)))


def _schedule(search: Search, race: Race | None, index: int, updates: int | None) -> dict[str, int] | None:
    if "schedule" not in search.open:
        return None
    known = (race is not None and race.losses) or ("rule" in search.open and search.settings["rule"] in LEADS)
    if updates is None or ("lr" in search.open and not known):
        few = "the length of the run is not known" if updates is None else _TOO_FEW
        search.tell(unmeasured("schedule", "plateau", few))
        search.settings["schedule"] = "plateau"
        return None
    step = race.results[index]["step"] if race is not None else 0
    warmup = 0 if race is None or race.warmup is None else race.fewer(index, race.warmup)
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
