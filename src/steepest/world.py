"""`World`: the processes that train one run together, with one word for all that they agree on.

One process is a world of its own, at no cost. Where torch.distributed has a process group, that is the world.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import distributed

from steepest.optim.errors import UserError


class World:
    """rank: number of this process, from 0; the main one writes.   size: how many there are

    Every method is to be called by all processes, in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> World:
        """The process group of torch.distributed, where there is one; else this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return ALONE
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def sum(self, x: Any, weights: Sequence[Any] = ()) -> Any:
        """The sum over all processes of a number or an array, in float64 and in the order of ranks, so that
        every process has the same bits.   weights: whose sums the rows are, as optim's `Reduce` tells"""
        if self.size == 1:
            return x
        total = sum(self._rows(np.asarray(x, np.float64)), np.zeros(np.shape(x)))
        return float(total) if np.ndim(total) == 0 else total

    def max(self, x: float) -> float:
        """The largest of the numbers of all processes."""
        return x if self.size == 1 else float(max(self._rows(np.asarray(x, np.float64))))

    def any(self, x: bool) -> bool:
        """Whether it is so in some process."""
        return x if self.size == 1 else self.max(float(x)) > 0

    def all(self, x: bool) -> bool:
        """Whether it is so in every process."""
        return x if self.size == 1 else not self.any(not x)

    def gather(self, content: bytes) -> list[bytes]:
        """What each process has brought, in the order of ranks; lengths may differ."""
        if self.size == 1:
            return [content]
        lengths = [int(length) for length in self._rows(np.asarray(len(content), np.float64))]
        padded = np.frombuffer(content.ljust(max(lengths), b"\0"), np.uint8).copy()
        return [row[:length].tobytes() for row, length in zip(self._rows(padded), lengths, strict=True)]

    def broadcast(self, decision: Any) -> Any:
        """What the main process has decided, as JSON knows it; what the others bring does not count."""
        if self.size == 1:
            return decision
        return json.loads(self.gather(json.dumps(decision).encode() if self.is_main else b"")[0])

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Do this in the main process alone; all get what it gives, or its UserError."""
        if self.size == 1:
            return work()
        failed: UserError | None = None
        told: dict[str, Any] = {}
        if self.is_main:
            try:
                told = {"given": work()}
            except UserError as error:
                failed, told = error, {"refused": str(error)}
        told = self.broadcast(told)
        if "refused" in told:
            raise failed or UserError(told["refused"])
        return told["given"]

    def barrier(self) -> None:
        """Wait until all have come here."""
        if self.size > 1:
            self.any(False)

    def _rows(self, own: np.ndarray) -> list[np.ndarray]:
        """The arrays of all processes, which are of one shape, by rank."""
        here = torch.from_numpy(own.reshape(-1)).to(_device())
        rows = [torch.empty_like(here) for _ in range(self.size)]
        if math.prod(own.shape):
            distributed.all_gather(rows, here)
        return [row.cpu().numpy().reshape(own.shape) for row in rows]


def _device() -> torch.device:
    """Where the process group takes numbers: the host, unless it speaks NCCL alone."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


ALONE = World()
