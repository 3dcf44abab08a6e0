"""Batches that come in an order of their own: a DataLoader, or any iterable of batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count as numbers
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset

from steepest.data.augment import Augmentation, augmented
from steepest.data.order import key
from steepest.data.rng import Apart
from steepest.data.tree import Tree, count, cut, is_tree, tensors
from steepest.optim.errors import UserError


@dataclass
class StreamBatches:
    """One batch of the stream is one update, cut into `accumulate` microbatches.

    Chance inside the stream is seeded at every epoch from (seed, epoch) and kept apart from the training's,
    so that reading it again gives the same batches; a position is reached by skipping what comes before."""

    stream: Any
    accumulate: int
    seed: int
    augment: Augmentation | None = None
    epoch: int = field(default=0, init=False)
    resumes_by: Literal["position", "skipping"] = field(default="skipping", init=False)
    varied: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.examples = _examples(self.stream)
        self.per_epoch = _length(self.stream)

    def start(self, position: int = 0) -> Iterator[list[Tree]]:
        """The microbatches of update `position`, `position` + 1, … without end."""
        epoch = position // self.per_epoch if _starts_afresh(self.stream) and self.per_epoch else 0
        step = epoch * (self.per_epoch or 0)
        for number in numbers(epoch):
            begun = step
            for batch in self._pass(number):
                if step >= position:
                    self.epoch = number
                    yield self._finish(batch, step)
                step += 1
            self.per_epoch = self._ended(number, step - begun)

    def once(self) -> Iterator[list[Tree]]:
        """The same from position 0, for one pass over the data."""
        return (self._finish(batch, step) for step, batch in enumerate(self._pass(0)))

    def _pass(self, epoch: int) -> Iterator[Tree]:
        """Batches of one epoch, each drawn under the stream's own chance."""
        apart = Apart(_begin(self.stream, self.seed, epoch))
        with apart:
            read = iter(self.stream)
        while True:
            with apart:
                batch = next(read, None)
            if batch is None:
                return
            yield _checked(batch)

    def _finish(self, batch: Tree, step: int) -> list[Tree]:
        changed = augmented(batch, self.augment, self.seed, step)
        return cut(changed, -(-count(changed) // self.accumulate))

    def _ended(self, epoch: int, updates: int) -> int:
        if updates:
            return updates
        many = f"ended after epoch {epoch - 1} and cannot be read again" if epoch else "holds no batch"
        raise UserError(
            f"The stream {many}. Give an object that starts anew at every iter(), such as a DataLoader or a "
            "class with __iter__, or a budget in steps that it can fill."
        )


def _begin(stream: Any, seed: int, epoch: int) -> int:
    """Tell every part of the stream that has a generator or an epoch of its own; the epoch's key."""
    chance = key(seed, "stream", epoch)
    parts = [getattr(stream, name, None) for name in ("sampler", "batch_sampler", "dataset")]
    part: Any
    for part in (stream, *parts):
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
        own = getattr(part, "generator", None)
        if own is not None and hasattr(own, "manual_seed"):
            own.manual_seed(chance % 2**63)
    return chance


def _starts_afresh(stream: Any) -> bool:
    """Whether an epoch can be read without those before it: nothing but our seeds is carried over."""
    if not isinstance(stream, DataLoader) or isinstance(stream.dataset, IterableDataset):
        return False
    return not stream.persistent_workers


def _length(stream: Any) -> int | None:
    try:
        return len(stream)
    except TypeError:
        return None


def _examples(stream: Any) -> int | None:
    if not isinstance(stream, DataLoader) or stream.sampler is None or stream.drop_last:
        return None
    try:
        return len(stream.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None


def _checked(batch: Any) -> Tree:
    if is_tree(batch):
        return tensors(batch)
    raise UserError(
        f"An iterable must hand out batches: tuples, lists or dicts of tensors; got {type(batch).__name__}. "
        "For single examples give a map-style Dataset, or put a DataLoader around it."
    )
