"""Wrappers that take the gradient elsewhere: up the slope first, where the loss is worst nearby (SAM)."""

from __future__ import annotations

from typing import Any

from steepest.optim.errors import UserError
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.making import Bodies, Kind, Knob, wrapped, wrapper

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
