"""`Quantity`: a number that a person may set, with its meaning, unit and range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from steepest.optim.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Quantity:
    """Finite numbers in [low, high), or in (low, high) where low itself makes no sense (`open`).

    doubtful: numbers from here on are rare enough for a warning.
    closed: high belongs to the range too; where it is ∞, that has a meaning as well.
    below: what to say to one who goes below low."""

    meaning: str
    unit: str = "no unit"
    low: float = 0.0
    high: float = math.inf
    open: bool = False
    closed: bool = False
    below: str = ""
    doubtful: float = math.inf

    @property
    def range(self) -> str:
        """The interval as mathematics writes it, such as [0, 1)."""
        low, high = "(" if self.open else "[", "∞" if self.high == math.inf else f"{self.high:g}"
        return f"{low}{self.low:g}, {high}{']' if self.closed else ')'}"

    def number(self, name: str, value: Any) -> float:
        """`value` as a float; UserError where it is no number or lies out of range."""
        try:
            number = value if type(value) is float else _float(value)
        except (TypeError, ValueError) as error:
            raise self._refused(name, "be a number in", value) from error
        if not self._holds(number):
            raise self._refused(name, "lie in", value)
        if self.doubtful <= number < math.inf:
            warnings.warn(f"{name} is {value!r}. {self}{_turned_round(number)}", stacklevel=2)
        return number

    def count(self, name: str, value: Any) -> int:
        """The same for a whole number."""
        number = self.number(name, value)
        if number != int(number):
            raise self._refused(name, "be a whole number in", value)
        return int(number)

    def _refused(self, name: str, demand: str, value: Any) -> UserError:
        return UserError(f"{name} must {demand} {self.range}, got {value!r}. {self}{self._guess(value)}")

    def _holds(self, number: float) -> bool:
        at_an_end = (number == self.low and not self.open) or (number == self.high and self.closed)
        return self.low < number < self.high or at_an_end

    def _guess(self, value: Any) -> str:
        """What was meant, where that is plain to see."""
        written = _written(value)
        candidates = _near(written, share=self.high == 1.0)
        near = [number for number in candidates if self._holds(number) and number != value]
        reason = f" {self.below}" if self.below and written < self.low else ""
        return f"{reason} Did you mean {near[0]:.12g}?" if near else reason

    def __str__(self) -> str:
        return f"It is {self.meaning} ({self.unit})."


def choice(what: str, value: Any, known: Collection[str]) -> None:
    """UserError where a word is none of those known."""
    if value not in known:
        raise UserError(f"{what} cannot be {value!r}.{did_you_mean(str(value), known)}")


def _float(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError("truth values and text are no numbers")
    return float(value)


def _written(value: Any) -> float:
    """The number in what was given, text included; NaN where there is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _turned_round(number: float) -> str:
    """The same digits with the other sign in the exponent: what 3e4 may have been meant to be."""
    if not math.isfinite(number):
        return ""
    digits, exponent = f"{number:e}".split("e")
    return f" Did you mean {float(f'{digits}e{-int(exponent)}'):g}?"


def _near(number: float, share: bool) -> Iterator[float]:
    """What may have been meant by a number: itself, without its sign, and as a share 90, 99.9 or 1.9."""
    size = abs(number)
    if not math.isfinite(number):
        return
    yield from (number, size)
    if share and size > 1:
        yield size - 1 if size < 2 else float("0." + f"{size:f}".replace(".", "").rstrip("0"))
