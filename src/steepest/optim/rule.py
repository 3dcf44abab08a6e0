"""`Rule`: an update rule as plain mathematics."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from steepest.optim.quantity import Quantity

Number: TypeAlias = Annotated[Any, "float, or schedule"]
"""A hyperparameter: a float, or a schedule, which is a function of the global step (first step = 1).

Any to a type checker: a rule may be given either, and `scalars` meets floats alone."""

QUANTITIES: dict[str, Quantity] = {
    "lr": Quantity(
        "the learning rate, by which a direction is multiplied",
        "units of w per unit of u",
        below="Rules descend already.",
        doubtful=1e3,
    ),
    "weight_decay": Quantity(
        "the pull of a weight towards zero",
        "per step and unit of lr",
        below="It pulls towards zero already.",
        doubtful=100,
    ),
    "momentum": Quantity("the share of the last velocity that is kept", "per step", high=1),
    "dampening": Quantity("the share of a gradient that momentum ignores, from step 2 on", high=1),
    "alpha": Quantity("the share of the mean square that is kept", "per step", high=1),
    "rho": Quantity("the share of the mean squares that is kept", "per step", high=1),
    "beta1": Quantity("the share of the first moment that is kept", "per step", high=1),
    "beta2": Quantity("the share of the second moment that is kept", "per step", high=1),
    "eps": Quantity("what keeps a denominator from zero", "units of g, or of g² where it stands in a root"),
    "lr_decay": Quantity("the growth of the divisor of lr", "per step"),
    "initial": Quantity("the squares gathered before the first step", "units of g²"),
    "momentum_decay": Quantity("how fast the momentum approaches beta1", "per step: 0.004 takes 6000 steps"),
    "trust": Quantity("the length of a layer's step, as a share of the length of its weight"),
    "reps": Quantity("the distance from the start before the first step", "shares of 1 + ‖w₀‖"),
    "growth": Quantity("by how much d may grow", "times per step", low=1, closed=True),
    "coefficient": Quantity("what the estimate of the distance is multiplied by"),
    "kappa": Quantity("the rate at which the rate learns", "units of lr per unit of g·u"),
    "shrink": Quantity("what a step is multiplied by where its gradient turns", high=1, open=True),
    "grow": Quantity("what a step is multiplied by while its gradient keeps its sign", low=1, open=True),
    "shortest": Quantity("the shortest step of a coordinate", "units of w", open=True),
    "longest": Quantity("the longest step of a coordinate", "units of w", open=True),
    "lambd": Quantity("the pull towards zero, and how fast the rate falls by it", "per step and unit of lr"),
    "t0": Quantity("the step after which weights are averaged", "steps"),
    "l1": Quantity("the pull that makes small weights exactly 0", "units of g"),
    "l2": Quantity("the pull in proportion to a weight, half of it per unit", "units of g per unit of w"),
    "mix": Quantity("how much the slow mean counts beside the fast one"),
    "gamma": Quantity("the share of a gradient's change that counts as its noise"),
    "nu1": Quantity("the share of the mean in the numerator, beside the gradient", high=1, closed=True),
    "nu2": Quantity("the share of the mean in the denominator, beside the square", high=1, closed=True),
    "peak": Quantity("the highest learning rate of the schedule", "that of lr", open=True),
    "every": Quantity(
        "updates from one costly estimate, of curvature or a basis, to the next", "updates", low=1
    ),
    "decay_rate": Quantity("the power of t by which the memory of squares grows", "1/t^decay_rate is new"),
    "eps1": Quantity("what keeps second moments from zero", "units of g²; of g in AdafactorTorch"),
    "eps2": Quantity("the least root mean square of a weight that steps are measured by", "units of w"),
    "threshold": Quantity("the root mean square above which a direction is shortened", open=True),
    "cap": Quantity("the largest share of the second moment that is kept", "per step", high=1),
    "retain": Quantity(
        "the share of an axis' products that is kept; 1 adds them up", "per step", high=1, closed=True
    ),
    "damping": Quantity("the least eigenvalue of a preconditioner", "units of g²", open=True),
    "precondition_lr": Quantity(
        "the rate at which the factors of a preconditioner are fitted", "per update of theirs"
    ),
    "fall": Quantity("how fast updates of a preconditioner become rare", "per step, as a power of e"),
    "scale": Quantity("what a direction of low rank is multiplied by"),
    "growth_limit": Quantity("by how much a step may be longer than the last", "times", low=1),
    "steps": Quantity("the number of polynomials that make a matrix orthogonal", low=1),
    "rank": Quantity("the number of directions that are kept, at most the shorter side", low=1),
    "largest": Quantity("the longest axis that has a matrix of its own", "elements"),
    "blocks": Quantity("the number of second moments of a matrix, 0 for one a row"),
    "factor_from": Quantity(
        "the length of the second longest axis from which moments are factored", "elements"
    ),
    "batch_axes": Quantity("the number of leading axes that count matrices"),
    "flat": Quantity("the number of first steps in which a preconditioner is always updated", "steps"),
    "seed": Quantity("where random numbers begin"),
}
"""Every hyperparameter by name: meaning, unit, range. A rule whose name is not here is not checked."""

RENAMED = {
    "settle": "finalize",
    "beside": "fallback_lr_ratio",
    "ascent": "perturb",
    "reads": "extra_inputs",
}
"""Parts of a rule that had another name: a rule that was written with the old one runs as before."""

_Entries: TypeAlias = Callable[[dict[str, Any]], tuple[Any, ...]]


def uncoupled(xp: Any, k: Any, w: Any, g: Any) -> Any:
    """The gradient as it is."""
    return g


def coupled(xp: Any, k: Any, w: Any, g: Any) -> Any:
    """Weight decay within the gradient, that of the penalty ½·weight_decay·w² (L2).   g + weight_decay·w"""
    return g + k.weight_decay * w


def descend(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """How weights follow a direction.   w ← w - lr·u"""
    return w - k.lr * u


def descend_and_decay(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """The same with decoupled weight decay.   w ← w - lr·(u + weight_decay·w)"""
    return w - k.lr * (u + k.weight_decay * w)


def depart(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """For rules whose direction holds the rate already.   w ← w - u"""
    return w - u


def depart_and_decay(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """The same with decoupled weight decay.   w ← w - u - lr·weight_decay·w"""
    return w - (u + k.lr * (k.weight_decay * w))


@dataclass(frozen=True)
class Rule:
    """One update rule: hyperparameters as fields, arithmetic as a few pure functions.

    slots      names of the state that every weight carries (same shape as the weight unless `init` says else)
    shared     scalars carried from step to step, with their first values: by all weights together where
               `scope` is "model", by each weight on its own where it is "weight"
    scalars    what depends on time and hyperparameters alone; once a step, in float64
    couple     (xp, k, w, g) → g, the gradient with what of the weight decay belongs to it
    direction  (xp, k, w, g, *extra, *slots) → (u, *slots); once a weight; k holds hyperparameters and scalars
    follow     (xp, k, w, u) → w
    update     these three, one after the other: what engines run

    Rules that look at many elements before they move one:
    measure    (xp, k, w, g, *extra, *slots) → one addend an element for each of `sums`; nothing is written.
               The engine adds them up over all weights of the rule (scope "model") or each weight ("weight").
    finalize   more scalars from these sums, before `direction` runs; among them new shared ones.
    whole      True where `direction` needs its weight as an array with axes (sums of rows, matrix products);
               it is then a method, may use maths.WHOLE_VOCABULARY, and runs without a kernel of its own.
    shardable  True where such a rule is right on weights that are split over processes (torch's DTensors)

    extra_inputs  names of arrays beyond the gradient that direction is given after it ("d": curvature)
    signed     the slots that may be kept in few bits: moving averages of either sign
    positive   and those that are never below 0
    momenta    the slots of momentum, where these are not those of `signed`
    takes      (shape) → whether a weight of that shape can be moved
    fallback_lr_ratio  the rate of AdamW, per unit of this rule's, for what this rule does not take
    evaluate   (xp, k, w, *slots) → the weights to test and to ship, where they are not those that are trained
    perturb    (xp, w, g) → g stretched: the weights go up along it before the gradient is taken (SAM)
    quantities what hyperparameters mean here, where that is not what QUANTITIES says of their names

    A field annotated `Number` is schedulable and kept as a float; ints, bools and strings are structure.
    Every constant made of hyperparameters alone is made in `scalars`: 1 - 0.999 in float32 is off by 2e-5.
    What `scalars` or `finalize` give under the name of a hyperparameter stands in for it in k.
    A value out of the range that QUANTITIES states is a UserError, of a schedule at the step where it occurs.
    """

    lr: Number

    slots: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[Mapping[str, float]] = {}
    extra_inputs: ClassVar[tuple[str, ...]] = ()
    sums: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["model", "weight"]] = "model"
    whole: ClassVar[bool] = False
    shardable: ClassVar[bool] = False
    signed: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()
    momenta: ClassVar[tuple[str, ...] | None] = None
    quantities: ClassVar[Mapping[str, Quantity]] = {}
    fallback_lr_ratio: ClassVar[float] = 1.0
    couple: ClassVar[Callable[..., Any]] = staticmethod(uncoupled)
    follow: ClassVar[Callable[..., Any]] = staticmethod(descend)
    perturb: ClassVar[Callable[..., Any] | None] = None

    def __init_subclass__(cls) -> None:
        own = dict(vars(cls))
        for old, new in RENAMED.items():
            if new in own:
                setattr(cls, old, own[new])
            elif old in own:
                told = f"{cls.__name__}.{old} is called {new} now; the old name goes with the next version."
                warnings.warn(told, FutureWarning, stacklevel=2)
                setattr(cls, new, own[old])

    def __post_init__(self) -> None:
        for name, measure in _measured(type(self)).items():
            value = getattr(self, name)
            if not callable(value):
                object.__setattr__(self, name, measure(f"{type(self).__name__}'s {name}", value))

    def scalars(self, *xp_t: Any, **shared: Any) -> dict[str, Any]:
        """(xp, t, **shared) → numbers of step t (1, 2, …), among them the new shared scalars."""
        return {}

    def finalize(self, *xp_t_n_sums: Any, **shared: Any) -> dict[str, Any]:
        """(xp, t, n, *sums, **shared) → more numbers of step t, from sums over n elements."""
        return {}

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can be moved; rules of matrices say no to vectors."""
        return True

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        """State before the first step: one zero array a slot."""
        return tuple(xp.zeros_like(w) for _ in self.slots)

    @staticmethod
    def measure(*xp_k_w_g_slots: Any, **none: Any) -> tuple[Any, ...]:
        """(xp, k, w, g, *extra, *slots) → addends of `sums`; abstract where there are any."""
        raise NotImplementedError

    @staticmethod
    def direction(*xp_k_w_g_slots: Any, **none: Any) -> tuple[Any, ...]:
        """(xp, k, w, g, *extra, *slots) → (u, *slots): where to go from w; abstract."""
        raise NotImplementedError

    def update(self, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        """(xp, k, w, g, *extra, *slots) → (w, *slots): one step of one weight."""
        g = self.couple(xp, k, w, g)
        u, *slots = self.direction(xp, k, w, g, *arrays)
        return self.follow(xp, k, w, u), *slots

    def addends(self, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        """`measure` of the gradient that `update` will use."""
        return self.measure(xp, k, w, self.couple(xp, k, w, g), *arrays)

    @staticmethod
    def evaluate(xp: Any, k: Any, w: Any, *slots: Any, **none: Any) -> Any:
        """The weights to test and to ship; k is that of the update done last."""
        return w

    @classmethod
    def numbers(cls) -> tuple[str, ...]:
        """Names of the schedulable hyperparameters, in order."""
        return _numbers(cls)

    @classmethod
    def quantity(cls, name: str) -> Quantity | None:
        """What a hyperparameter means; none where nobody has said so."""
        return cls.quantities.get(name) or QUANTITIES.get(name)

    @classmethod
    def evaluates(cls) -> bool:
        """True where the weights to test and to ship are not those that are trained."""
        return cls.evaluate is not Rule.evaluate

    def at(self, step: int) -> Rule:
        """This rule with every schedule replaced by its value at the global step."""
        hyper = vars(self)
        due = {name: hyper[name](step) for name in _numbers(type(self)) if callable(hyper[name])}
        return self.having(due) if due else self

    def having(self, numbers: Mapping[str, Any]) -> Rule:
        """This rule with these hyperparameters; where it has no checks of its own, they alone are checked."""
        cls, hyper = type(self), vars(self)
        if cls.__post_init__ is not Rule.__post_init__:
            return cls(**{**hyper, **numbers})
        made, measures = cast(Rule, object.__new__(cls)), _measured(cls)
        made.__dict__.update(hyper, **numbers)
        for name, value in numbers.items():
            if name in measures and not callable(value):
                made.__dict__[name] = measures[name](f"{cls.__name__}'s {name}", value)
        return made

    def constants(
        self, xp: Any, t: Any, shared: Mapping[str, Any], n: Any = 0, sums: Sequence[Any] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """(k, new shared scalars) of step t; the rule must hold floats (see `at`).

        Without sums k is what `measure` reads; with them, over n elements, what `direction` reads."""
        made = self.scalars(xp, t, **shared)
        if sums:
            made |= self.finalize(xp, t, n, *sums, **shared)
        entries, make = _tuple_of(type(self), *made)
        following = {name: made.get(name, old) for name, old in shared.items()} if shared else {}
        return make(entries(vars(self) | made)), following


for _old, _new in RENAMED.items():
    setattr(Rule, _old, vars(Rule)[_new])


@cache
def _numbers(cls: type[Rule]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.type in ("Number", Number))


@cache
def _measured(cls: type[Rule]) -> dict[str, Callable[[str, Any], float]]:
    """The hyperparameters whose meaning is known, each with what makes a number or a count of it."""
    known = [(field, cls.quantity(field.name)) for field in fields(cls)]
    return {
        field.name: quantity.count if field.type in ("int", int) else quantity.number
        for field, quantity in known
        if quantity
    }


@cache
def _tuple_of(cls: type[Rule], *made: str) -> tuple[_Entries, Callable[..., Any]]:
    """(what takes the values of k out of a dict, what makes k of them), worked out once."""
    names = tuple(dict.fromkeys((*_numbers(cls), *made)))
    kind = namedtuple(f"{cls.__name__}Scalars", names)  # pyright: ignore[reportUntypedNamedTuple]
    return _entries(names), partial(cast(Any, tuple).__new__, kind)


def _entries(names: tuple[str, ...]) -> _Entries:
    """What takes a tuple of these out of a dict; itemgetter gives none where there is one name."""
    return itemgetter(*names) if len(names) > 1 else lambda values: tuple(map(values.__getitem__, names))
