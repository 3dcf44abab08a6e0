"""What a step does to the weights of an optimizer, worked out once, and kept while nothing changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch

from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.torch.family import Family, Row
from steepest.optim.engines.torch.steady import steady
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.optim.rule import Rule

State = MutableMapping[torch.Tensor, dict[str, Any]]
Gradients = Sequence[torch.Tensor | None]
Reads = Mapping[str, Gradients]


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
        self.families = []
        for form in dict.fromkeys(forms):
            own = [row for row in rows if forms[row.group] == form]
            if any(row.moves for row in own):
                self.families.append(Family(rules, own, state, engine))
        self.inputs = [(family, _picker(family, len(rows))) for family in self.families]
        for family, pick in self.inputs:
            family.settle(pick(gradients, reads))
        self.steady = steady(self)

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
            for family, pick in self.inputs:
                if not family.fits(pick(gradients, reads)):
                    return False
        except (AttributeError, IndexError, TypeError):  # nothing where there was something to read
            return False
        return True

    def places(self, gradients: Sequence[torch.Tensor]) -> Sequence[int] | None:
        """Where the gradients of all weights lie, if one table knows and may read them."""
        if self.steady is None or len(gradients) != len(self.weights):
            return None
        table = self.families[0].tables[0]
        return table.places[: len(gradients)] if table.fits(gradients) else None

    def run(self, rules: Sequence[Rule], scales: Sequence[float], cleared: Gradients | None = None) -> None:
        """Update every weight once, each group from its scale times its gradients.

        cleared: the gradients that were fit last, where they shall be 0 afterwards."""
        for family in self.families:
            family.run(rules, scales, cleared)


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


def _picker(family: Family, count: int) -> Any:
    """(gradients, reads) of all weights → gradients of the family's moving rows, and what its rule reads."""
    places, names = family.places, family.rule.reads
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
    for name in rule.reads:
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
    if x.is_complex() != w.is_complex() or not (x.is_floating_point() or x.is_complex()):
        raise UnsupportedGradient(
            f"A weight of shape {shape} in {w.dtype} has a {name} in {x.dtype}. Gradients are floats, "
            "complex where the weight is."
        )
    if x.device != w.device:
        raise UserError(
            f"A weight of shape {shape} lies on {w.device}, its {name} on {x.device}. Move one to the other."
        )
