"""Insurance: the default arm waits, stopped, until the chosen run has shown that it is no worse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steepest.choose import rungs
from steepest.choose.arms import default
from steepest.choose.constants import REGRET, TRIED
from steepest.choose.ledger import Chosen
from steepest.choose.scores import Shown, held_out, losses
from steepest.evidence import Evidence
from steepest.train import checkpoint
from steepest.train.job import Job

HELD = "held"
"""Name of the measurement that says how many examples arms were scored on."""


@dataclass(frozen=True)
class Insurance:
    """What the run may go back to, once.

    at      the update after which it is looked at: TRIED of what follows the search
    scores  held-out losses of the default arm when it was stopped;   held  how these were drawn
    chosen  what would have been chosen with it as the winner"""

    at: int
    scores: Sequence[float]
    held: dict[str, Any]
    chosen: Chosen


def insured(job: Job, chosen: Chosen, place: Path, total: int) -> Insurance | None:
    """The insurance of a run; None where the default won, or was dropped with the examples to compare on.

    job: the one that was searched for, with defaults in the place of what was open"""
    stopped = checkpoint.steps(place / "arm-0")
    if not chosen.arm or not stopped:
        return None
    step, held = stopped[0], _value(place / f"{HELD}.json")
    result = _value(place / f"arm-0-{step}.json")
    if result["dead"] or not held_out(job, **held).batches:
        return None
    at = chosen.step + max(round(TRIED * (total - chosen.step)), 1)
    arm = default(job.recipe)
    schedule = None if chosen.schedule is None else {**chosen.schedule, "begin": step}
    again = replace(
        chosen,
        settings={**chosen.settings, **arm.settings()},
        schedule=schedule,
        arm=0,
        step=step,
        name=arm.name,
        gradients=chosen.gradients + at - chosen.step,
        reused=step,
    )
    return Insurance(at, result["scores"], held, again)


def regret(job: Job, insurance: Insurance, shown: Shown) -> tuple[bool, Evidence]:
    """Whether the run is worse than the default arm was with far fewer updates.

    shown  what puts the weights to ship into the network, as those of the default were"""
    held = held_out(job, **insurance.held)
    now, before = rungs.standings({0: losses(job, held, shown), 1: insurance.scores}), insurance.chosen
    own = next(one for one in now if one.arm == 0)
    worse = own.z > REGRET
    behind = f"{own.z:.2g} standard errors behind {before.name} at update {before.step}"
    why = f"held-out loss {own.loss:.4g} at update {insurance.at}, {behind}; {REGRET:g} are the limit"
    return worse, Evidence("insurance", before.name if worse else "kept", why)


def cancel(place: Path) -> None:
    """Forget the states of all arms."""
    for arm in place.glob("arm-*"):
        if arm.is_dir():
            shutil.rmtree(arm)


def _value(path: Path) -> Any:
    return json.loads(path.read_bytes())["value"]
