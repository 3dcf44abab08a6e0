"""`rules`: every update rule on a line, or one of them with its formula, its numbers and its path."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields

from steepest.commands.rule_path import SADDLE, STEPS, VALLEY, Landscape, drawn, path, suited
from steepest.optim import rules
from steepest.optim import wrappers as wrap
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def listing() -> Iterator[str]:
    """Every rule: its name, the arrays that it keeps of a weight, and what it does."""
    width = max(map(len, (*rules.registry(), *rules.OTHERS.names())))
    yield f"{'name':<{width}}  state"
    for name, rule in rules.registry().items():
        kept = " ".join(rule.slots) if len(rule.slots) < 5 else f"{len(rule.slots)} arrays"
        yield f"{name:<{width}}  {kept or '-':<11}  {summary(rule)}"
    for name in rules.OTHERS.names():
        yield f"{name:<{width}}  {'':<11}  {_of_another(name)}"
    yield ""
    yield f"Before a name, with a plus, may stand: {', '.join(sorted(wrap.WRAPPERS))}."
    yield "steepest rules NAME shows one: formula, units, state, source, numbers, and its path."


def _of_another(name: str) -> str:
    """What a rule of another package does; what is wrong with it where it cannot be had."""
    try:
        return summary(type(rules.named(name)))
    except UserError as error:
        return str(error)


def summary(rule: type[Rule]) -> str:
    """The first sentence of a rule's docstring, without the formula that follows it."""
    return (inspect.getdoc(rule) or "").partition("   ")[0].partition("\n")[0]


def card(name: str) -> Iterator[str]:
    """All that there is to know of one rule."""
    rule = rules.named(name)
    yield from (f"{type(rule).__name__}  (in recipes and commands: {name.lower()})", "")
    yield from (inspect.getdoc(rule) or "").splitlines()
    yield ""
    yield from numbers(rule)
    yield ""
    yield from pictures(rule)


def numbers(rule: Rule) -> Iterator[str]:
    """A table of the hyperparameters: name, default, range, meaning."""
    rows = [("number", "default", "range", "meaning")]
    for field in fields(rule):
        quantity = rule.quantity(field.name)
        span, meaning = (quantity.range, f"{quantity.meaning} ({quantity.unit})") if quantity else ("", "")
        rows.append((field.name, repr(field.default), span, meaning))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:3]]
    for *short, meaning in rows:
        yield "  ".join([*(f"{text:<{width}}" for text, width in zip(short, widths, strict=True)), meaning])


def pictures(rule: Rule) -> Iterator[str]:
    """The paths of the rule over a valley and a saddle, side by side, with the rates chosen for them."""
    try:
        columns = [panel(suited(rule, land), land) for land in (VALLEY, SADDLE)]
    except UserError as error:
        yield f"No picture: {error}"
        return
    width = max(map(len, columns[0]))
    yield from (f"{left:<{width}}    {right}" for left, right in zip(*columns, strict=True))
    yield f"S to E: {STEPS} steps. The rates are chosen for the pictures; the default is {rule.at(1).lr:g}."


def panel(rule: Rule, land: Landscape) -> list[str]:
    """One picture under its title."""
    return [land.name, f"lr {rule.at(1).lr:.2g}", *drawn(path(rule, land), land)]


def show(name: str | None) -> None:
    """Print the list, or the rule of this name. Picture letters that the terminal has not become dots."""
    encoding = sys.stdout.encoding or "utf-8"
    for line in listing() if name is None else card(name):
        print(line.encode(encoding, "replace").decode(encoding))
