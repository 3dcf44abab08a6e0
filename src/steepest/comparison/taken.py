"""Whose folder it is: the same question goes on where it was, another one is kept out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from steepest.comparison.place import Place, is_comparison
from steepest.comparison.plan import Plan, read
from steepest.files import LOCK
from steepest.optim.errors import UserError

SHOWN = 5
"""Differences between two questions that are named."""


def free(path: Path, asked: Plan) -> Place:
    """The folder `path`, or path-2, path-3, …: the first that holds this very question, or nothing yet.

    What cannot be written down may have changed: with objects a comparison goes on where out= names it."""
    known = {"data"} if asked.shared.get("data_fingerprint") else set()
    unknown = set(asked.objects()) - known
    name = path.name
    for number in count(2):
        place = Place(path)
        if not path.exists() or {file.name for file in path.iterdir()} <= {LOCK}:
            return place
        if is_comparison(path) and not unknown and _is_same(read(place.plan), asked):
            return place
        path = path.with_name(f"{name}-{number}")
    raise AssertionError  # count has no end


def check_same(place: Place, asked: Plan) -> None:
    """Raises UserError unless the folder holds this question, with no more seeds than are asked for."""
    held = read(place.plan)
    before, now = _flat(held.asked()), _flat(asked.asked())
    differ = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if differ:
        told = "; ".join(f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in differ[:SHOWN])
        raise UserError(
            f"{str(place.path)!r} holds another comparison: {told}. Give this one another folder with out= "
            "(--out)."
        )
    if asked.seeds < held.seeds:
        raise UserError(
            f"{str(place.path)!r} holds this comparison with {held.seeds} seeds, and {asked.seeds} are "
            f"fewer. Ask for {held.seeds} or more, or give another folder with out= (--out)."
        )


def _is_same(held: Plan, asked: Plan) -> bool:
    return held.asked() == asked.asked() and held.seeds <= asked.seeds


def _flat(asked: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """{"shared.data": …} of nested tables."""
    found: dict[str, Any] = {}
    for key, value in asked.items():
        table = isinstance(value, dict) and under.count(".") < 2
        found |= _flat(value, f"{under}{key}.") if table else {f"{under}{key}": value}
    return found
