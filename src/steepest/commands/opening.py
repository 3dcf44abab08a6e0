"""What `fit` measures where nobody has said anything, and when it leaves a setting at its default."""

from __future__ import annotations

from steepest.recipe import TUNED, Recipe
from steepest.train.given import Given
from steepest.train.settled import rule_of

OF_STOPPING = {"patience", "min_delta", "decay_factor", "max_decays", "raise_after"}
"""Settings of the machine that lowers a level rate at plateaus: whoever gives one wants that schedule."""


def opened(recipe: Recipe, given: Given) -> Recipe:
    """The recipe with "auto" for what decides most and was not said.

    As it is where a rate was said, to which the others belong, and where one of these is "auto" already."""
    if set(TUNED) & set(recipe.open) or _rate_is_said(recipe, given):
        return recipe
    said = recipe.model_fields_set
    names = [name for name in TUNED if name not in said | _ruled_out(recipe, given)]
    return Recipe.of(recipe.model_dump(exclude_unset=True) | dict.fromkeys(names, "auto"))


def _rate_is_said(recipe: Recipe, given: Given) -> bool:
    """Whether a person gives the rate: as a number or None, in a rule, by a function of the step, or by the
    name of a rule that finds its own, at a factor of 1."""
    if "lr" in recipe.model_fields_set or given.rule is not None or given.schedule is not None:
        return True
    return rule_of(recipe, given).lr == 1.0


def _ruled_out(recipe: Recipe, given: Given) -> set[str]:
    """Settings that something else said leaves nothing of."""
    said = recipe.model_fields_set
    rule = {"rule"} if "hyper" in said else set[str]()
    by_batch = given.batch_size is not None or str(recipe.batch_size).startswith(("growing", "following"))
    averages = rule_of(recipe, given).evaluates()
    return rule | ({"schedule"} if by_batch or averages or said & OF_STOPPING else set[str]())
