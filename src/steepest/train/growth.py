"""Runs whose batches vary: the policy of a recipe, how many updates it comes to, and the rate beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from torch import nn

from steepest.data.batches import Batches, count, under
from steepest.data.tree import Tree
from steepest.data.varied import VariedPlan
from steepest.evidence import Evidence
from steepest.optim import batch
from steepest.optim.batch import BatchPolicy, Fixed, Following, Growing, Stochastic
from steepest.optim.engines import on_numpy
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.recipe import Recipe
from steepest.train import budget, memory, settled
from steepest.train.budget import Budget
from steepest.train.given import Given

TRIES = 10
"""Corrections of the number of updates, each nearly exact, as a curve scales with its length; where whole
batches and ends of epochs keep them from meeting, what is left is halved."""


@dataclass(frozen=True)
class Course:
    """How a run goes through its data.

    steps    updates of the whole run, where they are known beforehand
    horizon  the same, where it is not the budget's own reckoning but ours
    policy   what the rate must keep step with; None where batches do not vary"""

    source: Batches
    steps: int | None
    horizon: int | None
    policy: BatchPolicy | None


def course(recipe: Recipe, given: Given, source: Batches, horizon: int | None) -> Course:
    """The course of a run; horizon: updates of the usual size that its budget was measured to hold."""
    allowed, varied = budget.parse(recipe.budget), source.varied
    if varied is None:
        steps = allowed.steps(source.per_epoch) if horizon is None else horizon
        return Course(source, steps, horizon, None)
    if isinstance(varied.policy, Growing):
        return _growing(recipe, given, source, varied, allowed, horizon)
    steps = horizon
    if horizon is None:
        steps = allowed.steps(None) if varied.policy.measures else updates(allowed, source)
    return Course(source, steps, horizon, varied.policy)


def updates(allowed: Budget, source: Batches) -> int | None:
    """Updates that a budget holds where the clock does not decide; of the usual size where only the run tells
    which sizes come."""
    varied = source.varied
    told = varied is not None and not (varied.policy.measures or isinstance(varied.policy, Growing))
    if varied is not None and told and allowed.unit == "epochs":
        return varied.steps(allowed.amount)
    return allowed.steps(source.per_epoch)


def _growing(
    recipe: Recipe, given: Given, source: Batches, plan: VariedPlan, allowed: Budget, horizon: int | None
) -> Course:
    """The course under which the schedule ends where the budget does."""

    def bound(steps: int) -> VariedPlan:
        assert isinstance(plan.policy, Growing)
        curve = plan.policy.schedule or settled.scheduled(recipe, given, source.per_epoch, steps).lr
        return replace(plan, policy=replace(plan.policy, schedule=curve))

    epochs, steps = _epochs(plan, allowed, horizon), allowed.steps(None)
    if allowed.unit == "steps" and horizon is not None:
        steps = horizon
    if _is_given(plan, recipe, given):
        made = bound(1)
        steps = steps if epochs is None else made.steps(epochs)
    else:
        steps = steps if epochs is None else _filling(bound, plan, epochs)
        made = plan if steps is None else bound(steps)
    return Course(under(source, made.policy), steps, steps, made.policy)


def _is_given(plan: VariedPlan, recipe: Recipe, given: Given) -> bool:
    """Whether the schedule is a function of a person's, which does not stretch with the run."""
    own = isinstance(plan.policy, Growing) and plan.policy.schedule is not None
    return own or given.schedule is not None or callable(settled.rule_of(recipe, given).lr)


def _epochs(plan: VariedPlan, allowed: Budget, horizon: int | None) -> float | None:
    """Passes over the data that a budget holds, where it is not one in steps."""
    if allowed.unit == "steps":
        return None
    if horizon is not None:
        return horizon * plan.policy.usual / plan.examples
    return allowed.amount if allowed.unit == "epochs" else None


def _filling(bound: Callable[[int], VariedPlan], plan: VariedPlan, epochs: float) -> int:
    """The number of updates that take so many passes, under the curve of that length: the nearer one of two
    neighbours of which the first takes fewer and the second does not.

    An update takes an example at least, so that there are such two; what lies between gets less each time."""

    @cache
    def taken(steps: int) -> float:
        return bound(steps).epochs(steps)

    low, high, tries = 0, math.ceil(epochs * plan.examples), TRIES
    guess = round(epochs * plan.examples / plan.policy.usual)
    while high - low > 1:
        steps = min(max(guess, low + 1), high - 1) if tries > 0 else (low + high) // 2
        low, high = (steps, high) if taken(steps) < epochs else (low, steps)
        guess, tries = round(steps * epochs / taken(steps)), tries - 1
    return min(range(max(low, 1), high + 1), key=lambda steps: abs(taken(steps) - epochs))


