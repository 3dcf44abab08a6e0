"""`Plan`: what a comparison asks, and the folder that it has; compare.toml holds it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from steepest.comparison import Place, is_comparison, strategies
from steepest.comparison.statistics import least_pairs
from steepest.comparison.strategies import Strategy
from steepest.files import LOCK
from steepest.optim.errors import UserError, did_you_mean
from steepest.recipe import Recipe, found_from, seen_from, toml_of
from steepest.train import settled
from steepest.train.budget import parse
from steepest.train.given import MARK, Given, separate

LEVEL = 0.05
"""Chance of one false claim or more among all of one kind that a verdict makes: differences, or times."""

FORMAT = 1
"""Version of compare.toml; another one is refused."""
KEYS = ("format", "seeds", "equal", "reference", "shared", "strategies")


@dataclass(frozen=True)
class Plan:
    """Strategies that are trained under equal conditions, each once a seed.

    shared      settings of all, as `fit` takes them, objects among them
    seeds       how many, from the shared seed on
    equal       what every run may spend alike: "steps", "time" or "gradients"
    reference   the strategy that sets the target of times
    """

    shared: Mapping[str, Any]
    strategies: tuple[Strategy, ...]
    seeds: int
    equal: str
    reference: str

    @property
    def budget(self) -> str:
        """What every run may spend, as it was asked."""
        return str(self.shared.get("budget", Recipe.model_fields["budget"].default))

    @property
    def seed_numbers(self) -> range:
        """The seeds themselves."""
        first = int(self.shared.get("seed", Recipe.model_fields["seed"].default))
        return range(first, first + self.seeds)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the strategies, in the order they were given in."""
        return tuple(one.name for one in self.strategies)

    def settings_of(self, strategy: Strategy, seed: int, lr: float | None) -> dict[str, Any]:
        """What `fit` is given for one run;   lr: the measured rate, or None where it is pinned."""
        own = {**self.shared, **strategy.settings, "seed": seed}
        own |= {} if lr is None else {"lr": lr}
        recipe, given = resolved(own)
        if recipe.rule == "auto":
            return own | {"budget": str(parse(self.budget))}
        rule = settled.rule_of(recipe.provisional(), given)
        return own | {"budget": strategies.budget_for(self.equal, self.budget, rule)}

    def measures_rate(self, strategy: Strategy) -> bool:
        """Whether the strategy's rate is left to be measured before its runs."""
        default = self.shared.get("rule", Recipe.model_fields["rule"].default)
        rule = strategy.written.get("rule", default)
        return rule != "auto" and not (strategy.pinned or "lr" in self.shared or self._pins(strategy))

    def _pins(self, strategy: Strategy) -> bool:
        """Whether an object that all share gives the strategy its rate."""
        shared = separate(self.shared)[1]
        of_all = {"rule": shared.rule, "schedule": shared.schedule}
        return any(one is not None and name not in strategy.settings for name, one in of_all.items())

    def asked(self) -> dict[str, Any]:
        """The question as plain values, without the number of seeds: comparisons that agree in it are one."""
        root = self.relative_to(Path(os.sep))
        return tomllib.loads(replace(root, seeds=0).to_toml())

    def objects(self) -> list[str]:
        """Settings that are objects of Python, which a file cannot hold: "model", "lion: schedule"."""
        sides = [("", separate(self.shared)[0]), *((f"{one.name}: ", one.written) for one in self.strategies)]
        return [
            f"{whose}{key}"
            for whose, written in sides
            for key, value in written.items()
            if isinstance(value, str) and value.startswith(MARK)
        ]

    def to_toml(self) -> str:
        """The plan as text; of objects their kind."""
        lines = ["# steepest comparison: `steepest resume` of this folder goes on with it"]
        own = {"format": FORMAT, "seeds": self.seeds, "equal": self.equal, "reference": self.reference}
        lines += [f"{key} = {toml_of(value)}" for key, value in own.items()]
        lines += ["", "[shared]", *_lines(separate(self.shared)[0])]
        for one in self.strategies:
            lines += ["", f"[strategies.{toml_of(one.name)}]", *_lines(one.written)]
        return "\n".join(lines) + "\n"

    def relative_to(self, folder: Path) -> Plan:
        """The same with files named as seen from `folder`; objects become their kinds."""
        moved = tuple(Strategy(one.name, seen_from(folder, one.written)) for one in self.strategies)
        return replace(self, shared=seen_from(folder, separate(self.shared)[0]), strategies=moved)


