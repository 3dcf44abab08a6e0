"""When a run evaluates, saves and ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steepest.data.varied import VariedPlan
from steepest.optim.errors import UserError
from steepest.train.budget import Budget


@dataclass
class Intervals:
    """Step numbers and seconds at which something is due.

    budget          never more than this
    horizon         the steps that a budget was measured or reckoned to hold; None: none
    evaluate_every  steps or epochs     save_every  steps, epochs or seconds
    per_epoch       updates an epoch; None until it is known
    varied          what reckons epochs where updates differ in size"""

    budget: Budget
    horizon: int | None
    evaluate_every: Budget
    save_every: Budget
    per_epoch: int | None
    varied: VariedPlan | None = None

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

    def epoch(self, step: int) -> float | None:
        """Passes over the data in the first `step` updates; None until an epoch's length is known."""
        if self.varied is not None:
            return self.varied.epochs(step)
        return step / self.per_epoch if self.per_epoch else None

    def last(self, step: int) -> float:
        """The step after which the budget is used up, as far as it can be told at this step; infinite while
        seconds or an unknown epoch decide."""
        varied, epochs = self.varied, self.budget.unit == "epochs"
        if varied is not None and epochs and self.horizon is None:
            return varied.steps(self.budget.amount, since=step)
        steps = None if varied is not None and epochs else self.budget.steps(self.per_epoch)
        return min((n for n in (steps, self.horizon) if n is not None), default=math.inf)

    def ends(self, step: int, seconds: float) -> tuple[str, str]:
        """("budget" or "deadline", why) when the run is to end after this step; else ("", "")."""
        if step >= self.last(step):
            return "budget", f"the budget of {self.budget}{self._cut()} is used up"
        if seconds >= self.deadline:
            return "deadline", f"the budget of {self.budget} was used up at step {step}"
        return "", ""

    def _cut(self) -> str:
        """Why the last step is not the budget's own, a clause."""
        if self.budget.seconds is not None:
            return f", measured to hold {self.horizon} steps,"
        if self.budget.unit == "steps" and self.horizon is not None and self.horizon < self.budget.amount:
            return f", {self.budget.amount - self.horizon:g} of them for the search,"
        return ""

    def epoch_known(self, per_epoch: int | None) -> None:
        """Updates an epoch, once they are known."""
        self.per_epoch = per_epoch or self.per_epoch

    @property
    def deadline(self) -> float:
        """Seconds of the run after which it ends."""
        return math.inf if self.budget.seconds is None else self.budget.seconds

    def alarm(self, seconds: float, saved: float) -> float:
        """Seconds until the clock has something due: the deadline, or a checkpoint after the one `saved`
        seconds ago. Infinite where it has not."""
        save = self.save_every.seconds
        return min(self.deadline - seconds, math.inf if save is None else save - saved)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after this step."""
        return step > 0 and self._after(self.evaluate_every, step - 1) == step

    def saves(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due after this step, so many seconds after the last one."""
        if self.save_every.seconds is not None:
            return seconds >= self.save_every.seconds
        return step > 0 and self._after(self.save_every, step - 1) == step

    def next_after(self, step: int) -> float:
        """The next step after which something is due by number."""
        every = (self.evaluate_every, self.save_every)
        return min([self.last(step), *(self._after(one, step) for one in every)])

    def _after(self, every: Budget, step: int) -> float:
        """The first step after this one that is a whole number of times `every`; infinite where there is
        none. Where epochs vary, the look goes as far as it may, and is taken again from there."""
        if self.varied is None or every.unit != "epochs":
            n = every.steps(self.per_epoch)
            return step + n - step % n if n else math.inf
        if every.amount <= 0:
            return math.inf
        times = math.floor(self.varied.epochs(step) / every.amount * (1 + 1e-12))
        return max(self.varied.steps((times + 1) * every.amount, since=step), step + 1)
