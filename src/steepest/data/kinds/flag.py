"""Yes or no, as 1 and 0, encoded together with numbers."""

from __future__ import annotations

import polars as pl

from steepest.data.kinds.encoder import Settings
from steepest.data.kinds.number import fit, numbers, restore

__all__ = ["fit", "numbers", "recognise", "restore"]


def recognise(field: object, settings: Settings) -> str | None:
    """Columns of yes and no."""
    return "yes or no" if isinstance(field, pl.Series) and field.dtype == pl.Boolean else None
