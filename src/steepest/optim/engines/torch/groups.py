"""What stands in an optimizer's param_groups: as rules, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import chain
from operator import is_, itemgetter
from typing import Any, TypeAlias

import torch

from steepest.optim.engines.pure import form
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.optim.schedule import height

Place: TypeAlias = tuple[str, int | None]


@cache
def places(rule: type[Rule]) -> dict[str, Place]:
    """Where torch's param_groups hold each number of a rule: (entry, place in its tuple or None)."""
    found: dict[str, Place] = {name: (name, None) for name in rule.numbers()}
    betas = [name for name in ("beta1", "beta2", "beta3") if name in found]
    if betas[:2] == ["beta1", "beta2"]:
        found |= {name: ("betas", index) for index, name in enumerate(betas)}
    return found


def group_of(rule: Rule, step: int = 1) -> dict[str, Any]:
    """The entries of torch's param_groups that hold this rule's hyperparameters at a global step."""
    now = rule.at(step)
    group: dict[str, Any] = {}
    for name, (entry, place) in places(type(rule)).items():
        value = getattr(now, name)
        group[entry] = value if place is None else (*group.get(entry, ()), value)
    return group


def follow_schedules(rule: Rule, step: int, group: dict[str, Any]) -> None:
    """Write what the rule's schedules say at a global step into an entry of param_groups."""
    due = [name for name in rule.numbers() if callable(getattr(rule, name))]
    now = rule.at(step) if due else rule
    for name in due:
        entry, place = places(type(rule))[name]
        value, old = getattr(now, name), group[entry]
        group[entry] = value if place is None else (*old[:place], value, *old[place + 1 :])


def at_step(step: int, entries: Mapping[str, Any]) -> dict[str, Any]:
    """These entries of a group with their schedules replaced by the values at a global step."""
    return {entry: _now(step, value) for entry, value in entries.items()}


def following(rule: Rule, entries: Mapping[str, Any]) -> Rule:
    """The rule with what these entries of a group say: their schedules, and no schedule where they hold a
    number."""
    held = _held(rule, entries).items()
    found = {name: value for name, value in held if callable(value) or callable(getattr(rule, name))}
    return replace(rule, **{k: v if callable(v) else number(v) for k, v in found.items()}) if found else rule


