"""Numbers, filled where they are missing and scaled, by numbers fitted once and kept plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.data.kinds.encoder import Encoder, Impute, Scale
from steepest.data.tree import tensor
from steepest.optim.errors import UserError

SLAB = 1 << 20
"""Numbers handled at a time, so that float64 copies of large pictures stay small."""


@dataclass(frozen=True)
class Scaling:
    """y = (x, or fill where x is missing, - shift) / scale, a number a channel.

    Channels are the columns of a table, axis 1 of pictures (n, channels, height, width), else the last axis.
    fill: (channels,) or None where missing numbers are refused. Equals scikit-learn's imputer and scaler."""

    fill: tuple[float, ...] | None
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @staticmethod
    def of(config: Mapping[str, Any]) -> Scaling:
        """From the plain dict of `dataclasses.asdict`, through JSON or not."""
        fill = config["fill"]
        return Scaling(None if fill is None else tuple(fill), tuple(config["shift"]), tuple(config["scale"]))


class Scaled(Encoder):
    """Numbers of one shape. Centred and divided in float64, then float32: no two values become one that were
    not before.   names: of the columns, for errors"""

    shift: Tensor
    scale: Tensor
    fill: Tensor | None

    def __init__(
        self, kind: str, scaling: Scaling, shape: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.kind, self.scaling, self.shape, self.names = kind, scaling, shape, names
        for name in ("shift", "scale", "fill"):
            values = getattr(scaling, name)
            constant = None if values is None else torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, constant, persistent=False)

    def read(self, raw: Any) -> Tensor:
        """Numbers in the narrowest type. NaN without a fill, infinities and what float32 cannot hold once it
        is scaled are refused."""
        values, channels = np.asarray(raw), channels_last(raw[:1]).shape[-1]
        if channels != len(self.scaling.shift):
            raise UserError(
                f"An input has shape {values.shape}, {channels} channels or columns; the training data had "
                f"{len(self.scaling.shift)}. Give inputs like those that were trained on."
            )
        for begin, piece in slabs(values):
            self._check(piece, begin)
        return tensor(narrowest(values))

    def forward(self, *fields: Tensor) -> Tensor:
        """float32 of the same shape."""
        (values,) = fields
        at = torch.device("cpu") if values.device.type == "mps" else values.device
        axes = (-1, 1, 1) if values.ndim == 4 else (-1,)
        shift, scale = self.shift.to(at).reshape(axes), self.scale.to(at).reshape(axes)
        x = values.to(at).double()
        if self.fill is not None:
            x = torch.where(x.isnan(), self.fill.to(at).reshape(axes), x)
        return ((x - shift) / scale).float().to(values.device)

    def config(self) -> dict[str, Any]:
        """The scaling, and the shape of one example."""
        return {"scaling": asdict(self.scaling), "shape": list(self.shape)}

    def _check(self, piece: np.ndarray, begin: int) -> None:
        across = channels_last(np.asarray(piece, dtype=np.float64))
        if self.scaling.fill is not None:
            across = np.where(np.isnan(across), self.scaling.fill, across)
        check_finite(across, self.names, begin)
        scaled = (across - self.scaling.shift) / self.scaling.scale
        if np.abs(scaled).max(initial=0.0) > np.finfo(np.float32).max:
            raise UserError(
                "Some features are beyond float32's range after scaling (3e38). Mend or drop them."
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Scaled:
        """Constants follow the network to its device and stay float64, which a device may not have (Apple's):
        numbers are then scaled on the host."""
        try:
            device = fn(torch.empty(0, dtype=torch.float64)).device
            return super()._apply(lambda constant: constant.to(device), recurse)
        except TypeError:
            return self


def fit(values: np.ndarray, scale: Scale, impute: Impute, names: tuple[str, ...] = ()) -> Scaling:
    """The numbers of training values, by scikit-learn's transformers. Pictures and series are not imputed."""
    channels = channels_last(values[:1]).shape[-1]
    fill = _fill(values, impute, names) if impute and values.ndim == 2 else None
    scaler = _scaler(scale)
    if scaler is None:
        return Scaling(fill, (0.0,) * channels, (1.0,) * channels)
    for begin, piece in slabs(values):
        rows = channels_last(np.asarray(piece, dtype=np.float64))
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


def narrowest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the narrowest type that torch has and that holds every one exactly."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        for kind in (np.uint8, np.int8, np.int16, np.int32, np.int64):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return values.astype(kind, copy=False)
        values = values.astype(np.float64)
    if values.dtype.itemsize > 4 and all(_single(piece) for _, piece in slabs(values)):
        return values.astype(np.float32)
    return values


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


def slabs(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, rows) of pieces that are small enough for a float64 copy."""
    step = max(1, SLAB // max(1, values[:1].size))
    return ((begin, values[begin : begin + step]) for begin in range(0, len(values), step))


def _single(piece: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(((piece.astype(np.float32) == piece) | np.isnan(piece)).all())


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
