"""`Scaling`: missing values filled and numbers scaled, by numbers fitted once and kept plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steepest.optim.errors import UserError

Scale = Literal["standard", "minmax"] | None
Impute = Literal["median", "mean"] | None

SLAB = 1 << 20
"""Numbers handled at a time, so that float64 copies of large pictures stay small."""


@dataclass(frozen=True)
class Scaling:
    """y = (x with gaps filled - shift) / scale, a number a channel.

    Channels are the columns of a table, axis 1 of pictures (n, channels, height, width), else the last axis.
    fill: (channels,) or None where gaps are refused.   Equals scikit-learn's imputer, then its scaler."""

    fill: tuple[float, ...] | None
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, values: np.ndarray, names: tuple[str, ...] = ()) -> np.ndarray:
        """float32 of the same shape; NaN without a fill and infinities are refused."""
        channels = channels_last(values[:1]).shape[-1]
        if channels != len(self.shift):
            raise UserError(
                f"An input has shape {values.shape}, {channels} channels or columns; the training data had "
                f"{len(self.shift)}. Give inputs like those that were trained on."
            )
        out = np.empty(values.shape, dtype=np.float32)
        step = max(1, SLAB // max(1, values[:1].size))
        for begin in range(0, len(values), step):
            piece = np.asarray(values[begin : begin + step], dtype=np.float64)
            out[begin : begin + step] = self._of(piece, names, begin)
        return out

    def _of(self, piece: np.ndarray, names: tuple[str, ...], begin: int) -> np.ndarray:
        across = channels_last(piece)
        if self.fill is not None:
            across = np.where(np.isnan(across), self.fill, across)
        check_finite(across, names, begin)
        scaled = (across - self.shift) / self.scale
        if np.abs(scaled).max(initial=0.0) > np.finfo(np.float32).max:
            raise UserError(
                "Some features are beyond float32's range after scaling (3e38). Mend or drop them."
            )
        return np.moveaxis(scaled, -1, 1) if piece.ndim == 4 else scaled


def fit(values: np.ndarray, scale: Scale, impute: Impute, names: tuple[str, ...] = ()) -> Scaling:
    """The numbers of training values, by scikit-learn's transformers. Pictures and series are not imputed."""
    channels = channels_last(values[:1]).shape[-1]
    fill = _fill(values, impute, names) if impute and values.ndim == 2 else None
    scaler = _scaler(scale)
    if scaler is None:
        return Scaling(fill, (0.0,) * channels, (1.0,) * channels)
    step = max(1, SLAB // max(1, values[:1].size))
    for begin in range(0, len(values), step):
        rows = channels_last(np.asarray(values[begin : begin + step], dtype=np.float64))
        rows = rows if fill is None else np.where(np.isnan(rows), fill, rows)
        check_finite(rows, names, begin)
        with np.errstate(over="ignore", invalid="ignore"):
            scaler.partial_fit(rows.reshape(-1, channels))
    shift = scaler.mean_ if scale == "standard" else scaler.data_min_
    spread = scaler.scale_ if scale == "standard" else 1 / scaler.scale_
    if not np.isfinite([shift, spread]).all():
        raise UserError(
            "Some features are too large to be scaled (their squares overflow). Mend or drop them."
        )
    return Scaling(fill, tuple(shift.tolist()), tuple(spread.tolist()))


def channels_last(values: np.ndarray) -> np.ndarray:
    """A view with the channels on the last axis."""
    return np.moveaxis(values, 1, -1) if values.ndim == 4 else values


def check_finite(across: np.ndarray, names: tuple[str, ...], begin: int = 0) -> None:
    """Refuse NaN and infinity, naming the place; `begin` is the number of the first row."""
    bad = ~np.isfinite(across)
    if not bad.any():
        return
    place = np.argwhere(bad)[0]
    what = "infinite" if np.isinf(across[tuple(place)]) else "missing (NaN)"
    column = names[place[-1]] if names else str(place[-1])
    remedy = (
        "Mend or drop it." if what == "infinite" else "Give impute='median' (tables), or mend or drop it."
    )
    raise UserError(f"Feature {column!r} is {what} in row {begin + place[0]} (from 0) of its part. {remedy}")


def _fill(values: np.ndarray, impute: str, names: tuple[str, ...]) -> tuple[float, ...]:
    from sklearn.impute import SimpleImputer

    values = np.asarray(values, dtype=np.float64)
    check_finite(np.where(np.isnan(values), 0.0, values), names)
    imputer: Any = SimpleImputer(strategy=impute, keep_empty_features=True).fit(values)
    return tuple(imputer.statistics_.tolist())


def _scaler(scale: Scale) -> Any:
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    scalers = {None: lambda: None, "standard": StandardScaler, "minmax": MinMaxScaler}
    if scale not in scalers:
        raise UserError(f"scale must be 'standard', 'minmax' or None, got {scale!r}.")
    return scalers[scale]()
