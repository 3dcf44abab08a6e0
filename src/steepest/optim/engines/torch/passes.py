"""Steps that are more than one pass: gradients at two places, curvature, updates that autograd records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from steepest.optim.engines.torch import ascent, behind, curvature, recorded
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

Step: TypeAlias = Callable[..., Any]


def needed(rules: Sequence[Rule], groups: Sequence[Mapping[str, Any]]) -> Step | None:
    """How an optimizer steps where that is not one plan over gradients; None for ordinary rules."""
    climbs, reads = any(rule.ascent for rule in rules), any(rule.reads for rule in rules)
    if climbs + any(map(curved, rules)) + any(map(looks_back, rules)) > 1:
        raise UserError(
            "Rules that read curvature, the gradient at the last weights (MARSExact), or that up the slope "
            "(sam, asam) take passes of their own, and cannot be together in one optimizer. Take one."
        )
    if any(group.get("differentiable") for group in groups):
        if climbs or reads:
            raise UserError("differentiable=True is for rules of one pass; leave it out.")
        return recorded.step
    return several if climbs or reads else None


def several(optimizer: Any, closure: Any, scale: float, gradients: Any, reads: Any) -> Any:
    """A step of rules that take passes of their own; gradients or arrays that are given stand for them."""
    loss = None
    if gradients is None and reads is None:
        loss, gradients, reads = take(optimizer, closure)
    optimizer.move(scale, gradients, behind.as_gradients(optimizer, scale, reads))
    return loss


def curved(rule: Rule) -> bool:
    """Whether a rule reads curvature, for which the loss is differentiated twice."""
    return bool(rule.reads) and not looks_back(rule)


def looks_back(rule: Rule) -> bool:
    """Whether a rule reads the gradient at the weights of the step before."""
    return behind.PAST in rule.reads


def whose(optimizer: Any) -> str:
    """The name of a rule that takes more than one pass; empty where each takes one."""
    return next((type(rule).__name__ for rule in optimizer.rules if rule.ascent or rule.reads), "")


def take(optimizer: Any, closure: Callable[[], Any] | None) -> tuple[Any, Sequence[Any], Any]:
    """(loss, gradients, reads) of all passes; the weights are where they were, nothing is updated."""
    second = any(map(curved, optimizer.rules))
    if closure is None:
        what = "returns the loss without backward()" if second else "calls backward() and returns the loss"
        raise UserError(
            f"{whose(optimizer)} takes more than one pass: call step(closure) with a function that {what}."
        )
    with torch.enable_grad():
        if second:
            loss, reads = curvature.measured(optimizer, closure)
        elif any(map(looks_back, optimizer.rules)):
            loss, reads = behind.twice(optimizer, closure)
        else:
            loss, reads = ascent.twice(optimizer, closure), None
    return loss, [weight.grad for group in optimizer.param_groups for weight in group["params"]], reads


def look(optimizer: Any, compute: Callable[[], Any]) -> tuple[Any, Sequence[Any], Any]:
    """`take` from a function that computes the loss and calls no backward, whatever the rule."""

    def closure() -> Any:
        loss = compute()
        loss.backward()
        return loss.detach()

    if whose(optimizer):
        return take(optimizer, compute if any(map(curved, optimizer.rules)) else closure)
    return closure(), [weight.grad for group in optimizer.param_groups for weight in group["params"]], None
