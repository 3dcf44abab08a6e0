"""`Reduce`: how the sums of one process become those of all, where weights are split over several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Reduce(Protocol):
    """Adds up, over processes, what each of them has summed over its own elements."""

    def sum(self, rows: Any, weights: Sequence[Any]) -> Any:
        """For each weight its sums over all processes, the same bits in each of them.

        rows: a float64 array, a row a weight, of the sums over the elements that lie in this process."""
        ...


class Alone:
    """One process, which holds every element: its sums are those of all."""

    def sum(self, rows: Any, weights: Sequence[Any]) -> Any:
        """The rows as they are."""
        return rows


ALONE = Alone()
