"""Wrappers that look at a direction before it is followed: cautious steps, trust ratios."""

from __future__ import annotations

from typing import Any

from steepest.optim.errors import UserError
from steepest.optim.maths import unless_zero
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, descend, descend_and_decay
from steepest.optim.wrappers.making import Bodies, Kind, Knob, directed, refuse_sums, wrapped, wrapper

TRUST = Quantity("the length of a step, as a share of the length of its weight, at lr = 1")


def cautious(rule: Rule) -> Rule:
    """A rule that moves no coordinate against its gradient.   u ← u·[u·g > 0]·n/(Σ[u·g > 0] + 1)

    The sum runs over the n elements of one weight tensor; weight decay that is decoupled stays as it is.
    State: none. Liang et al. 2024, arXiv:2411.16085, algorithm 1."""
    return wrapped("cautious", rule)


def cautious_clamped(rule: Rule) -> Rule:
    """The same with another factor for the rest.   u ← u·[u·g > 0]/max(Σ[u·g > 0]/n, 0.001)

    State: none. Liang et al. 2024, arXiv:2411.16085; equals timm's `caution=True`."""
    return wrapped("cautiousclamped", rule)


def trust_ratio(rule: Rule, trust: Number = 1.0) -> Rule:
    """A rule whose steps are as long as their weights.   r = u (+ weight_decay·w where it is decoupled)
    w ← w - lr·trust·‖w‖/‖r‖·r, without the ratio where a norm is 0

    Norms run over one weight tensor. trust_ratio(adamw) is LAMB; trust_ratio(momentum) sets the length of the
    velocity, LARS that of what goes into it.
    State: none. You et al. 2020, arXiv:1904.00962, section 3; equals optax.scale_by_trust_ratio."""
    return wrapped("trustratio", rule, trust=trust)


def _of_agreement(inner: Kind) -> Bodies:
    """Bodies that count the elements whose direction agrees with the gradient, and go with these alone."""
    refuse_sums(inner, "a cautious step counts elements that agree with the gradient")
    direct = directed(inner)

    def measure(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        u, *_slots = direct(self, xp, k, w, g, *arrays)
        return (xp.where(u * g > 0, 1.0, 0.0),)

    def direction(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        u, *slots = direct(self, xp, k, w, g, *arrays)
        return xp.where(u * g > 0, k.cautious_gain * u, 0.0 * u), *slots

    return {"sums": ("agreeing",), "scope": "weight", "measure": measure, "direction": direction}


@wrapper("Cautious", cautious)
def _cautious(inner: Kind) -> Bodies:
    def finalize(self: Any, xp: Any, t: Any, n: Any, agreeing: Any, **shared: Any) -> dict[str, Any]:
        return {"cautious_gain": n / (agreeing + 1)}

    return _of_agreement(inner) | {"finalize": finalize}


@wrapper("CautiousClamped", cautious_clamped)
def _cautious_clamped(inner: Kind) -> Bodies:
    def finalize(self: Any, xp: Any, t: Any, n: Any, agreeing: Any, **shared: Any) -> dict[str, Any]:
        return {"cautious_gain": n / unless_zero(xp, xp.maximum(agreeing, 1e-3 * n))}

    return _of_agreement(inner) | {"finalize": finalize}


def _alone(xp: Any, k: Any, w: Any, u: Any) -> Any:
    return u


def _with_decay(xp: Any, k: Any, w: Any, u: Any) -> Any:
    return u + k.weight_decay * w


@wrapper("TrustRatio", trust_ratio, trust=Knob(1.0, TRUST))
def _trust_ratio(inner: Kind) -> Bodies:
    refuse_sums(inner, "a trust ratio is one of sums")
    direct = directed(inner)
    complete = {descend: _alone, descend_and_decay: _with_decay}.get(inner.follow)
    if complete is None:
        raise UserError(
            f"{inner.__name__}'s direction holds its rate, or its decay is of its own kind: a trust ratio "
            "would have no direction to set against the weight. Use it around AdamW or Momentum."
        )

    def measure(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        u, *_slots = direct(self, xp, k, w, g, *arrays)
        u = complete(xp, k, w, u)
        return w * w, u * u

    def finalize(
        self: Any, xp: Any, t: Any, n: Any, weights: Any, ways: Any, **shared: Any
    ) -> dict[str, Any]:
        ratio = self.trust * xp.sqrt(weights / unless_zero(xp, ways))
        return {"trust_gain": xp.where((weights == 0) | (ways == 0), 1.0, ratio)}

    def direction(self: Any, xp: Any, k: Any, w: Any, g: Any, *arrays: Any) -> tuple[Any, ...]:
        u, *slots = direct(self, xp, k, w, g, *arrays)
        return k.trust_gain * complete(xp, k, w, u), *slots

    sums = {"sums": ("weights", "ways"), "scope": "weight"}
    return sums | {
        "measure": measure,
        "finalize": finalize,
        "direction": direction,
        "follow": staticmethod(descend),
    }
