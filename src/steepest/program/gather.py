"""From a run folder to the `Facts` of its program."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from steepest import evidence
from steepest.files import Folder
from steepest.optim.batch import FIRST, Full, named
from steepest.optim.errors import UserError
from steepest.program.facts import Facts
from steepest.recipe import Recipe
from steepest.tasks.classification import label
from steepest.train import budget
from steepest.train.given import MARK
from steepest.train.preprocessing import Preprocessing


def facts(folder: Folder, chosen: Mapping[str, Any], model: nn.Module | None) -> Facts:
    """What a program must know of the run. Raises UserError where the run has not come far enough.

    chosen: what a search has settled, {} where nothing was searched"""
    recipe = settled(Recipe.read(folder.recipe), chosen)
    fitted = Preprocessing.from_json(folder.preprocessing.read_text(encoding="utf-8"))
    per_epoch = _updates_an_epoch(folder)
    steps = _steps(folder, recipe, per_epoch)
    begin = chosen.get("begin")
    course = {} if begin is None else {"warmup": chosen["warmup"], "begin": begin, "total": steps}
    answers = fitted.target
    outputs = answers.shape("flags" if recipe.loss == "binary" else "classes")[0] or 1
    return Facts(
        name=folder.path.name,
        place=str(folder.path),
        recipe=recipe,
        course=course,
        shape=fitted.input_shape,
        outputs=outputs,
        model=model,
        class_weight=_class_weight(recipe, answers.classes),
        steps=steps,
        per_epoch=per_epoch,
        notes=(*_cut(folder, steps), *_notes(recipe, fitted)),
    )


def settled(asked: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """The recipe that the run followed: what was chosen in the place of "auto"."""
    if asked.open and not chosen:
        raise UserError(
            f"Nothing is chosen yet for {', '.join(asked.open)}: the search has not ended. Resume the run."
        )
    # "warmup" is there that of the course, in steps; the recipe's own stands where there is none.
    known = {n: value for n, value in chosen.items() if n in Recipe.model_fields and n != "warmup"}
    return asked.provisional().model_copy(update=known)


def first_batch(recipe: Recipe) -> tuple[int | None, str]:
    """(examples of an update, None for all; a note where a policy moves them)."""
    asked = str(recipe.batch_size)
    if asked.startswith(MARK):
        kind = asked.removeprefix(MARK)
        return FIRST, f"BATCH_SIZE is yours to fill in: the run's batches came from an object ({kind})"
    policy = named(recipe.batch_size)
    if isinstance(policy, Full):
        return None, ""
    moved = f"batches are of {policy.usual} throughout, the run's were {asked!r}"
    return policy.usual, "" if policy.even else moved


def _notes(recipe: Recipe, fitted: Preprocessing) -> tuple[str, ...]:
    """What the folder cannot tell."""
    if fitted.inputs is not None:
        return ()
    kind = recipe.data.removeprefix(MARK)
    return (
        f"the rows are yours to put into data.pt: they came from an object ({kind}), and where it made the\n"
        "batches too, BATCH_SIZE is yours to fill in",
    )


def _updates_an_epoch(folder: Folder) -> int:
    if folder.metrics.exists():
        with folder.metrics.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if float(row.get("epoch") or 0) > 0]
        if rows:
            return max(1, round(float(rows[0]["step"]) / float(rows[0]["epoch"])))
    raise UserError(
        "The run has no evaluation yet, so that the length of an epoch is not known. Let it run on, or give "
        "it a larger budget where it has ended."
    )


def _steps(folder: Folder, recipe: Recipe, per_epoch: int) -> int:
    """Updates that the schedule counts on; where seconds decide, those that were measured or done."""
    planned = [one.decided for one in evidence.read(folder.evidence) if one.choice == "horizon"]
    allowed = budget.parse(recipe.budget).steps(per_epoch)
    if planned or allowed is not None:
        return int(planned[-1] if planned else allowed or 0)
    result = _result(folder)
    if not result.get("step"):
        raise UserError("How many steps this run takes is known when it has ended. Let it run on.")
    return int(result["step"])


def _cut(folder: Folder, steps: int) -> tuple[str, ...]:
    """Where the run has ended before the last step that its schedule counts on."""
    result = _result(folder)
    if result.get("status") != "finished" or result["step"] >= steps:
        return ()
    return (
        f"the run made {result['step']} of the {steps} steps that its schedule counts on, as {result['why']}",
    )


def _result(folder: Folder) -> dict[str, Any]:
    return json.loads(folder.result.read_text()) if folder.result.exists() else {}


def _class_weight(recipe: Recipe, classes: tuple[str, ...] | None) -> list[float] | None:
    how = recipe.class_weight
    if isinstance(how, dict):
        named = {label(name): float(weight) for name, weight in how.items()}
        return [named.get(name, 1.0) for name in classes or ()]
    return how if isinstance(how, list) else None
