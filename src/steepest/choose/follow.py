"""What follows from the arm that won: its name, decay, clipping, stopping, and the course of the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from steepest.choose import constants
from steepest.choose.arms import Arm
from steepest.choose.decay import weight_decay
from steepest.choose.ledger import Chosen, Search, plain, unmeasured
from steepest.choose.race import Race
from steepest.choose.rungs import Standing
from steepest.choose.stop import stopping
from steepest.evidence import Evidence
from steepest.train.settled import rule_of


def name(search: Search, race: Race, ranked: Sequence[Standing], index: int) -> None:
    """Tell rule and rate, with what they were won against."""
    arm, step = race.arms[index], race.results[index]["step"]
    own = next(one for one in ranked if one.arm == index)
    lead = f"alone on the last rung, held-out loss {own.loss:.4g}"
    if rest := [one for one in ranked if one.arm != index]:
        behind = f"{rest[0].behind - own.behind:.2g} ± {rest[0].error:.2g}"
        lead = f"held-out loss {own.loss:.4g}; {race.arms[rest[0].arm].name} is {behind} behind"
    rows = [
        {"arm": race.arms[o.arm].name, "loss": plain(o.loss), "behind": plain(o.behind), "kept": o is own}
        for o in ranked
    ]
    why, kept = f"{lead}, after {step} updates each", step
    for setting in ("rule", "lr"):
        if setting in search.open:
            search.tell(Evidence(setting, getattr(arm, setting), why, rows, reused=kept))
            kept = 0  # told once: lines are added up


def clip(search: Search, race: Race) -> float | None:
    """Ten medians of the norms that the default met; no clipping where none was finite."""
    norms = [norm for norm in race.results[0]["norms"] if math.isfinite(norm)]
    value = constants.CLIP * median(norms) if norms else None
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
    schedule = _schedule(search, race, step, updates)
    spent = search.gradients + (race.spent if race is not None else 0.0)
    return Chosen(search.settings, schedule, None if race is None else index, step, arm.name, spent, step)


def _watched(search: Search, race: Race, index: int, updates: int) -> None:
    if "clip_norm" in search.open and "clip_norm" not in search.settings:
        clip(search, race)
    if "stop" in search.open:
        evidence = stopping(search.job, race, index, updates)
        search.told(evidence)
        search.settings |= {**evidence.decided, "stop": "auto"}  # the machine may lower the rate


def _decay(search: Search, arm: Arm, updates: int | None) -> None:
    per_epoch = search.job.source.per_epoch
    epochs = updates / per_epoch if updates and per_epoch else None
    job = search.job.having(arm.settings())
    search.tell(weight_decay(rule_of(job.recipe, job.given), arm.lr, updates or 1, epochs))


def _schedule(search: Search, race: Race | None, step: int, updates: int | None) -> dict[str, int] | None:
    if "schedule" not in search.open:
        return None
    if updates is None:
        search.tell(unmeasured("schedule", "plateau", "the length of the run is not known"))
        search.settings["schedule"] = "plateau"
        return None
    warmup = 0 if race is None or race.warmup is None else race.warmup
    level = f"level up to update {step}, where the search ends; then " if step else ""
    why = f"{level}a line to zero at the end of the budget, which is known"
    search.tell(Evidence("schedule", "linear", why))
    return {"warmup": min(warmup, step), "begin": step}
