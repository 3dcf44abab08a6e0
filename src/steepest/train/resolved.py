"""`Resolved`: which settings are in force in a run, and from where it goes on; written once, read by all.

<run>/resolved.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from steepest.files import Folder, write_atomic
from steepest.optim.errors import UserError
from steepest.recipe import Recipe

FORMER = ("search", "chosen.json")
"""Where folders of format 1 hold what was measured, one flat table: settings, and beside them NAMES and the
course of the rate."""

NAMES = {"arm": "trial", "step": "step", "name": "name", "gradients": "gradients", "reused": "reused"}
"""Keys of the former table, by the names of today."""

COURSE = ("warmup", "begin")


@dataclass(frozen=True)
class Resolved:
    """What a run does, in plain values.

    measured   settings that were open and what a search has settled, by name
    schedule   {"warmup", "begin"} where it was free: level up to update `begin`, then a line to zero
    trial, step  whose state the run goes on from, and after how many updates; trial None: it begins at 0
    name       of the candidate that won
    gradients  gradient evaluations that the search took;   reused  those of them that the run keeps
    settings   every setting that is in force; none where folders of format 1 are read"""

    measured: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, int] | None = None
    trial: int | None = None
    step: int = 0
    name: str = ""
    gradients: float = 0.0
    reused: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Updates that the budget holds less for the search."""
        return math.ceil(self.gradients - self.reused)

    def write(self, folder: Folder, recipe: Recipe) -> None:
        """Write it down with all settings of a recipe in which nothing is open any more."""
        held = asdict(replace(self, settings=recipe.model_dump()))
        write_atomic(folder.resolved, json.dumps(held, indent=1).encode())


def read(folder: Folder) -> Resolved | None:
    """What a folder says; None where a search has not ended. Raises UserError where it is damaged."""
    former = folder.path.joinpath(*FORMER)
    path = folder.resolved if folder.resolved.exists() else former
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_bytes())
        if path == former:
            return _former(held)
        return Resolved(**{one.name: held[one.name] for one in fields(Resolved)})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}). Remove it and resume the run, which measures nothing anew."
        ) from error


def _former(held: Mapping[str, Any]) -> Resolved:
    """What a folder of format 1 holds."""
    course = None if held["begin"] is None else {key: held[key] for key in COURSE}
    beside = {*NAMES, *COURSE, "again"}  # whether the run had gone back to another candidate
    settings = {key: value for key, value in held.items() if key not in beside}
    return Resolved(settings, course, **{NAMES[key]: held[key] for key in NAMES if key in held})
