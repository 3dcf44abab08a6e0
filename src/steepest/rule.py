"""`Rule`: an update rule as plain mathematics."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from operator import itemgetter
from typing import Annotated, Any, ClassVar, TypeAlias, cast

from steepest.quantity import Quantity

Number: TypeAlias = Annotated[Any, "float, or schedule"]
"""A hyperparameter: a float, or a schedule, which is a function of the global step (first step = 1).

Any to a type checker: a rule may be given either, and `scalars` meets floats alone."""

QUANTITIES: dict[str, Quantity] = {
    "lr": Quantity("the learning rate, by which a direction is multiplied", "units of w per unit of u"),
    "weight_decay": Quantity("the pull of a weight towards zero", "per step and unit of lr"),
    "momentum": Quantity("the share of the last velocity that is kept", "per step", high=1),
    "dampening": Quantity("the share of a gradient that momentum ignores, from step 2 on", high=1),
    "alpha": Quantity("the share of the mean square that is kept", "per step", high=1),
    "rho": Quantity("the share of the mean squares that is kept", "per step", high=1),
    "beta1": Quantity("the share of the first moment that is kept", "per step", high=1),
    "beta2": Quantity("the share of the second moment that is kept", "per step", high=1),
    "eps": Quantity("what keeps a denominator from zero", "units of g; of g² in Adadelta"),
    "lr_decay": Quantity("the growth of the divisor of lr", "per step"),
    "initial": Quantity("the sum of squares before the first step", "units of g²"),
    "momentum_decay": Quantity("how fast the momentum approaches beta1", "per step: 0.004 takes 6000 steps"),
}
"""Every hyperparameter by name: meaning, unit, range. A rule whose name is not here is not checked."""

_Entries: TypeAlias = Callable[[dict[str, Any]], tuple[Any, ...]]


def descend(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """How weights follow a direction.   w ← w - lr·u"""
    return w - k.lr * u


def descend_and_decay(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """The same with decoupled weight decay.   w ← w - lr·(u + weight_decay·w)"""
    return w - k.lr * (u + k.weight_decay * w)


@dataclass(frozen=True)
class Rule:
    """One update rule: hyperparameters as fields, arithmetic as three pure functions.

    slots      names of the state that every weight carries (same shape as the weight unless `init` says else)
    shared     scalars carried from step to step by all weights together, with their first values
    scalars    what depends on time and hyperparameters alone; once a step, in float64
    direction  (xp, k, w, g, *slots) → (u, *slots); once a weight; k holds the hyperparameters and the scalars
    follow     (xp, k, w, u) → w

    A field annotated `Number` is schedulable and kept as a float; ints, bools and strings are structure.
    Every constant made of hyperparameters alone is made in `scalars`: 1 - 0.999 in float32 is off by 2e-5.
    A value out of the range that QUANTITIES states is a UserError, of a schedule at the step where it occurs.
    """

    lr: Number

    slots: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[Mapping[str, float]] = {}
    follow: ClassVar[Callable[..., Any]] = staticmethod(descend)

    def __post_init__(self) -> None:
        for name in _measured(type(self)):
            value = getattr(self, name)
            if not callable(value):
                number = QUANTITIES[name].number(f"{type(self).__name__}'s {name}", value)
                object.__setattr__(self, name, number)

    def scalars(self, *xp_t: Any, **shared: Any) -> dict[str, Any]:
        """(xp, t, **shared) → numbers of step t (1, 2, …), among them the new shared scalars."""
        return {}

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        """State before the first step: one zero array a slot."""
        return tuple(xp.zeros_like(w) for _ in self.slots)

    @staticmethod
    def direction(*xp_k_w_g_slots: Any, **none: Any) -> tuple[Any, ...]:
        """(xp, k, w, g, *slots) → (u, *slots): where to go from w; abstract."""
        raise NotImplementedError

    @classmethod
    def numbers(cls) -> tuple[str, ...]:
        """Names of the schedulable hyperparameters, in order."""
        return _numbers(cls)

    def at(self, step: int) -> Rule:
        """This rule with every schedule replaced by its value at the global step."""
        hyper = vars(self)
        due = {name: hyper[name](step) for name in _numbers(type(self)) if callable(hyper[name])}
        return type(self)(**{**hyper, **due}) if due else self

    def constants(self, xp: Any, t: Any, shared: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """(k, new shared scalars) of step t; the rule must hold floats (see `at`)."""
        made = self.scalars(xp, t, **shared)
        entries, make = _tuple_of(type(self), *made)
        return make(entries(vars(self) | made)), {name: made[name] for name in shared} if shared else {}


@cache
def _numbers(cls: type[Rule]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.type in ("Number", Number))


@cache
def _measured(cls: type[Rule]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.name in QUANTITIES)


@cache
def _tuple_of(cls: type[Rule], *made: str) -> tuple[_Entries, Callable[..., Any]]:
    """(what takes the values of k out of a dict, what makes k of them), worked out once."""
    names = (*_numbers(cls), *made)
    kind = namedtuple(f"{cls.__name__}Scalars", names)  # pyright: ignore[reportUntypedNamedTuple]
    return _entries(names), partial(cast(Any, tuple).__new__, kind)


def _entries(names: tuple[str, ...]) -> _Entries:
    """What takes a tuple of these out of a dict; itemgetter gives none where there is one name."""
    return itemgetter(*names) if len(names) > 1 else lambda values: tuple(map(values.__getitem__, names))
