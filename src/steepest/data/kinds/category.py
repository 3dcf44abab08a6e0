"""Columns of text with repeats: one place for every category that is frequent in the training part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from steepest.data.kinds.encoder import Encoder, Settings
from steepest.data.kinds.scaled import narrowest
from steepest.data.tree import tensor

MOST = 50
"""Categories of a column that get a place of their own: the most frequent ones. All others are zeros."""


class Categories(Encoder):
    """One-hot places, column after column.   categories: column → its categories in order; missing and unseen
    ones give zeros.   left_out: columns with nearly as many values as rows: names, not categories"""

    first: Tensor
    kept: Tensor

    def __init__(self, categories: Mapping[str, tuple[str, ...]], left_out: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.kind, self.categories, self.left_out = "category", dict(categories), left_out
        sizes = [len(values) for values in self.categories.values()]
        self.shape = (sum(sizes),)
        # A code one past the last category stands for none: the places of a column end with one to drop.
        ends = np.cumsum([size + 1 for size in sizes])
        self.register_buffer("first", torch.tensor([0, *ends[:-1]]), persistent=False)
        kept = np.delete(np.arange(ends[-1]), ends - 1) if sizes else np.empty(0, np.int64)
        self.register_buffer("kept", torch.from_numpy(kept.astype(np.int64)), persistent=False)
        self.wide = int(ends[-1]) if sizes else 0

    def read(self, raw: pl.DataFrame) -> Tensor:
        """(rows, columns): the number of each entry's category, or how many there are for none of them."""
        codes = np.empty((len(raw), len(self.categories)), dtype=np.int64)
        for place, (name, values) in enumerate(self.categories.items()):
            numbers = text(raw[name]).replace_strict(
                list(values), range(len(values)), default=len(values), return_dtype=pl.Int64
            )
            codes[:, place] = numbers.fill_null(len(values)).to_numpy()
        return tensor(narrowest(codes))

    def forward(self, *fields: Tensor) -> Tensor:
        """float32 (rows, places): 1 in the place of each category."""
        codes = fields[0].long() + self.first.to(fields[0].device)
        places = torch.zeros(codes.shape[0], self.wide, device=codes.device)
        return places.scatter(1, codes, 1.0).index_select(1, self.kept.to(codes.device))

    def config(self) -> dict[str, Any]:
        """Categories by column, and the columns that are left out."""
        named = [[name, list(values)] for name, values in self.categories.items()]
        return {"categories": named, "left_out": list(self.left_out)}


def recognise(field: object, settings: Settings) -> str | None:
    """Columns of text."""
    return "text" if isinstance(field, pl.Series) and is_text(field.dtype) else None


def fit(columns: pl.DataFrame, settings: Settings) -> Categories:
    """The frequent categories of each column; columns that name rows are left out."""
    left_out = tuple(column.name for column in columns if _is_a_name(column))
    return Categories({c.name: _frequent(c) for c in columns if c.name not in left_out}, left_out)


def restore(config: Mapping[str, Any]) -> Categories:
    """The encoder that a run folder keeps."""
    return Categories({name: tuple(of) for name, of in config["categories"]}, tuple(config["left_out"]))


def is_text(kind: pl.DataType) -> bool:
    """Whether a column of this type holds categories."""
    return kind in (pl.String, pl.Categorical, pl.Enum)


def text(column: pl.Series) -> pl.Series:
    """Entries as text; whole numbers of a file whose column holds nothing else are 3, not 3.0."""
    if column.dtype.is_float() and column.drop_nulls().is_finite().all():
        whole = column.cast(pl.Int64, strict=False)
        column = whole if (whole.cast(column.dtype) == column).all() else column
    return column.cast(pl.String)


def _is_a_name(column: pl.Series) -> bool:
    """Whether it has so many values that none says anything about another row."""
    return column.n_unique() > max(MOST, len(column) // 2)


def _frequent(column: pl.Series) -> tuple[str, ...]:
    """The most frequent categories, in the order of the alphabet."""
    entries = column.cast(pl.String).drop_nulls().alias("value")
    counts = entries.value_counts(name="rows").sort("rows", "value", descending=[True, False])
    return tuple(sorted(counts["value"].head(MOST).to_list()))
