"""What `hypertune` can turn: rates, any number of a rule, and dials of the loss or the augmentation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from steepest.optim.engines.torch.groups import places
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule
from steepest.optim.schedule import height
from steepest.train import gate

RATIO = math.log(0.1), math.log(3.0)
"""How far a rate may go from where it began: to a tenth, and to three times that."""
ODDS = math.log(10.0)
"""How far other numbers may go: ten times up or down, in odds where they are shares."""


@dataclass
class Reading:
    """One look at a knob, group by group: ⟨g⁺, ∂w/∂x⟩ after a step, ‖g‖ of the gradient that made it (of g⁺
    itself where that is of a validation loss), and ‖∂w/∂x‖."""

    dots: list[float]
    lengths: list[float]
    slopes: list[float]

    def cosine(self, groups: Sequence[int]) -> float:
        """Of these groups together: what is left of g along the change, at most ±1; 0 without any."""
        length, slope = (math.hypot(*(column[k] for k in groups)) for column in (self.lengths, self.slopes))
        found = sum(self.dots[k] for k in groups)
        return max(-1.0, min(1.0, found / (length * slope))) if length * slope > 0 else 0.0


@dataclass(frozen=True)
class Line:
    """Numbers between low and high on a line without ends: log-odds, or a logarithm where high is ∞."""

    low: float = 0.0
    high: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a value lies strictly between the ends."""
        return self.low < value < self.high

    def moved(self, value: float, by: float) -> float:
        """The value so far along the line."""
        if self.high == math.inf:
            return self.low + (value - self.low) * math.exp(by)
        odds = (value - self.low) / (self.high - value) * math.exp(by)
        return self.low + (self.high - self.low) * odds / (1 + odds)

    def slope(self, value: float) -> float:
        """The derivative of the value by the place on the line."""
        above = 1.0 if self.high == math.inf else (self.high - value) / (self.high - self.low)
        return (value - self.low) * above


@dataclass
class Dial:
    """A strength that a loss or an augmentation reads as `dial.value`, for `hypertune` to turn.

    low, high: it stays between them. It moves in its logarithm, or in log-odds where high is finite."""

    name: str
    value: float
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        for number in (self.value, self.low, self.high):
            if not isinstance(number, Real):
                raise UserError(f"The dial {self.name!r} is a number between two numbers, got {number!r}.")
        if not self.line.holds(self.value):
            raise UserError(
                f"The dial {self.name!r} must begin between {self.low:g} and {self.high:g}, got "
                f"{self.value!r}. An end is no place to begin: from 0 a logarithm cannot move."
            )

    @property
    def line(self) -> Line:
        """The line that it moves on."""
        return Line(self.low, self.high)

    def __float__(self) -> float:
        return self.value

    def turn_to(self, value: float) -> None:
        """From now on it stands there."""
        self.value = value

    def move(self, by: float) -> None:
        """Go so far along its line."""
        self.turn_to(self.line.moved(self.value, by))

    @contextmanager
    def turned(self, by: float) -> Iterator[None]:
        """Within it the dial is turned so far along its line."""
        before = self.value
        self.move(by)
        try:
            yield
        finally:
            self.turn_to(before)


