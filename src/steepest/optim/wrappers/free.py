"""Any rule without a schedule of its rate: steps at z, gradients at w, an average x of all z to ship."""

from __future__ import annotations

from typing import Any

from steepest.optim.maths import lerp, unless_zero
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule
from steepest.optim.wrappers.averages import kept_copy
from steepest.optim.wrappers.making import Bodies, Kind, Knob, refuse_evaluation, wrapped, wrapper

BETA = Quantity("the share of the average in the point where gradients are taken", high=1)
POWER = Quantity("the power of t by which late steps weigh more in the average")
WARMUP = Quantity("the updates over which lr grows to its value", "steps; 0: none")


def schedule_free(rule: Rule, beta: Number = 0.9, power: Number = 0.0, warmup: int = 0) -> Rule:
    """A rule that needs no falling rate.   z moves by the rule, with the gradient taken at w
    x ← (1-c)·x + c·z   c = tʳ·max(lr)²/Σ tʳ·max(lr)²   w ← (1-β)·z + β·x   r: power

    The weights to test and to ship are x = z + (w - z)/β. Use a constant lr; it grows over the first `warmup`
    updates. Weight decay is the rule's, at z. A rule without momentum is enough.
    State: z (1 float per weight), in slot "free"; the sum of weights for all together.
    Defazio et al. 2024, arXiv:2405.15682; equals schedulefree.ScheduleFreeWrapper."""
    return wrapped("schedulefree", rule, free_beta=beta, free_power=power, free_warmup=warmup)


def warmed(xp: Any, t: Any, lr: Any, warmup: int) -> Any:
    """The rate of update t, which grows in a line over the first ones.   lr·min(1, t/warmup)"""
    return lr * xp.minimum(1.0, t / warmup) if warmup else lr


def average_share(xp: Any, t: Any, lr: Any, power: Any, largest: Any, total: Any) -> tuple[Any, Any, Any]:
    """(c, max(lr), Σ tʳ·max(lr)²): the share of the newest z in the average, and what it is reckoned from."""
    largest = xp.maximum(largest, lr)
    weight = t**power * largest * largest
    return weight / unless_zero(xp, total + weight), largest, total + weight


def way_back(xp: Any, beta: Any) -> Any:
    """From z through w = (1-β)·z + β·x to x, in lengths of w - z.   1/β; at β = 0, where x is lost, 1"""
    return 1 / unless_zero(xp, beta)


@wrapper(
    "ScheduleFreed",
    schedule_free,
    "schedulefree",
    free_beta=Knob(0.9, BETA),
    free_power=Knob(0.0, POWER),
    free_warmup=Knob(0, WARMUP, "int"),
)
def _schedule_free(inner: Kind) -> Bodies:
    refuse_evaluation(inner, "a schedule-free rule ships its average")
    own = {"free_largest": 0.0, "free_total": 0.0}

    def warm(self: Any, xp: Any, t: Any) -> Any:
        """The rule at the rate in force, unchecked, since t may be traced."""
        rule = object.__new__(type(self))
        vars(rule).update(vars(self), lr=warmed(xp, t, self.lr, self.free_warmup))
        return rule

    def scalars(
        self: Any, xp: Any, t: Any, free_largest: Any, free_total: Any, **shared: Any
    ) -> dict[str, Any]:
        rule = warm(self, xp, t)
        share, *sums = average_share(xp, t, rule.lr, self.free_power, free_largest, free_total)
        made = {"lr": rule.lr} | inner.scalars(rule, xp, t, **shared) | dict(zip(own, sums, strict=True))
        return made | {"free_rest": 1 - share, "free_back": way_back(xp, self.free_beta)}

    def finalize(self: Any, xp: Any, t: Any, n: Any, *sums: Any, **shared: Any) -> dict[str, Any]:
        rest = {name: value for name, value in shared.items() if name not in own}
        return inner.finalize(warm(self, xp, t), xp, t, n, *sums, **rest)

    def update(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, z = arrays
        moved, *slots = inner.update(self, xp, k, z, g, *rest)
        return moved + k.free_rest * (w - z + k.free_beta * (z - moved)), *slots, moved

    def addends(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        *rest, z = arrays
        return inner.addends(self, xp, k, z, g, *rest)

    def evaluate(self: Any, xp: Any, k: Any, w: Any, *slots: Any) -> Any:
        *_, z = slots
        return lerp(z, w, k.free_back)

    state = {"slots": (*inner.slots, "free"), "shared": {**inner.shared, **own}, "init": kept_copy(inner)}
    time = {"scalars": scalars, "finalize": finalize}
    return state | time | {"update": update, "addends": addends, "evaluate": evaluate}
