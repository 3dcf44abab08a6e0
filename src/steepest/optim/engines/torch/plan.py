"""What a step does to the weights of an optimizer, worked out once, and kept while nothing changes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch.autograd.graph import increment_version

from steepest.optim.engines import sharded
from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.torch.watched_state import Entries
from steepest.optim.engines.torch.weight_group import Row, WeightGroup
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

State = MutableMapping[torch.Tensor, dict[str, Any]]
Gradients = Sequence[torch.Tensor | None]
Reads = Mapping[str, Gradients]


Step = Callable[[Any, Any, float, Any], bool]
"""(groups, state, scale, gradients) → whether the step was done."""

_gradient = attrgetter("grad")


class Plan:
    """The update of those weights that have a gradient; `fits` says whether it still holds.

    forms, rules: of each group. groups: their weights. gradients, and each entry of reads: one for each
    weight over all groups, or None. memories: how each group is kept. first: number of the first weight.
    engine: as asked for, see `choice`."""

    def __init__(
        self,
        forms: Sequence[Any],
        rules: Sequence[Rule],
        groups: Sequence[Sequence[torch.Tensor]],
        gradients: Gradients,
        reads: Reads,
        state: State,
        memories: Sequence[Memory],
        first: int = 0,
        engine: str | None = None,
    ) -> None:
        self.kinds = kinds(gradients, reads)
        self.forms, self.groups = list(forms), [list(group) for group in groups]
        self.weights, self.lengths = list(chain.from_iterable(groups)), list(map(len, groups))
        if len(gradients) != sum(map(len, groups)):
            raise UserError(
                f"{len(gradients)} gradients were given for {sum(map(len, groups))} weights. There is one "
                "for each weight over all groups, None where there is none."
            )
        rows = list(_rows(self.groups, gradients, memories, first))
        self.absent = [row.place for row in rows if not row.moves]
        for row in rows:
            _refuse_unfit(rules[row.group], row, gradients, reads)
        self.weight_groups = []
        for form in dict.fromkeys(forms):
            own = [row for row in rows if forms[row.group] == form]
            if any(row.moves for row in own):
                self.weight_groups.append(WeightGroup(rules, own, state, engine))
        self.inputs = [(own, _picker(own, len(rows))) for own in self.weight_groups]
        for own, pick in self.inputs:
            own.settle(pick(gradients, reads))
        self.fast_path = fast_path(self)

    def fits(
        self,
        forms: Sequence[Any],
        groups: Sequence[Sequence[torch.Tensor]],
        gradients: Gradients,
        reads: Reads,
    ) -> bool:
        """True where the next step may run as planned: weights, counters and gradients are where they were.

        That the state still holds the same tensors is the optimizer's to see."""
        if (
            forms != self.forms
            or list(map(len, groups)) != self.lengths
            or not all(map(is_, chain.from_iterable(groups), self.weights))
            or (self.absent and any(gradients[place] is not None for place in self.absent))
        ):
            return False
        try:
            for own, pick in self.inputs:
                if not own.fits(pick(gradients, reads)):
                    return False
        except (AttributeError, IndexError, TypeError):  # nothing where there was something to read
            return False
        return True

    def places(self, gradients: Sequence[torch.Tensor]) -> Sequence[int] | None:
        """Where the gradients of all weights lie, if one table knows and may read them."""
        if self.fast_path is None or len(gradients) != len(self.weights):
            return None
        table = self.weight_groups[0].tables[0]
        return table.places[: len(gradients)] if table.fits(gradients) else None

    def run(self, rules: Sequence[Rule], scales: Sequence[float], cleared: Gradients | None = None) -> None:
        """Update every weight once, each group from its scale times its gradients.

        cleared: the gradients that were fit last, where they shall be 0 afterwards."""
        for own in self.weight_groups:
            own.run(rules, scales, cleared)


def kinds(gradients: Gradients, reads: Reads) -> list[Any]:
    """Dtypes and shapes of what was given: `fits` goes by places, where another tensor may come to lie.

    torch itself sees to those of p.grad."""
    columns = chain(gradients, *reads.values())
    return [(getattr(x, "dtype", None), getattr(x, "shape", None)) for x in columns]


def begin(optimizer: Any) -> None:
    """Make the state of those weights that have none yet, as their first step would."""
    now = optimizer._groups.follow(optimizer)
    like = [weight.detach() for weight in chain.from_iterable(now.weights)]
    state, memories = optimizer.state, optimizer.memories
    Plan(now.forms, now.rules, now.weights, like, {}, state, memories, engine=optimizer.engine)
    optimizer._plan = None


def refuse_scale(scale: float) -> None:
    """UserError for a factor of all gradients that leaves none of them what it was, but for its length."""
    if not math.isfinite(scale) or scale == 0:
        raise UserError(
            f"step(scale=) must be a finite number that is not 0, got {scale!r}; nothing has moved. It "
            "multiplies every gradient. One reckoned from a loss scale, or a norm to clip by, that was 0 or "
            "not finite belongs to gradients that are not to be used: leave that step out."
        )


def _rows(
    groups: Sequence[Sequence[torch.Tensor]], gradients: Gradients, memories: Sequence[Memory], first: int
) -> Any:
    place = 0
    for number, group in enumerate(groups):
        for weight in group:
            yield Row(place, number, weight, gradients[place] is not None, memories[number], first + place)
            place += 1


