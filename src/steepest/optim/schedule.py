"""Schedules: pure functions of the global step, which counts updates of the weights from 1.

Any callable step → float is a schedule; those here are frozen, compare by value and check their numbers.
One that descends over `total` steps has its peak in step 1, would reach its floor in step total + 1 and stays
there: no update is wasted on a rate of zero. Nothing demands peak > floor: a momentum may go the other way.

Each curve is written once, on an `xp` like the rules: on floats, and on steps that a framework traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.maths import HOST
from steepest.optim.quantity import Quantity

QUANTITIES: dict[str, Quantity] = {
    "value": Quantity("the value in every step", "that of the hyperparameter"),
    "peak": Quantity("the value at the height of the curve", "that of the hyperparameter"),
    "floor": Quantity("the value at the foot of the curve", "that of the hyperparameter"),
    "power": Quantity("the exponent of the descent, 1 for a straight line", open=True),
    "factor": Quantity("what the value is multiplied by each time", open=True),
    "shrink": Quantity("what the height of a cycle is multiplied by", "per cycle", open=True),
    "rise": Quantity("the part of all steps in which the value rises", "share of total", high=1, open=True),
    "decay": Quantity("the part of all steps in which the value falls", "share of total", high=1, open=True),
    "start_divisor": Quantity("the peak over the first value", low=1),
    "end_divisor": Quantity("the first value over the last", low=1),
    "total": Quantity("the length of the whole curve", "steps", low=1),
    "every": Quantity("how long a value is kept", "steps", low=1),
    "first": Quantity("the length of the first cycle", "steps", low=1),
    "growth": Quantity("the length of a cycle over that of the one before", low=1),
    "up": Quantity("how long a cycle rises", "steps", low=1),
    "down": Quantity("how long a cycle falls", "steps", low=1),
    "warmup": Quantity("how long the value rises at first", "steps"),
}
"""Every number of a schedule by name: meaning, unit, range."""

_LAST_STEP = 2**31
"""Steps are counted to here."""


@dataclass(frozen=True)
class Schedule:
    """A curve over steps; abstract. A field annotated int is a whole number, a float any in its range."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if quantity := QUANTITIES.get(field.name):
                check = quantity.count if field.type == "int" else quantity.number
                value = check(f"{type(self).__name__}'s {field.name}", getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    def __call__(self, step: int) -> float:
        """The value in a step (1, 2, …)."""
        return self.curve(HOST, step)

    def curve(self, xp: Any, step: Any) -> Any:
        """The same in the vocabulary of rules and xp.cos, where a step may be a traced number; abstract."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value in every step."""

    value: float

    def curve(self, xp: Any, step: Any) -> Any:
        return self.value


@dataclass(frozen=True)
class Step(Schedule):
    """A staircase.   peak·factor^⌊(step - 1)/every⌋"""

    peak: float
    every: int
    factor: float = 0.1

    def curve(self, xp: Any, step: Any) -> Any:
        return self.peak * _power(xp, self.factor, (step - 1) // self.every)


@dataclass(frozen=True)
class Exponential(Schedule):
    """A geometric sequence.   peak·factor^(step - 1)"""

    peak: float
    factor: float

    def curve(self, xp: Any, step: Any) -> Any:
        return self.peak * _power(xp, self.factor, step - 1)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """A power of the time left.   floor + (peak - floor)·(1 - x)^power   x = (step - 1)/total, at most 1"""

    peak: float
    total: int
    power: float = 1.0
    floor: float = 0.0

    def curve(self, xp: Any, step: Any) -> Any:
        x = xp.minimum((step - 1) / self.total, 1.0)
        return _between(self.floor, self.peak, (1 - x) ** self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a wave.   floor + (peak - floor)·(1 + cos πx)/2   x = (step - 1)/total, at most 1

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts."""

    peak: float
    total: int
    floor: float = 0.0

    def curve(self, xp: Any, step: Any) -> Any:
        return _half_wave(xp, self.peak, self.floor, xp.minimum((step - 1) / self.total, 1.0))


@dataclass(frozen=True)
class WarmRestarts(Schedule):
    """Half waves one after another, each `growth` times as long as the one before.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5 (there T₀ = first, T_mult = growth)."""

    peak: float
    first: int
    growth: int = 2
    floor: float = 0.0

    def curve(self, xp: Any, step: Any) -> Any:
        x, length = step - 1, self.first
        if self.growth == 1:
            return _half_wave(xp, self.peak, self.floor, x % length / length)
        start, begin, lasts = 0, 0, length
        while begin < _LAST_STEP and (inside := x >= begin) is not False:
            start, length = xp.where(inside, begin, start), xp.where(inside, lasts, length)
            begin, lasts = begin + lasts, lasts * self.growth
        return _half_wave(xp, self.peak, self.floor, (x - start) / length)


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Triangles: `up` steps from floor to peak, `down` steps back; cycle i = 0, 1 … is shrinkⁱ times as high.

    Smith 2017, arXiv:1506.01186, section 3 (`triangular`; `triangular2` with shrink = ½)."""

    peak: float
    up: int
    down: int
    floor: float = 0.0
    shrink: float = 1.0

    def curve(self, xp: Any, step: Any) -> Any:
        cycle, x = (step - 1) // (self.up + self.down), (step - 1) % (self.up + self.down)
        height = xp.where(x < self.up, x / self.up, 1 - (x - self.up) / self.down)
        return _between(self.floor, self.peak, height * _power(xp, self.shrink, cycle))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """A half wave from peak/start_divisor up to peak for `rise` of all steps, and one down to the first
    value/end_divisor, which is that of step `total` and all after.

    Smith & Topin 2018, arXiv:1708.07120, with half waves for lines; equals torch's OneCycleLR."""

    peak: float
    total: int
    rise: float = 0.3
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def curve(self, xp: Any, step: Any) -> Any:
        x, last, start = xp.minimum(step, self.total) - 1, self.total - 1, self.peak / self.start_divisor
        top = self.rise * self.total - 1
        rising = _half_wave(xp, start, self.peak, x / top) if top > 0 else start
        falling = _half_wave(xp, self.peak, start / self.end_divisor, (x - top) / (last - top))
        return xp.where(x < top, rising, falling)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """A line to the peak in step `warmup`, then one over the root of the step.
    peak·min(step/warmup, √(warmup/step))

    Vaswani et al. 2017, arXiv:1706.03762, equation 3."""

    peak: float
    warmup: int

    def curve(self, xp: Any, step: Any) -> Any:
        turn = max(self.warmup, 1)
        return self.peak * xp.minimum(step / turn, xp.sqrt(turn / step))


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """A line to the peak in step `warmup`, the peak, a line to the floor for the last `decay` of all steps.

    Hu et al. 2024, arXiv:2404.06395, section 4.2; with a line as in Hägele et al. 2024, arXiv:2405.18392."""

    peak: float
    warmup: int
    total: int
    decay: float = 0.2
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup > self._decay_from:
            raise UserError(
                f"warmup ({self.warmup} steps) and decay ({self.decay:g} of total) must fit into total "
                f"({self.total} steps). Shorten one of them, or lengthen total."
            )

    @property
    def _decay_from(self) -> int:
        return self.total - max(1, round(self.decay * self.total))

    def curve(self, xp: Any, step: Any) -> Any:
        start = self._decay_from
        x = xp.minimum(xp.maximum(step - 1 - start, 0) / (self.total - start), 1.0)
        rising = self.peak * (step / max(self.warmup, 1))
        return xp.where(step <= self.warmup, rising, _between(self.peak, self.floor, x))


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A line from zero to the first value of another schedule, which then runs from its own step 1.
    then(1)·step/warmup up to step `warmup`, then(step - warmup) after it

    Goyal et al. 2017, arXiv:1706.02677, section 2.2."""

    then: Callable[[int], float]
    warmup: int

    def curve(self, xp: Any, step: Any) -> Any:
        value = valued(self.then, xp, xp.maximum(step - self.warmup, 1))
        return xp.where(step <= self.warmup, value * (step / max(self.warmup, 1)), value)


@dataclass(frozen=True)
class Join(Schedule):
    """Schedules one after another, each from its own step 1; ends: the last step of each but the last."""

    parts: tuple[Callable[[int], float], ...]
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise((0, *self.ends)))
        if not rising or len(self.ends) != len(self.parts) - 1:
            raise UserError(
                f"Join needs one rising end (a step, from 1) for each part but the last, "
                f"got {len(self.parts)} parts and the ends {self.ends!r}."
            )

    def curve(self, xp: Any, step: Any) -> Any:
        value = valued(self.parts[0], xp, step)
        for part, end in zip(self.parts[1:], self.ends, strict=True):
            value = xp.where(step > end, valued(part, xp, xp.maximum(step - end, 1)), value)
        return value


def valued(schedule: Callable[[Any], Any], xp: Any, step: Any) -> Any:
    """What a schedule says of a step on `xp`; any other function is called with the step alone."""
    return schedule.curve(xp, step) if isinstance(schedule, Schedule) else schedule(step)


def height(curve: Any) -> float:
    """The most that a schedule comes to; 0 where only its steps can tell: one that grows without end, or a
    function of another kind."""
    if isinstance(curve, Constant):
        return curve.value
    if isinstance(curve, WarmUp):
        return height(curve.then)
    if isinstance(curve, Join):
        return max(map(height, curve.parts))
    if not isinstance(curve, Schedule):
        return 0.0
    grows = any(getattr(curve, name, 1.0) > 1 for name in ("factor", "shrink"))
    return 0.0 if grows else max(getattr(curve, name, 0.0) for name in ("peak", "floor"))


def _between(start: float, end: float, x: Any) -> Any:
    # Exact at either end, as start + x(end - start) is not: a peak is the peak that was asked for.
    return (1 - x) * start + x * end


def _half_wave(xp: Any, start: float, end: float, x: Any) -> Any:
    return _between(start, end, (1 - xp.cos(math.pi * x)) / 2)


def _power(xp: Any, factor: float, n: Any) -> Any:
    # A traced step is a float32: factor**n would be off by n roundings of the factor, this by one of n·log.
    return factor**n if isinstance(n, int | float) else xp.exp(n * math.log(factor))


def _one_cycle(peak: float, total: int, warmup: int) -> Schedule:
    return OneCycle(peak, total, rise=warmup / total) if warmup else OneCycle(peak, total)


FALLING: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda peak, total: Constant(peak),
    "plateau": lambda peak, total: Constant(peak),
    "step": lambda peak, total: Step(peak, every=-(-total // 3)),
    "exponential": lambda peak, total: Exponential(peak, factor=0.01 ** (1 / total)),
    "polynomial": lambda peak, total: Polynomial(peak, total, power=2.0),
    "linear": Polynomial,
    "cosine": Cosine,
    "warm_restarts": lambda peak, total: WarmRestarts(peak, first=-(-total // 7)),
    "cyclic": lambda peak, total: Cyclic(peak, up=-(-total // 8), down=-(-total // 8), floor=peak / 10),
}
"""Curves by name that a warm-up may come before. step: three stairs of a factor 10; exponential: down to 1 %;
polynomial: a square; warm_restarts: three cycles, 1 : 2 : 4; cyclic: four triangles from a tenth of
the peak;
plateau: constant, for a run whose stopping decides when the rate falls."""

RISING: dict[str, Callable[[float, int, int], Schedule]] = {
    "one_cycle": _one_cycle,
    "inverse_sqrt": lambda peak, total, warmup: InverseSqrt(peak, warmup),
    "wsd": lambda peak, total, warmup: WarmupStableDecay(peak, warmup, total),
}
"""Curves by name with a rise of their own; a one_cycle without warm-up rises for 30 % of the steps."""


def named(name: str, peak: float, total: int, warmup: int = 0) -> Schedule:
    """The schedule of that name over `total` steps, of which the first `warmup` lead up to its start."""
    total = QUANTITIES["total"].count("total", total)
    warmup = QUANTITIES["warmup"].count("warmup", warmup)
    if warmup >= total:
        raise UserError(f"A warm-up of {warmup} steps leaves nothing of a run of {total}. Shorten it.")
    if name in RISING:
        return RISING[name](peak, total, warmup)
    if name not in FALLING:
        raise UserError(f"There is no schedule {name!r}.{did_you_mean(name, (*FALLING, *RISING))}")
    curve = FALLING[name](peak, total - warmup)
    return WarmUp(curve, warmup) if warmup else curve
