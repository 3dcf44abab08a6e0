"""report.html of a run or of a search: one file that needs nothing else, made from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steepest.evidence import shown
from steepest.files import Folder, write_atomic
from steepest.recipe import AUTOMATIC, HEADINGS, Recipe
from steepest.report import choices, figures, predictions, summary
from steepest.report.records import History, Records, is_tuning, read
from steepest.report.rendering import measured, render

ROWS = 60
"""Most rows of metrics.csv listed; of more, those with an event and evenly spaced others."""

PARTS = ("test", "val", "train")

OF_THE_MACHINE = ("num_threads",)
"""Choices that every run makes, and that say nothing of the network."""


def write(path: str | Path) -> Path:
    """Write report.html into the folder of a run or a search and return where it is. Raises UserError where
    there is none.

    The same records give the same bytes."""
    records = read(Path(path))
    page = render("tuning", _of_tuning(records)) if is_tuning(path) else render("run", _of_run(records))
    target = Folder(path).report
    write_atomic(target, page)
    return target


def _of_run(records: Records) -> dict[str, Any]:
    return _of_both(records) | {
        "status": summary.status(records),
        "headline": summary.headline(records),
        "tiles": summary.tiles(records),
        "told": summary.sentences(records),
        "problems": records.problems,
        "metrics": _metrics(records),
        "tested": any(name.startswith("test/") for name in records.metrics),
        "course": _course(records.history),
        "events": figures.events(records.history),
        "figures": list(figures.of_training(records)),
        "predictions": predictions.section(records),
        "evidence": choices.section(records.evidence),
    }


def _of_tuning(records: Records) -> dict[str, Any]:
    """What was measured, settings in the order of the recipe, then hyperparameters: lr 3.1e-3, beta1 0.87"""
    decided = {one.get("choice"): one.get("decided") for one in records.evidence}
    hyper = records.recipe.get("hyper")
    known = (*AUTOMATIC, *(hyper if isinstance(hyper, Mapping) else ()))
    names = [name for name in known if name in decided and name not in OF_THE_MACHINE]
    return _of_both(records) | {
        "found": ", ".join(f"{name} {shown(decided[name])}" for name in names) or "nothing yet",
        "evidence": choices.section([one | {"reused": 0} for one in records.evidence]),  # it starts anew
    }


def _of_both(records: Records) -> dict[str, Any]:
    return {
        "name": records.name,
        "place": records.place,
        "recipe": _recipe(records.recipe) if records.recipe else None,
        "environment": records.env,
    }


def _metrics(records: Records) -> list[list[str]]:
    """A row for each metric: its name, and its final value on each part of the data."""
    final = records.history.at(records.best_step) | records.metrics
    split = (name.partition("/") for name in [*records.metrics, *final])
    names = dict.fromkeys(name for part, _, name in split if part in PARTS)
    return [[name, *(measured(name, final.get(f"{part}/{name}")) for part in PARTS)] for name in names]


def _course(history: History) -> dict[str, Any]:
    """metrics.csv as a table, of many rows only some."""
    names = list(history.columns)
    rows = [
        [*(measured(name, float(history.columns[name][row])) for name in names), history.events[row]]
        for row in picked(history)
    ]
    return {"head": [*names, "event"], "rows": rows, "sides": "r" * len(names) + "l", "of": len(history)}


def picked(history: History) -> list[int]:
    """Rows to list: all, or else those with an event other than a gain and evenly spaced ones."""
    if len(history) <= ROWS:
        return list(range(len(history)))
    eventful = [i for i, event in enumerate(history.events) if event not in ("", "improved")][: ROWS // 2]
    spaced = np.linspace(0, len(history) - 1, ROWS - len(eventful)).round().astype(int)
    return sorted({*eventful, *spaced.tolist()})


def _recipe(settings: Mapping[str, Any]) -> dict[str, list[tuple[str, Any, bool, str]]]:
    """Settings under their headings, in the order of the recipe: (name, value, whether it differs from its
    default, meaning)."""
    found: dict[str, list[tuple[str, Any, bool, str]]] = {}
    heading = ""
    for key, field in Recipe.model_fields.items():
        heading = HEADINGS.get(key, heading)
        if key in settings and heading:
            changed = field.default != (None if settings[key] == "none" else settings[key])
            found.setdefault(heading, []).append((key, settings[key], changed, field.description or ""))
    unknown = [(key, settings[key], False, "") for key in settings if key not in Recipe.model_fields]
    return found | ({"not known to this version": unknown} if unknown else {})
