"""Fills the marked places of the docs from the code, so that no table is written twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from steepest import rules, schedule, wrap
from steepest.optim import rule
from steepest.optim.quantity import Quantity
from steepest.recipe import HEADINGS, Recipe


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page: `<!-- generate: name -->` becomes what that function yields."""
    for generate in (settings, update_rules, wrappers, schedules, schedule_names):
        mark = f"<!-- generate: {generate.__name__} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(generate()))
    return markdown


def settings() -> Iterator[str]:
    """The settings of a recipe, one table a part."""
    for key, field in list(Recipe.model_fields.items())[1:]:  # the first is the version of the file format
        if key in HEADINGS:
            yield from ("", f"### {HEADINGS[key].capitalize()}", "")
            yield from ("| setting | default | meaning |", "| --- " * 3 + "|")
        default = "*required*" if field.is_required() else f"`{field.default!r}`"
        yield f"| `{key}` | {default} | {field.description} |"


def update_rules() -> Iterator[str]:
    """Formula, units, state and source of every rule, and a table of its hyperparameters."""
    for name, one in rules.registry().items():
        yield from (f"## {one.__name__} {{ #{name} }}", "", f'In recipes and commands: `"{name}"`.', "")
        yield from described(one, {**rule.QUANTITIES, **one.quantities})


def wrappers() -> Iterator[str]:
    """Formula, state and source of every wrapper, and the names that recipes and commands know."""
    yield "In recipes and commands: " + ", ".join(f'`"{name}+adamw"`' for name in sorted(wrap.WRAPPERS)) + "."
    for name in wrap.FUNCTIONS:
        yield from ("", f"::: {getattr(wrap, name).__module__}.{name}")


def schedules() -> Iterator[str]:
    """Formula of every schedule, and a table of its numbers."""
    for name, one in vars(schedule).items():
        if isinstance(one, type) and issubclass(one, schedule.Schedule) and one is not schedule.Schedule:
            yield from (f"## {name}", "")
            yield from described(one, schedule.QUANTITIES)


def schedule_names() -> Iterator[str]:
    """The names that a recipe may give."""
    yield ", ".join(f"`{name}`" for name in (*schedule.FALLING, *schedule.RISING))


def described(one: type, quantities: Mapping[str, Quantity]) -> Iterator[str]:
    """A class's docstring and its fields."""
    yield from (f"::: {one.__module__}.{one.__name__}", "    options:", "      members: false")
    yield from ("      show_root_heading: false", "      show_root_toc_entry: false", "")
    yield from ("| number | default | range | meaning |", "| --- " * 4 + "|")
    yield from (row(field, quantities.get(field.name)) for field in fields(one))
    yield ""


def row(field: Field[Any], quantity: Quantity | None) -> str:
    """One row of a table of fields."""
    default = "*required*" if field.default is MISSING else f"`{field.default!r}`"
    meaning = f"{quantity.range} | {quantity.meaning} ({quantity.unit})" if quantity else " | "
    return f"| `{field.name}` | {default} | {meaning} |"
