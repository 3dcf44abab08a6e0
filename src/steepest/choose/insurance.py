"""Insurance: a chosen run is held once against the default arm, and against its own beginning.

Worse than it was when the search ended, its rate is too high: it begins there again at the next lower one.
Worse than the default arm was when that was stopped, the default goes on in its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from steepest.choose import rungs
from steepest.choose.arms import Arm, default
from steepest.choose.constants import REGRET, STEP, TRIED
from steepest.choose.decay import weight_decay
from steepest.choose.ledger import Chosen
from steepest.choose.scores import Shown, held_out, losses
from steepest.evidence import Evidence
from steepest.train import checkpoint
from steepest.train.job import Job
from steepest.train.settled import rule_of

HELD = "held"
"""Name of the measurement that says how many examples arms were scored on."""


@dataclass(frozen=True)
class WayBack:
    """A place that a run may begin again from.

    scores  held-out losses there;   chosen  what would have been chosen to come from there"""

    scores: Sequence[float]
    chosen: Chosen


@dataclass(frozen=True)
class Insurance:
    """What a run may go back to, once.

    at    the update after which it is looked at: TRIED of what follows the search
    held  how held-out examples were drawn;   ways  back, the best first"""

    at: int
    held: dict[str, Any]
    ways: Sequence[WayBack]


def insured(job: Job, chosen: Chosen, place: Path, total: int) -> Insurance | None:
    """The insurance of a run; None where the default won, the run has gone back before, or there are no
    held-out examples to compare on.

    job: the one that was searched for, with defaults in the place of what was open"""
    if not chosen.arm or chosen.again or not held_out(job, **_value(place / f"{HELD}.json")).batches:
        return None
    at = chosen.step + max(round(TRIED * (total - chosen.step)), 1)
    spent = replace(chosen, gradients=chosen.gradients + at - chosen.step, again=True)
    found = [_to_default(job, spent, place), _to_lower(job, spent, place, total)]
    ways = sorted((way for way in found if way is not None), key=lambda way: fmean(way.scores))
    return Insurance(at, _value(place / f"{HELD}.json"), ways) if ways else None


def _to_default(job: Job, chosen: Chosen, place: Path) -> WayBack | None:
    stopped = checkpoint.steps(place / "arm-0")
    if not stopped or (result := _value(place / f"arm-0-{stopped[0]}.json"))["dead"]:
        return None
    arm, step = default(job.recipe), stopped[0]
    schedule = None if chosen.schedule is None else {**chosen.schedule, "begin": step}
    own = {"arm": 0, "step": step, "reused": step, "name": arm.name, "schedule": schedule}
    return WayBack(result["scores"], replace(chosen, settings={**chosen.settings, **arm.settings()}, **own))


def _to_lower(job: Job, chosen: Chosen, place: Path, total: int) -> WayBack | None:
    if "lr" not in job.asked.open:
        return None
    settings = {**chosen.settings, "lr": chosen.settings["lr"] / STEP}
    if "weight_decay" in job.asked.open:
        rule = rule_of(job.having(settings).recipe, job.given)
        epochs = total / job.source.per_epoch if job.source.per_epoch else None
        settings["weight_decay"] = weight_decay(rule, settings["lr"], total, epochs).decided
    name = Arm(settings["rule"], settings["lr"]).name
    scores = _value(place / f"arm-{chosen.arm}-{chosen.step}.json")["scores"]
    return WayBack(scores, replace(chosen, settings=settings, name=name))


def regret(job: Job, insurance: Insurance, shown: Shown) -> tuple[Chosen | None, Evidence]:
    """The best place that the run is worse than by now, for it to go back to; None: it has come further.

    shown  what puts the weights to ship into the network, as those of the arms were"""
    now = losses(job, held_out(job, **insurance.held), shown)
    behind = [_behind(now, way.scores) for way in insurance.ways]
    place = next((place for place, z in enumerate(behind) if z > REGRET), 0)
    way, worse = insurance.ways[place].chosen, behind[place] > REGRET
    far = f"{behind[place]:.2g} standard errors behind" if behind[place] > 0 else "not behind"
    where = f"{far} update {way.step}, where {way.name} would begin"
    why = f"held-out loss {fmean(now):.4g} at update {insurance.at}, {where}"
    told = Evidence("insurance", way.name if worse else "kept", f"{why}; {REGRET:g} are the limit")
    return way if worse else None, told


def _behind(now: Sequence[float], before: Sequence[float]) -> float:
    return next(one.z for one in rungs.standings({0: now, 1: before}) if one.arm == 0)


def cancel(place: Path) -> None:
    """Forget the states of all arms."""
    for arm in place.glob("arm-*"):
        if arm.is_dir():
            shutil.rmtree(arm)


def _value(path: Path) -> Any:
    return json.loads(path.read_bytes())["value"]
