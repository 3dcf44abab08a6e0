"""How a wrapper makes a class of rules from a class of rules, and the names of wrappers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from typing import Any, TypeAlias

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Rule

Kind: TypeAlias = type[Rule]
Bodies: TypeAlias = dict[str, Any]
"""What a generated class has in place of its inner class's: functions and class variables by name."""


@dataclass(frozen=True)
class Knob:
    """A hyperparameter of a wrapper: its default, what it means, and whether it may be a schedule.

    instead: it may stand in place of one of that name within."""

    default: float
    quantity: Quantity
    annotation: str = "Number"
    instead: bool = False


@dataclass(frozen=True)
class Wrapper:
    """A way to make a class of rules from another: the start of its name, the function that users call for
    it, its knobs, its bodies."""

    prefix: str
    function: Callable[..., Rule]
    knobs: Mapping[str, Knob]
    bodies: Callable[[Kind], Bodies]


WRAPPERS: dict[str, Wrapper] = {}
"""Every wrapper by its name in recipes and on the command line."""


def wrapper(
    prefix: str, function: Callable[..., Rule], name: str = "", **knobs: Knob
) -> Callable[[Callable[[Kind], Bodies]], Callable[[Kind], Bodies]]:
    """Register a function from an inner class to bodies as the wrapper of that name (or of its prefix)."""

    def register(bodies: Callable[[Kind], Bodies]) -> Callable[[Kind], Bodies]:
        WRAPPERS[name or prefix.lower()] = Wrapper(prefix, function, knobs, bodies)
        return bodies

    return register


@cache
def around(name: str, inner: Kind) -> Kind:
    """The class of a wrapper's name around an inner class: its subclass, with the knobs of both as fields."""
    made = WRAPPERS[name]
    if name in layers(inner)[1]:
        raise UserError(f"{inner.__name__} is wrapped in {name} already; once is enough.")
    bodies = made.bodies(inner)
    taken = {known.name for known in fields(inner)}
    clash = [knob for knob, its in made.knobs.items() if knob in taken and not its.instead]
    if clash:
        raise UserError(f"{inner.__name__} has a hyperparameter {clash[0]!r}, as {name} has: rename it.")
    described = {
        "__doc__": f"{inspect.getdoc(made.function)}\n\nAround {inner.__name__}: {inspect.getdoc(inner)}",
        "__module__": inner.__module__,
        "__reduce__": _reduced,
        "quantities": {**inner.quantities, **{knob: its.quantity for knob, its in made.knobs.items()}},
        "wrapping": (name, inner),
    }
    own = [(knob, its.annotation, field(default=its.default)) for knob, its in made.knobs.items()]
    title = made.prefix + inner.__name__
    return make_dataclass(title, own, bases=(inner,), namespace=bodies | described, frozen=True)


def wrapped(name: str, rule: Rule, **own: Any) -> Rule:
    """A rule of the generated class, with the hyperparameters of the inner rule and these."""
    return around(name, type(rule))(**vars(rule) | own)


def layers(kind: Kind) -> tuple[Kind, tuple[str, ...]]:
    """(the class that nothing wraps, the names of the wrappers around it from the outermost in)."""
    names = []
    while wrapping := vars(kind).get("wrapping"):
        name, kind = wrapping
        names.append(name)
    return kind, tuple(names)


def within(kind: Kind, names: tuple[str, ...]) -> Kind:
    """A class within the wrappers of these names, the outermost first."""
    for name in reversed(names):
        if name not in WRAPPERS:
            raise UserError(f"There is no wrapper {name!r}.{did_you_mean(name, WRAPPERS)}")
        kind = around(name, kind)
    return kind


def slots_of(inner: Kind, self: Rule, xp: Any, w: Any) -> tuple[Any, ...]:
    """The first slots of an inner class alone: `Rule.init` makes as many as the whole class has."""
    return inner.init(self, xp, w)[: len(inner.slots)]


def directed(inner: Kind) -> Callable[..., Any]:
    """The direction of an inner class as a function of (self, xp, k, w, g, *arrays), static or not."""
    if not isinstance(inspect.getattr_static(inner, "direction"), staticmethod):
        return inner.direction
    plain = inner.direction

    def direction(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> Any:
        return plain(xp, k, w, g, *arrays)

    return direction


def evaluated(inner: Kind) -> Callable[..., Any]:
    """The same of its weights to test."""
    if not isinstance(inspect.getattr_static(inner, "evaluate"), staticmethod):
        return inner.evaluate
    plain = inner.evaluate

    def evaluate(self: Any, xp: Any, k: Any, w: Any, *slots: Any) -> Any:
        return plain(xp, k, w, *slots)

    return evaluate


def refuse_sums(inner: Kind, why: str) -> None:
    """UserError where a rule has sums of its own, which those of a wrapper would have to wait for."""
    if inner.sums:
        raise UserError(
            f"{inner.__name__} moves by sums of its own ({', '.join(inner.sums)}), and {why}: that would "
            "take one pass over memory more. Use a rule without sums, such as AdamW."
        )


def refuse_evaluation(inner: Kind, why: str) -> None:
    """UserError where a rule tests other weights than it trains, and so would the wrapper."""
    if inner.evaluates():
        raise UserError(
            f"{inner.__name__} ships other weights than it trains, and {why}. Use one of the two alone."
        )


def _reduced(self: Rule) -> tuple[Any, ...]:
    """For pickle, which could not find a generated class by its name."""
    return _remade, (*layers(type(self)), dict(vars(self)))


def _remade(kind: Kind, names: tuple[str, ...], hyper: dict[str, Any]) -> Rule:
    return within(kind, names)(**hyper)
