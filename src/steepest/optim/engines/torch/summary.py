"""What an optimizer will do to which weights, in words."""

from __future__ import annotations

from typing import Any

from steepest.optim.rule import Rule
from steepest.optim.schedule import height

_SHOWN = 4


def lines(optimizer: Any) -> list[str]:
    """One line a group: rule, rate, decay, and the weights it moves."""
    return [
        _line(optimizer.rule_of(group), optimizer.template(index), group)
        for index, group in enumerate(optimizer.param_groups)
    ]


def _line(rule: Rule, made_with: Rule, group: dict[str, Any]) -> str:
    numbers = sum(weight.numel() for weight in group["params"])
    decay = getattr(rule, "weight_decay", 0.0)
    decays = f"weight decay {decay:g}" if decay else "no weight decay"
    tensors = f"{len(group['params'])} tensor{'s' * (len(group['params']) != 1)}"
    weights = f"{tensors}, {numbers:,} number{'s' * (numbers != 1)}{_names(group)}"
    part = f"{group['part']}, " if "part" in group else ""
    return f"{type(rule).__name__}, lr {_rate(rule, made_with, group)}, {decays}: {part}{weights}"


def _rate(rule: Rule, made_with: Rule, group: dict[str, Any]) -> str:
    """The rate in force, or the height of a schedule that is not there yet."""
    highest = height(made_with.lr) * group.get("lr_scale", 1.0)
    return f"up to {highest:g}" if highest > rule.lr else f"{rule.lr:g}"


def _names(group: dict[str, Any]) -> str:
    names = group.get("param_names", [])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" ({', '.join(names[:_SHOWN])}{more})" if names else ""
