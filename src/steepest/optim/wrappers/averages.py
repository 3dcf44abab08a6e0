"""Wrappers with copies of the weights: a moving average to ship, and lookahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.making import (
    Bodies,
    Kind,
    Knob,
    evaluated,
    layers,
    refuse_evaluation,
    slots_of,
    wrapped,
    wrapper,
)

KEPT = Quantity("the share of the average of the weights that is kept", "per step", high=1)


def averaged(rule: Rule, kept: Number = 0.999) -> Rule:
    """A moving average of the weights, to test and to ship.   a ← βa + (1-β)·w, β = min(kept, (1+t)/(10+t))

    What is averaged are the weights that the rule itself would ship. The rule moves w as ever.
    State: a (1 float per weight), in slot "averaged", first the weights before the first step.
    Polyak & Juditsky 1992, doi:10.1137/0330046; β as tf.train.ExponentialMovingAverage(num_updates=)."""
    return wrapped("averaged", rule, average_kept=kept)


def kept_copy(inner: Kind) -> Any:
    """An `init` with one slot more: a copy of the weights."""

    def init(self: Any, xp: Any, w: Any) -> tuple[Any, ...]:
        return *slots_of(inner, self, xp, w), 1.0 * w

    return init


def addends_without(inner: Kind) -> Any:
    """`addends` from all arrays but the wrapper's own slot, the last."""

    def addends(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, _own = arrays
        return inner.addends(self, xp, k, w, g, *rest)

    return addends


def last(self: Any, xp: Any, k: Any, w: Any, *slots: Any) -> Any:
    """The last slot, as the weights to test."""
    *_, own = slots
    return own


@wrapper("Averaged", averaged, average_kept=Knob(0.999, KEPT))
def _averaged(inner: Kind) -> Bodies:
    shipped = evaluated(inner)

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        share = 1 - xp.minimum(self.average_kept, (1 + t) / (10 + t))
        return inner.scalars(self, xp, t, **shared) | {"average_share": share}

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, average = arrays
        w, *slots = inner.update(self, xp, k, w, g, *rest)
        return w, *slots, lerp(average, shipped(self, xp, k, w, *slots), k.average_share)

    functions = {"init": kept_copy(inner), "scalars": scalars, "update": update, "evaluate": last}
    return {"slots": (*inner.slots, "averaged"), "addends": addends_without(inner), **functions}


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


EVERY = Quantity("the number of steps after which slow and fast weights meet", "steps", low=1)
SHARE = Quantity("the share of the way to the fast weights that the slow ones go", high=1, closed=True)

MomentumKind: TypeAlias = Literal["keep", "reset", "pullback"]
NAMES = {"keep": "lookahead", "reset": "lookaheadreset", "pullback": "lookaheadpullback"}
"""The wrappers by what they do with momentum."""


def lookahead(rule: Rule, every: int = 5, share: Number = 0.5, momentum: MomentumKind = "keep") -> Rule:
    """Slow weights that follow fast ones.   every `every` steps: φ ← φ + share·(w - φ), w ← φ

    The rule moves w; the weights to test and to ship are φ, which begins where w does. momentum: what
    becomes of the rule's momentum m where they meet; the rest of its state, and its t, go on as they are.

    keep       it goes on as it is
    reset      m ← 0   ("lookaheadreset" as a name)
    pullback   μ ← μ + share·(m - μ), m ← μ   ("lookaheadpullback"); μ begins where m does

    State: φ (1 float per weight), in slot "slow"; μ (1 float per weight and slot of momentum).
    Zhang et al. 2019, arXiv:1907.08610, algorithm 1, and the authors' code for the other two, whose μ is m
    itself from the first meeting on; equals pytorch_optimizer.Lookahead, which finds SGD's momentum alone.
    The slow weights of timm's begin at the first meeting."""
    if momentum not in NAMES:
        raise UserError(f"There is no way with momentum {momentum!r}.{did_you_mean(str(momentum), NAMES)}")
    return wrapped(NAMES[momentum], rule, sync_every=every, sync_share=share)


def _ahead(inner: Kind, of: Meeting) -> Bodies:
    """Bodies with slots (*those within, *slow copies of some, "slow")."""
    refuse_evaluation(inner, "lookahead ships its slow ones")
    given = len(inner.extra_inputs) + len(inner.slots)
    within = all_of([pick(place) for place in range(given)])
    copies = all_of([pick(given + n) for n in range(len(of.copied))])
    meet = all_of(of.functions)

    def init(self: Any, xp: Any, w: Any) -> tuple[Any, ...]:
        slots = slots_of(inner, self, xp, w)
        return *slots, *(1.0 * slots[place] for place in of.copied), 1.0 * w

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        meets = xp.where(t % self.sync_every == 0, 1.0, 0.0)
        return inner.scalars(self, xp, t, **shared) | {"sync_meets": meets}

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, slow = arrays
        w, *slots = inner.update(self, xp, k, w, g, *within(xp, k, *rest))
        meeting = lerp(slow, w, k.sync_share)
        w, slow = xp.where(k.sync_meets > 0, meeting, w), xp.where(k.sync_meets > 0, meeting, slow)
        return w, *meet(xp, k, *slots, *copies(xp, k, *rest)), slow

    def addends(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        return inner.addends(self, xp, k, w, g, *within(xp, k, *arrays))

    names = (*inner.slots, *(f"slow_{inner.slots[place]}" for place in of.copied), "slow")
    functions = {"init": init, "scalars": scalars, "update": update, "addends": addends, "evaluate": last}
    return {"slots": names, **functions}


def _register(prefix: str, meeting: Callable[[Kind], Meeting]) -> None:
    register = wrapper(prefix, lookahead, sync_every=Knob(5, EVERY, "int"), sync_share=Knob(0.5, SHARE))
    register(lambda inner: _ahead(inner, meeting(inner)))


_register("Lookahead", kept)
_register("LookaheadReset", reset)
_register("LookaheadPullback", pulled_back)
