"""Which example comes when: a pure function of (seed, epoch, index), so that a position is one integer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


def key(seed: int, *names: str | int) -> int:
    """A 128-bit number for the stream of chance that these names describe; equal on every machine."""
    words = "/".join(repr(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:16], "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The chance of one named purpose ("order", "split", …), apart from that of every other."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The order in which epoch 0, 1, … visits the examples (int64)."""
    return generator(seed, "order", epoch).permutation(examples)


def parts(examples: int, size: int) -> int:
    """How many parts of `size` hold the examples; the last takes what is left, and a single example left over
    joins the part before it: batch normalisation cannot train on one."""
    whole, left = divmod(examples, size)
    joins = whole > 0 and left == 1
    return whole if left == 0 or joins else whole + 1


@dataclass(frozen=True)
class Plan:
    """Which examples make which update.

    batch_size  examples an update; the last of an epoch takes what is left (see `parts`)
    shuffle     a new order every epoch; otherwise the order of the data
    """

    examples: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    @property
    def per_epoch(self) -> int:
        """Updates an epoch."""
        return parts(self.examples, self.batch_size)

    @property
    def first_pass(self) -> int:
        """Updates of the first epoch, as of every other."""
        return self.per_epoch

    def epoch_of(self, position: int) -> int:
        """Epoch (0, 1, …) of the update at a position."""
        return position // self.per_epoch

    def order(self, epoch: int) -> np.ndarray:
        """Indices of all examples in the order of this epoch."""
        shuffled = self.shuffle and self.batch_size < self.examples
        return permutation(self.seed, epoch, self.examples) if shuffled else np.arange(self.examples)

    def bounds(self, update: int) -> tuple[int, int]:
        """First and past-the-last place in the epoch's order of its update 0, 1, …"""
        last = update == self.per_epoch - 1
        return update * self.batch_size, self.examples if last else (update + 1) * self.batch_size

    def updates(self, position: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """(global update, epoch, indices) without end, from update `position` on."""
        while True:
            epoch, first = divmod(position, self.per_epoch)
            order = self.order(epoch)
            for update in range(first, self.per_epoch):
                begin, end = self.bounds(update)
                yield position, epoch, order[begin:end]
                position += 1
