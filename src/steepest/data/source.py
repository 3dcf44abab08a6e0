"""`Source`: data as read, before anything is fitted, split or shuffled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from steepest.data.fields import Field
from steepest.data.tree import leaves
from steepest.data.view import View


@dataclass(frozen=True)
class Source:
    """Data with their roles.

    view         how examples are reached
    inputs       a polars frame, a NumPy array or a tree of them; the user's Dataset or stream as it is
    target       (n,) or (n, targets): numbers or text, as read; None for data to predict
    weight       (n,) float64, or None
    groups       (n,) the column that decides the split (a group or a time), or None
    fingerprint  SHA-256 of the content
    labelled     whether whole numbers as targets are labels however many there are, as those of pictures are
    notes        sentences on what reading has left out
    """

    view: View
    name: str
    inputs: Any
    target: np.ndarray | None
    targets: tuple[str, ...] = ("target",)
    weight: np.ndarray | None = None
    groups: np.ndarray | None = None
    labelled: bool = False
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def examples(self) -> int | None:
        """How many there are, or None where a stream does not say."""
        return self.view.examples

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input columns of a table; () of anything else."""
        return tuple(self.inputs.columns) if isinstance(self.inputs, pl.DataFrame) else ()


def fingerprint(*parts: Any) -> str:
    """SHA-256 over arrays, frames and trees of them: types, shapes, names and every value."""
    digest = hashlib.sha256()
    for part in (leaf for whole in parts for leaf in leaves(whole)):
        for piece in _bytes(part):
            digest.update(piece)
    return digest.hexdigest()


def _bytes(part: Any) -> list[bytes]:
    if isinstance(part, pl.DataFrame):
        numbers = part.select(pl.selectors.numeric())
        text = part.select(~pl.selectors.numeric()).with_columns(pl.selectors.duration().to_physical())
        columns = [np.ascontiguousarray(column.to_numpy()).tobytes() for column in numbers]
        return [repr(part.schema).encode(), *columns, text.write_csv().encode()]
    if isinstance(part, np.ndarray):
        values = (
            repr(part.tolist()).encode() if part.dtype == object else np.ascontiguousarray(part).tobytes()
        )
        return [f"{part.dtype}{part.shape}".encode(), values]
    if isinstance(part, Field):
        held = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        plain = {name: value for name, value in vars(part).items() if not isinstance(value, torch.Tensor)}
        return [repr(plain).encode(), *(piece for tensor in held for piece in _bytes(tensor.numpy()))]
    return [repr(part).encode()]
