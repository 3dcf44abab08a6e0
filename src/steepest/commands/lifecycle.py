"""The life of a run, for `fit` and `resume` alike: build, show, train, test, write, report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from steepest import evidence as records
from steepest.evidence import Evidence
from steepest.files import Folder, Unwritable, write_atomic
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.report import write as write_report
from steepest.run import Run
from steepest.train import budget, environment, outcome
from steepest.train.control import Interrupt, Interrupted
from steepest.train.fitting import descend, loop_of, optimizer_of, steps_of
from steepest.train.given import Given
from steepest.train.intervals import Intervals
from steepest.train.job import Job, build
from steepest.train.loop import Loop
from steepest.train.progress import Progress, progress
from steepest.train.resolved import Resolved
from steepest.train.startpage import lines
from steepest.train.update import Diverged
from steepest.tuning.handover import length_of, measured
from steepest.tuning.journal import Tell
from steepest.tuning.search import PLACE


def begin(folder: Folder, recipe: Recipe, given: Given, console: Console | None = None) -> Run:
    """A new run in a folder that holds none, told on a console of its own unless one is given."""
    refuse_taken(folder)
    _check_lengths(recipe)
    job, found = build(recipe, given), folder.names()
    folder.create()
    with folder.lock():
        refuse_taken(folder)  # another process may have come first while this one was building
        write_atomic(
            folder.env, json.dumps(environment.describe(str(job.device)) | {"seed": recipe.seed}).encode()
        )
        write_atomic(folder.preprocessing, job.prepared.preprocessing.to_json().encode())
        write_atomic(folder.evidence, "".join(one.to_json() + "\n" for one in job.evidence).encode())
        # The recipe comes last: a folder with one holds all that a resumed run needs.
        write_atomic(folder.recipe, job.asked.relative_to(folder.path).to_toml().encode())
        try:
            return run(folder, job, console or Console())
        except UserError as refused:
            # Nothing was trained, so that the mended command may have the folder. What was measured before a
            # disk was full waits for room on it.
            if not isinstance(refused, Unwritable) and not folder.checkpoints.exists():
                own = (folder.recipe, folder.preprocessing, folder.resolved)
                folder.give_back(found, *(path.name for path in own), PLACE)
            raise


def refuse_taken(folder: Folder) -> None:
    """A folder with a run in it is not for a new one."""
    if not folder.recipe.exists():
        return
    where = str(folder.path)
    finished = folder.result.exists() and '"finished"' in folder.result.read_text()
    raise UserError(
        f"{where!r} holds {'a finished run' if finished else 'a run'} already. Give another folder with out= "
        f"(--out), or go on with it: steepest resume {where}"
    )


def _check_lengths(recipe: Recipe) -> None:
    """Raises UserError for a budget, and for looks and checkpoints, that no run can have.

    A run of no updates would spend the test part on weights that nothing has trained."""
    allowed = budget.parse(recipe.budget)
    looks, saves = (budget.parse(getattr(recipe, name), name) for name in ("evaluate_every", "save_every"))
    Intervals(allowed, None, looks, saves, None)
    if allowed.amount == 0:
        raise UserError(f'A budget of {allowed} trains nothing. Write for example budget="60s".')


def run(folder: Folder, job: Job, console: Console, *, reopen: bool = False) -> Run:
    """Train, or go on training, in a folder that this process holds; then test and report.

    reopen: a finished run goes on"""
    bar = progress(None, console)
    known, tell = records.read(folder.evidence), telling(folder, bar)
    try:
        job, horizon = _measured(folder, job, tell, console)
    except Interrupted as stopped:
        return _stopped(stopped, folder, job)
    bar.total = steps_of(job, horizon)
    optimizer = optimizer_of(job, horizon)
    steps = loop_of(job, optimizer, folder, [bar], horizon)
    _show_start(job, optimizer.summary(), known, folder, console)
    try:
        with steps:
            if reopen:
                steps.reopen()
            descend(job, steps)
    except Interrupted as stopped:
        _leave(folder, job, steps, console)
        return _stopped(stopped, folder, job)
    except Diverged:
        _leave(folder, job, steps, console)
        raise
    if steps.status == "failed":
        _leave(folder, job, steps, console)
        raise Diverged(
            f"Nothing was learnt: {steps.result()['why']}. Look for bad values in the data, lower lr, or "
            "scale the inputs."
        )
    result = outcome.finish(job, steps, folder)
    _show_end(folder, result, console)
    return Run(folder.path, model=job.model, **job.given.data_objects())


def telling(folder: Folder, bar: Progress) -> Tell:
    """What records a decision, and prints it, once in the life of a folder; and again where it is another."""

    def tell(one: Evidence) -> None:
        told = Evidence.from_json(one.to_json())  # as a line holds it
        before = [(held.choice, held.decided, held.why) for held in records.read(folder.evidence)]
        if (told.choice, told.decided, told.why) not in before:
            records.append(folder.evidence, one)
            bar.decided(one)

    return tell


def _measured(folder: Folder, job: Job, tell: Tell, console: Console) -> tuple[Job, Evidence | None]:
    """The job with nothing left open, and its length where that is known beforehand."""
    if not job.asked.open:
        Resolved().write(folder, job.recipe)
        return job, length_of(job, folder)

    def asked() -> None:
        if signal.received is not None:
            raise Interrupted(signal.received)

    which = ", ".join(job.asked.open)
    said = f"measured first: {which}, within the budget of {job.recipe.budget}"
    console.print(said, highlight=False, soft_wrap=True)
    try:
        with Interrupt() as signal:
            found = measured(job, folder, tell, asked)
            asked()  # what came after the last update of the last arm
            return found
    except Interrupted:  # an arm is a loop, which takes a signal for itself while it trains
        _leave_search(folder, console)
        raise


def _leave_search(folder: Folder, console: Console) -> None:
    """Say how to go on with a run that was stopped before it began."""
    why = "stopped in the search; it can be resumed"
    result = {"status": "stopped", "step": 0, "best_step": None, "why": why, "metrics": {}}
    if not folder.result.exists():  # one that is there tells what was trained before
        write_atomic(folder.result, json.dumps(result, indent=1).encode())
    console.print(f"stopped: {why}", highlight=False)
    console.print(f"go on: steepest resume {folder.path}", highlight=False, soft_wrap=True)


def _stopped(stopped: Interrupted, folder: Folder, job: Job) -> Run:
    """At a prompt the run as it is; elsewhere the process ends."""
    if not (stopped.signal == "SIGINT" and hasattr(sys, "ps1")):
        raise stopped
    return Run(folder.path, model=job.model, **job.given.data_objects())


def _show_start(
    job: Job, summary: Sequence[str], known: Sequence[Evidence], folder: Folder, console: Console
) -> None:
    """known: what was decided before this process measured anything, which has printed the rest."""
    sentences, sizes = job.prepared.sentences(), job.prepared.sizes
    console.print(lines(job.recipe, sentences, job.model, summary, sizes, known))
    console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)


def _leave(folder: Folder, job: Job, steps: Loop, console: Console) -> None:
    """A run that has not finished is usable all the same: its best weights, its result so far, its report."""
    outcome.ship(job, steps, folder)
    result = steps.result()
    write_atomic(folder.result, json.dumps(result, indent=1).encode())
    write_report(folder.path)
    console.print(f"{result['status']}: {result['why']}", highlight=False)
    if result["status"] == "stopped":
        console.print(f"go on: steepest resume {folder.path}", highlight=False, soft_wrap=True)


def _show_end(folder: Folder, result: Mapping[str, Any], console: Console) -> None:
    best = result["best_step"]
    where = "nothing was evaluated" if best is None else f"best at step {best}"
    console.print(f"{result['why']}; {where}", highlight=False, soft_wrap=True)
    tested = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    console.print(
        "  ".join(f"{name} {value:.4g}" for name, value in tested.items()),
        style="bold",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"report: {write_report(folder.path)}", highlight=False, soft_wrap=True)