@dataclass(kw_only=True)
class Knob(ABC):
    """What is tuned.

    held_out  whether only a validation loss may turn it
    moved     how far it has gone so far, one number or one a group
    samples   of the window that is open, a row a look
    settled   whether it will not move any more"""

    name: str
    held_out: bool
    moved: list[float] = field(default_factory=lambda: [0.0], init=False)
    samples: list[list[float]] = field(default_factory=list, init=False)
    settled: bool = field(default=False, init=False)

    @abstractmethod
    def speeds(self, rules: Sequence[Rule]) -> dict[int, dict[str, float]]:
        """What of each group's rule it moves, and how fast on its line."""

    @abstractmethod
    def look(self, reading: Reading) -> list[float]:
        """The sample that a reading gives."""

    @abstractmethod
    def turn(self, gain: float, warming: bool) -> bool:
        """Move as the window says; whether it has. warming: while the rate rises by itself."""

    @abstractmethod
    def values(self) -> list[Any]:
        """What it stands at."""

    @abstractmethod
    def turn_to(self, values: Sequence[Any]) -> None:
        """Stand at what `values` gave."""

    def shown(self) -> list[float]:
        """The values, as they are told."""
        return self.values()

    def sample(self, reading: Reading) -> None:
        """Take in a look."""
        self.samples.append(self.look(reading))

    def begin_window(self) -> None:
        """A window is over, and another begins."""
        self.samples = []

    def settle(self) -> None:
        """It will not move any more."""
        self.settled = True

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and what it has seen."""
        return {
            "values": self.values(),
            "moved": list(self.moved),
            "samples": [list(row) for row in self.samples],
            "settled": self.settled,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.turn_to(state["values"])
        self.moved, self.settled = list(state["moved"]), state["settled"]
        self.samples = [list(row) for row in state["samples"]]


@dataclass
class Rates(Knob):
    """The rates of all groups: their level, which only rises, and their ratios, which leave the level alone.

    shares: what part of the weights each group has. highest: the rate that none may pass, nor any schedule
    at its height.
    Samples hold the cosine of all together, then that of each group."""

    opt: RuleOptimizer
    shares: list[float]
    level: bool
    ratios: bool
    highest: float = math.inf
    name: str = field(default="lr", kw_only=True)
    held_out: bool = field(default=False, kw_only=True)
    risen: bool = field(default=False, init=False)  # the level has come to where it stays

    def __post_init__(self) -> None:
        self.moved = [0.0] * (1 + len(self.shares))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer; loading makes new ones."""
        return self.opt.param_groups

    def speeds(self, rules: Sequence[Rule]) -> dict[int, dict[str, float]]:
        """By the logarithm of the rate."""
        return {index: {"lr": rule.lr} for index, rule in enumerate(rules)}

    def look(self, reading: Reading) -> list[float]:
        """The sample that a reading gives."""
        every = range(len(self.shares))
        return [reading.cosine(every), *(reading.cosine([k]) for k in every)]

    def turn(self, gain: float, warming: bool) -> bool:
        """Move as the window says; whether anything has moved. warming: while the rate rises by itself."""
        moves = [0.0] * len(self.shares)
        if self.ratios and not warming:
            rows = [row[1:] for row in self.samples]
            moves = gate.moves_apart(rows, self.shares, gain, self._has_room)
        up = self._rise(gain, moves) if self.level and not self.risen else 0.0
        self.moved = [self.moved[0] + up, *(a + b for a, b in zip(self.moved[1:], moves, strict=True))]
        for group, by in zip(self.groups, moves, strict=True):
            group["lr_scale"] = group.get("lr_scale", 1.0) * math.exp(up + by)
        return bool(up) or any(moves)

    def _rise(self, gain: float, moves: Sequence[float]) -> float:
        """How far all go up after these moves, until longer steps no longer help: going down is the
        schedule's."""
        column = [row[0] for row in self.samples]
        mean, error = gate.mean_and_error(column)
        self.risen = len(column) >= gate.LEAST and mean > 2 * error  # one window of noise is no sign
        rates = [lr * math.exp(by) for lr, by in zip(self._heights(), moves, strict=True)]
        ceiling = math.log(self.highest / max(rates)) if max(rates) > 0 else 0.0
        furthest = self.moved[0] + max(a + b for a, b in zip(self.moved[1:], moves, strict=True))
        return max(0.0, min(gate.move(column, gain), RATIO[1] - furthest, ceiling))

    def _has_room(self, number: int, by: float) -> bool:
        ratio, rate = self.moved[1 + number] + by, self._heights()[number] * math.exp(by)
        within = RATIO[0] <= ratio and self.moved[0] + ratio <= RATIO[1]
        return within and (by <= 0 or rate <= self.highest)

    def _heights(self) -> list[float]:
        """The rates, or what they come to under schedules that are not at their height."""
        scales = (self.opt.factor * group.get("lr_scale", 1.0) for group in self.groups)
        curves = (self.opt.template(k).lr for k in range(len(self.groups)))
        tops = (height(curve) * scale for curve, scale in zip(curves, scales, strict=True))
        return [max(pair) for pair in zip(self.shown(), tops, strict=True)]

    def values(self) -> list[Any]:
        """What stands in the groups, and whether the level still rises."""
        return [self.risen, *(group.get("lr_scale", 1.0) for group in self.groups)]

    def shown(self) -> list[float]:
        """The rates."""
        return [self.opt.rule_of(group).lr for group in self.groups]

    def turn_to(self, values: Sequence[Any]) -> None:
        """Stand at what `values` gave."""
        self.risen = bool(values[0])
        for group, value in zip(self.groups, values[1:], strict=True):
            group["lr_scale"] = value


