"""The moving average of the weights to ship, and what wrappers with a copy of the weights share."""

from __future__ import annotations

from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.making import Bodies, Kind, Knob, evaluated, slots_of, wrapped, wrapper

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
