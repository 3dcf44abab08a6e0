"""Strategies under equal conditions: what each side does otherwise, and what all may spend alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from steepest.optim import rules
from steepest.optim.engines.torch.passes import by_labels, looks_back
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.rule import Rule
from steepest.recipe import Recipe, nearest, parse_value
from steepest.train.budget import Budget, parse
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


EQUAL = {
    "steps": "updates",
    "time": "seconds",
    "gradients": "gradient evaluations",
}
"""What may be equal → the unit of it."""


def equal_of(asked: str | None, budget: str) -> str:
    """What is equal; where a person has not said it, the budget's unit does: seconds, or else updates.

    Raises UserError for what cannot be held, and where nothing would be trained."""
    whole = parse(budget)
    if whole.amount == 0:
        raise UserError(
            f'A budget of {whole} trains nothing to compare. Write for example budget="500 steps".'
        )
    unit = whole.unit
    if asked is None:
        return "time" if unit == "seconds" else "steps"
    if asked not in EQUAL:
        raise UserError(f"equal must be steps, time or gradients, got {asked!r}.{did_you_mean(asked, EQUAL)}")
    if (asked == "time") != (unit == "seconds"):
        wanted = "60s" if asked == "time" else "500 steps"
        other = 'equal="steps"' if asked == "time" else 'equal="time"'
        raise UserError(
            f'equal="{asked}" cannot be held with a budget of {budget}. Write budget="{wanted}", or {other}.'
        )
    return asked


def check_epochs(equal: str, budget: str, strategies: Sequence[Strategy], shared: Mapping[str, Any]) -> None:
    """Epochs hold as many updates for all only where all have one batch size, that the run does not move."""
    if equal != "steps" or parse(budget).unit != "epochs":
        return
    default = shared.get("batch_size", Recipe.model_fields["batch_size"].default)
    sizes = {one.name: one.settings.get("batch_size", default) for one in strategies}
    for name, size in sizes.items():
        if _moves(size):
            raise UserError(
                f"Under batch_size={str(size)!r} ({name}) {budget} are not equally many updates: the batch "
                'goes by what a run finds. Write the budget in steps, as in budget="500 steps", or take '
                'equal="gradients".'
            )
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(
            f"Batch sizes differ ({told}), so that {budget} are not equally many updates. Write the budget "
            'in steps, as in budget="500 steps", or take equal="time".'
        )


def _moves(size: Any) -> bool:
    """Whether the rule, the noise or a search has a say in how many examples an update takes."""
    return str(size).strip().lower().partition(" ")[0] in ("auto", "growing", "following")


def budget_for(equal: str, budget: str, rule: Any) -> str:
    """The budget of a run by this rule: the same for all, or where gradients are equal, by what a step
    costs."""
    whole = parse(budget)
    if equal != "gradients":
        return str(whole)
    amount = whole.amount / gradients_a_step(rule)
    return str(Budget(max(1, round(amount)) if whole.unit == "steps" else amount, whole.unit))


def part_of(budget: str, share: float, least: int) -> str:
    """A share of a budget, in steps and epochs no fewer than `least` and no more than the whole."""
    whole = parse(budget)
    amount = whole.amount * share
    if whole.unit != "seconds":
        amount = min(whole.amount, max(least if whole.unit == "steps" else 1, round(amount)))
    return str(Budget(amount, whole.unit))


def axis_of(equal: str, budget: str) -> tuple[str, str]:
    """(column of metrics.csv, name on the picture) of what runs are laid beside each other by."""
    if equal == "time":
        return "seconds", "seconds"
    if equal == "gradients" and parse(budget).unit == "epochs":
        return "epoch", "passes over the data, forward and backward"
    return "step", "step" if equal == "steps" else "gradient evaluations"


def unit_of(equal: str, budget: str) -> str:
    """What a time to a target is counted in, on the axis of the picture."""
    name = axis_of(equal, budget)[1]
    return {"seconds": "time", "step": "updates"}.get(name, name)


PRODUCT = 2.0
"""Of a product of the Hessian with a vector: a pass back through the pass back."""
DRAWN = 1.0
"""Of a second gradient, for labels drawn from predictions."""


def gradients_a_step(rule: Any) -> float:
    """1 for ordinary rules, 2 for those that climb first (SAM) or look back (MARSExact); curvature by how
    often it is estimated."""
    if rule.perturb is not None:
        return 2.0
    if looks_back(rule):
        return 2.0
    if rule.extra_inputs:
        return 1.0 + (DRAWN if by_labels(rule) else PRODUCT) / rule.every
    return 1.0