def scheduled(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these entries of a group that are schedules, or tuples with schedules in them."""
    return {entry: value for entry, value in entries.items() if _follows(value)}


def _follows(value: Any) -> bool:
    return callable(value) or (type(value) is tuple and any(map(callable, value)))


def _now(step: int, value: Any) -> Any:
    if type(value) is tuple:
        return tuple(_now(step, one) for one in value)
    return value(step) if callable(value) else value


def as_it_stands(rule: Rule, group: Mapping[str, Any]) -> Rule:
    """The rule with the numbers that stand in a group; UserError where one of them cannot be."""
    return replace(rule, **{name: number(value) for name, value in _held(rule, group).items()})


def _held(rule: Rule, group: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a group for each number of a rule, as far as it holds them."""
    held = {name: place for name, place in places(type(rule)).items() if place[0] in group}
    for entry in {entry for entry, place in held.values() if place is not None}:
        wanted, given = sum(own == entry for own, _ in held.values()), group[entry]
        if not isinstance(given, tuple | list) or len(given) != wanted:
            raise UserError(f"{entry} of {type(rule).__name__} must be {wanted} numbers, got {given!r}.")
    return {name: group[entry] if at is None else group[entry][at] for name, (entry, at) in held.items()}


def number(value: Any) -> Any:
    """A float, also out of a 0-dim tensor. What is no number stays as it is: the rule refuses it by name."""
    # float(tensor) warns where the tensor wants a gradient, as a differentiable step's may.
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else value.tolist()
    return float(value) if hasattr(value, "__float__") and not isinstance(value, bool) else value


class Groups:
    """The groups of an optimizer at its next step.

    rules    every hyperparameter a float
    forms    what of these is not a number
    weights  the lists of param_groups
    turns    -1 for a group that maximizes, 1 for others"""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.forms: list[Any] = []
        self.weights: list[Any] = []
        self.turns: list[float] = []
        self._made: list[_Made] = []
        self._seen: list[Any] = []
        self._factor = math.nan

    def follow(self, optimizer: Any) -> Groups:
        """These groups, once they are as param_groups are now; schedules are written there."""
        groups = optimizer.param_groups
        values = list(chain.from_iterable(map(dict.values, groups)))
        if (
            optimizer.factor != self._factor
            or len(values) != len(self._seen)
            or not all(map(is_, values, self._seen))
        ):
            self._make(optimizer, groups, values)
        return self

    def _make(self, optimizer: Any, groups: list[dict[str, Any]], values: list[Any]) -> None:
        self._seen = []  # until all of this is done: a number may be refused
        align(optimizer)
        made = self._made[: len(groups)]
        for index, group in enumerate(groups):
            template = optimizer.template(index)
            if index >= len(made) or made[index].template is not template:
                made[index:] = [_Made(template, group), *made[index + 1 :]]
        self._made = made
        self.rules = [one.rule(optimizer, group) for one, group in zip(made, groups, strict=True)]
        self.forms, self.weights = [one.form for one in made], [group["params"] for group in groups]
        self.turns = [-1.0 if group.get("maximize") else 1.0 for group in groups]
        self._factor = optimizer.factor
        # The very same floats cannot have changed; a tensor may have been written to, and a schedule may give
        # the same float again before it gives another.
        self._seen = values if not optimizer.timed and all(one.fixed for one in made) else []


def align(optimizer: Any) -> None:
    """Give each group what was made with it, where somebody took groups out or put them in another order."""
    now, known = optimizer.param_groups, optimizer.known
    if len(now) == len(known) and all(map(is_, now, known)):
        return
    places = {id(group): place for place, group in enumerate(known)}
    # A dict that is new stands for the one in whose place it is.
    order = [places.get(id(group), place) for place, group in enumerate(now)]
    if len(set(order)) < len(order) or max(order, default=0) >= len(known):
        raise UserError(
            f"param_groups holds {len(now)} groups, and one of them is not known here. "
            "Add groups by add_param_group: it says by which rule they move."
        )
    for name in optimizer.by_group:
        column = getattr(optimizer, name)
        column[:] = [column[place] for place in order]
    known[:] = now


class _Made:
    """The rule of a group as last made from the numbers in it."""

    def __init__(self, template: Rule, group: dict[str, Any]) -> None:
        self.template, self.form, self.made = template, form(template), template
        self.scheduled = any(callable(getattr(template, name)) for name in template.numbers())
        # What a group does not hold stays as in the template.
        self.places = {name: at for name, at in places(type(template)).items() if at[0] in group}
        self.entries = itemgetter(*dict.fromkeys(entry for entry, _ in self.places.values()), "params")
        self.seen: tuple[Any, ...] = ()
        self.by = math.nan

    def rule(self, optimizer: Any, group: dict[str, Any]) -> Rule:
        """The template with the group's values, its learning rate multiplied by factor and "lr_scale"."""
        if self.scheduled:
            follow_schedules(self.template, optimizer.steps + 1, group)
        entries, by = self.entries(group), optimizer.factor * group.get("lr_scale", 1.0)
        if by != self.by or not all(map(is_, entries, self.seen)):
            self.fixed = not self.scheduled and all(map(_fixed, entries[:-1]))
            self.made = self.made.having(self._changed(group, by))
            self.seen, self.by = entries if self.fixed else (None,), by
        return self.made

    def _changed(self, group: dict[str, Any], by: float) -> dict[str, float]:
        """The numbers that are not as in the rule made last."""
        changed, last = {}, vars(self.made)
        for name, (entry, place) in self.places.items():
            value = group[entry] if place is None else group[entry][place]
            value = value if type(value) is float else number(value)
            value = value * by if name == "lr" and type(value) is float else value
            if value != last[name]:
                changed[name] = value
        return changed


def _fixed(entry: Any) -> bool:
    """True where a hyperparameter cannot change without another object taking its place."""
    return type(entry) in (float, int) or (type(entry) is tuple and all(map(_fixed, entry)))


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
