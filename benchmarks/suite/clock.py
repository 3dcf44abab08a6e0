"""The clocks of a run, gradient evaluations and seconds of the processor, and the curve over them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import nn

from benchmarks.suite.workloads import Task
from steepest.train.evaluation import renew_statistics

POINTS = 25
"""Validations over the standard length; a longer run goes on at the same distance."""
WORSE = 100.0
"""A loss of so many times the first one counts as diverged; ten times is still come back from."""
RENEWED = 16
"""Batches over which statistics of batch norms are measured anew where the weights shown were never run."""

Shown = Callable[[], AbstractContextManager[object]]


@dataclass
class Watch:
    """Handed to a method, which calls it after every update. Validation is outside both clocks.

    A method that tries several things calls it for all of them, with the model that it would return by now.

    task    what is trained
    budget  gradient evaluations that the method may spend; one is a pass forward and backward over one batch
    curve   (evaluations, seconds, metric) at every point of the grid, which is the same for all methods
    """

    task: Task
    budget: int
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    evaluations: int = 0
    diverged: bool = False
    test: float | None = None
    _first: float | None = None
    _began: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        """Spent by the method so far."""
        return time.process_time() - self._began

    def begins(self, loss: float) -> None:
        """The loss before any update, for a method whose first update told of is not its first."""
        self._first = loss

    def __call__(
        self, model: nn.Module, loss: float, evaluations: int = 1, shown: Shown = nullcontext
    ) -> bool:
        """Note an update; whether training may go on.

        loss         of the batch before the update
        evaluations  what the update cost
        shown        a block in which the model holds the weights to test, where these are others
        """
        before, self.evaluations = self.evaluations, self.evaluations + evaluations
        self._first = loss if self._first is None else self._first
        self.diverged = not math.isfinite(loss) or loss > WORSE * max(self._first, 1e-3)
        if self.diverged:
            return False
        if self.evaluations >= self.budget:
            self.finish(model, shown)
            return False
        if self._point(before) < self._point(self.evaluations):
            self._note(model, shown)
        return True

    def finish(self, model: nn.Module, shown: Shown = nullcontext) -> None:
        """The last point of the curve and the one look at the test set; a method that ends early calls it."""
        self._note(model, shown, last=True)

    def summary(self) -> dict[str, Any]:
        """The run as a record."""
        return {
            "steps": self.task.steps,
            "budget": self.budget,
            "evaluations": self.evaluations,
            # what a method does after its last update (a report, a look at the test set) is no training
            "seconds": round(self.seconds if self.diverged or not self.curve else self.curve[-1][1], 3),
            "diverged": self.diverged,
            "final": None if self.diverged else self.curve[-1][2],
            "test": self.test,
            "curve": [[n, round(seconds, 3), value] for n, seconds, value in self.curve],
        }

    def _point(self, evaluations: int) -> int:
        return evaluations * POINTS // self.task.steps

    def _note(self, model: nn.Module, shown: Shown, last: bool = False) -> None:
        spent = self.seconds
        with shown():
            if shown is not nullcontext:
                renew_statistics(model, (x for x, _ in islice(self.task.batches(), RENEWED)))
            self.curve.append((self.evaluations, spent, self.task.measured(model, *self.task.validation)))
            if last:
                self.test = self.task.measured(model, *self.task.test)
        self._began = time.process_time() - spent
