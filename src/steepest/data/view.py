"""`View`: how the examples of a source are reached: rows in memory, windows, a Dataset asked one by one, a
stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Subset

from steepest.data.batches import batches
from steepest.data.examples import Seeded
from steepest.data.rng import preserved
from steepest.data.tree import Tree, apply
from steepest.optim.errors import UserError


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

    def cut(self, shares: Sequence[float]) -> list[np.ndarray] | None:
        """Training, validation and test examples, where the view alone knows how to divide them: what is
        longer than an example is cut with a gap. None: rows are divided as asked."""
        return None

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


@dataclass(frozen=True)
class Spans(View):
    """Windows over something longer: a text, or several series one after the other.

    lengths  steps of each series;   window: steps of an example, what is to be predicted of it included
    stride   steps from one training window to the next;   apart: the same for windows that are measured on
             (default: `window`, so that none overlap)"""

    lengths: tuple[int, ...]
    window: int
    stride: int = 1
    apart: int | None = None
    held: ClassVar[bool] = True
    word: ClassVar[str] = "series"

    @property
    def examples(self) -> int:  # type: ignore[override]
        """Windows at every step."""
        return sum(max(0, length - self.window + 1) for length in self.lengths)

    def starts(self) -> np.ndarray:
        """(examples,) where each window begins in all series put end to end."""
        begins = np.cumsum([0, *self.lengths[:-1]])
        whole = zip(begins, self.lengths, strict=True)
        return np.concatenate(
            [begin + np.arange(max(0, length - self.window + 1)) for begin, length in whole]
        )

    def cut(self, shares: Sequence[float]) -> list[np.ndarray]:
        """Training, validation and test windows: of every series the first steps, the next and the last. No
        step is in two parts, as no window straddles a cut: windows of two parts begin a window apart."""
        parts: list[list[np.ndarray]] = [[], [], []]
        before = 0
        for length in self.lengths:
            places = np.array([1 - sum(shares), 1 - shares[1], 1]) * length
            ends, begin = np.round(places).astype(int), 0
            for part, end in enumerate(ends):
                step = self.stride if part == 0 else (self.apart or self.window)
                parts[part].append(before + np.arange(begin, max(begin, end - self.window + 1), step))
                begin = end
            before += max(0, length - self.window + 1)
        return [np.concatenate(part) for part in parts]

    def part(self, rows: np.ndarray) -> Any:
        """Windows are taken from the source's inputs."""
        raise NotImplementedError

    def example_shape(self) -> Tree:
        """The shape follows from what is done to the windows."""
        raise NotImplementedError


def readable(
    paths: Sequence[Any], read: Callable[[Any], Any]
) -> tuple[list[Any], np.ndarray, tuple[str, ...]]:
    """(what was read, numbers of the files, sentences): files that cannot be read drop out before anything is
    split or counted, and that is said.   read: path → content; damaged: OSError, ValueError, EOFError"""
    contents, numbers, lost = [], [], []
    for number, path in enumerate(paths):
        try:
            contents.append(read(path))
            numbers.append(number)
        except (OSError, ValueError, EOFError) as problem:
            lost.append(f"{path} ({problem})")
    if not contents:
        raise UserError(f"None of the {len(paths)} files can be read, such as {lost[0]}.")
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    said = f"{len(lost)} of {len(paths)} files cannot be read and are left out: {', '.join(lost[:3])}{more}."
    return contents, np.array(numbers), (said,) if lost else ()
