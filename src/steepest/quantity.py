"""`Quantity`: a number that a person may set, with its meaning, unit and range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from steepest.errors import UserError


@dataclass(frozen=True)
class Quantity:
    """Finite numbers in [low, high), or in (low, high) where low itself makes no sense (`open`)."""

    meaning: str
    unit: str = "no unit"
    low: float = 0.0
    high: float = math.inf
    open: bool = False

    @property
    def range(self) -> str:
        """The interval as mathematics writes it, such as [0, 1)."""
        low, high = "(" if self.open else "[", "∞" if self.high == math.inf else f"{self.high:g}"
        return f"{low}{self.low:g}, {high})"

    def number(self, name: str, value: Any) -> float:
        """`value` as a float; UserError where it is no number or lies out of range."""
        try:
            number = value if type(value) is float else _float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} must be a number in {self.range}, got {value!r}. {self}") from error
        if not (self.low < number < self.high or (number == self.low and not self.open)):
            raise UserError(f"{name} must lie in {self.range}, got {value!r}. {self}")
        return number

    def count(self, name: str, value: Any) -> int:
        """The same for a whole number."""
        number = self.number(name, value)
        if number != int(number):
            raise UserError(f"{name} must be a whole number in {self.range}, got {value!r}. {self}")
        return int(number)

    def __str__(self) -> str:
        return f"It is {self.meaning} ({self.unit})."


def _float(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError("truth values and text are no numbers")
    return float(value)