@dataclass
class Number(Knob):
    """A number of the rules, such as a momentum or a decay: one move for all groups that have it."""

    opt: RuleOptimizer
    kinds: dict[int, type[Rule]]  # by the number of the group, as lines
    lines: dict[int, Line]

    def speeds(self, rules: Sequence[Rule]) -> dict[int, dict[str, float]]:
        """By the place on the line."""
        return {k: {self.name: line.slope(getattr(rules[k], self.name))} for k, line in self.lines.items()}

    def look(self, reading: Reading) -> list[float]:
        """The sample that a reading gives."""
        return [reading.cosine(list(self.kinds))]

    def turn(self, gain: float, warming: bool) -> bool:
        """Move as the window says; whether it has."""
        by = _within([row[0] for row in self.samples], self.moved[0], gain, warming)
        self.moved[0] += by
        if by:
            pairs = zip(self.lines.values(), self.values(), strict=True)
            self.turn_to([line.moved(value, by) for line, value in pairs])
        return bool(by)

    def values(self) -> list[Any]:
        """What stands in the groups."""
        found = []
        for k, kind in self.kinds.items():
            group, (entry, place) = self.opt.param_groups[k], places(kind)[self.name]
            found.append(float(group[entry] if place is None else group[entry][place]))
        return found

    def turn_to(self, values: Sequence[Any]) -> None:
        """Stand at what `values` gave."""
        for (k, kind), value in zip(self.kinds.items(), values, strict=True):
            group, (entry, place) = self.opt.param_groups[k], places(kind)[self.name]
            old = group[entry]
            group[entry] = value if place is None else (*old[:place], value, *old[place + 1 :])


@dataclass
class OfLoss(Knob):
    """A dial, which reaches the weights through their gradient alone."""

    dial: Dial
    every_group: list[int]
    held_out: bool = field(default=True, kw_only=True)

    def speeds(self, rules: Sequence[Rule]) -> dict[int, dict[str, float]]:
        """Nothing of the rules moves."""
        return {}

    def look(self, reading: Reading) -> list[float]:
        """The sample that a reading gives."""
        return [reading.cosine(self.every_group)]

    def turn(self, gain: float, warming: bool) -> bool:
        """Move as the window says; whether it has."""
        by = _within([row[0] for row in self.samples], self.moved[0], gain, warming)
        self.moved[0] += by
        if by:
            self.dial.move(by)
        return bool(by)

    def values(self) -> list[Any]:
        """Where the dial stands."""
        return [self.dial.value]

    def turn_to(self, values: Sequence[Any]) -> None:
        """Stand at what `values` gave."""
        self.dial.turn_to(*values)


def _within(samples: Sequence[float], so_far: float, gain: float, warming: bool) -> float:
    """The move that the samples ask for, as far as ODDS lets it."""
    by = 0.0 if warming else gate.move(samples, gain)
    return max(-ODDS - so_far, min(ODDS - so_far, by))
