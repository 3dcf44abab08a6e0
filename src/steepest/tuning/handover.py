"""From a search to the run: its job, its length, and the winner's state as its first checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steepest import evidence as records
from steepest.evidence import Evidence
from steepest.files import Folder
from steepest.optim.schedule import WarmupStableDecay
from steepest.train import budget, checkpoint, growth, resolved
from steepest.train.job import Job
from steepest.train.resolved import Resolved
from steepest.train.settled import falls
from steepest.train.state import Snapshot
from steepest.tuning import timing
from steepest.tuning.constants import LARGEST_SHARE
from steepest.tuning.journal import LENGTH, Journal, Tell, spent
from steepest.tuning.search import PLACE, choose


def measured(
    job: Job, folder: Folder, tell: Tell, asked: Callable[[], object] = lambda: None
) -> tuple[Job, Evidence | None]:
    """The job with what was chosen in the place of what was open, and the length of its run."""
    place = folder.path / PLACE
    found = resolved.read(folder) or choose(job, folder, tell, LARGEST_SHARE, asked)
    found.write(folder, job.having(found.measured).recipe)
    if threads := found.measured.get("num_threads"):
        torch.set_num_threads(threads)
    seconds = spent(place)
    horizon = _horizon(job.having(found.measured), found, Journal(place), seconds)
    if horizon is not None:  # whose seconds are those of the whole search, which others have told
        tell(replace(horizon, seconds=horizon.seconds - seconds))
    _hand_over(folder, found, seconds if horizon is None else horizon.seconds, tell)
    return resolved_job(job, found, horizon), horizon


def begin_anew(folder: Folder) -> None:
    """Forget what a search that has not ended has measured, but for the weights that it began with: the plan
    was another budget's."""
    place = folder.path / PLACE
    if place.exists() and resolved.read(folder) is None:
        for measurement in place.glob("*.json"):  # first: one that is there needs the state of its trial
            measurement.unlink()
        _forget_states(place)


def resolved_job(job: Job, found: Resolved, horizon: Evidence | None) -> Job:
    """The job of the run that follows a search."""
    # Where a schedule was free, "linear" stands in for it from the start.
    if found.schedule is None or horizon is None or not found.schedule["begin"]:
        return job.having(found.measured)
    total = max(horizon.decided, found.schedule["begin"] + 1)
    decay = (total - found.schedule["begin"]) / total
    curve = WarmupStableDecay(found.measured["lr"], found.schedule["warmup"], total, decay)
    return job.having(found.measured, curve)


def _horizon(job: Job, found: Resolved, journal: Journal, spent: float) -> Evidence | None:
    """The update that the run goes to: the budget less what the search took and does not give back."""
    allowed = budget.parse(job.recipe.budget)
    if allowed.seconds is None:
        steps = growth.updates(allowed, job.source)
        why = f"{allowed} less {found.lost} gradient evaluations that the search took and does not give back"
        last = None if steps is None else max(steps - found.lost, found.step + 1)
        return None if last is None else Evidence("horizon", last, why, seconds=spent)
    if found.trial is None and not falls(job.recipe):
        return None  # nobody must know it: the clock ends the run
    left = max(allowed.seconds - spent, allowed.seconds / 2)

    def steps_left() -> dict[str, Any]:
        return json.loads(timing.updates_left(job, left).to_json())

    once = f"{LENGTH}{allowed.seconds:g}-{found.name}"
    after = Evidence.from_json(json.dumps(journal.once(once, steps_left)))
    return replace(after, decided=found.step + after.decided, seconds=spent + after.seconds)


def length_of(job: Job, folder: Folder) -> Evidence | None:
    """Updates that a budget in seconds holds, measured once a run: where nothing is searched for and the
    schedule must know."""
    allowed = budget.parse(job.recipe.budget)
    if allowed.seconds is None or not falls(job.recipe):
        return None
    kept = [one for one in records.read(folder.evidence) if one.choice == "horizon"]
    if not kept:
        kept = [timing.updates_left(job, allowed.seconds)]
        records.append(folder.evidence, kept[0])
    return kept[0]


def _hand_over(folder: Folder, found: Resolved, seconds: float, tell: Tell) -> None:
    """The winner's state as the first checkpoint of a run that has none; then candidates are no longer
    needed."""
    place = folder.path / PLACE
    if found.trial is not None and not checkpoint.steps(folder.checkpoints):
        snapshot = checkpoint.read(checkpoint.path_of(place / f"arm-{found.trial}", found.step))
        if most := snapshot.parts["microbatching"]["most"]:
            tell(Evidence("microbatch", most, "memory ran out with more examples at once in the search"))
        averaged = found.measured.get("average") is not None
        checkpoint.write(folder.checkpoints, _handed_over(snapshot, seconds, averaged))
    _forget_states(place)


def _forget_states(place: Path) -> None:
    """Remove the states of all candidates; what was measured of them stays."""
    for candidate in place.glob("arm-*"):
        if candidate.is_dir():
            shutil.rmtree(candidate)


def _handed_over(snapshot: Snapshot, seconds: float, averaged: bool) -> Snapshot:
    """The state of a candidate as that of a run, which has spent so many seconds, and goes on with the
    average that it was scored by. Rates, betas and decays are of the run's optimizer: they are chosen."""
    scored = {"average": snapshot.parts["trial"]["average"]} if averaged else {}  # else the run's own, if any
    return snapshot.having(
        **scored,
        optimizer=snapshot.parts["optimizer"] | {"groups": None},
        progress=snapshot.progress | {"seconds": seconds},
        trial=None,
    )
