"""Insurance: a chosen run is held once against the default arm, and against its own beginning.

Come no further than when the search ended, its rate is too high: it begins there again at the next lower one.
Come no further than the default arm had when that was stopped, the default goes on in its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from steepest.evidence import Evidence
from steepest.train import budget, checkpoint
from steepest.train.job import Job
from steepest.train.settled import rule_of
from steepest.tuning import journal, rungs
from steepest.tuning.arms import Arm
from steepest.tuning.constants import LARGEST_SHARE, REGRET, STEP, TRIED
from steepest.tuning.decay import weight_decay
from steepest.tuning.ledger import Chosen
from steepest.tuning.scores import Shown, evaluations, held_out, losses

HELD = "held"
"""Name of the measurement that says how many examples arms were scored on."""

DEFAULT = "default"
"""Name of that which says which arm was the one to beat, where arms raced."""


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
    lost  updates that going back would be for nothing
    held  how held-out examples were drawn;   ways  back, the best first"""

    at: int
    lost: int
    held: dict[str, Any]
    ways: Sequence[WayBack]


def insured(job: Job, chosen: Chosen, place: Path, total: int) -> Insurance | None:
    """The insurance of a run; None where no arms have raced, the run has gone back before, or there are no
    held-out examples to compare on.

    job: the one that was searched for, with defaults in the place of what was open"""
    if chosen.again or not raced(chosen, place):
        return None
    job = job.having({key: chosen.settings[key] for key in {"batch_size"} & chosen.settings.keys()})
    if not held_out(job, **_value(place / f"{HELD}.json")).batches:
        return None
    at = chosen.step + _tried(job, chosen, place, total)
    spent = replace(chosen, gradients=chosen.gradients + at - chosen.step, again=True)
    found = [_to_default(job, spent, place, total), _to_lower(job, spent, place, total)]
    ways = sorted((way for way in found if way is not None), key=lambda way: fmean(way.scores))
    return Insurance(at, at - chosen.step, _value(place / f"{HELD}.json"), ways) if ways else None


def raced(chosen: Chosen, place: Path) -> bool:
    """Whether a run goes on from an arm that others have raced with."""
    return chosen.arm is not None and (place / f"{DEFAULT}.json").exists()


def _tried(job: Job, chosen: Chosen, place: Path, total: int) -> int:
    """Updates before the look, of those that follow the search: as many as may be for nothing."""
    fewest, most = (share * (total - chosen.step) for share in TRIED)
    left = _left(job, chosen, place, total) - evaluations(job, total)
    return max(round(min(max(left, fewest), most)), 1)


def _left(job: Job, chosen: Chosen, place: Path, total: int) -> float:
    """Updates that a search may still cost, of the share that it has at most."""
    if (seconds := budget.parse(job.recipe.budget).seconds) is None:
        return LARGEST_SHARE * (total + chosen.lost) - chosen.lost
    took = journal.spent(place)
    return (LARGEST_SHARE * seconds - took) * (total - chosen.step) / max(seconds - took, 1e-9)


def _to_default(job: Job, chosen: Chosen, place: Path, total: int) -> WayBack | None:
    if chosen.arm == 0:
        return None
    last = max(place.glob("arm-0-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]), default=None)
    if last is None or (result := _value(last))["dead"] or not _waits(place, 0, result["step"]):
        return None
    arm, rise, updates = _to_beat(place)
    step = result["step"]
    schedule = None if chosen.schedule is None else _begun({**chosen.schedule, "warmup": rise}, step)
    settings = _decayed(job, {**chosen.settings, **arm.settings()}, min(total, updates))
    own = {"arm": 0, "step": step, "reused": step, "name": arm.name, "schedule": schedule}
    return WayBack(result["scores"], replace(chosen, settings=settings, **own))


def _to_beat(place: Path) -> tuple[Arm, int, int]:
    """The default arm, the updates of its rise, and how many of its updates the budget holds."""

    def understood(held: bytes) -> tuple[Arm, int, int]:
        value = json.loads(held)["value"]
        return Arm(**value["arm"]), value["rise"], value["updates"]

    return journal.read(place / f"{DEFAULT}.json", understood)


def _to_lower(job: Job, chosen: Chosen, place: Path, total: int) -> WayBack | None:
    if "lr" not in job.asked.open or not _waits(place, chosen.arm, chosen.step):
        return None
    settings = _decayed(job, {**chosen.settings, "lr": chosen.settings["lr"] / STEP}, total)
    name = Arm(settings["rule"], settings["lr"]).name
    scores = _value(place / f"arm-{chosen.arm}-{chosen.step}.json")["scores"]
    return WayBack(scores, replace(chosen, settings=settings, name=name))


def _begun(schedule: Mapping[str, int], step: int) -> dict[str, int]:
    return {**schedule, "begin": max(step, schedule["warmup"])}


def _waits(place: Path, arm: int | None, step: int) -> bool:
    """Whether the state of an arm is still there: a run that was looked at once has let go of all."""
    return step in checkpoint.steps(place / f"arm-{arm}")


def _decayed(job: Job, settings: dict[str, Any], total: int) -> dict[str, Any]:
    """The settings with the decay that their rate asks for, where that is ours to choose."""
    if "weight_decay" not in job.asked.open:
        return settings
    rule = rule_of(job.having(settings).recipe, job.given)
    epochs = total / job.source.per_epoch if job.source.per_epoch else None
    return settings | {"weight_decay": weight_decay(rule, settings["lr"], total, epochs).decided}


def regret(job: Job, insurance: Insurance, shown: Shown) -> tuple[Chosen | None, Evidence]:
    """The best place that the run has come no further than, to go back to; None: it is past all of them.

    shown  what puts the weights to ship into the network, as those of the arms were"""
    averages = job.recipe.average is not None or rule_of(job.recipe, job.given).evaluates()
    limit = REGRET["average" if averages else "weights"]
    now = losses(job, held_out(job, **insurance.held), shown)
    behind = [_behind(now, way.scores) for way in insurance.ways]
    place = next((place for place, z in enumerate(behind) if z > limit), 0)
    way, worse = insurance.ways[place], behind[place] > limit
    why = f"held-out loss {fmean(now):.4g} at update {insurance.at}, {fmean(way.scores):.4g} at update "
    why += f"{way.chosen.step}, where {way.chosen.name} would begin: {_far(behind[place], limit)}"
    if not worse:
        return None, Evidence("insurance", "kept", why)
    return way.chosen, Evidence("insurance", way.chosen.name, why, gradients=insurance.lost)


def _behind(now: Sequence[float], before: Sequence[float]) -> float:
    return next(one.z for one in rungs.standings({0: now, 1: before}) if one.arm == 0)


def _far(behind: float, limit: float) -> str:
    far = f"{behind:.2g} standard errors behind" if behind > 0 else "ahead"
    return f"{far}; {limit:g} standard errors are the limit" if limit else far


def cancel(place: Path) -> None:
    """Forget the states of all arms."""
    for arm in place.glob("arm-*"):
        if arm.is_dir():
            shutil.rmtree(arm)


def _value(path: Path) -> Any:
    return journal.read(path, lambda held: json.loads(held)["value"])
