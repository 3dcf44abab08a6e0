"""Wrappers that change the gradient: grokfast's filters, and SAM, which takes it elsewhere."""

from __future__ import annotations

from typing import Any

from steepest.optim.errors import UserError
from steepest.optim.maths import lerp
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.making import Bodies, Kind, Knob, evaluated, slots_of, wrapped, wrapper

KEPT = Quantity("the share of the slow part of the gradient that is kept", "per step", high=1)
GAIN = Quantity("how much of the slow part of the gradient is added to it")
WINDOW = Quantity("the number of gradients whose mean is their slow part", "steps", low=1)


def grokfast(rule: Rule, decay: Number = 0.98, gain: Number = 2.0) -> Rule:
    """Slow gradients made louder by a moving average.   h ← decay·h + (1 - decay)·g, at first g
    g ← g + gain·h

    State: h (1 float per weight), in slot "slow_gradient".
    Lee et al. 2024, arXiv:2405.20233, Grokfast-EMA."""
    return wrapped("grokfast", rule, grok_decay=decay, grok_gain=gain)


def grokfast_window(rule: Rule, window: int = 100, gain: Number = 5.0) -> Rule:
    """Slow gradients made louder by the mean of the last ones.   g ← g + gain·mean(last `window` g)

    Nothing is added before `window` gradients have come.
    State: the last gradients (`window` floats per weight), in slot "last_gradients".
    Lee et al. 2024, arXiv:2405.20233, Grokfast-MA."""
    return wrapped("grokfastwindow", rule, grok_window=window, grok_gain=gain)


def evaluate_without(inner: Kind) -> Bodies:
    """Weights to test, where an inner class has some, from all slots but the wrapper's own, the last."""
    if not inner.evaluates():
        return {}
    plain = evaluated(inner)

    def evaluate(self: Any, xp: Any, k: Any, w: Any, *slots: Any) -> Any:
        *rest, _own = slots
        return plain(self, xp, k, w, *rest)

    return {"evaluate": evaluate}


@wrapper("Grokfast", grokfast, grok_decay=Knob(0.98, KEPT), grok_gain=Knob(2.0, GAIN))
def _grokfast(inner: Kind) -> Bodies:
    def init(self: Any, xp: Any, w: Any) -> tuple[Any, ...]:
        return *slots_of(inner, self, xp, w), xp.zeros_like(w)

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        share = xp.where(t == 1, 1.0, 1 - self.grok_decay)
        return inner.scalars(self, xp, t, **shared) | {"grok_share": share}

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, h = arrays
        h = lerp(h, g, k.grok_share)
        return *inner.update(self, xp, k, w, g + k.grok_gain * h, *rest), h

    def addends(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, h = arrays
        h = lerp(h, g, k.grok_share)
        return inner.addends(self, xp, k, w, g + k.grok_gain * h, *rest)

    state = {"slots": (*inner.slots, "slow_gradient"), "signed": (*inner.signed, "slow_gradient")}
    functions = {"init": init, "scalars": scalars, "update": update, "addends": addends}
    return state | functions | evaluate_without(inner)


@wrapper("GrokfastWindow", grokfast_window, grok_window=Knob(100, WINDOW, "int"), grok_gain=Knob(5.0, GAIN))
def _grokfast_window(inner: Kind) -> Bodies:
    def init(self: Any, xp: Any, w: Any) -> tuple[Any, ...]:
        return *slots_of(inner, self, xp, w), xp.zeros((self.grok_window, *w.shape), like=w)

    def scalars(self: Any, xp: Any, t: Any, **shared: Any) -> dict[str, Any]:
        n = self.grok_window
        gain = xp.where(t < n, 0.0, self.grok_gain / n)
        return inner.scalars(self, xp, t, **shared) | {"grok_row": (t - 1) % n + 1, "grok_gain": gain}

    def filtered(self: Any, xp: Any, k: Any, g: Any, last: Any) -> tuple[Any, ...]:
        n = self.grok_window
        rows = xp.sum(xp.tril(1 + xp.zeros((n, n), like=g)), axis=1)
        last = xp.where(xp.reshape(rows, (n, *(1 for _ in g.shape))) == k.grok_row, g, last)
        return g + k.grok_gain * xp.sum(last, axis=0), last

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, last = arrays
        g, last = filtered(self, xp, k, g, last)
        return *inner.update(self, xp, k, w, g, *rest), last

    def addends(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, last = arrays
        g, last = filtered(self, xp, k, g, last)
        return inner.addends(self, xp, k, w, g, *rest)

    state = {"slots": (*inner.slots, "last_gradients"), "whole": True}
    functions = {"init": init, "scalars": scalars, "update": update, "addends": addends}
    return state | functions | evaluate_without(inner)


RADIUS = Quantity("how far up the slope the gradient is taken", "units of w; in ASAM shares of w")


def sam(rule: Rule, radius: Number = 0.05) -> Rule:
    """A rule that looks for flat minima.   e = radius·g/(‖g‖ + 1e-12), ‖·‖ over all weights
    g ← gradient at w + e

    The rule then moves w by that gradient. A step takes two passes, so engines need the loss as a function.
    State: none. Foret et al. 2021, arXiv:2010.01412, algorithm 1; equals pytorch_optimizer.SAM."""
    return wrapped("sam", rule, radius=radius)


def asam(rule: Rule, radius: Number = 0.5) -> Rule:
    """The same in shares of the weights.   e = radius·w²g/(‖|w|·g‖ + 1e-12), over all weights

    State: none. Kwon et al. 2021, arXiv:2102.11600, algorithm 1, without its η;
    equals pytorch_optimizer.SAM(adaptive=True)."""
    return wrapped("asam", rule, radius=radius)


def as_it_is(xp: Any, w: Any, g: Any) -> Any:
    """Every coordinate alike."""
    return g


def by_size(xp: Any, w: Any, g: Any) -> Any:
    """A coordinate by the size of its weight.   |w|·g"""
    return xp.abs(w) * g


def _up(inner: Kind, stretch: Any) -> Bodies:
    if inner.perturb is not None:
        raise UserError(f"{inner.__name__} goes up the slope already; once is enough.")
    return {"perturb": staticmethod(stretch)}


@wrapper("SAM", sam, radius=Knob(0.05, RADIUS))
def _sam(inner: Kind) -> Bodies:
    return _up(inner, as_it_is)


@wrapper("ASAM", asam, radius=Knob(0.5, RADIUS))
def _asam(inner: Kind) -> Bodies:
    return _up(inner, by_size)
