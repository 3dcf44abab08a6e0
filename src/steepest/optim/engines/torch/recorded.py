"""Updates that autograd records: weights and state after a step as functions of those before it."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from steepest.optim.engines.on_torch import TORCH, real, start, wide
from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.state import places, slot_keys
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def step(optimizer: Any, closure: Any, scale: float, gradients: Any, reads: Any) -> Any:
    """One step, operation by operation; all that it reads may want gradients, 0-dim numbers too.

    Weights change in place, so they must not be leaves; entries of the state are replaced."""
    loss = None if closure is None else torch.enable_grad()(closure)()
    rules = [_open(optimizer, index) for index in range(len(optimizer.param_groups))]
    given = None if gradients is None else iter(gradients)
    with torch.enable_grad():
        for rule, group in zip(rules, optimizer.param_groups, strict=True):
            turned = -scale if group.get("maximize") else scale
            for weight in group["params"]:
                gradient = weight.grad if given is None else next(given)
                if gradient is not None:
                    _move(rule, weight, gradient, turned, optimizer.state[weight])
    optimizer.steps += 1
    return loss


def _open(optimizer: Any, index: int) -> Rule:
    """The rule of a group with its 0-dim tensors in the place of their numbers."""
    group = optimizer.param_groups[index]
    rule = copy(optimizer.rule_of(group))
    if rule.sums:
        raise UserError(
            f"differentiable=True is for rules that move each element by itself; {type(rule).__name__} sums "
            "over many. Leave it out."
        )
    if optimizer.memories[index] != Memory(seed=optimizer.memories[index].seed):
        raise UserError(
            "differentiable=True keeps weights and state in full, and no average: leave moments=, rounding= "
            "and average= out."
        )
    for name, (entry, place) in places(type(rule)).items():
        value = group.get(entry)
        value = value if place is None or value is None else value[place]
        if isinstance(value, Tensor):
            by = optimizer.factor * group.get("lr_scale", 1.0) if name == "lr" else 1.0
            object.__setattr__(rule, name, value.reshape(()) * by)
    return rule


def _move(rule: Rule, weight: Tensor, gradient: Tensor, scale: float, entry: dict[str, Any]) -> None:
    keys = slot_keys(rule)
    if any(entry.get(key) is None for key in keys):
        fresh = zip(keys, start(rule, weight), strict=True)
        entry.update({key: slot for key, slot in fresh if entry.get(key) is None})
    t = int(entry.get("step", 0)) + 1
    shared = {name: float(entry.get(name, first)) for name, first in rule.shared.items()}
    k, following = rule.constants(TORCH, t, shared)
    # A copy, for what is saved for backward must not be written to.
    before = wide(real(weight.clone()))
    arrays = [scale * real(gradient).to(before.dtype), *(real(entry[key]) for key in keys)]
    moved, *slots = rule.update(TORCH, k, before, *arrays)
    real(weight).copy_(moved)
    if weight.is_complex():
        slots = map(torch.view_as_complex, slots)
    entry.update(zip(keys, slots, strict=True))
    entry["step"] = torch.tensor(float(t))
    entry.update({name: torch.tensor(float(x), dtype=torch.float64) for name, x in following.items()})
