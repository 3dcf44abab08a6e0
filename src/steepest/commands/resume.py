"""`resume`: go on with a run that was stopped, killed, or is to have more."""

from __future__ import annotations

import os
import warnings
from typing import Any

from rich.console import Console

from steepest.commands.lifecycle import run
from steepest.comparison import is_comparison
from steepest.evidence import Evidence, append
from steepest.files import Folder, write_atomic
from steepest.optim.errors import UserError
from steepest.recipe import ADDED, Recipe, settings_in
from steepest.report.records import is_tuning
from steepest.run import Run
from steepest.train import environment, machine
from steepest.train.budget import parse
from steepest.train.given import HOOKS, OBJECTS, separate
from steepest.train.growth import updates
from steepest.train.job import Job, build
from steepest.tuning.handover import begin_anew


def resume(folder: str | os.PathLike[str], *, budget: str | None = None, **objects: Any) -> Run:
    """Continue a run to the bits that it would have had without a break. A finished run is left as it is.

    budget   a new budget, or more: "+10 epochs"; a finished run goes on with it
    objects  model=, data=, loss=, … where these were objects, and the hooks of `fit`"""
    return go_on(Folder(folder), objects, budget, Console())


def go_on(place: Folder, objects: dict[str, Any], budget: str | None, console: Console) -> Run:
    """The same, told on this console."""
    _check(place, objects)
    with place.lock(), machine.kept():
        recipe = _whole(place)
        if budget is None and Run(place.path).status == "finished":
            done = f"{place.path} is finished; nothing to do. Give it more with --budget '+10 epochs'."
            console.print(done, markup=False, highlight=False, soft_wrap=True)
            return Run(place.path)
        recipe = recipe if budget is None else _extended(recipe, budget)
        _, given = separate(recipe.model_dump() | objects)
        job = build(recipe, given)
        _check_target(place, job)
        if budget is not None:
            _check_more(place, job)
            begin_anew(place)
            write_atomic(place.recipe, recipe.relative_to(place.path).to_toml().encode())
        for sentence in environment.differences(
            environment.read(place.env), environment.describe(str(job.device))
        ):
            warnings.warn(f"The bits may differ: {sentence}.", stacklevel=2)
            append(place.evidence, Evidence("environment", "changed", sentence))
        return run(place, job, console, reopen=budget is not None)


def _check(place: Folder, objects: dict[str, Any]) -> None:
    if place.path.is_file():
        raise UserError(f"resume takes the folder of a run, got the file {str(place.path)!r}.")
    if is_comparison(place.path):
        raise UserError(
            f"{str(place.path)!r} is a comparison. Call compare with the same arguments, and it goes on; "
            f"or on the command line: steepest resume {place.path}"
        )
    if is_tuning(place.path):
        raise UserError(
            f"{str(place.path)!r} is a search. Call tune with the same arguments and out= this folder, and "
            f"it goes on; or on the command line: steepest resume {place.path}"
        )
    if not place.recipe.exists():
        raise UserError(f"There is no run to resume in {str(place.path)!r}: it holds no recipe.toml.")
    for name in objects:
        if name not in (*OBJECTS, *HOOKS):
            raise UserError(f"resume takes budget=, objects and hooks, not {name!r}: a run keeps its recipe.")


def _check_target(place: Folder, job: Job) -> None:
    """Weights that were trained on targets in one unit cannot go on with another."""
    if not place.preprocessing.exists():
        return
    began, now = Run(place.path).preprocessing.target.config(), job.prepared.preprocessing.target.config()
    if began.get("scale") != now.get("scale"):
        raise UserError(
            f"{str(place.path)!r} was begun by an earlier version, which gave a loss of your own "
            "standardised targets; this one gives it the targets as they are. Train anew: steepest.fit with "
            "the same settings."
        )


def _whole(place: Folder) -> Recipe:
    """The run's recipe. It was written with every setting: one that lacks some was cut short."""
    lost = sorted(Recipe.model_fields.keys() - settings_in(place.recipe).keys() - {*ADDED})
    if lost:
        raise UserError(
            f"{str(place.recipe)!r} is damaged: it lacks {', '.join(lost)}. A run goes on under all its "
            "settings or not at all: restore them."
        )
    return Recipe.read(place.recipe)


def _extended(recipe: Recipe, budget: str) -> Recipe:
    """The recipe with the new budget."""
    given, had = parse(budget), parse(recipe.budget)
    return recipe.model_copy(update={"budget": str(had.plus(given) if given.more else given)})


def _check_more(place: Folder, job: Job) -> None:
    """A budget that is used up already would leave nothing to do, and a recipe that tells another run."""
    done, found = Run(place.path).steps, Run(place.path).resolved
    measured = job.having(found.measured)
    allowed = updates(parse(job.recipe.budget), measured.source)
    if allowed is not None and allowed - found.lost <= done:
        raise UserError(
            f"The budget of {job.recipe.budget} is {allowed} steps, and {done} are done already. "
            'Give more, for example --budget "+10 epochs".'
        )
