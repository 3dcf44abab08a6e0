"""Equal conditions: what every run of a comparison may spend, and the axis on which runs are laid beside
each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.comparison.cost import gradients_a_step
from steepest.comparison.strategies import Strategy
from steepest.optim.errors import UserError, did_you_mean
from steepest.recipe import Recipe
from steepest.train.budget import Budget, parse

EQUAL = {
    "steps": "updates",
    "time": "seconds",
    "gradients": "gradient evaluations",
}
"""What may be equal → the unit of it."""


def equal_of(asked: str | None, budget: str) -> str:
    """What is equal; where a person has not said it, the budget's unit does: seconds, or else updates.

    Raises UserError for what cannot be held, and where nothing would be trained."""
    whole = parse(budget)
    if whole.amount == 0:
        raise UserError(
            f'A budget of {whole} trains nothing to compare. Write for example budget="500 steps".'
        )
    unit = whole.unit
    if asked is None:
        return "time" if unit == "seconds" else "steps"
    if asked not in EQUAL:
        raise UserError(f"equal must be steps, time or gradients, got {asked!r}.{did_you_mean(asked, EQUAL)}")
    if (asked == "time") != (unit == "seconds"):
        wanted = "60s" if asked == "time" else "500 steps"
        other = 'equal="steps"' if asked == "time" else 'equal="time"'
        raise UserError(
            f'equal="{asked}" cannot be held with a budget of {budget}. Write budget="{wanted}", or {other}.'
        )
    return asked


def check_epochs(equal: str, budget: str, strategies: Sequence[Strategy], shared: Mapping[str, Any]) -> None:
    """Epochs hold as many updates for all only where all have one batch size, that the run does not move."""
    if equal != "steps" or parse(budget).unit != "epochs":
        return
    default = shared.get("batch_size", Recipe.model_fields["batch_size"].default)
    sizes = {one.name: one.settings.get("batch_size", default) for one in strategies}
    for name, size in sizes.items():
        if _moves(size):
            raise UserError(
                f"Under batch_size={str(size)!r} ({name}) {budget} are not equally many updates: the batch "
                'goes by what a run finds. Write the budget in steps, as in budget="500 steps", or take '
                'equal="gradients".'
            )
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(
            f"Batch sizes differ ({told}), so that {budget} are not equally many updates. Write the budget "
            'in steps, as in budget="500 steps", or take equal="time".'
        )


def _moves(size: Any) -> bool:
    """Whether the rule, the noise or a search has a say in how many examples an update takes."""
    return str(size).strip().lower().partition(" ")[0] in ("auto", "growing", "following")


def budget_for(equal: str, budget: str, rule: Any) -> str:
    """The budget of a run by this rule: the same for all, or where gradients are equal, by what a step
    costs."""
    whole = parse(budget)
    if equal != "gradients":
        return str(whole)
    amount = whole.amount / gradients_a_step(rule)
    return str(Budget(max(1, round(amount)) if whole.unit == "steps" else amount, whole.unit))


def part_of(budget: str, share: float, least: int) -> str:
    """A share of a budget, in steps and epochs no fewer than `least` and no more than the whole."""
    whole = parse(budget)
    amount = whole.amount * share
    if whole.unit != "seconds":
        amount = min(whole.amount, max(least if whole.unit == "steps" else 1, round(amount)))
    return str(Budget(amount, whole.unit))


def axis_of(equal: str, budget: str) -> tuple[str, str]:
    """(column of metrics.csv, name on the picture) of what runs are laid beside each other by."""
    if equal == "time":
        return "seconds", "seconds"
    if equal == "gradients" and parse(budget).unit == "epochs":
        return "epoch", "passes over the data, forward and backward"
    return "step", "step" if equal == "steps" else "gradient evaluations"


def unit_of(equal: str, budget: str) -> str:
    """What a time to a target is counted in, on the axis of the picture."""
    name = axis_of(equal, budget)[1]
    return {"seconds": "time", "step": "updates"}.get(name, name)
