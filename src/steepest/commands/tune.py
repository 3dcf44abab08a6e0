"""`tune`: what `fit` would measure, without the training that follows."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from steepest import evidence as records
from steepest import report
from steepest.commands.fit import numbered
from steepest.commands.lifecycle import telling
from steepest.commands.question import Question, asked_of, plan_of, read
from steepest.commands.share import Share, share
from steepest.evidence import Evidence
from steepest.files import Folder, Unwritable, write_atomic
from steepest.optim.errors import UserError
from steepest.recipe import Recipe, same_settings
from steepest.report.records import ASKED, PLAN, is_tuning
from steepest.train import environment, machine
from steepest.train.control import Interrupt, Interrupted
from steepest.train.job import Job, build
from steepest.train.progress import progress
from steepest.train.resolved import Resolved
from steepest.tuning import optuna_search, timing
from steepest.tuning.journal import Journal
from steepest.tuning.search import PLACE, choose


def tune(
    data: Any,
    /,
    *,
    budget: str = "10%",
    of: str | None = None,
    engine: str = "steepest",
    over: Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> list[Evidence]:
    """Measure settings on data, as `fit` does with those that are "auto", and train no further.

    data      what `fit` takes; or a Recipe, a recipe.toml, a Run or its folder
    budget    of the search: a share of the run's budget, or an amount, "60s", "500 steps", "5 epochs"
    of        budget of the run that settings are measured for; default that of the recipe
    engine    "steepest": what `fit` does. "optuna": trials drawn by Optuna over the ranges that rules declare
    over      settings to measure, and under Optuna hyperparameters ("beta1") too. Default: those that are
              "auto"; where none is: rule, lr, batch_size, schedule and weight_decay, less those said in this
              call or in a recipe written by hand
    out       folder; default runs/tune-<name>, numbered where that is taken. In one that holds the same
              question the search goes on
    settings  every other setting of `fit`

    Returns the evidence. The folder holds it as evidence.jsonl, a report.html, and a recipe.toml with the
    chosen values, which `fit` trains with. Raises UserError for what cannot be measured."""
    settings |= {} if of is None else {"budget": of}
    question, name = asked_of(data, settings, budget, engine, over)
    return _held(Folder(out) if out is not None else numbered(f"tune-{name}"), question, Console())


def go_on_tuning(folder: str | os.PathLike[str], **objects: Any) -> list[Evidence]:
    """Go on with a search that was stopped or killed; of one that has ended the evidence."""
    return _held(Folder(folder), read(Path(folder), objects), Console())


def _held(place: Folder, question: Question, console: Console) -> list[Evidence]:
    """The search in a folder that this process alone writes to."""
    _refuse_run(place)
    with machine.kept():
        job = build(question.recipe, question.given.apart())
        allowed = share(question.budget, job)
        found = place.names()
        place.create()
        with place.lock():
            fresh = _begin(place, job, question)
            try:
                if not place.recipe.exists() and not _measured(place, job, question, allowed, console):
                    return records.read(place.evidence)
            except UserError as refused:
                # The mended question may have the folder; what a full disk cut short goes on in it.
                if fresh and not isinstance(refused, Unwritable):
                    place.give_back(found, ASKED, PLAN, optuna_search.JOURNAL, PLACE)
                raise
    console.print(f"train with it: steepest fit {place.recipe}", highlight=False, soft_wrap=True)
    console.print(f"report: {report.write(place.path)}", highlight=False, soft_wrap=True)
    return records.read(place.evidence)


def _begin(place: Folder, job: Job, question: Question) -> bool:
    """Write the question down, or see that it is the one of the folder; whether it is new there."""
    asked, path = job.asked.relative_to(place.path).to_toml(), place.path / ASKED
    if path.exists():
        same = plan_of(place.path) == json.loads(question.plan())
        if not same or not same_settings(path.read_text(encoding="utf-8"), asked):
            raise UserError(
                f"{str(place.path)!r} holds a search with other settings, data, budget or engine. Give this "
                "one another folder with out= (--out)."
            )
        return False
    env = environment.describe(str(job.device)) | {"seed": job.recipe.seed}
    write_atomic(place.env, json.dumps(env).encode())
    write_atomic(place.evidence, "".join(one.to_json() + "\n" for one in job.evidence).encode())
    write_atomic(place.path / PLAN, question.plan().encode())
    write_atomic(path, asked.encode())
    return True


def _measured(place: Folder, job: Job, question: Question, allowed: Share, console: Console) -> bool:
    """Search, and freeze what was chosen; whether the search came to its end.

    The recipe comes last: with it a folder is done."""
    tell = telling(place, progress(None, console))

    def asked() -> None:
        if signal.received is not None:
            raise Interrupted(signal.received)

    engine, opened = question.engine, ", ".join(job.asked.open + question.also)
    console.print(f"measured by {engine}: {opened}, within {allowed}", highlight=False, soft_wrap=True)
    try:
        with Interrupt() as signal:
            if question.engine == "optuna":
                chosen = _by_optuna(place, job, question, allowed, tell, asked, console)
            else:
                chosen = choose(job, place, tell, allowed.part, asked, trains=False)
    except Interrupted as stopped:  # by us, or by an arm, which is a loop and takes a signal for itself
        report.write(place.path)
        console.print(f"stopped; go on: steepest resume {place.path}", highlight=False, soft_wrap=True)
        if not (stopped.signal == "SIGINT" and hasattr(sys, "ps1")):
            raise
        return False
    write_atomic(place.recipe, frozen(job, chosen).relative_to(place.path).to_toml().encode())
    shutil.rmtree(place.path / PLACE, ignore_errors=True)  # what arms came to is on record, their weights go
    return True


def _by_optuna(
    place: Folder,
    job: Job,
    question: Question,
    allowed: Share,
    tell: Callable[[Evidence], object],
    asked: Callable[[], object],
    console: Console,
) -> Resolved:
    """A budget in seconds is turned into updates once, and then bounds the clock as well."""
    seconds, updates = allowed.budget.seconds, allowed.budget.steps(job.source.per_epoch)
    if seconds is not None:
        journal = Journal(place.path / PLACE)
        updates = int(journal.once("length", lambda: timing.updates_left(job, seconds).decided))
    if updates is None:
        raise UserError(
            "The length of an epoch is not known before it has been read. Give a budget in steps."
        )

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)

    return optuna_search.search(job, place, updates, tell, say, asked, seconds=seconds, also=question.also)


def frozen(job: Job, chosen: Resolved) -> Recipe:
    """The recipe of a job with the chosen values in the place of "auto"."""
    course: dict[str, Any] = {}
    if chosen.schedule is not None and chosen.schedule["begin"]:  # the rise of the arms, or a person's
        course = {"warmup": f"{chosen.schedule['warmup']} steps"}
    known = {k: v for k, v in chosen.measured.items() if k in Recipe.model_fields and v != "auto"}
    return Recipe.of(job.recipe.model_copy(update={**known, **course}).model_dump())


def _refuse_run(place: Folder) -> None:
    if place.recipe.exists() and not is_tuning(place.path):
        raise UserError(f"{str(place.path)!r} holds a run. Give the search another folder with out= (--out).")
