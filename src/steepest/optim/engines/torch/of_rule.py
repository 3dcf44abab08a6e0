"""`class_of`: a class of optimizers for a rule, its hyperparameters as arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from inspect import Parameter, Signature, cleandoc
from typing import Any, ClassVar

import torch

from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.state import at_step, places
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

FLAGS = {"maximize": False, "differentiable": False}
"""What of torch's flags means something for every rule."""
KEPT = {field.name: field.default for field in fields(Memory)}
"""How weights and state are kept. Where a rule has a field of such a name, the argument is the rule's."""


class OfRule(RuleOptimizer):
    """The optimizer that moves weights by the rule `kind`."""

    kind: ClassVar[type[Rule]]
    __signature__: ClassVar[Signature]

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        bound = self.__signature__.bind(params, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        rule = self.kind(**_fields(self.kind, given))
        held = [*(entry for entry, _ in places(self.kind).values()), *FLAGS]
        kept = {name: given[name] for name in by_name(self.kind) if name not in FLAGS}
        super().__init__(params, rule, at_step(1, {entry: given[entry] for entry in held}), **kept)


def class_of(rule: type[Rule]) -> type[OfRule]:
    """The optimizer of a rule, under its name. Any number may be a 0-dim tensor or a schedule."""
    signature = _signature(rule)
    body = {
        "kind": rule,
        "__signature__": signature,
        "__doc__": f"{cleandoc(rule.__doc__ or '')}\n\n{rule.__name__}{signature}",
        "__module__": "steepest.torch",
    }
    return type(rule.__name__, (OfRule,), body)


def _signature(rule: type[Rule]) -> Signature:
    """params, the rule's fields in their order, with its betas as one tuple, and the flags."""
    arguments: dict[str, Any] = {"params": Parameter.empty}
    for name, (entry, place) in _arguments(rule).items():
        default = rule.__dataclass_fields__[name].default
        arguments[entry] = default if place is None else (*arguments.get(entry, ()), default)
    made = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=own) for name, own in arguments.items()]
    rest = by_name(rule).items()
    return Signature(made + [Parameter(name, Parameter.KEYWORD_ONLY, default=own) for name, own in rest])


def by_name(rule: type[Rule]) -> dict[str, Any]:
    """The arguments of a rule's class that are given by name only, with their defaults."""
    own = {field.name for field in fields(rule)}
    return {name: default for name, default in (FLAGS | KEPT).items() if name not in own}


def _arguments(rule: type[Rule]) -> dict[str, tuple[str, int | None]]:
    """Where the arguments hold each field: (argument, place in its tuple or None)."""
    return {field.name: places(rule).get(field.name, (field.name, None)) for field in fields(rule)}


def _fields(rule: type[Rule], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a rule out of the arguments of its class; 0-dim tensors as the floats that they hold."""
    where = _arguments(rule)
    for entry in {entry for entry, place in where.values() if place is not None}:
        wanted = sum(other == entry for other, _ in where.values())
        if not isinstance(given[entry], tuple | list) or len(given[entry]) != wanted:
            raise UserError(f"{entry} of {rule.__name__} must be {wanted} numbers, got {given[entry]!r}.")
    found = {
        name: given[entry] if place is None else given[entry][place] for name, (entry, place) in where.items()
    }
    return {name: _number(name, value) for name, value in found.items()}


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element")  # torch.optim's words
    return float(value.detach())
