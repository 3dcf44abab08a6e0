"""Wrappers that keep a second copy of the weights: lookahead, and the moving average to ship."""

from __future__ import annotations

from typing import Any

from steepest.maths import lerp
from steepest.quantity import Quantity
from steepest.rule import Number, Rule
from steepest.wrap.making import Bodies, Kind, Knob, evaluated, refuse_evaluation, slots_of, wrapped, wrapper

EVERY = Quantity("the number of steps after which slow and fast weights meet", "steps", low=1)
SHARE = Quantity("the share of the way to the fast weights that the slow ones go", high=1, closed=True)
KEPT = Quantity("the share of the average of the weights that is kept", "per step", high=1)


def lookahead(rule: Rule, every: int = 5, share: Number = 0.5) -> Rule:
    """Slow weights that follow fast ones.   every `every` steps: φ ← φ + share·(w - φ), w ← φ

    The rule moves w; the weights to test and to ship are φ, which begins where w does. The rule's own state
    goes on as it is.   State: φ (1 float per weight), in slot "slow".
    Zhang et al. 2019, arXiv:1907.08610, algorithm 1; equals pytorch_optimizer.Lookahead. The slow weights of
    timm's begin at the first meeting."""
    return wrapped("lookahead", rule, sync_every=every, sync_share=share)


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


@wrapper("Lookahead", lookahead, sync_every=Knob(5, EVERY, "int"), sync_share=Knob(0.5, SHARE))
def _lookahead(inner: Kind) -> Bodies:
    refuse_evaluation(inner, "lookahead ships its slow ones")

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        meets = xp.where(t % self.sync_every == 0, 1.0, 0.0)
        return inner.scalars(self, xp, t, **shared) | {"sync_meets": meets}

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, slow = arrays
        w, *slots = inner.update(self, xp, k, w, g, *rest)
        meeting = lerp(slow, w, k.sync_share)
        return xp.where(k.sync_meets > 0, meeting, w), *slots, xp.where(k.sync_meets > 0, meeting, slow)

    functions = {"init": kept_copy(inner), "scalars": scalars, "update": update, "evaluate": last}
    return {"slots": (*inner.slots, "slow"), "addends": addends_without(inner), **functions}


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
