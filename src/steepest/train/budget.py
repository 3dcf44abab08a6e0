"""How long: "60s", "10m", "500 steps", "20 epochs", and "+10 epochs" for more of the same."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from steepest.optim.errors import UserError

UNITS: dict[str, tuple[Literal["seconds", "steps", "epochs"], float]] = {
    "s": ("seconds", 1.0),
    "m": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "second": ("seconds", 1.0),
    "minute": ("seconds", 60.0),
    "hour": ("seconds", 3600.0),
    "step": ("steps", 1.0),
    "epoch": ("epochs", 1.0),
}
"""Unit as written, without a plural s → what it counts, and how many of that."""

WRITTEN = re.compile(r"\s*(\+?)\s*(\d+(?:\.\d*)?(?:e\+?\d+)?|\.\d+)\s*([a-z]+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """An amount of training.   more: to be added to what was allowed before"""

    amount: float
    unit: Literal["seconds", "steps", "epochs"]
    more: bool = False

    @property
    def seconds(self) -> float | None:
        """Seconds of the process, or None where the budget does not depend on the clock."""
        return self.amount if self.unit == "seconds" else None

    def steps(self, per_epoch: int | None) -> int | None:
        """Updates, at least one unless the amount is 0; None where seconds or an unknown epoch decide."""
        if self.unit == "steps":
            return math.ceil(self.amount)
        if self.unit == "epochs" and per_epoch is not None:
            return max(round(self.amount * per_epoch), int(self.amount > 0))
        return None

    def plus(self, more: Budget) -> Budget:
        """This budget with another of the same unit added. Raises UserError for another unit."""
        if more.unit != self.unit:
            raise UserError(
                f"This run has a budget of {self}; it can be given more {self.unit}, not {more.unit}. "
                f'Write for example "+{self.amount:g} {self.unit}".'
            )
        return replace(self, amount=self.amount + more.amount)

    def __str__(self) -> str:
        plural = self.unit if self.amount != 1 else self.unit[:-1]
        return f"{'+' if self.more else ''}{self.amount:.12g} {plural}"


def parse(text: str | Budget, setting: str = "budget") -> Budget:
    """The budget that a text describes. Raises UserError that names the setting."""
    if isinstance(text, Budget):
        return text
    found = WRITTEN.fullmatch(str(text))
    unit = _unit(found[3].lower()) if found else None
    if found is None or unit is None:
        raise UserError(
            f"{setting} must be an amount with its unit, got {text!r}. "
            "Write for example 60s, 10m, 2h, 500 steps or 20 epochs."
        )
    counts, times = unit
    if not math.isfinite(float(found[2]) * times):
        raise UserError(f"{setting} is too large, got {text!r}. Give an end that can be reached.")
    return Budget(float(found[2]) * times, counts, more=bool(found[1]))


def _unit(word: str) -> tuple[Literal["seconds", "steps", "epochs"], float] | None:
    return UNITS.get(word) or UNITS.get(word.removesuffix("s"))
