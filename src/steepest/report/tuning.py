"""report.html of a folder of `tune`: what was measured, and the recipe that came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from steepest.evidence import shown
from steepest.files import Folder, write_atomic
from steepest.recipe import AUTOMATIC
from steepest.report import choices, settings
from steepest.report.markup import Markup, element
from steepest.report.page import document
from steepest.report.records import Records, read

ASKED = "asked.toml"
"""The recipe that was tuned, with "auto" where a setting was open."""

OF_THE_MACHINE = ("num_threads",)
"""Choices that every run makes, and that say nothing of the network."""

PLAN = "tune.json"
"""What of the question is no recipe's."""


def is_tuning(path: str | Path) -> bool:
    """Whether a folder is one of `tune`."""
    return (Path(path) / PLAN).exists()


def write(path: str | Path) -> Path:
    """Write report.html into the folder and return where it is. The same records give the same bytes."""
    target = Folder(path).report
    write_atomic(target, render(read(Path(path))).encode("utf-8"))
    return target


def render(records: Records) -> str:
    """The page as text."""
    found = [{**one, "reused": 0} for one in records.evidence]  # the recipe starts anew
    parts = {"Evidence": choices.section(found)}
    if records.recipe:
        parts["Recipe"] = settings.recipe(records.recipe)
    parts["Environment"] = settings.environment(records.env)
    sections = (
        element("section", element("h2", title), part, id=title.lower()) for title, part in parts.items()
    )
    return document(records.name, _header(records), element("main", *sections), _footer(records))


def _header(records: Records) -> Markup:
    found = _found(records) or "nothing yet"
    said = f"Chosen: {found}." if records.recipe else f"The search has not ended. Found so far: {found}."
    top = element("p", element("span", "steepest", class_="brand"), class_="top")
    headline = element("p", said, class_="headline")
    lead = element("p", "Settings measured, without the training: ", *_command(records), class_="lead")
    return element("header", top, element("h1", records.name), headline, lead)


def _found(records: Records) -> str:
    """What was measured, settings in the order of the recipe, then hyperparameters: lr 3.1e-3, beta1 0.87"""
    decided = {one.get("choice"): one.get("decided") for one in records.evidence}
    hyper = records.recipe.get("hyper")
    known = (*AUTOMATIC, *(hyper if isinstance(hyper, Mapping) else ()))
    names = (name for name in known if name in decided and name not in OF_THE_MACHINE)
    return ", ".join(f"{name} {shown(decided[name])}" for name in names)


def _footer(records: Records) -> Markup:
    return element("footer", element("p", *_command(records)))


def _command(records: Records) -> tuple[Markup, str]:
    command = f"fit {records.place}/recipe.toml" if records.recipe else f"resume {records.place}"
    does = " trains with them." if records.recipe else " goes on with the search."
    return element("code", f"steepest {command}"), does
