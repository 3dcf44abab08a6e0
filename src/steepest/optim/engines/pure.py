"""One step with nothing written in place, for frameworks that trace: numbers there have no values yet.

`xp` holds the vocabulary of rules, for Python floats too, and besides it
cast(x, dtype)   floating numbers in that dtype; a Python number or truth value as it is
total(x, shape)  the sum of x, spread out to that shape, in the dtype of scalars
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeAlias

from steepest.optim.errors import UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule
from steepest.optim.schedule import Schedule, valued

Row: TypeAlias = Sequence[Any]
"""(w, g, *reads, *slots) of a weight, in the dtype of arithmetic."""

Shared: TypeAlias = dict[str, Any]


def with_floats(name: str, on_arrays: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the vocabulary that computes on Python numbers in float64, and else on arrays."""
    on_floats = getattr(HOST, name)

    def operation(*values: Any) -> Any:
        return (on_floats if all(isinstance(x, int | float) for x in values) else on_arrays)(*values)

    return operation


def holding(rule: Rule, numbers: Mapping[str, Any]) -> Rule:
    """The rule with these numbers, unchecked: a traced number has no value to be checked."""
    held = copy(rule)
    for name, number in numbers.items():
        object.__setattr__(held, name, number)
    return held


def numbers_at(rule: Rule, xp: Any, step: Any) -> dict[str, Any]:
    """The rule's schedules, evaluated at a global step that may be traced."""
    hyper = {name: getattr(rule, name) for name in rule.numbers()}
    return {name: _at(rule, name, xp, step) for name, number in hyper.items() if callable(number)}


def _at(rule: Rule, name: str, xp: Any, step: Any) -> Any:
    schedule = getattr(rule, name)
    try:
        return valued(schedule, xp, step)
    except Exception as error:
        if isinstance(schedule, Schedule):
            raise
        raise UserError(
            f"{type(rule).__name__}'s {name} is {schedule!r}, and it failed on a step that is an array of "
            f"the framework ({type(error).__name__}). Take a curve of steepest.schedule, or write it without "
            f"`if`, `math` and `int` of the step."
        ) from error


def form(rule: Rule) -> tuple[Any, ...]:
    """A rule less its schedulable numbers: its formula and its structure.

    Rules of one form share their kernels; where a framework traces them, their sums."""
    numbers = rule.numbers()
    return type(rule), *(value for name, value in vars(rule).items() if name not in numbers)


def step_all(
    xp: Any, rules: Sequence[Rule], t: Any, rows: Sequence[Row], shared: Sequence[Shared], host: Any = None
) -> tuple[list[tuple[Any, ...]], list[Shared]]:
    """New (w, *slots) and new shared scalars of each weight, from its rule, its row and its scalars.

    The rules are of one form and hold numbers (see `holding`); t is a number, or a scalar array. Where the
    scope is "model", weights of one rule have the very same dict of scalars, and get the very same again.
    host: the vocabulary of constants, where that is another than `xp`."""
    made = _constants(xp, host or xp, rules, t, rows, shared)
    each = _in_dtypes(xp, [k for k, _ in made], rows)
    moved = [_moved(xp, rule, k, row) for rule, k, row in zip(rules, each, rows, strict=True)]
    return moved, [following for _, following in made]


def _moved(xp: Any, rule: Rule, k: Any, row: Row) -> tuple[Any, ...]:
    """(w, *slots) after the update; a weight without elements stays, for a mean of nothing is no number."""
    if 0 in row[0].shape:
        return (row[0], *row[2 + len(rule.extra_inputs) :])
    return tuple(rule.update(xp, k, *row))


def _constants(
    xp: Any, host: Any, rules: Sequence[Rule], t: Any, rows: Sequence[Row], shared: Sequence[Shared]
) -> list[tuple[Any, Shared]]:
    """(k, new shared scalars) for each weight; computed once where all that goes in is the very same."""
    before = _once(lambda rule, own: rule.constants(host, t, own), rules, shared)
    if not rules[0].sums:
        return before
    each = _in_dtypes(xp, [k for k, _ in before], rows)
    sums = [
        tuple(xp.total(addend, row[0].shape) for addend in rule.addends(xp, k, *row))
        for rule, k, row in zip(rules, each, rows, strict=True)
    ]
    sizes = [max(math.prod(row[0].shape), 1) for row in rows]
    if rules[0].scope == "model":
        sizes = [sum(math.prod(row[0].shape) for row in rows) or 1] * len(rows)
        sums = [tuple(map(sum, zip(*sums, strict=True)))] * len(rows)
    return _once(lambda rule, own, *of: rule.constants(host, t, own, *of), rules, shared, sizes, sums)


def _once(make: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`make` of each row of arguments, called once for rows of the very same objects."""
    made: dict[tuple[int, ...], Any] = {}
    each = []
    for arguments in zip(*columns, strict=True):
        key = tuple(map(id, arguments))
        made[key] = made[key] if key in made else make(*arguments)
        each.append(made[key])
    return each


def _in_dtypes(xp: Any, constants: Sequence[Any], rows: Sequence[Row]) -> list[Any]:
    """The constants in the dtype of each weight's arithmetic, so that they do not widen it."""
    made: dict[tuple[int, Any], Any] = {}
    for k, row in zip(constants, rows, strict=True):
        key = id(k), row[0].dtype
        made[key] = made.get(key) or type(k)(*(xp.cast(number, row[0].dtype) for number in k))
    return [made[id(k), row[0].dtype] for k, row in zip(constants, rows, strict=True)]
