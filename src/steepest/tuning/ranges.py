"""`Range`: what a search may try for a setting or a hyperparameter, read off what its rule declares."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, coupled
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
