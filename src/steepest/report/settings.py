"""The sections of recipe and environment: what, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.recipe import HEADINGS, Recipe
from steepest.report.markup import Markup, element, joined


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
    pairs = (joined((element("dt", name), element("dd", written(value)))) for name, value in found.items())
    lead = element("p", "The same recipe gives the same bits where these are the same.", class_="lead")
    return joined((lead, element("dl", *pairs, class_="facts")))


def _settings(title: str, pairs: Sequence[tuple[str, Any]]) -> Markup:
    body = (
        joined((element("dt", _named(key, value)), element("dd", written(value)))) for key, value in pairs
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


def written(value: Any) -> str:
    """A setting to its last digit: people copy it."""
    if value is None or value == "none":
        return "–"
    if isinstance(value, list):
        return ", ".join(map(written, value)) or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {written(inner)}" for name, inner in value.items()) or "–"
    return str(value)
