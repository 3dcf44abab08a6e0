"""Settings that a recipe leaves open, settled: names that stand for a choice, rule, schedule, stopping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from steepest.optim import rules, schedule
from steepest.optim.batch import BatchPolicy, Compensated
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.passes import by_labels, curved
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.recipe import Recipe
from steepest.train import budget
from steepest.train.given import MARK, Given
from steepest.train.loss import Loss
from steepest.train.prepare import Prepared
from steepest.train.stopping import Stopping, sign

LEVEL = ("plateau", "constant")
"""Schedules that do not fall by themselves: patience ends a run under them unless told otherwise."""
PATIENCE = 6
OF_RULE = ("lr", "weight_decay")
"""Settings that are hyperparameters of the rule."""


def settled(recipe: Recipe, given: Given, prepared: Prepared, loss: Loss, threads: int | None) -> Recipe:
    """The recipe with the choices that were made written in."""
    rule = rule_of(recipe, given)
    _check_rule(rule, recipe, prepared)
    numbers = {name: v for name in OF_RULE if isinstance(v := getattr(rule, name, None), float)}
    monitor = recipe.monitor if prepared.val is not None else "train/loss"
    choices: dict[str, Any] = {
        "data_fingerprint": prepared.source.fingerprint,
        "target": _target(prepared),
        "task": prepared.target.task,
        "patience": PATIENCE if recipe.patience is None and recipe.schedule in LEVEL else recipe.patience,
        "monitor": monitor,
        "mode": "min" if sign(monitor, recipe.mode) > 0 else "max",
        "num_threads": threads,
        **numbers,
    }
    if recipe.loss == "auto":
        choices["loss"] = loss.name
    if recipe.model == "auto":
        choices["model"] = prepared.preprocessing.suits
    return recipe.model_copy(update=choices)


def as_asked(settled: Recipe, asked: Recipe) -> Recipe:
    """The settled recipe with open what was asked to be measured, so that it repeats the run."""
    kept = {name: getattr(asked, name) for name in asked.open}
    if "rule" in asked.open:  # these are numbers of the rule that stood in for it
        kept |= {name: getattr(asked, name) for name in OF_RULE}
    if {"schedule", "stop"} & set(asked.open):
        kept["patience"] = asked.patience
    return settled.model_copy(update=kept)


def check_open(asked: Recipe, given: Given) -> None:
    """UserError where a setting is to be measured that an object has decided already."""
    stands_in = str(asked.batch_size).startswith(("growing", "following")) or given.batch_size is not None
    if "schedule" in asked.open and stands_in:
        raise UserError(
            f"batch_size={asked.batch_size!r} goes by a schedule or stands in for one, and schedule='auto' "
            "leaves nothing to measure. Name a schedule, or take batch_size='auto'."
        )
    if "schedule" in asked.open and given.rule is not None and callable(given.rule.lr):
        raise UserError(
            "The lr of the rule is a function and gives the rate of every step, which leaves nothing of "
            'schedule="auto". Give the rule a number, or leave schedule out.'
        )
    if "lr" not in asked.open:
        return
    if given.schedule is not None or (given.rule is not None and callable(given.rule.lr)):
        raise UserError(
            'A schedule that is a function gives the rate itself, which leaves nothing of lr="auto". Name a '
            'schedule, such as "linear", or leave lr out.'
        )


def _check_rule(rule: Rule, recipe: Recipe, prepared: Prepared) -> None:
    """UserError where the recipe asks for what does not go with the rule."""
    name = rules.name_of(rule)
    if rule.evaluates() and recipe.average is not None:
        raise UserError(
            f"The rule {name!r} averages weights itself; average={recipe.average} is one too many."
        )
    if not rule.perturb and not rule.extra_inputs:
        return
    several = f"The rule {name!r} takes more than one pass over a batch"
    if recipe.accumulate > 1:
        raise UserError(f"{several}, which must be whole: leave out accumulate={recipe.accumulate}.")
    if recipe.precision == "16":
        raise UserError(f'{several}, and a loss scale fits one. Take precision="bf16" or "32".')
    if curved(rule) and recipe.compile:
        raise UserError(
            f"{several} and differentiates twice, which compiled networks cannot. Leave out compile."
        )
    if by_labels(rule) and not prepared.target.draws:
        raise UserError(
            f"The rule {name!r} draws labels from predicted classes, and the target is "
            f"{prepared.target.noun}. Take rule='sophiah' or 'adahessian', which need none."
        )


def rule_of(recipe: Recipe, given: Given) -> Rule:
    """The update rule, with the recipe's hyperparameters over its defaults."""
    own = {key: value for key in OF_RULE if (value := getattr(recipe, key)) is not None}
    if given.rule is not None:
        held = {key: value for key, value in own.items() if isinstance(getattr(given.rule, key, None), float)}
        return replace(given.rule, **held)
    settings: dict[str, Any] = dict(recipe.hyper)
    for name in settings.keys() & set(OF_RULE):
        raise UserError(
            f"{name} is a setting of its own: give {name}={settings[name]}, not hyper={{{name!r}: …}}."
        )
    return rules.named(given.of(recipe, "rule"), **settings | own)


def optimizer_of(
    recipe: Recipe,
    given: Given,
    model: torch.nn.Module,
    per_epoch: int | None,
    total: int | None,
    policy: BatchPolicy | None = None,
) -> RuleOptimizer:
    """A fresh optimizer for a run of `total` steps; None: as many as it takes. Its rate keeps step with the
    batches of a policy."""
    rule = scheduled(recipe, given, per_epoch, total)
    if policy is not None:
        rule = replace(rule, lr=Compensated(rule.lr, policy))
    return optimizer(model, rule, lr_scale=recipe.lr_scale)


def scheduled(recipe: Recipe, given: Given, per_epoch: int | None, total: int | None) -> Rule:
    """The update rule with its schedule over `total` steps."""
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
    return rule


def stopping_of(recipe: Recipe) -> Stopping:
    """The machine that lowers the rate, goes back and stops; it lowers and raises under "plateau" only, and
    where it is to know itself when to stop: never at the full rate."""
    moves = lowers(recipe)
    return Stopping(
        patience=recipe.patience,
        min_delta=recipe.min_delta,
        decay_factor=recipe.decay_factor,
        max_decays=recipe.max_decays if moves else 0,
        raise_after=recipe.raise_after if moves else None,
    )


def lowers(recipe: Recipe) -> bool:
    """Whether the machine that stops may lower the rate first."""
    return recipe.schedule == "plateau" or recipe.stop is not None


def falls(recipe: Recipe) -> bool:
    """Whether the schedule must know how long the run will be."""
    return recipe.schedule not in LEVEL and not recipe.schedule.startswith(MARK)


def _target(prepared: Prepared) -> str | list[str] | None:
    if not prepared.source.columns:
        return None
    names = list(prepared.target.names)
    return names[0] if len(names) == 1 else names