def afresh(source: Batches) -> Batches:
    """The same batches under a policy with nothing on record: no descent goes by what another saw, be it the
    length of an epoch, which a stream learns by reading."""
    varied = source.varied
    return copy(source) if varied is None else under(source, replace(varied.policy))


def steady(source: Batches) -> Batches:
    """The same data in batches of the first size, where they would vary with the rate or with the noise."""
    varied = source.varied
    if varied is None or isinstance(varied.policy, Stochastic):
        return source
    return under(source, Fixed(varied.policy.usual))


def policy_of(recipe: Recipe, given: Given, rule: Rule) -> BatchPolicy:
    """The policy of a recipe, with the power that suits its rule. Raises UserError for what does not go."""
    if given.batch_size is not None:
        policy = given.batch_size
    else:
        policy = batch.named(given.of(recipe, "batch_size"))
        if isinstance(policy, Growing | Following):
            policy = replace(policy, power=power_of(rule))
        elif isinstance(policy, Stochastic):
            policy = replace(policy, seed=recipe.seed)
    _check(policy, recipe, given, rule)
    return policy


def _check(policy: BatchPolicy, recipe: Recipe, given: Given, rule: Rule) -> None:
    falls = settled.falls(recipe) or given.schedule is not None or callable(rule.lr)
    if isinstance(policy, Growing) and policy.schedule is None and not falls:
        raise UserError(
            f"batch_size={str(policy)!r} grows where the rate would fall, and the schedule "
            f"{recipe.schedule!r} does not fall. Take one that does, such as schedule='linear'."
        )
    if not isinstance(policy, Following):
        return
    if rule.perturb or rule.extra_inputs:
        raise UserError(
            f"batch_size={str(policy)!r} compares parts of a batch with the whole, and the rule takes more "
            "than one pass over a whole one. Take a number, or a growing batch."
        )
    if falls and budget.parse(recipe.budget).unit != "steps":
        raise UserError(
            f"Under batch_size={str(policy)!r} nobody knows how many updates {recipe.budget} will be, and "
            f"the schedule {recipe.schedule!r} must know. Give a budget in steps, or schedule='constant'."
        )


def said(model: nn.Module, source: Batches, window: Sequence[Tree]) -> tuple[Evidence, ...]:
    """What batch norms make of batches of this size."""
    if not memory.normed(model):
        return ()
    found: list[Evidence] = []
    if len(window) > 1:
        why = "each part of an update is normed by itself: parts change more than memory here"
        found.append(Evidence("batch norms", f"over parts of {max(map(count, window))} examples", why))
    if source.per_epoch == 1:
        why = "running statistics move a tenth of the way an update, and a full batch makes one an epoch"
        found.append(Evidence("batch norms", "tested with statistics of the last 20 epochs or so", why))
    return tuple(found)


SEEN = 12
"""Updates after which steps are looked at: the first ones of some rules are none yet, or of another kind."""


def power_of(rule: Rule) -> float:
    """By what root of the batch the rate grows: 2 where a step does not depend on the unit of gradients
    (Adam's kind, whose noise falls with √batch), else 1.

    Seen on the way of a small matrix under gradients g and 4g."""
    rule = rule.at(1).having({"lr": 1e-2})
    once, again = _way(rule, 1.0), _way(rule, 4.0)
    return 2.0 if np.linalg.norm(again - once) < np.linalg.norm(once) / 2 else 1.0


def _way(rule: Rule, unit: float) -> np.ndarray:
    """The last step of a matrix under gradients that change, in some unit."""
    w = before = np.linspace(0.5, 1.5, 16).reshape(4, 4)
    slots: Sequence[np.ndarray] = [np.asarray(slot, np.float64) for slot in rule.init(on_numpy.NUMPY, w)]
    shared = rule.shared
    for t in range(1, SEEN + 1):
        g = unit * np.cos(np.arange(16.0) * (1 + t / SEEN)).reshape(4, 4)
        reads = [np.abs(g) + unit for _ in rule.extra_inputs]
        before, (w, slots, shared) = w, on_numpy.step(rule, t, t, w, g, slots, shared, reads)
    return w - before
