"""What stands in an optimizer's param_groups, as rules."""

from __future__ import annotations

import math
from itertools import chain
from operator import is_, itemgetter
from typing import Any

from steepest.optim.engines.pure import form
from steepest.optim.engines.state import follow_schedules, number, places
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


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
