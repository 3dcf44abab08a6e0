"""Examples of a map-style Dataset, read in this process or by workers, to the same values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_all_start_methods
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from steepest.data.order import key
from steepest.data.rng import preserved, seed_all
from steepest.data.tree import Tree, leaves
from steepest.optim.errors import UserError


@dataclass(frozen=True)
class Seeded:
    """A Dataset asked for (epoch, index); what it draws depends on (seed, epoch, index) alone."""

    dataset: Any
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        seed_all(key(self.seed, "example", *place))
        return self.dataset[place[1]]


def collate(examples: list[Any]) -> Tree:
    """One batch of these examples; refused with a sentence where their shapes differ."""
    shapes = {tuple(tuple(getattr(leaf, "shape", ())) for leaf in leaves(example)) for example in examples}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise UserError(
            f"Examples of one batch differ in size: {_words(first)} and {_words(second)}. "
            "Resize or crop them to one size in the Dataset, or set batch_size=1."
        )
    return default_collate(examples)


def loader(
    dataset: Any, places: Iterable[list[tuple[int, int]]], seed: int, num_workers: int
) -> Iterator[Tree]:
    """A batch for every list of (epoch, index). Workers are started by forkserver and need a Dataset that can
    be pickled; a script that uses them keeps its own start under `if __name__ == "__main__":`."""
    seeded: Any = Seeded(dataset, seed)
    read = DataLoader(
        seeded,
        batch_sampler=places,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator(),
        multiprocessing_context=_start_method() if num_workers else None,
    )
    return iter(read) if num_workers else _here(iter(read))


def _start_method() -> str:
    """Never fork: it copies locks that other threads hold."""
    return "forkserver" if "forkserver" in get_all_start_methods() else "spawn"


def _here(read: Iterator[Tree]) -> Iterator[Tree]:
    """Batches read in this process, whose own chance goes on as if nothing had been read."""
    while True:
        with preserved():
            batch = next(read, None)
        if batch is None:
            return
        yield batch


def _words(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " with ".join("×".join(map(str, shape)) or "a number" for shape in shapes)
