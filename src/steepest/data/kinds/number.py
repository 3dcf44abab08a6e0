"""Columns of numbers: read as one matrix, filled and scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from steepest.data.kinds import scaled
from steepest.data.kinds.encoder import Settings
from steepest.data.kinds.scaled import Scaled, Scaling
from steepest.optim.errors import UserError

DAY = 86_400_000_000
"""Microseconds."""


class Numbers(Scaled):
    """Columns of numbers, dates and flags, in one matrix.   columns: name → (kind, how that kind reads it)"""

    def __init__(self, columns: Mapping[str, tuple[str, Any]], scaling: Scaling) -> None:
        super().__init__("number", scaling, (len(columns),), tuple(columns))
        self.columns = dict(columns)

    def read(self, raw: pl.DataFrame) -> Tensor:
        """(rows, columns), missing values as NaN."""
        return super().read(matrix(raw, self.columns))

    def config(self) -> dict[str, Any]:
        """Columns with their kinds, and the scaling."""
        named = [[name, kind] for name, (kind, _) in self.columns.items()]
        return {"columns": named, "scaling": super().config()["scaling"]}


def recognise(field: object, settings: Settings) -> str | None:
    """Columns of numbers, and those that hold nothing at all."""
    number = isinstance(field, pl.Series) and (field.dtype.is_numeric() or field.dtype == pl.Null)
    return "numbers" if number else None


def fit(columns: pl.DataFrame, kinds: Mapping[str, tuple[str, Any]], settings: Settings) -> Numbers:
    """Fill, mean and spread of every column."""
    values = matrix(columns, kinds)
    return Numbers(kinds, scaled.fit(values, settings.scale, settings.impute, tuple(kinds)))


def restore(config: Mapping[str, Any], kinds: Mapping[str, tuple[str, Any]]) -> Numbers:
    """The encoder that a run folder keeps."""
    return Numbers(kinds, Scaling.of(config["scaling"]))


def matrix(frame: pl.DataFrame, kinds: Mapping[str, tuple[str, Any]]) -> np.ndarray:
    """These columns as float64 (rows, columns), each as its kind reads it."""
    out = np.empty((len(frame), len(kinds)))
    for place, (name, (_, kind)) in enumerate(kinds.items()):
        out[:, place] = kind.numbers(frame[name])
    return out


def numbers(column: pl.Series) -> np.ndarray:
    """A column as float64, missing values as NaN; dates and times as days."""
    kind = column.dtype
    if kind in (pl.String, pl.Categorical, pl.Enum):
        read = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        if read.null_count() > column.null_count():
            raise UserError(
                f"Column {column.name!r} holds text where the training data held numbers. Mend these entries."
            )
        column = read
    elif kind in (pl.Date, pl.Datetime):
        column = column.cast(pl.Datetime("us")).dt.timestamp("us") / DAY
    elif kind in (pl.Duration, pl.Time):
        column = column.cast(pl.Int64)
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
