"""Lookahead: slow weights that fast ones come back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.averages import last
from steepest.optim.wrappers.making import Bodies, Kind, Knob, refuse_evaluation, slots_of, wrapped, wrapper
from steepest.optim.wrappers.meeting import Meeting, all_of, kept, pick, pulled_back, reset

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
