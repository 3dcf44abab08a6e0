"""What is asked of a search: which settings, within what budget, by which engine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steepest.commands.fit import name_of
from steepest.files import Folder
from steepest.optim.errors import UserError, did_you_mean
from steepest.recipe import AUTOMATIC, TUNED, Recipe, settings_in
from steepest.report.records import ASKED, PLAN, is_tuning
from steepest.run import Run
from steepest.train.given import Given, separate
from steepest.tuning import optuna_search

ENGINES = ("steepest", "optuna")


@dataclass(frozen=True)
class Question:
    """What is asked of a search.

    recipe   with "auto" where a setting is to be measured;   given  its objects
    budget   as it was written;   also  hyperparameters that trials search besides"""

    recipe: Recipe
    given: Given
    budget: str
    engine: str
    also: tuple[str, ...]

    def plan(self) -> str:
        """What of it is no recipe's, as tune.json holds it."""
        return json.dumps({"budget": self.budget, "engine": self.engine, "also": self.also}, indent=1)


def asked_of(
    data: Any, settings: Mapping[str, Any], budget: str, engine: str, over: Sequence[str] | None
) -> tuple[Question, str]:
    """(the question, a name for its folder). Raises UserError where it is none."""
    written, said, name = _settings(data, settings)
    opened, also = _opened(written, said, over)
    if "rule" in opened and "hyper" in said:
        raise UserError("hyper holds numbers of one rule, and rule is to be measured. Leave one of them out.")
    if "rule" in opened:  # hyperparameters of one rule say nothing to another
        written = {**written, "hyper": {}}
    plain, given = separate({**written, **dict.fromkeys(opened, "auto")})
    return _checked(Question(Recipe.of(plain), given, budget, engine, also)), name


def read(folder: Path, objects: Mapping[str, Any]) -> Question:
    """The question of a folder, with these objects in the place of settings that were objects."""
    recipe, plan = Recipe.read(folder / ASKED), plan_of(folder)
    _, given = separate(recipe.model_dump() | dict(objects))
    return Question(recipe, given, plan["budget"], plan["engine"], tuple(plan["also"]))


def plan_of(folder: Path) -> dict[str, Any]:
    """What the tune.json of a folder holds."""
    path = folder / PLAN
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {"budget": held["budget"], "engine": held["engine"], "also": held["also"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}). Tune anew, into another folder.") from None


def _settings(data: Any, said: Mapping[str, Any]) -> tuple[dict[str, Any], set[str], str]:
    """(all settings, the names that a person has said something about, a name for the folder)."""
    path = Path(data) if isinstance(data, str | os.PathLike) else None
    if path is not None and is_tuning(path):
        raise UserError(f"{str(path)!r} is a search already. Go on with it: steepest resume {path}")
    if path is not None and path.suffix != ".toml" and Folder(path).recipe.exists():
        data = Run(path)
    if isinstance(data, Run):
        return {**data.recipe.model_dump(), **said}, set(said), data.folder.resolve().name
    if isinstance(data, Recipe):
        by_hand = data.model_fields_set if data.data_fingerprint is None else ()
        return {**data.model_dump(), **said}, {*said, *by_hand}, name_of(data)
    if path is None or path.suffix != ".toml":
        written, _ = separate({"data": data})
        return {"data": data, **said}, set(said), name_of(Recipe.of(written))
    held = settings_in(path)
    by_hand = held if held.get("data_fingerprint", "none") == "none" else ()  # a run writes all, whosever
    name = path.resolve().parent.name if path.stem == "recipe" else path.stem
    return {**held, **said}, {*said, *by_hand}, name


def _opened(
    written: Mapping[str, Any], said: set[str], over: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(settings to open besides those that are, hyperparameters to search besides)."""
    if over is not None:
        names = [over] if isinstance(over, str) else list(over)
        if not names:
            raise UserError("over names nothing to measure. Name settings, or leave it out.")
        also = tuple(name for name in names if name not in AUTOMATIC)
        return tuple(name for name in names if name in AUTOMATIC), also
    if any(written.get(name) == "auto" for name in AUTOMATIC):
        return (), ()
    of_rule = {"rule"} if "hyper" in said else set[str]()
    opened = tuple(name for name in TUNED if name not in said | of_rule | _ruled_out(written))
    if not opened:
        raise UserError(
            f"All of {', '.join(TUNED)} have been said, so that nothing is left to measure. Leave one out, "
            'or say "auto".'
        )
    return opened, ()


def _ruled_out(written: Mapping[str, Any]) -> set[str]:
    """Settings of which a function that gives the rate of every step leaves nothing to measure."""
    _, given = separate(written)
    of_rule = given.rule is not None and callable(given.rule.lr)
    return {"lr", "schedule"} if of_rule else {"lr"} if given.schedule is not None else set()


def _checked(question: Question) -> Question:
    if question.engine not in ENGINES:
        raise UserError(
            f"There is no engine {question.engine!r}.{did_you_mean(str(question.engine), ENGINES)}"
        )
    if question.also and question.engine != "optuna":
        raise UserError(
            f"{question.also[0]!r} is none of the settings that are measured."
            f"{did_you_mean(question.also[0], AUTOMATIC)} Hyperparameters are searched by engine='optuna'."
        )
    if question.engine == "optuna":
        optuna_search.installed()
    return question