def _picker(own: WeightGroup, count: int) -> Any:
    """(gradients, reads) of all weights → gradients of the own's moving rows, and what its rule reads."""
    places, names = own.places, own.rule.extra_inputs
    if len(places) == count:
        pick: Any = list
    else:
        pick = itemgetter(*places) if len(places) > 1 else lambda column: [column[places[0]]]
    if not names:
        return lambda gradients, reads: pick(gradients)
    return lambda gradients, reads: [
        x for column in (gradients, *map(reads.get, names)) for x in pick(column)
    ]


def _refuse_unfit(rule: Rule, row: Row, gradients: Gradients, reads: Reads) -> None:
    """UserError where what was given for a weight cannot be used; nothing has been touched yet."""
    if not row.moves:
        return
    given: dict[str, Any] = {"gradient": gradients[row.place]}
    for name in rule.extra_inputs:
        column = reads.get(name)
        given[name] = None if column is None or len(column) <= row.place else column[row.place]
        if given[name] is None:
            raise UserError(
                f"{type(rule).__name__} reads an array {name!r} beside each gradient, and none was given for "
                f"weight {row.place} of shape {tuple(row.weight.shape)}. "
                f"Call step(reads={{{name!r}: [...]}}), in the order of the weights over all groups."
            )
    if rule.whole and row.weight.is_complex():
        raise UnsupportedGradient(
            f"{type(rule).__name__} does not support complex parameters, and one of shape "
            f"{tuple(row.weight.shape)} is complex. Give it a rule that goes by elements, such as AdamW."
        )
    sharded.refuse(rule, row.memory, row.weight)
    for name, x in given.items():
        _refuse_misshapen(name, x, row.weight)


def _refuse_misshapen(name: str, x: Any, w: torch.Tensor) -> None:
    shape = tuple(w.shape)
    if not isinstance(x, torch.Tensor):
        raise UserError(f"The {name} of a weight of shape {shape} must be a tensor, got {type(x).__name__}.")
    if x.layout is not torch.strided:
        raise UnsupportedGradient(
            f"Rules move dense weights; a weight of shape {shape} has a {name} in {x.layout}. "
            "Make it dense: nn.Embedding(..., sparse=False), or p.grad = p.grad.to_dense()."
        )
    if x.shape != w.shape:
        raise UserError(
            f"A {name} of shape {tuple(x.shape)} was given for a weight of shape {shape}. "
            "Gradients come in the order of the weights over all groups, None where there is none."
        )
    if sharded.is_dtensor(x) != sharded.is_dtensor(w):
        raise UserError(
            f"A weight of shape {shape} is {type(w).__name__}, its {name} is {type(x).__name__}: either both "
            "are split over processes or none is."
        )
    if x.is_complex() != w.is_complex() or not (x.is_floating_point() or x.is_complex()):
        raise UnsupportedGradient(
            f"A weight of shape {shape} in {w.dtype} has a {name} in {x.dtype}. Gradients are floats, "
            "complex where the weight is."
        )
    if x.device != w.device:
        raise UserError(
            f"A weight of shape {shape} lies on {w.device}, its {name} on {x.device}. Move one to the other."
        )


def fast_path(plan: Any) -> Step | None:
    """The step that follows its like, in one function: one table, the same tensors, no sums; None for others.

    A small network's step is mostly Python that finds nothing changed. Here is the same as `Plan.fits` and
    `Plan.run` do, without their many cases; where anything is otherwise it does nothing, and they decide."""
    tables = [table for own in plan.weight_groups for table in own.tables]
    if len(tables) != 1 or tables[0] is None or plan.absent:
        return None
    rule = plan.weight_groups[0].rule
    if (
        rule.sums
        or rule.shared
        or rule.extra_inputs
        or not rule.scalars(HOST, 1).keys().isdisjoint(rule.numbers())
    ):
        return None
    load = _loader(plan.weight_groups[0], tables[0])
    return load and _step(plan, plan.weight_groups[0], tables[0], load)


def _step(plan: Any, own: Any, table: Any, load: Callable[[Any, float], None]) -> Step:
    forms, given, weights = plan.forms, plan.groups, plan.weights
    snapshot, known, advance = partial(b"".join, own.counters.memory), _compared(weights), _counter(own)

    def take(groups: Any, state: Any, scale: float, gradients: Any) -> bool:
        if (
            type(state) is not Entries
            or state.watch.touched
            or groups.forms != forms
            or not known(groups.weights, given)
            or snapshot() != own.snapshot
            or not table.fits(list(map(_gradient, weights)) if gradients is None else gradients)
        ):
            return False
        load(groups, scale)
        table.update()
        increment_version(weights)
        own.snapshot = advance()
        return True

    return take


def _counter(own: Any) -> Callable[[], bytes]:
    """() → the counters' memory, once an update of every weight is counted there."""
    counters, moments = own.counters, own.moments
    (memory,), first, rows = counters.memory, moments[0], len(counters.step)
    written, number = memory.cast("B"), struct.Struct("f").pack

    def one() -> bytes:
        first.t += 1
        written[:] = counted = number(first.t) * rows
        return counted

    def several() -> bytes:
        for moment in moments:
            moment.t += 1
        counters.advance(own.done)
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


def _loader(own: Any, table: Any) -> Callable[[Any, float], None] | None:
    """(groups, scale) → None: put the constants of the coming step into the table's memory."""
    rule, names, moments = own.rule, own.rule.numbers(), own.moments
    besides = {} if table.layout.plain else own.numbers
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
