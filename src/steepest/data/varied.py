"""`VariedPlan`: which examples make which update, where updates differ in size."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from steepest.data.order import parts, permutation
from steepest.optim.batch import BatchPolicy

FAR = 100_000
"""Updates that a look ahead takes at most at one time."""


@dataclass(frozen=True)
class VariedPlan:
    """The order of a `Plan`, cut by a policy. The last update of an epoch takes what is left. A single
    example that would be left over joins the update before it; so does less than half a batch where the rate
    goes with the batch, as an update of it would move as far as a whole one and with its own noise.

    A place in the data follows from the sizes of all updates before it, which are a function of the step and
    of what the policy has recorded: nothing else is to be saved. It is also the calendar of a run, which
    reckons epochs from updates."""

    examples: int
    policy: BatchPolicy
    seed: int = 0
    shuffle: bool = True
    _starts: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)

    @property
    def per_epoch(self) -> int:
        """Updates an epoch of the usual size."""
        return parts(self.examples, min(self.policy.usual, self.examples))

    @property
    def first_pass(self) -> int:
        """Updates of the first epoch."""
        return self.steps(1.0)

    def epoch_of(self, position: int) -> int:
        """Epoch (0, 1, …) of the update at a position."""
        return self._start(position) // self.examples

    def epochs(self, step: int) -> float:
        """Passes over the data in the first `step` updates."""
        return self._start(step) / self.examples

    def steps(self, epochs: float, since: int | None = None) -> int:
        """The first step at which so many epochs are over; with `since` only as far as FAR steps after it."""
        wanted = math.ceil(epochs * self.examples * (1 - 1e-12))
        while self._starts[-1] < wanted and (since is None or len(self._starts) <= since + FAR):
            self._start(len(self._starts))
        return min(bisect_left(self._starts, wanted), len(self._starts) - 1)

    def forget(self, position: int) -> None:
        """Reckon anew what comes after a position: the policy has recorded a change."""
        del self._starts[position + 1 :]

    def updates(self, position: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(global update, epoch, indices) without end, from update `position` on."""
        known, order = -1, np.arange(0)
        while True:
            begin, end = self._start(position), self._start(position + 1)
            epoch, first = divmod(begin, self.examples)
            if epoch != known:
                known, order = epoch, self._order(epoch)
            yield position, epoch, order[first : first + end - begin]
            position += 1

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.examples)
        return permutation(self.seed, epoch, self.examples)

    def _start(self, position: int) -> int:
        """Examples handed out before the update at a position, over all epochs."""
        while len(self._starts) <= position:
            begin = self._starts[-1]
            left = self.examples - begin % self.examples
            size = self.policy.size(len(self._starts))
            alone = size > 1 and left - size == 1
            joins = alone or left - size < self.policy.joins * size
            self._starts.append(begin + (left if joins else min(size, left)))
        return self._starts[position]
