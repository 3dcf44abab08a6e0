"""When a run evaluates, saves and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steepest.errors import UserError
from steepest.train.budget import Budget


@dataclass
class Cadence:
    """Step numbers and seconds at which something is due.

    budget          never more than this
    horizon         the steps that a budget in seconds was measured to hold; None: none
    evaluate_every  steps or epochs     save_every  steps, epochs or seconds
    per_epoch       updates an epoch; None until it is known"""

    budget: Budget
    horizon: int | None
    evaluate_every: Budget
    save_every: Budget
    per_epoch: int | None

    def __post_init__(self) -> None:
        if self.budget.more:
            raise UserError(
                f"A run begins with a budget of its own; {self.budget} is for one that has ended."
            )
        if self.evaluate_every.seconds is not None:
            raise UserError(
                f"evaluate_every must be in steps or epochs, got {self.evaluate_every}: "
                "what is decided at an evaluation must not depend on the clock."
            )

    @property
    def last(self) -> float:
        """The step after which the budget is used up; infinite while seconds or an unknown epoch decide."""
        steps = self.budget.steps(self.per_epoch)
        return min((n for n in (steps, self.horizon) if n is not None), default=math.inf)

    def ends(self, step: int, seconds: float) -> tuple[str, str]:
        """("budget" or "deadline", why) when the run is to end after this step; else ("", "")."""
        if step >= self.last:
            cut = "" if self.budget.seconds is None else f", measured to hold {self.horizon} steps,"
            return "budget", f"the budget of {self.budget}{cut} is used up"
        if seconds >= self.deadline:
            return "deadline", f"the budget of {self.budget} was used up at step {step}"
        return "", ""

    @property
    def deadline(self) -> float:
        """Seconds of the run after which it ends."""
        return math.inf if self.budget.seconds is None else self.budget.seconds

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after this step."""
        return _due(self.evaluate_every, self.per_epoch, step)

    def saves(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due after this step, so many seconds after the last one."""
        if self.save_every.seconds is not None:
            return seconds >= self.save_every.seconds
        return _due(self.save_every, self.per_epoch, step)

    def next_after(self, step: int) -> float:
        """The next step after which something is due by number."""
        every = [b.steps(self.per_epoch) for b in (self.evaluate_every, self.save_every)]
        return min([self.last, *(step + n - step % n for n in every if n)])


def _due(every: Budget, per_epoch: int | None, step: int) -> bool:
    steps = every.steps(per_epoch)
    return bool(steps) and step > 0 and step % steps == 0