def planned(
    asked: Mapping[str, Any] | Iterable[str],
    settings: Mapping[str, Any],
    *,
    recipe: Mapping[str, Any] | None = None,
    brought: Collection[str] = (),
    seeds: int | None = None,
    equal: str | None = None,
    reference: str | None = None,
) -> Plan:
    """A checked plan.

    asked      the strategies, as a person gives them
    settings   what a person says of all of them
    recipe     what all have from an earlier run: a rate in it is no one's
    brought    what of it goes with its schedule alone
    seeds      None: as few as can separate that many strategies

    Raises UserError for what cannot be compared."""
    found = strategies.strategies_of(asked)
    if recipe is not None:
        found, inherited = strategies.with_inherited(found, recipe, brought)
        settings = {**inherited, **settings}
    budget = str(settings.get("budget", Recipe.model_fields["budget"].default))
    equal = strategies.equal_of(equal, budget)
    strategies.check(found, settings)
    strategies.check_epochs(equal, budget, found, settings)
    pairs = len(found) * (len(found) - 1) // 2
    plan = Plan(settings, found, _count(seeds, pairs), equal, _reference(reference, found))
    for one in found:
        plan.settings_of(one, 0, None)
    return plan


def read(path: Path) -> Plan:
    """The plan in a compare.toml; of what were objects, it holds the kind alone."""
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read as a comparison: {error}.") from None
    lost = [key for key in KEYS if key not in held]
    if lost or held["format"] != FORMAT:
        why = f"it lacks {', '.join(lost)}" if lost else f"it has the format {held['format']!r}, not {FORMAT}"
        raise UserError(f"{str(path)!r} is no comparison of this version: {why}.")
    shared = found_from(path.parent, held["shared"])
    sides = (Strategy(name, found_from(path.parent, own)) for name, own in held["strategies"].items())
    return Plan(shared, tuple(sides), held["seeds"], held["equal"], held["reference"])


def resolved(settings: Mapping[str, Any]) -> tuple[Recipe, Given]:
    """The recipe of settings, and the objects among them."""
    written, given = separate(settings)
    return Recipe.of(written), given


def _lines(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml_of(_plain(value))}" for key, value in settings.items()]


def _plain(value: Any) -> Any:
    """Tuples as lists, and numbers of NumPy as Python's."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value


def _count(seeds: int | None, pairs: int) -> int:
    if seeds is None:
        return least_pairs(LEVEL / pairs)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UserError(f"seeds must be a whole number from 1 on, got {seeds!r}.")
    return seeds


def _reference(asked: str | None, found: tuple[Strategy, ...]) -> str:
    names = [one.name for one in found]
    if asked is not None and asked not in names:
        near = did_you_mean(asked, names)
        raise UserError(f"The reference must be one of the strategies, got {asked!r}.{near}")
    return asked or names[0]


def free(path: Path, asked: Plan) -> Place:
    """The folder `path`, or path-2, path-3, …: the first that holds this very question, or nothing yet.

    What cannot be written down may have changed: with objects a comparison goes on where out= names it."""
    known = {"data"} if asked.shared.get("data_fingerprint") else set()
    unknown = set(asked.objects()) - known
    name = path.name
    for number in count(2):
        place = Place(path)
        if not path.exists() or {file.name for file in path.iterdir()} <= {LOCK}:
            return place
        if is_comparison(path) and not unknown and _is_same(read(place.plan), asked):
            return place
        path = path.with_name(f"{name}-{number}")
    raise AssertionError  # count has no end


def check_same(place: Place, asked: Plan) -> None:
    """Raises UserError unless the folder holds this question, with no more seeds than are asked for."""
    held = read(place.plan)
    before, now = _flat(held.asked()), _flat(asked.asked())
    differ = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if differ:
        told = "; ".join(f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in differ[:5])
        raise UserError(
            f"{str(place.path)!r} holds another comparison: {told}. Give this one another folder with out= "
            "(--out)."
        )
    if asked.seeds < held.seeds:
        raise UserError(
            f"{str(place.path)!r} holds this comparison with {held.seeds} seeds, and {asked.seeds} are "
            f"fewer. Ask for {held.seeds} or more, or give another folder with out= (--out)."
        )


def _is_same(held: Plan, asked: Plan) -> bool:
    return held.asked() == asked.asked() and held.seeds <= asked.seeds


def _flat(asked: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """{"shared.data": …} of nested tables."""
    found: dict[str, Any] = {}
    for key, value in asked.items():
        table = isinstance(value, dict) and under.count(".") < 2
        found |= _flat(value, f"{under}{key}.") if table else {f"{under}{key}": value}
    return found
