"""Dates and times, as days since 1970, and durations; encoded together with numbers."""

from __future__ import annotations

import numpy as np
import polars as pl

from steepest.data.kinds.encoder import Settings
from steepest.data.kinds.number import fit, restore
from steepest.data.kinds.number import numbers as plain
from steepest.optim.errors import UserError

__all__ = ["TIMES", "fit", "numbers", "recognise", "restore"]

TIMES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
"""Dates and times that are known in text: ISO 8601."""


def recognise(field: object, settings: Settings) -> str | None:
    """Columns of dates, times and durations."""
    return "dates or times" if isinstance(field, pl.Series) and field.dtype.is_temporal() else None


def numbers(column: pl.Series) -> np.ndarray:
    """Days since 1970. Text is read as the dates that it must be."""
    if column.dtype == pl.String:
        for form in TIMES:
            read = column.str.to_datetime(form, strict=False)
            if read.null_count() == column.null_count():
                return plain(read)
        raise UserError(
            f"Column {column.name!r} holds text that is no date, where the training data held dates. Write "
            "them as 2024-12-31, or 2024-12-31 23:59:59."
        )
    return plain(column)
