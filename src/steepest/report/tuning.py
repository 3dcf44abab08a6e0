"""report.html of a folder of `tune`: what was measured, and the recipe that came of it."""

from __future__ import annotations

from pathlib import Path

from steepest.folder import Folder, write_atomic
from steepest.report import choices, settings
from steepest.report.markup import Markup, element
from steepest.report.page import document
from steepest.report.records import Records, read

ASKED = "asked.toml"
"""The recipe that was tuned, with "auto" where a setting was open."""

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
    parts = {"Evidence": choices.section(records.evidence)}
    if records.recipe:
        parts["Recipe"] = settings.recipe(records.recipe)
    parts["Environment"] = settings.environment(records.env)
    sections = (
        element("section", element("h2", title), part, id=title.lower()) for title, part in parts.items()
    )
    return document(records.name, _header(records), element("main", *sections), _footer(records))


def _header(records: Records) -> Markup:
    said = (
        "The search has ended." if records.recipe else "The search has not ended; what it has found so far."
    )
    top = element("p", element("span", "steepest", class_="brand"), class_="top")
    headline = element("p", "Settings measured, without the training. ", said, class_="headline")
    return element("header", top, element("h1", records.name), headline)


def _footer(records: Records) -> Markup:
    command = f"fit {records.name}/recipe.toml" if records.recipe else f"resume {records.name}"
    does = " trains with these settings." if records.recipe else " goes on with the search."
    return element("footer", element("p", element("code", f"steepest {command}"), does))
