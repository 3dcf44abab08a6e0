"""What a step does to one group of weights, worked out once and kept for as long as nothing changes."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch

from steepest.engine import on_numba, on_torch
from steepest.engine.state import Counters, slot_keys
from steepest.errors import UserError
from steepest.maths import HOST
from steepest.rule import Rule

State = MutableMapping[torch.Tensor, dict[str, Any]]


class _Leaves:
    """Weights that go through the plain engine, one after the other."""

    def __init__(self, weights: Sequence[torch.Tensor], slots: Sequence[Sequence[torch.Tensor]]) -> None:
        self.weights, self.slots = weights, slots

    def fits(self, gradients: Sequence[torch.Tensor]) -> bool:
        _refuse_unfit(self.weights, gradients)
        self.gradients = gradients
        return True

    def run(self, rule: Rule, k: Any, scale: float) -> None:
        with torch.no_grad():
            for w, g, slots in zip(self.weights, self.gradients, self.slots, strict=True):
                on_torch.update(rule, k, w, g, slots, scale)


class _Part:
    """The rows of a group that share step count, shared scalars and engine."""

    def __init__(self, engine: Any, rows: list[int], size: int, moment: dict[str, float]) -> None:
        self.engine, self.rows, self.whole = engine, rows, len(rows) == size
        self.done = np.zeros(size, np.float32)
        self.done[rows] = 1
        self.t = int(moment.pop("step"))
        self.shared = moment

    def fits(self, gradients: Sequence[torch.Tensor | None]) -> bool:
        return self.engine.fits(gradients if self.whole else [gradients[row] for row in self.rows])

    def run(self, rule: Rule, scale: float, counters: Counters) -> None:
        k, shared = rule.constants(HOST, self.t + 1, self.shared)
        self.engine.run(rule, k, scale)
        self.t, self.shared = self.t + 1, shared
        counters.advance(self.done, shared)


class Plan:
    """The update of those weights of a group that have a gradient; `fits` says whether it still holds."""

    def __init__(
        self,
        rule: Rule,
        weights: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor | None],
        state: State,
    ) -> None:
        self.kind, self.counters = type(rule), Counters(rule, len(weights))
        self.all = list(weights)
        self.absent = [row for row, g in enumerate(gradients) if g is None]
        self.rows = [row for row, g in enumerate(gradients) if g is not None]
        self.weights = [weights[row] for row in self.rows]
        entries = [_entry(rule, self.counters, row, weights[row], state) for row in self.rows]
        self.parts = list(self._parts(rule, gradients, entries))
        self.snapshot = self.counters.snapshot()

    def _parts(self, rule: Rule, gradients: Sequence[Any], entries: list[dict[str, Any]]) -> Any:
        keys = slot_keys(rule)
        weights = dict(zip(self.rows, self.weights, strict=True))
        slots = {row: [e[key] for key in keys] for row, e in zip(self.rows, entries, strict=True)}
        for moment, together in self.counters.moments(self.rows):
            for dtype, rows in on_numba.by_dtype(together, weights, slots).items():
                chosen = [weights[row] for row in rows], [slots[row] for row in rows]
                engine = on_numba.table(rule, dtype, *chosen) or _Leaves(*chosen)
                part = _Part(engine, rows, len(self.all), dict(moment))
                if not part.fits(gradients):
                    part.engine = _Leaves(*chosen)
                    part.fits(gradients)
                yield part

    def fits(
        self,
        kind: type[Rule],
        weights: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor | None],
    ) -> bool:
        """True where the next step may run as planned: weights, counters and gradients are where they were.

        That the state still holds the same tensors is the optimizer's to see, for all plans at once."""
        if (
            kind is not self.kind
            or len(weights) != len(self.all)
            or not all(map(is_, weights, self.all))
            or self.counters.snapshot() != self.snapshot
            or (self.absent and any(gradients[row] is not None for row in self.absent))
        ):
            return False
        try:
            for part in self.parts:
                if not part.fits(gradients):
                    return False
        except AttributeError:  # None where there was a gradient
            return False
        return True

    def run(self, rule: Rule, scale: float) -> None:
        """Update every weight once, from `scale` times its gradient."""
        for part in self.parts:
            part.run(rule, scale, self.counters)
        self.snapshot = self.counters.snapshot()


def _entry(rule: Rule, counters: Counters, row: int, weight: torch.Tensor, state: State) -> dict[str, Any]:
    """The state of one weight, made where it is missing."""
    entry = state[weight]
    counters.adopt(row, entry)
    keys = slot_keys(rule)
    if any(entry.get(key) is None for key in keys):
        for key, slot in zip(keys, on_torch.start(rule, weight), strict=True):
            entry[key] = slot if entry.get(key) is None else entry[key]
    return entry


def _refuse_unfit(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    for w, g in zip(weights, gradients, strict=True):
        if g.layout is not torch.strided:
            raise UserError(
                f"Rules move dense weights; a weight of shape {tuple(w.shape)} has a gradient in {g.layout}. "
                "Make it dense: nn.Embedding(..., sparse=False), or p.grad = p.grad.to_dense()."
            )
        if g.shape != w.shape:
            raise UserError(
                f"A gradient of shape {tuple(g.shape)} was given for a weight of shape {tuple(w.shape)}. "
                "Gradients come in the order of the weights over all groups, None where there is none."
            )
