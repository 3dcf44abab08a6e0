"""`optimizer`: a rule for a model, and other rules for some of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from steepest import rules
from steepest.engine.optimizer import RuleOptimizer
from steepest.errors import UserError
from steepest.group import no_decay, split
from steepest.rule import Rule


def optimizer(
    model: torch.nn.Module,
    rule: Rule | str,
    groups: Mapping[str, Rule | str] | None = None,
    *,
    decay_all: bool = False,
    lr_scale: Mapping[str, float] | None = None,
) -> RuleOptimizer:
    """A RuleOptimizer of the model's trainable weights, each under its name.

    rule: a Rule or the name of one.
    groups: patterns of names → rules, as in {"embed*|head*|*bias": "adamw"}; the first that fits.
    decay_all: let weight decay pull biases, norms and embeddings too.
    lr_scale: patterns of names → factors of the learning rate; the first that fits."""
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trainable:
        raise UserError("The model has no weight to train: all are frozen, or there are none.")
    chosen = _first_match(trainable, groups or {}, rule)
    factors = _first_match(trainable, lr_scale or {}, 1.0)
    main = _as_rule(rule)
    made: dict[tuple[Rule, float], dict[str, Any]] = {}
    for name, weight in trainable.items():
        decays = decay_all or not no_decay(name, weight.shape, _kind(model, name))
        own = main if chosen[name] is rule else _as_rule(chosen[name])
        own = own if decays or not hasattr(own, "weight_decay") else replace(own, weight_decay=0.0)
        group = made.setdefault((own, factors[name]), {"params": [], "rule": own, "lr_scale": factors[name]})
        group["params"].append((name, weight))
    return RuleOptimizer(list(made.values()), main)


def _first_match(names: Mapping[str, Any], by_pattern: Mapping[str, Any], otherwise: Any) -> dict[str, Any]:
    """For each name what belongs to the first pattern that it fits."""
    claims = split(list(names), list(by_pattern))
    values = [*by_pattern.values(), otherwise]
    return {name: value for claimed, value in zip(claims, values, strict=True) for name in claimed}


def _as_rule(rule: Rule | str) -> Rule:
    return rules.named(rule) if isinstance(rule, str) else rule


def _kind(model: torch.nn.Module, name: str) -> str:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__
