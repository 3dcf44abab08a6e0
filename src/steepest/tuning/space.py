"""`Space`: everything that a search by trials draws, over the ranges that rules declare."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from steepest.optim import rules
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, coupled
from steepest.train.job import Job
from steepest.train.settled import rule_of
from steepest.tuning.candidates import default, families
from steepest.tuning.constants import COUPLED_MANY

REACH = 100.0
"""How far below and above its default a number without a bound is searched, as a factor."""

NEAR_ONE = 10.0
"""The same for the distance from 1 of a share that is kept: 0.9 is searched from 0 to 0.99."""

COUNTS = 4
"""The same for whole numbers."""

DECOUPLED = 1e-2
"""Middle of the range of a decoupled weight decay whose default is none: AdamW's."""

LARGEST_DECAY = 1.0
"""From here on a rate of 1e-3 forgets a weight within a thousand updates."""

UNTRIED = {"seed", "batch_axes", "factor_from", "largest", "blocks", "flat", "peak"}
"""What decides about memory, chance or the form of weights, and not about how a network learns; and the peak,
which is the rate's."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both of them tried, or `choices`.

    log    whether equal ratios are equally likely, not equal differences;   whole  whole numbers alone
    rest   what is drawn is 1 less the number: shares near 1 differ by that"""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    rest: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def drawn(self) -> str:
        """What is drawn, as a name."""
        return f"1 - {self.name}" if self.rest else self.name

    def turned(self, number: Any) -> Any:
        """The value of what was drawn; and what is drawn for a value."""
        return 1.0 - number if self.rest else number

    def holds(self, value: Any) -> bool:
        """Whether a search may come upon this value."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= self.turned(value) <= self.high

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(map(str, self.choices))
        ends = sorted((self.turned(self.low), self.turned(self.high)))
        scale = (
            ", by the logarithm of the distance from 1"
            if self.rest
            else ", by the logarithm"
            if self.log
            else ""
        )
        return f"{ends[0]:.4g} to {ends[1]:.4g}{scale}"


def of_rule(rule: Rule) -> dict[str, Range]:
    """All that can be searched of a rule, around the values that it holds."""
    found = [_of_field(rule, field.name, field.type) for field in fields(rule) if field.name not in UNTRIED]
    return {one.name: one for one in found if one is not None}


def usual(rule: Rule) -> dict[str, Range]:
    """What is searched where the rule itself is: its rate, its weight decay, its shares and switches.

    Constants such as ε and counts such as ranks are searched where they are asked for."""
    found = of_rule(rule).items()
    return {name: one for name, one in found if name in ("lr", "weight_decay") or _is_share(rule, one)}


def _is_share(rule: Rule, one: Range) -> bool:
    quantity = rule.quantity(one.name)
    return bool(one.choices) or (quantity is not None and quantity.high == 1)


def _of_field(rule: Rule, name: str, kind: Any) -> Range | None:
    value, quantity = getattr(rule, name), rule.quantity(name)
    if kind in ("bool", bool):
        return Range(name, choices=(False, True))
    if callable(value) or quantity is None:
        return None
    if name == "weight_decay":
        return _of_decay(rule, value)
    if kind in ("int", int):
        return _count(name, value, quantity)
    return _number(name, value, quantity) if kind in ("Number", Number) else None


def _of_decay(rule: Rule, value: float) -> Range:
    middle = value or (COUPLED_MANY if type(rule).couple is coupled else DECOUPLED)
    return Range("weight_decay", middle / REACH, min(middle * REACH, LARGEST_DECAY), log=True)


def _count(name: str, value: int, quantity: Quantity) -> Range | None:
    """None where the default says that nothing is counted."""
    if value <= 0:
        return None
    return Range(name, max(math.ceil(value / COUNTS), quantity.low, 1), value * COUNTS, log=True, whole=True)


def _number(name: str, value: float, quantity: Quantity) -> Range | None:
    """Between two bounds evenly; towards a bound of 1 that is out of reach, and without one, by ratios."""
    low, high = quantity.low, quantity.high
    if high == 1 and not quantity.closed and value >= 0.5:
        apart = round(1 - value, 15)  # 1 - 0.9 is 0.09999999999999998
        most = (1 - low) * (0.99 if quantity.open else 1)
        return Range(name, apart / NEAR_ONE, min(apart * NEAR_ONE, most), log=True, rest=True)
    if high < math.inf:
        edge = (high - low) / 100
        return Range(name, low + edge * quantity.open, high - edge * (not quantity.closed))
    if not low < value < math.inf:  # a default that switches off has no scale
        return None
    return Range(name, low + (value - low) / REACH, low + (value - low) * REACH, log=True)


Draw = Callable[[str, Range], Any]
"""Gives a number of a range, or one of its choices, under this name."""

SEARCHED = ("rule", "lr", "weight_decay", "batch_size", "schedule")
"""Settings that can be searched by trials; the others are measured by the engine of ours."""

BESIDE = ("nadamw", "lion")
"""Rules that are tried beside those that are compared in the engine of ours."""

SCHEDULES = ("linear", "cosine", "constant")

SMALLEST, LARGEST = 16, 1024
"""Batches that are tried, as far as an epoch keeps LEAST updates."""
LEAST = 8


@dataclass(frozen=True)
class Space:
    """What is drawn.

    rules    rules that are tried by name, each with the ranges of its numbers
    settings ranges of settings that are none of a rule's
    fixed    settings that all trials share;   hyper  hyperparameters that they share"""

    rules: Mapping[str, tuple[Rule, Mapping[str, Range]]]
    settings: Mapping[str, Range]
    fixed: Mapping[str, Any]
    hyper: Mapping[str, Any]

    def settings_of(self, draw: Draw) -> dict[str, Any]:
        """The settings of one trial."""
        name = next(iter(self.rules))
        if len(self.rules) > 1:
            name = draw("rule", Range("rule", choices=tuple(self.rules)))
        rule, numbers = self.rules[name]
        made = {key: one.turned(draw(self._called(name, one), one)) for key, one in numbers.items()}
        free = {key: draw(one.drawn, one) for key, one in self.settings.items()}
        own = {
            key: made.pop(key, self.fixed.get(key)) for key in ("lr", "weight_decay") if hasattr(rule, key)
        }
        none = {"weight_decay": None, **own}
        return {"rule": name, **none, "hyper": {**self.hyper, **made}, **free}

    def default(self) -> dict[str, Any]:
        """What is drawn where nothing is searched, as far as the space holds it: the trial to beat."""
        name = next(iter(self.rules))
        rule, numbers = self.rules[name]
        drawn = {self._called(name, one): one.turned(getattr(rule, key)) for key, one in numbers.items()}
        held = {self._called(name, one) for key, one in numbers.items() if one.holds(getattr(rule, key))}
        first = {"rule": name} if len(self.rules) > 1 else {}
        free = {key: self.fixed[key] for key, one in self.settings.items() if one.holds(self.fixed[key])}
        return {**first, **{key: drawn[key] for key in held}, **free}

    def points(self) -> list[dict[str, Any]]:
        """Every draw that there is, where all that is drawn are choices; none where numbers are."""
        found = []
        for name, (_, numbers) in self.rules.items():
            every = {self._called(name, one): one for one in numbers.values()} | dict(self.settings)
            if not all(one.choices for one in every.values()):
                return []
            first = {"rule": name} if len(self.rules) > 1 else {}
            drawn = product(*(one.choices for one in every.values()))
            found += [first | dict(zip(every, each, strict=True)) for each in drawn]
        return found

    def ranges(self, rule: str) -> dict[str, Range]:
        """All that was searched together with this rule, by the names of settings and hyperparameters."""
        return {**self.rules[rule][1], **self.settings}

    def _called(self, rule: str, one: Range) -> str:
        """Numbers of several rules are told apart: the rates of two say nothing to each other."""
        return f"{rule} {one.drawn}" if len(self.rules) > 1 else one.drawn


def space(job: Job, also: Sequence[str] = ()) -> Space:
    """What the recipe of a job leaves open, and these hyperparameters besides.

    Raises UserError where a trial cannot tell about a setting, or no rule has a hyperparameter."""
    asked = job.asked
    strangers = [name for name in asked.open if name not in SEARCHED]
    if strangers:
        raise UserError(
            f"Trials are compared by their losses, which do not tell {strangers[0]!r}. Leave it out, or take "
            f'engine="steepest". Trials search {", ".join(SEARCHED)} and hyperparameters of rules.'
        )
    free = "rule" in asked.open
    tried = _rules(job) if free else {job.recipe.rule: rule_of(job.recipe, job.given)}
    fixed = {name: getattr(job.recipe, name) for name in SEARCHED}
    for name in ("lr", "weight_decay"):  # where the rule is open the job's are numbers of one of them
        fixed[name] = getattr(asked if free else job.recipe, name)
    chosen = {name: (one, _numbers(one, _opened(job), also)) for name, one in tried.items()}
    _check_named(also, tried, job)
    return Space(chosen, _settings(job), fixed, asked.hyper)


def _rules(job: Job) -> dict[str, Rule]:
    compared = families(default(job.recipe), True, job.model)
    return {
        name: rules.named(name)
        for name in dict.fromkeys((*(candidate.rule for candidate in compared), *BESIDE))
    }


def _opened(job: Job) -> tuple[str, ...]:
    """What is open; together with the rule also its rate and decay, where nobody has said one."""
    opened, scheduled = job.asked.open, job.given.schedule is not None  # such a schedule holds the rate
    if "rule" not in opened:
        return opened
    with_it = ("weight_decay",) if scheduled else ("lr", "weight_decay")
    return (*opened, *(name for name in with_it if getattr(job.asked, name) is None))


def _numbers(rule: Rule, opened: Sequence[str], also: Sequence[str]) -> dict[str, Range]:
    every = of_rule(rule)
    names = [*(usual(rule) if "rule" in opened else ()), *also]
    free = {name: every[name] for name in names if name in every and name not in ("lr", "weight_decay")}
    own = {name: every[name] for name in ("lr", "weight_decay") if name in opened and name in every}
    return {**own, **free}


def _check_named(also: Sequence[str], tried: Mapping[str, Rule], job: Job) -> None:
    if also and job.given.rule is not None:
        raise UserError("The rule is an object with schedules, whose numbers cannot be drawn. Name the rule.")
    known = {name for rule in tried.values() for name in of_rule(rule)}
    for name in also:
        if name not in known:
            raise UserError(
                f"{', '.join(tried)} has no {name!r} that can be searched.{did_you_mean(name, known)}"
            )


def _settings(job: Job) -> dict[str, Range]:
    found = {}
    if "batch_size" in job.asked.open and (sizes := _sizes(job)):
        found["batch_size"] = Range("batch_size", choices=sizes)
    if "schedule" in job.asked.open:
        found["schedule"] = Range("schedule", choices=SCHEDULES)
    return found


def _sizes(job: Job) -> tuple[int, ...]:
    """Powers of two, of which an epoch holds several, and the size that the recipe has; none where these are
    fewer than two, or a loader brings batches of its own."""
    examples, own = job.prepared.sizes.get("train"), job.recipe.batch_size
    if examples is None or job.prepared.source.view.own_order:
        return ()
    powers = (SMALLEST * 2**power for power in range(20))
    sizes = {size for size in powers if size <= min(LARGEST, examples // LEAST)}
    sizes |= {own} if isinstance(own, int) and own <= examples else set()
    return tuple(sorted(sizes)) if len(sizes) > 1 else ()
