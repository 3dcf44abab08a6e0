"""`View`: how the examples of a source are reached: rows in memory, a Dataset asked one by one, a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Subset

from steepest.data.batches import batches
from steepest.data.examples import Seeded
from steepest.data.rng import preserved
from steepest.data.tree import Tree, apply


class View(ABC):
    """Index → example. What is split, ordered, weighted and counted are examples.

    examples   how many, or None where that cannot be known
    held       whether inputs and targets lie in memory, to be looked at, encoded and joined with others
    own_order  whether they come in an order of their own, which nothing here can change or split
    word       what people call it"""

    examples: int | None
    held: ClassVar[bool] = False
    own_order: ClassVar[bool] = False
    word: ClassVar[str]

    @abstractmethod
    def part(self, rows: np.ndarray) -> Any:
        """What `batches` takes of these examples, where they are not held in memory."""

    @abstractmethod
    def example_shape(self) -> Tree:
        """Shape of one input, as it is handed out."""


@dataclass(frozen=True)
class Rows(View):
    """One example a row of a frame, or of each array of a tree."""

    examples: int
    held: ClassVar[bool] = True
    word: ClassVar[str] = "table or arrays"

    def part(self, rows: np.ndarray) -> Any:
        """Rows are taken from the source's inputs and target."""
        raise NotImplementedError

    def example_shape(self) -> Tree:
        """The shape follows from what is done to the rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class Asked(View):
    """A map-style Dataset of (input, target) or (input, target, weight)."""

    dataset: Any
    word: ClassVar[str] = "dataset"

    @property
    def examples(self) -> int:  # type: ignore[override]
        """Its length."""
        return len(self.dataset)

    def part(self, rows: np.ndarray) -> Subset[Any]:
        """The Dataset of these examples alone."""
        return Subset(self.dataset, rows.tolist())

    def example_shape(self) -> Tree:
        """Of its first example."""
        with preserved():
            return apply(lambda leaf: tuple(np.shape(leaf)), Seeded(self.dataset, 0)[0, 0][0])


@dataclass(frozen=True)
class Stream(View):
    """A DataLoader, or another iterable of batches."""

    batches: Any
    examples: int | None
    own_order: ClassVar[bool] = True
    word: ClassVar[str] = "stream"

    def part(self, rows: np.ndarray) -> Any:
        """The stream itself: it cannot be divided."""
        return self.batches

    def example_shape(self) -> Tree:
        """Of the first batch, without its first axis."""
        with preserved():
            inputs = next(batches(self.batches).once())[0][0]
        return apply(lambda leaf: tuple(leaf.shape[1:]), inputs)
