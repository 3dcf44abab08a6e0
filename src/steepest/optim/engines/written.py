"""A rule as plain data and back: names, numbers and curves, never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from steepest.optim import rules, schedule
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.rule import Rule

Data = dict[str, Any]


def rule_data(rule: Rule) -> Data:
    """{"rule": its name, and every hyperparameter}; a curve is a table of its own."""
    name = rules.name_of(rule)
    if rules.registry().get(name.rpartition("+")[2]) not in type(rule).__mro__:
        raise UserError(
            f"{type(rule).__name__} is no rule of steepest, so that its name alone would not bring it back. "
            f"Save the model without its optimizer."
        )
    return {"rule": name} | {field.name: _data(getattr(rule, field.name)) for field in fields(rule)}


def rule_of(data: Mapping[str, Any]) -> Rule:
    """The rule that `rule_data` gave."""
    hyper = {name: _value(value) for name, value in data.items() if name != "rule"}
    return rules.named(data["rule"], **hyper)


def curve_data(curve: Any) -> Data:
    """{"schedule": the name of its class, and every field}."""
    if type(curve) not in vars(schedule).values():
        raise UserError(
            f"{curve!r} cannot be written down: a file holds no code. Take a curve of steepest.schedule "
            f"where a rule is to be saved."
        )
    return {
        "schedule": type(curve).__name__,
        **{field.name: _data(getattr(curve, field.name)) for field in fields(curve)},
    }


def curve_of(data: Mapping[str, Any]) -> schedule.Schedule:
    """The curve that `curve_data` gave."""
    kinds = {kind.__name__: kind for kind in vars(schedule).values() if _is_curve(kind)}
    if data["schedule"] not in kinds:
        raise UserError(f"There is no curve {data['schedule']!r}.{did_you_mean(data['schedule'], kinds)}")
    return kinds[data["schedule"]](
        **{name: _value(value) for name, value in data.items() if name != "schedule"}
    )


def _is_curve(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, schedule.Schedule)


def _data(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_data(each) for each in value]
    return curve_data(value) if callable(value) else value


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_value(each) for each in value)
    return curve_of(value) if isinstance(value, Mapping) else value
