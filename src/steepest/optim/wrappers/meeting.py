"""What becomes of the momentum of the rule within lookahead, where fast and slow weights meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from steepest.optim.errors import UserError
from steepest.optim.maths import lerp
from steepest.optim.wrappers.making import Kind, layers

Pick: TypeAlias = Callable[..., Any]
"""(xp, k, *arrays) → an array. Kernels are made of the source of such functions, which knows no index."""


@dataclass(frozen=True)
class Meeting:
    """copied: the slots within that have a slow copy. functions: for each slot within, then for each copy,
    what it is after a step, from (xp, k, *slots within, *copies)."""

    functions: tuple[Pick, ...]
    copied: tuple[int, ...] = ()


def kept(inner: Kind) -> Meeting:
    """Momentum goes on as it is."""
    return Meeting(tuple(map(pick, range(len(inner.slots)))))


def reset(inner: Kind) -> Meeting:
    """Momentum is 0 after a meeting.   m ← 0"""
    places = momenta(inner)
    slots = map(pick, range(len(inner.slots)))
    return Meeting(tuple(_reset(slot) if i in places else slot for i, slot in enumerate(slots)))


def pulled_back(inner: Kind) -> Meeting:
    """Momentum meets a slow copy, which begins where it does.   μ ← μ + share·(m - μ), m ← μ"""
    places, slots = momenta(inner), list(map(pick, range(len(inner.slots))))
    slow = {place: pick(len(slots) + n) for n, place in enumerate(places)}
    fast = [_met(m, slow[i], m) if i in slow else m for i, m in enumerate(slots)]
    return Meeting((*fast, *(_met(slots[i], copy, copy) for i, copy in slow.items())), places)


def momenta(inner: Kind) -> tuple[int, ...]:
    """Places of the slots that are momentum; UserError where there are none."""
    plain, _ = layers(inner)
    names = plain.signed if plain.momenta is None else plain.momenta
    if not names:
        raise UserError(
            f"{plain.__name__} has no momentum that lookahead could reset or pull back. "
            'Leave momentum="keep", or take a rule with momentum, such as Momentum or AdamW.'
        )
    return tuple(map(inner.slots.index, names))


def pick(place: int) -> Pick:
    """(xp, k, *arrays) → the one at that place."""
    if place == 0:

        def first(xp: Any, k: Any, one: Any, *others: Any) -> Any:
            return one

        return first
    deeper = pick(place - 1)

    def later(xp: Any, k: Any, one: Any, *others: Any) -> Any:
        return deeper(xp, k, *others)

    return later


def all_of(functions: Sequence[Pick]) -> Callable[..., tuple[Any, ...]]:
    """(xp, k, *arrays) → what each of the functions makes of them."""
    if not functions:
        return _none
    first, rest = functions[0], all_of(functions[1:])

    def several(xp: Any, k: Any, *arrays: Any) -> tuple[Any, ...]:
        return first(xp, k, *arrays), *rest(xp, k, *arrays)

    return several


def _none(xp: Any, k: Any, *arrays: Any) -> tuple[Any, ...]:
    return ()


def _reset(slot: Pick) -> Pick:
    def forgotten(xp: Any, k: Any, *arrays: Any) -> Any:
        m = slot(xp, k, *arrays)
        return xp.where(k.sync_meets > 0, 0.0 * m, m)

    return forgotten


def _met(fast: Pick, slow: Pick, otherwise: Pick) -> Pick:
    def met(xp: Any, k: Any, *arrays: Any) -> Any:
        meeting = lerp(slow(xp, k, *arrays), fast(xp, k, *arrays), k.sync_share)
        return xp.where(k.sync_meets > 0, meeting, otherwise(xp, k, *arrays))

    return met
