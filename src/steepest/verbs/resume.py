"""`resume`: go on with a run that was stopped, killed, or is to have more."""

from __future__ import annotations

import os
import warnings
from typing import Any

from rich.console import Console

from steepest.errors import UserError
from steepest.evidence import Evidence, append
from steepest.folder import Folder, write_atomic
from steepest.recipe import Recipe
from steepest.run import Run
from steepest.train import environment, machine
from steepest.train.budget import parse
from steepest.train.given import HOOKS, OBJECTS, separate
from steepest.train.job import build
from steepest.verbs.course import run


def resume(folder: str | os.PathLike[str], *, budget: str | None = None, **objects: Any) -> Run:
    """Continue a run to the bits that it would have had without a break. A finished run is left as it is.

    budget   a new budget, or more: "+10 epochs"; a finished run goes on with it
    objects  model=, data=, loss=, … where these were objects, and the hooks of `fit`"""
    place = Folder(folder)
    _check(place, objects)
    with place.lock(), machine.kept():
        recipe = Recipe.read(place.recipe)
        if budget is None and Run(place.path).status == "finished":
            print(f"{place.path} is finished; nothing to do. Give it more with --budget '+10 epochs'.")
            return Run(place.path)
        recipe = recipe if budget is None else _extended(place, recipe, budget)
        _, given = separate(recipe.model_dump() | objects)
        job = build(recipe, given)
        for sentence in environment.differences(
            environment.read(place.env), environment.describe(str(job.device))
        ):
            warnings.warn(f"The bits may differ: {sentence}.", stacklevel=2)
            append(place.evidence, Evidence("environment", "changed", sentence))
        return run(place, job, Console(), reopen=budget is not None)


def _check(place: Folder, objects: dict[str, Any]) -> None:
    if not place.recipe.exists():
        raise UserError(f"There is no run to resume in {str(place.path)!r}: it holds no recipe.toml.")
    for name in objects:
        if name not in (*OBJECTS, *HOOKS):
            raise UserError(f"resume takes budget=, objects and hooks, not {name!r}: a run keeps its recipe.")


def _extended(place: Folder, recipe: Recipe, budget: str) -> Recipe:
    """The recipe with the new budget, written before it is used."""
    given, had = parse(budget), parse(recipe.budget)
    recipe = recipe.model_copy(update={"budget": str(had.plus(given) if given.more else given)})
    write_atomic(place.recipe, recipe.relative_to(place.path).to_toml().encode())
    return recipe
