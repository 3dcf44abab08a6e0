"""All weights that one formula moves: their engine, their counters, their constants, what sums over them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from steepest.optim.engines import on_inductor, on_numba, on_torch
from steepest.optim.engines.kernels.pointers import movable, side_by_side
from steepest.optim.engines.precision import memory
from steepest.optim.engines.precision.memory import Draws, Layout, Memory, layout
from steepest.optim.engines.pure import with_floats
from steepest.optim.engines.sharded import OVER_MESHES, is_dtensor
from steepest.optim.engines.torch.watched_state import Counters, slot_keys
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST, VOCABULARY
from steepest.optim.reduce import ALONE, Reduce
from steepest.optim.rule import Rule

NUMBA, TORCH, COMPILED = ENGINES = ("numba", "torch", "compiled")


def known(engine: str | None) -> str | None:
    """The engine as asked for; UserError where there is none of that name."""
    if engine is not None and engine not in ENGINES:
        raise UserError(
            f"engine must be one of {', '.join(map(repr, ENGINES))}, or None, which chooses by the device; "
            f"got {engine!r}."
        )
    return engine


def of_device(engine: str | None, device: str) -> str:
    """The engine for weights on a type of device: as asked for, else by what the device is."""
    return engine or (NUMBA if device == "cpu" else COMPILED)


def by_engine(
    engine: str | None,
    rule: Rule,
    rows: Sequence[int],
    weights: Mapping[int, torch.Tensor],
    slots: Mapping[int, Any],
    layouts: Mapping[int, Layout],
) -> dict[tuple[Layout, torch.dtype | None, bool], list[int]]:
    """The rows by layout, by the dtype of the kernels for them (None: no kernel may touch them), and whether
    compiled torch is to move them. Rows of neither go through plain torch."""
    found: dict[tuple[Layout, torch.dtype | None, bool], list[int]] = {}
    for (own, dtype), some in on_numba.by_layout(rows, weights, slots, layouts).items():
        for row in some:
            w = weights[row]
            way = of_device(engine, w.device.type)
            compiled = way == COMPILED and on_inductor.suits(rule, w, slots[row], own)
            found.setdefault((own, dtype if way == NUMBA else None, compiled), []).append(row)
    return found


class Row(NamedTuple):
    """A weight: its place among those of the plan, its group, whether it moves in this step, how its group is
    kept, and its number among all weights of the optimizer."""

    place: int
    group: int
    weight: torch.Tensor
    moves: bool
    memory: Memory
    number: int


EACH = SimpleNamespace(**{name: with_floats(name, getattr(np, name)) for name in VOCABULARY})
"""The vocabulary of constants, for sums of many weights at once beside numbers that they have in common."""


@dataclass
class Moment:
    """Rows of one group that share step count and shared scalars, and so their constants.

    moves   1 where rows of it move; 0 where there is but a group's scalars to keep
    rows    those that move
    takers  those that keep its new shared scalars
    n       elements that its sums run over, at least 1"""

    group: int
    t: int
    shared: dict[str, float]
    rows: list[int]
    takers: list[int]
    n: int = 0
    moves: int = 1


def _none(t: int) -> tuple[float, ...]:
    return ()


class WeightGroup:
    """The rows of one form of rule, over all groups.

    Where the rule's scope is "model" its shared scalars are one set a group. They advance with the most
    advanced rows of the group, for all of its rows, also those without a gradient at this step."""

    def __init__(
        self, rules: Sequence[Rule], rows: Sequence[Row], state: Any, engine: str | None = None
    ) -> None:
        self.rule, self.all, self.state, self.engine = rules[rows[0].group], rows, state, engine
        self.moving = [number for number, row in enumerate(rows) if row.moves]
        self.places = [rows[number].place for number in self.moving]
        self.of_model = self.rule.scope == "model"
        split = not self.rule.whole and any(is_dtensor(row.weight) for row in rows)
        self.reduce: Reduce = OVER_MESHES if split else ALONE
        self.numbers = {row.group: row.memory.numbers if row.memory.numbered else _none for row in rows}
        self.layouts = {n: layout(type(self.rule), rows[n].memory, rows[n].weight.dtype) for n in self.moving}
        self.slots = self._kept(rules, state)
        self.counters = Counters(self.rule, len(rows))
        self._adopt(state)
        self.done = np.zeros(len(rows), np.float32)
        self.done[self.moving] = 1
        self.moments = self._moments()
        self.none: Any = [()] * len(self.moments)
        self.position = {number: n for n, number in enumerate(self.moving)}
        self.order = [self.position[row] for moment in self.moments for row in moment.rows[:1]]
        self._count()
        self.alike = self._alike()

    def _adopt(self, state: MutableMapping[torch.Tensor, dict[str, Any]]) -> None:
        """Take over counters; a weight that comes late to a model takes over the model's scalars."""
        known = [number for number, row in enumerate(self.all) if state.get(row.weight)]
        for number in known:
            self.counters.adopt(number, state[self.all[number].weight])
        for number in set(range(len(self.all))).difference(known) if self.of_model and known else ():
            near = [one for one in known if self.all[one].group == self.all[number].group] or known
            self.counters.copy_shared(max(near, key=self.counters.step.__getitem__), number)
        for number, slots in self.slots.items():
            entry = state[self.all[number].weight]
            self.counters.adopt(number, entry)
            memory.put(entry, self.layouts[number], slot_keys(self.rule), slots)

    def _moments(self) -> list[Moment]:
        found: list[Moment] = []
        for group in dict.fromkeys(row.group for row in self.all):
            own = [number for number, row in enumerate(self.all) if row.group == group]
            moving = [number for number in own if self.all[number].moves]
            apart = self.rule.sums and not self.of_model
            together = [[number] for number in moving] if apart else [moving]
            made = [
                Moment(group, *of, rows, rows)
                for some in together
                for of, rows in self.counters.moments(some)
            ]
            if self.of_model and self.rule.shared:
                made = made or [Moment(group, *self.counters.at(own[0]), [], [], moves=0)]
                leader = max(made, key=lambda moment: moment.t)
                for moment in made:
                    moment.takers = own if moment is leader else []
            found += made
        return found

    def _count(self) -> None:
        sizes = [on_torch.real(row.weight.detach()).numel() for row in self.all]
        for moment in self.moments:
            moment.n = sum(sizes[number] for number in (self.moving if self.of_model else moment.rows)) or 1

    def _kept(self, rules: Sequence[Rule], state: Any) -> dict[int, list[torch.Tensor]]:
        """What each row keeps, made where it is missing; the state is not touched yet."""
        kept, made, keys = {}, [], slot_keys(self.rule)
        for n in self.moving:
            entry = state.get(self.all[n].weight, {})
            found = memory.found(entry, self.layouts[n], keys)
            kept[n] = self._begun(rules, n, entry) if found is None else found
            if found is None:
                made += [(n, at) for at, x in enumerate(kept[n]) if movable(x)]
        for (n, at), x in zip(made, side_by_side([kept[n][at] for n, at in made]), strict=True):
            kept[n][at] = x
        return kept

    def _begun(self, rules: Sequence[Rule], n: int, entry: dict[str, Any]) -> list[torch.Tensor]:
        row, own, keys = self.all[n], self.layouts[n], slot_keys(self.rule)
        fresh = on_torch.start(rules[row.group], row.weight)
        draws = Draws(row.memory.numbers(int(entry.get("step", 0))), row.number)
        return memory.completed(entry, own, keys, type(self.rule), row.weight, fresh, draws)

    def settle(self, inputs: Sequence[torch.Tensor]) -> None:
        """Choose engines for the rows, of which these are the gradients and what the rule reads besides."""
        moments = {number: n for n, moment in enumerate(self.moments) for number in moment.rows}
        weights = {number: self.all[number].weight for number in self.moving}
        self.tables: list[Any] = []  # and what goes ahead without, where a gradient is nothing for a kernel
        self.leaves: list[on_torch.Leaves | on_inductor.Flat] = []
        self.picks: list[list[int]] = []
        found = by_engine(self.engine, self.rule, self.moving, weights, self.slots, self.layouts)
        for (own, dtype, compiled), rows in found.items():
            chosen: list[Any] = [[column[row] for row in rows] for column in (weights, self.slots, moments)]
            chosen.append([self.all[row].number for row in rows])
            at = list(map(self.position.__getitem__, rows))
            pick = [
                part * len(self.moving) + n for part in range(1 + len(self.rule.extra_inputs)) for n in at
            ]
            self.tables.append(on_numba.table(self.rule, dtype, own, chosen, len(self.moments)))
            flat = self._flat(own, chosen, rows) if compiled else None
            self.leaves.append(flat or on_torch.Leaves(own, *chosen))
            self.picks.append(pick)
        self.snapshot = self.counters.snapshot()
        self.fits(inputs)

    def _flat(self, own: Any, chosen: Sequence[Any], rows: Sequence[int]) -> on_inductor.Flat | None:
        """Compiled code for these rows, and their slots in its buffers.

        Where weights of the family move at one step and not at another, slots stay where they are: buffers
        would be copied again and again, and live as long as any slot in them."""
        weights, kept, moments, _ = chosen
        still = set(range(len(self.all))).difference(self.moving)
        lay = not any(self.state.get(self.all[number].weight) for number in still)
        made = on_inductor.flat(self.rule, own, weights, kept, moments, lay)
        for row in rows if made and lay else ():
            memory.put(self.state[self.all[row].weight], own, slot_keys(self.rule), self.slots[row])
        return made

    def fits(self, inputs: Sequence[torch.Tensor]) -> bool:
        """True where counters are as this family left them and its engines may read these inputs."""
        due = len(self.moving) * (1 + len(self.rule.extra_inputs))
        if len(inputs) != due or self.counters.snapshot() != self.snapshot:
            return False
        self.engines: list[Any] = []
        for table, leaves, pick in zip(self.tables, self.leaves, self.picks, strict=True):
            own = inputs if len(self.tables) == 1 else [inputs[n] for n in pick]
            if table and table.fits(own):
                self.engines.append(table)
            elif (table is None or table.stays()) and leaves.fits(own):
                self.engines.append(leaves)
            else:
                return False
        return True

    def run(self, rules: Sequence[Rule], scales: Sequence[float], cleared: Any = None) -> None:
        """Update every moving row once, each group by its rule, from its scale times its gradients.

        cleared: the gradients of all weights of the plan, where they shall be 0 afterwards."""
        sums = self._sums(rules, scales) if self.rule.sums else self.none
        constants = self._settled_together(rules, sums) if self.alike else self._settled(rules, sums)
        made, following = [], []
        for moment, (k, shared) in zip(self.moments, constants, strict=True):
            group = moment.group
            made.append((rules[group], k, scales[group], self.numbers[group](moment.t + 1)))
            following.append(shared)
        for engine, pick in zip(self.engines, self.picks, strict=True):
            rows = pick[: len(engine.weights)]
            engine.run(made, None if cleared is None else [cleared[self.places[row]] for row in rows])
        for moment in self.moments:
            moment.t += moment.moves
        if self.rule.shared:
            self._share(following)
        self.counters.advance(self.done)
        self.snapshot = self.counters.snapshot()

    def _alike(self) -> list[tuple[list[int], np.ndarray]]:
        """(moments that differ in their sums alone, n of each); none where that would spare nothing."""
        if not self.rule.sums or self.of_model or self.rule.shared or len(self.moments) == 1:
            return []
        found: dict[tuple[int, int], list[int]] = {}
        for number, moment in enumerate(self.moments):
            found.setdefault((moment.group, moment.t), []).append(number)
        return [(own, np.array([float(self.moments[n].n) for n in own])) for own in found.values()]

    def _settled(self, rules: Sequence[Rule], sums: Any) -> list[tuple[Any, dict[str, Any]]]:
        """(constants, new shared scalars) of each moment."""
        return [
            rules[moment.group].constants(HOST, moment.t + 1, moment.shared, moment.n, total)
            for moment, total in zip(self.moments, sums, strict=True)
        ]

    def _settled_together(self, rules: Sequence[Rule], sums: Any) -> list[tuple[Any, dict[str, Any]]]:
        """The same to the bit, in one call for all moments that are alike: there are as many as weights."""
        found: list[Any] = [None] * len(self.moments)
        columns = np.array(sums)
        for own, n in self.alike:
            first = self.moments[own[0]]
            with np.errstate(all="ignore"):
                k, _ = rules[first.group].constants(EACH, first.t + 1, {}, n, tuple(columns[own].T))
            rows = np.empty((len(own), len(k)))
            for place, number in enumerate(k):
                rows[:, place] = number
            for number, row in zip(own, rows.tolist(), strict=True):
                found[number] = k._make(row), {}
        return found

    def _sums(self, rules: Sequence[Rule], scales: Sequence[float]) -> list[list[float]]:
        """For each moment the sums that its constants need, added up in the order of the rows."""
        made, known = [], {}
        for moment in self.moments:
            rule, key = rules[moment.group], (moment.group, moment.t, *moment.shared.values())
            if key not in known:
                k, _ = rule.constants(HOST, moment.t + 1, moment.shared)
                known[key] = rule, k, scales[moment.group], ()
            made.append(known[key])
        each = np.zeros((len(self.moving), len(self.rule.sums)))
        for engine, pick in zip(self.engines, self.picks, strict=True):
            each[pick[: len(engine.weights)]] = engine.total(made)
        each = self.reduce.sum(each, [self.all[number].weight for number in self.moving])
        if self.of_model:
            return [each.sum(axis=0).tolist()] * len(self.moments)
        return each[self.order].tolist()

    def _share(self, shared: Sequence[dict[str, float]]) -> None:
        """Keep the new shared scalars of each moment, those of a model in all of the group."""
        leading = {}
        for moment, new in zip(self.moments, shared, strict=True):
            moment.shared = new
            if moment.takers:
                self.counters.share(moment.takers, new)
                leading[moment.group] = new
        if self.of_model:
            for moment in self.moments:
                moment.shared = leading[moment.group]
