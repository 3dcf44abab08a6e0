"""Settings that a recipe leaves open, settled: names that stand for a choice, rule, schedule, stopping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from steepest import rules, schedule
from steepest.engine.torch.curvature import by_labels
from steepest.engine.torch.of_model import optimizer
from steepest.engine.torch.optimizer import RuleOptimizer
from steepest.errors import UserError
from steepest.models.presets import suited
from steepest.recipe import Recipe
from steepest.rule import Rule
from steepest.train import budget
from steepest.train.given import MARK, Given
from steepest.train.loss import Loss
from steepest.train.prepare import Prepared
from steepest.train.stopping import Stopping, sign

LEVEL = ("plateau", "constant")
"""Schedules that do not fall by themselves: patience ends a run under them unless told otherwise."""
PATIENCE = 6


def settled(recipe: Recipe, given: Given, prepared: Prepared, loss: Loss, threads: int | None) -> Recipe:
    """The recipe with the choices that were made written in."""
    rule = rule_of(recipe, given)
    _check_rule(rule, recipe, prepared)
    numbers = {
        name: v for name in ("lr", "weight_decay") if isinstance(v := getattr(rule, name, None), float)
    }
    monitor = recipe.monitor if prepared.val is not None else "train/loss"
    choices: dict[str, Any] = {
        "data_fingerprint": prepared.source.fingerprint,
        "target": _target(prepared),
        "task": "regression" if prepared.task.classes is None else "classification",
        "patience": PATIENCE if recipe.patience is None and recipe.schedule in LEVEL else recipe.patience,
        "monitor": monitor,
        "mode": "min" if sign(monitor, recipe.mode) > 0 else "max",
        "num_threads": threads,
        **numbers,
    }
    if recipe.loss == "auto":
        choices["loss"] = loss.name
    if recipe.model == "auto":
        choices["model"] = suited(prepared.preprocessing.input_shape)
    return recipe.model_copy(update=choices)


def _check_rule(rule: Rule, recipe: Recipe, prepared: Prepared) -> None:
    """UserError where the recipe asks for what does not go with the rule."""
    name = rules.name_of(rule)
    if rule.evaluates() and recipe.average is not None:
        raise UserError(
            f"The rule {name!r} averages weights itself; average={recipe.average} is one too many."
        )
    if not rule.ascent and not rule.reads:
        return
    several = f"The rule {name!r} takes more than one pass over a batch"
    if recipe.accumulate > 1:
        raise UserError(f"{several}, which must be whole: leave out accumulate={recipe.accumulate}.")
    if recipe.precision == "16":
        raise UserError(f'{several}, and a loss scale fits one. Take precision="bf16" or "32".')
    if rule.reads and recipe.compile:
        raise UserError(
            f"{several} and differentiates twice, which compiled networks cannot. Leave out compile."
        )
    if by_labels(rule) and prepared.task.classes is None:
        raise UserError(
            f"The rule {name!r} draws labels from predicted classes, and the target is a number. Take "
            "rule='sophiah' or 'adahessian', which need none."
        )


def rule_of(recipe: Recipe, given: Given) -> Rule:
    """The update rule, with the recipe's hyperparameters over its defaults."""
    if given.rule is not None:
        return given.rule
    settings: dict[str, Any] = dict(recipe.hyper)
    for name in settings.keys() & {"lr", "weight_decay"}:
        raise UserError(
            f"{name} is a setting of its own: give {name}={settings[name]}, not hyper={{{name!r}: …}}."
        )
    own = {key: value for key in ("lr", "weight_decay") if (value := getattr(recipe, key)) is not None}
    return rules.named(given.of(recipe, "rule"), **settings | own)


def optimizer_of(
    recipe: Recipe, given: Given, model: torch.nn.Module, per_epoch: int | None, total: int | None
) -> RuleOptimizer:
    """A fresh optimizer for a run of `total` steps; None: as many as it takes."""
    rule = rule_of(recipe, given)
    curve = given.of(recipe, "schedule")
    rise = budget.parse(recipe.warmup, "warmup")
    if rise.seconds:
        raise UserError(
            f"warmup must be in steps or epochs, got {rise}: the rate must not depend on the clock."
        )
    warmup = rise.steps(per_epoch) or 0
    if callable(curve):
        rule = replace(rule, lr=curve)
    elif not callable(rule.lr) and (curve not in LEVEL or warmup):
        rule = replace(rule, lr=schedule.named(curve, rule.lr, total or warmup + 1, warmup))
    return optimizer(model, rule, lr_scale=recipe.lr_scale)


def stopping_of(recipe: Recipe) -> Stopping:
    """The machine that lowers the rate, goes back and stops; it lowers and raises under "plateau" only."""
    moves = recipe.schedule == "plateau"
    return Stopping(
        patience=recipe.patience,
        min_delta=recipe.min_delta,
        decay_factor=recipe.decay_factor,
        max_decays=recipe.max_decays if moves else 0,
        raise_after=recipe.raise_after if moves else None,
    )


def falls(recipe: Recipe) -> bool:
    """Whether the schedule must know how long the run will be."""
    return recipe.schedule not in LEVEL and not recipe.schedule.startswith(MARK)


def _target(prepared: Prepared) -> str | list[str] | None:
    if prepared.source.kind != "table":
        return None
    names = list(prepared.task.targets)
    return names[0] if len(names) == 1 else names
