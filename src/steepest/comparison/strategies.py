"""`Strategy`: what one side of a comparison does otherwise; and what no side may."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from steepest.optim import rules
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.rule import Rule
from steepest.recipe import Recipe, nearest, parse_value
from steepest.train.given import Given, separate

COMMON = {
    *("format", "data", "data_fingerprint", "target", "task", "val", "test", "split", "split_by"),
    *("sample_weight", "seed", "budget", "monitor", "mode"),
}
"""Settings that belong to all: pairs would be no pairs, or conditions not equal, where one had its own."""

OF_THE_LOSS = ("loss", "label_smoothing", "focal_gamma", "huber_delta", "class_weight", "scale")
"""Settings that change what a loss measures; strategies that differ in one are judged by another metric."""

OF_THE_RULE = ("hyper", "weight_decay")
"""Settings of a recipe that say nothing to another rule."""

OF_THE_SCHEDULE = ("patience",)

NAME = re.compile(r"\w[\w.+ -]*")
KEYS = re.compile(r"\s+(?=\w+=)")


@dataclass(frozen=True)
class Strategy:
    """One side of a comparison.   settings: those in which it differs, as `fit` takes them"""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], Given]:
        return separate(self.settings)

    @property
    def written(self) -> dict[str, Any]:
        """The settings as a recipe can hold them."""
        return self._parts[0]

    @property
    def objects(self) -> Given:
        """The settings that only Python can hold."""
        return self._parts[1]

    @property
    def pinned(self) -> bool:
        """Whether its rate is given: as a number, in a rule object, or by a schedule object."""
        return "lr" in self.written or self.objects.rule is not None or self.objects.schedule is not None


def strategies_of(asked: Mapping[str, Any] | Iterable[str]) -> tuple[Strategy, ...]:
    """The strategies in what a person gives: {name: settings or Rule}, or names of rules.

    A name that is a rule's stands for that rule where the settings do not name another.
    Raises UserError for fewer than two, and for names or settings that cannot be."""
    if isinstance(asked, str) or not isinstance(asked, Iterable):
        raise UserError(f"compare takes several strategies, got {asked!r}. Write {{name: settings, …}}.")
    found = tuple(_strategy(name, settings) for name, settings in _pairs(asked))
    _check_names([one.name for one in found])
    if len(found) < 2:
        got = found[0].name if found else "none"
        raise UserError(f"A comparison takes two strategies or more, got {got}. To train one, use fit.")
    return found


def from_command(rules_named: str | None, sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Strategies as the command line writes them: "adamw,sgd", and "wide: hidden=[512] lr=1e-3"."""
    names = [name.strip() for name in rules_named.split(",")] if rules_named else []
    pairs: list[tuple[str, dict[str, Any]]] = [(name, {"rule": name}) for name in names]
    pairs += [_spoken(side) for side in sides]
    _check_names([name for name, _ in pairs])
    return dict(pairs)


def check(strategies: Sequence[Strategy], shared: Mapping[str, Any]) -> None:
    """Raises UserError where conditions would not be equal, or two strategies are one."""
    defaults = {name: setting.default for name, setting in Recipe.model_fields.items()}
    common = defaults | separate(shared)[0]
    resolved = {one.name: common | one.written for one in strategies}
    for index, one in enumerate(strategies):
        for before in strategies[:index]:
            if resolved[one.name] == resolved[before.name] and one.objects == before.objects:
                raise UserError(
                    f"The strategies {before.name!r} and {one.name!r} are the same. Leave one out, or "
                    "say what differs."
                )
    if str(common["monitor"]).endswith("/loss"):
        _check_losses(resolved)


def with_inherited(
    strategies: Sequence[Strategy], recipe: Mapping[str, Any], brought: Collection[str] = ()
) -> tuple[tuple[Strategy, ...], dict[str, Any]]:
    """(strategies, what they share) of a recipe: its rate is no one's, and what belongs to its rule or
    schedule goes to those strategies that have the same.

    brought  settings that nobody has said, which a measured schedule has brought along"""
    of_schedule = {*OF_THE_SCHEDULE, *brought}
    own = {"lr", *OF_THE_RULE, *of_schedule}
    shared = {key: value for key, value in recipe.items() if key not in own}
    whole = (
        Strategy(one.name, {**_passed_on(one, recipe, of_schedule), **one.settings}) for one in strategies
    )
    return tuple(whole), shared


def _passed_on(strategy: Strategy, recipe: Mapping[str, Any], of_schedule: Collection[str]) -> dict[str, Any]:
    same_rule = strategy.written.get("rule", recipe.get("rule")) == recipe.get("rule")
    same_schedule = strategy.written.get("schedule", recipe.get("schedule")) == recipe.get("schedule")
    keys = {*(OF_THE_RULE if same_rule else ()), *(of_schedule if same_schedule else ())}
    return {key: value for key, value in recipe.items() if key in keys}


def _spoken(side: str) -> tuple[str, dict[str, Any]]:
    name, colon, rest = side.partition(":")
    settings = [one.partition("=") for one in KEYS.split(rest.strip()) if one]
    if not colon or not all(equals for _, equals, _ in settings):
        raise UserError(
            f"--strategy takes 'NAME: KEY=VALUE …', got {side!r}. Such as 'fast: rule=sgd lr=0.1'."
        )
    return name.strip(), {key: parse_value(value.strip()) for key, _, value in settings}


def _pairs(asked: Mapping[str, Any] | Iterable[str]) -> Iterator[tuple[Any, Any]]:
    if isinstance(asked, Mapping):
        yield from asked.items()
    else:
        yield from ((name, {"rule": name}) for name in asked)


def _strategy(name: Any, settings: Any) -> Strategy:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"A strategy is named by letters, digits and . + - _, as folders are named after it, "
            f"got {name!r}."
        )
    if isinstance(settings, Rule):
        settings = {"rule": settings}
    if not isinstance(settings, Mapping):
        raise UserError(
            f"The strategy {name!r} must be a dict of settings or a Rule, got {type(settings).__name__}. "
            f'Write for example {{{name!r}: {{"rule": "adamw", "lr": 1e-3}}}}.'
        )
    known = dict(settings)
    _check_settings(name, known)
    if "rule" not in known and _is_rule(name):
        known["rule"] = name
    if not known:
        raise UserError(
            f"The strategy {name!r} has no settings, and is no rule.{did_you_mean(name, rules.registry())}"
        )
    return Strategy(name, known)


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key in COMMON:
            raise UserError(
                f"The strategy {name!r} has {key}={settings[key]!r}; {key} is the same for all strategies of "
                f"a comparison. Give it beside them: compare(…, {key}=…)."
            )
        if key not in Recipe.model_fields:
            near = nearest(str(key))
            raise UserError(f"The strategy {name!r} has {key!r}, which is no setting.{near}")


def _is_rule(name: str) -> bool:
    try:
        rules.named(name)
    except UserError:
        return False
    return True


def _check_names(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name.lower() in [before.lower() for before in names[:index]]:
            raise UserError(f"The strategy {name!r} is given twice. Leave one out, or give it another name.")


def _check_losses(resolved: Mapping[str, Mapping[str, Any]]) -> None:
    for key in OF_THE_LOSS:
        values = {name: settings[key] for name, settings in resolved.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            told = ", ".join(f"{name}: {value!r}" for name, value in values.items())
            raise UserError(
                f"The strategies differ in {key} ({told}), so that their losses are not of one kind. Judge "
                'them by another metric, for example monitor="val/accuracy" or monitor="val/rmse".'
            )
