"""Fields whose examples are no rows of one array: of unequal length, or windows over something longer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Field(ABC):
    """One entry an example, taken from longer tensors. Pieces of it are fields too; `take` makes a batch."""

    ndim = 2

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, rows: Any) -> Field:
        """The field of these examples: a slice, or whole numbers. Its values are shared, not copied."""

    @abstractmethod
    def take(self, index: Tensor) -> Any:
        """A batch of these examples: a tensor, or a tuple of them."""

    @abstractmethod
    def to(self, device: torch.device, non_blocking: bool = False) -> Field:
        """The same on a device."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the values are."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the values."""


@dataclass(frozen=True)
class Ragged(Field):
    """Examples of unequal length, one after the other in one tensor; a batch is (values padded with 0 to its
    longest, lengths).   values: (all steps, …);   starts, lengths: (n,) int64"""

    values: Tensor
    starts: Tensor
    lengths: Tensor

    @staticmethod
    def of(examples: Sequence[np.ndarray]) -> Ragged:
        """Arrays of the shapes (length, …)."""
        lengths = torch.tensor([len(one) for one in examples])
        values = torch.from_numpy(np.concatenate(examples))
        return Ragged(values, lengths.cumsum(0) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> Ragged:
        rows = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows])

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(values (n, longest, …), lengths (n,))."""
        starts, lengths = self.starts[index], self.lengths[index]
        steps = torch.arange(int(lengths.max()), device=starts.device)
        inside = steps < lengths[:, None]
        values = self.values[torch.where(inside, starts[:, None] + steps, 0)]
        return values * inside.reshape(*inside.shape, *(1,) * (values.ndim - 2)).to(values.dtype), lengths

    def to(self, device: torch.device, non_blocking: bool = False) -> Ragged:
        """The same on a device."""
        parts = (self.values, self.starts, self.lengths)
        return Ragged(*(part.to(device, non_blocking=non_blocking) for part in parts))

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes


@dataclass(frozen=True)
class Windows(Field):
    """Windows of one length over a longer tensor, which is held once.   starts: (n,) int64"""

    values: Tensor
    starts: Tensor
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> Windows:
        rows = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        return replace(self, starts=self.starts[rows])

    def later(self, by: int, length: int | None = None) -> Windows:
        """The windows that begin so many steps later: the next token, the future of a series."""
        return replace(self, starts=self.starts + by, length=length or self.length)

    def take(self, index: Tensor) -> Tensor:
        """(n, length, …)."""
        steps = torch.arange(self.length, device=self.starts.device)
        return self.values[self.starts[index][:, None] + steps]

    def to(self, device: torch.device, non_blocking: bool = False) -> Windows:
        """The same on a device."""
        values, starts = (one.to(device, non_blocking=non_blocking) for one in (self.values, self.starts))
        return Windows(values, starts, self.length)

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes
