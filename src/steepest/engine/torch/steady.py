"""The step that follows its like: one table, the same tensors, no sums. All of it in one function.

A small network's step is mostly Python that finds nothing changed. Here is the same as `Plan.fits` and
`Plan.run` do, without their many cases; where anything is otherwise it does nothing, and they decide."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
from torch.autograd.graph import increment_version

from steepest.engine.torch.entries import Entries
from steepest.maths import HOST

_gradient = attrgetter("grad")


def steady(plan: Any) -> Callable[[Any, Any, float, Any], bool] | None:
    """(groups, state, scale, gradients) → whether the step was done; None for plans of other kinds."""
    tables = [table for family in plan.families for table in family.tables]
    if len(tables) != 1 or tables[0] is None or plan.absent:
        return None
    family, table, moments = plan.families[0], tables[0], plan.families[0].moments
    rule, numbers = family.rule, family.rule.numbers()
    if rule.sums or rule.shared or rule.reads or not rule.scalars(HOST, 1).keys().isdisjoint(numbers):
        return None
    besides = {} if table.layout.plain else family.numbers
    found = {len(besides[moment.group](1)) for moment in moments} if besides else {0}
    if len(found) > 1:
        return None
    space = [0.0] * (table.width - 1 - len(numbers) - len(rule.scalars(HOST, 1)) - found.pop())
    hyper = itemgetter(*numbers) if len(numbers) > 1 else lambda entries: (entries[numbers[0]],)
    forms, lengths, weights, counters = plan.forms, plan.lengths, plan.weights, family.counters
    step, done, memory = counters.step, family.done, counters.memory
    fits, pack, constants, update = table.fits, table.pack, table.constants, table.update

    def take(groups: Any, state: Any, scale: float, gradients: Any) -> bool:
        own = groups.weights
        if (
            type(state) is not Entries
            or state.watch.touched
            or groups.forms != forms
            or list(map(len, own)) != lengths
            or not all(map(is_, chain.from_iterable(own), weights))
            or b"".join(memory) != family.snapshot
            or not fits(list(map(_gradient, weights)) if gradients is None else gradients)
        ):
            return False
        values: list[float] = []
        for moment in moments:
            rule = groups.rules[moment.group]
            values.append(scale * groups.turns[moment.group])
            values += hyper(rule.__dict__)
            values += rule.scalars(HOST, moment.t + 1).values()
            if besides:
                values += space
                values += besides[moment.group](moment.t + 1)
        pack(constants, 0, *values)
        update()
        increment_version(weights)
        for moment in moments:
            moment.t += 1
        np.add(step, done, step)
        family.snapshot = b"".join(memory)
        return True

    return take
