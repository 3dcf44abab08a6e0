"""The sections of evidence, recipe and environment: why, what, where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.recipe import HEADINGS, Recipe
from steepest.report.markup import Markup, duration, element, joined, number, table

CANDIDATES = 40
"""Most candidates of one choice that are shown."""


def evidence(found: Sequence[Mapping[str, Any]]) -> Markup:
    """One card a choice: what was decided, why, and what was measured for it."""
    if not found:
        return element("p", "No automatic choice is on record.", class_="lead")
    lead = element(
        "p", "Choices that steepest made by itself, each with what it measured to make it.", class_="lead"
    )
    return joined((lead, *map(_card, found)))


def recipe(settings: Mapping[str, Any]) -> Markup:
    """All settings in the order of the recipe, those that differ from their default in bold."""
    if not settings:
        return element("p", "The recipe could not be read.", class_="lead")
    lead = element("p", "Every setting of the run; those in bold differ from their default.", class_="lead")
    parts: dict[str, list[tuple[str, Any]]] = {}
    heading = "file"
    for key in sorted(settings, key=_place):
        heading = HEADINGS.get(key, heading if _known(key) else "not known to this version")
        parts.setdefault(heading, []).append((key, settings[key]))
    groups = (_settings(title, pairs) for title, pairs in parts.items() if title != "file")
    return joined((lead, element("div", *groups, class_="columns")))


def environment(found: Mapping[str, Any]) -> Markup:
    """Versions and machine, as they were."""
    if not found:
        return element("p", "The environment was not recorded.", class_="lead")
    pairs = (joined((element("dt", name), element("dd", _written(value)))) for name, value in found.items())
    lead = element("p", "The same recipe gives the same bits where these are the same.", class_="lead")
    return joined((lead, element("dl", *pairs, class_="facts")))


def _card(one: Mapping[str, Any]) -> Markup:
    cost = one.get("seconds")
    spent = element("small", f"took {duration(cost)}") if cost else ""
    title = element(
        "h3", one.get("choice", "?"), " → ", element("b", _written(one.get("decided"))), " ", spent
    )
    return element("article", title, element("p", one.get("why", "")), _candidates(one.get("candidates")))


def _candidates(tried: Any) -> Markup:
    rows = [row for row in tried if isinstance(row, Mapping)] if isinstance(tried, list) else []
    if not rows:
        return Markup("")
    names = list(dict.fromkeys(name for row in rows for name in row))
    sides = "".join("r" if isinstance(rows[0].get(name), int | float) else "l" for name in names)
    shown = table(names, ([_measured(row.get(name)) for name in names] for row in rows[:CANDIDATES]), sides)
    title = f"what was measured: {len(rows)}" + (
        f", the first {CANDIDATES} shown" if len(rows) > CANDIDATES else ""
    )
    return element("details", element("summary", title), shown, open="" if len(rows) <= 8 else None)


def _measured(value: Any) -> str:
    return number(value) if isinstance(value, float) else _written(value)


def _settings(title: str, pairs: Sequence[tuple[str, Any]]) -> Markup:
    body = (
        joined((element("dt", _named(key, value)), element("dd", _written(value)))) for key, value in pairs
    )
    return element("section", element("h3", title), element("dl", *body, class_="facts"))


def _named(key: str, value: Any) -> Markup:
    if not _known(key):
        return element("span", key)
    field = Recipe.model_fields[key]
    changed = field.default != (None if value == "none" else value)
    return element("b" if changed else "span", key, title=field.description)


def _known(key: str) -> bool:
    return key in Recipe.model_fields


def _place(key: str) -> int:
    names = list(Recipe.model_fields)
    return names.index(key) if key in names else len(names)


def _written(value: Any) -> str:
    """A setting to its last digit: people copy it."""
    if value is None or value == "none":
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_written, value)) or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_written(inner)}" for name, inner in value.items()) or "–"
    return str(value)
