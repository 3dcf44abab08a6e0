"""The step that follows its like: one table, the same tensors, no sums. All of it in one function.

A small network's step is mostly Python that finds nothing changed. Here is the same as `Plan.fits` and
`Plan.run` do, without their many cases; where anything is otherwise it does nothing, and they decide."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from operator import attrgetter, is_, itemgetter
from typing import Any

from torch.autograd.graph import increment_version

from steepest.optim.engines.torch.entries import Entries
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

_gradient = attrgetter("grad")

Step = Callable[[Any, Any, float, Any], bool]
"""(groups, state, scale, gradients) → whether the step was done."""


def steady(plan: Any) -> Step | None:
    """The step of a plan that holds; None for plans of other kinds."""
    tables = [table for family in plan.families for table in family.tables]
    if len(tables) != 1 or tables[0] is None or plan.absent:
        return None
    rule = plan.families[0].rule
    if rule.sums or rule.shared or rule.reads or not rule.scalars(HOST, 1).keys().isdisjoint(rule.numbers()):
        return None
    load = _loader(plan.families[0], tables[0])
    return load and _step(plan, plan.families[0], tables[0], load)


def _step(plan: Any, family: Any, table: Any, load: Callable[[Any, float], None]) -> Step:
    forms, given, weights = plan.forms, plan.groups, plan.weights
    snapshot, known, advance = partial(b"".join, family.counters.memory), _compared(weights), _counter(family)

    def take(groups: Any, state: Any, scale: float, gradients: Any) -> bool:
        if (
            type(state) is not Entries
            or state.watch.touched
            or groups.forms != forms
            or not known(groups.weights, given)
            or snapshot() != family.snapshot
            or not table.fits(list(map(_gradient, weights)) if gradients is None else gradients)
        ):
            return False
        load(groups, scale)
        table.update()
        increment_version(weights)
        family.snapshot = advance()
        return True

    return take


def _counter(family: Any) -> Callable[[], bytes]:
    """() → the counters' memory, once an update of every weight is counted there."""
    counters, moments = family.counters, family.moments
    (memory,), first, rows = counters.memory, moments[0], len(counters.step)
    written, number = memory.cast("B"), struct.Struct("f").pack

    def one() -> bytes:
        first.t += 1
        written[:] = counted = number(first.t) * rows
        return counted

    def several() -> bytes:
        for moment in moments:
            moment.t += 1
        counters.advance(family.done)
        return memory.tobytes()

    return one if len(moments) == 1 else several


def _compared(weights: Any) -> Callable[[Any, Any], bool]:
    """(lists of weights, lists of weights) → whether they hold the very same tensors."""

    def each(own: Any, given: Any) -> bool:
        return len(own) == len(given) and all(
            len(a) == len(b) and all(map(is_, a, b)) for a, b in zip(own, given, strict=True)
        )

    def together(own: Any, given: Any) -> bool:
        try:  # lists ask first whether two elements are one; only others are asked whether they are equal
            return own == given
        except (RuntimeError, TypeError, ValueError):  # tensors of several elements neither are nor are not
            return False

    return each if any(w.numel() == 1 for w in weights) else together


def _loader(family: Any, table: Any) -> Callable[[Any, float], None] | None:
    """(groups, scale) → None: put the constants of the coming step into the table's memory."""
    rule, names, moments = family.rule, family.rule.numbers(), family.moments
    besides = {} if table.layout.plain else family.numbers
    found = {len(besides[moment.group](1)) for moment in moments} if besides else {0}
    if len(found) > 1:
        return None
    timed = bool(rule.scalars(HOST, 1)) or bool(besides)
    space = [0.0] * (table.width - 1 - len(names) - len(rule.scalars(HOST, 1)) - found.pop())
    hyper = itemgetter(*names) if len(names) > 1 else lambda entries: (entries[names[0]],)
    pack, constants = table.pack, table.constants
    kept: tuple[Any, float, list[tuple[Any, Rule, list[float]]]] = None, 0.0, []

    def load(groups: Any, scale: float) -> None:
        nonlocal kept
        if groups.rules is not kept[0] or scale != kept[1]:
            kept = groups.rules, scale, [head(groups, moment, scale) for moment in moments]
        elif not timed and table.loaded is kept:
            return
        values: list[float] = []
        for moment, rule, first in kept[2]:
            values += first
            values += rule.scalars(HOST, moment.t + 1).values()
            if besides:
                values += space
                values += besides[moment.group](moment.t + 1)
        pack(constants, 0, *values)
        table.loaded = kept

    def head(groups: Any, moment: Any, scale: float) -> tuple[Any, Rule, list[float]]:
        rule = groups.rules[moment.group]
        return moment, rule, [scale * groups.turns[moment.group], *hyper(vars(rule))]

    return load
