"""From a frame to a `Source`: which column is what."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from steepest.data.arrays import numpy
from steepest.data.source import Source, fingerprint
from steepest.data.view import Rows
from steepest.optim.errors import UserError, did_you_mean

WIDE = (pl.Decimal, pl.Int128, pl.UInt128)
"""Numbers that NumPy does not know; they are read as float64."""


@dataclass(frozen=True)
class Roles:
    """Names of columns by what they are for; features=None means every column without another role."""

    target: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    sample_weight: str | None = None
    split_by: str | None = None


def names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def frame_of(data: Any) -> pl.DataFrame | None:
    """The polars frame of a polars or pandas frame; None of anything else."""
    pandas = sys.modules.get("pandas")
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    if pandas is not None and isinstance(data, pandas.DataFrame):
        check_names([str(name) for name in data.columns], "The DataFrame")
        return pl.DataFrame({str(name): _values(data[name]) for name in data.columns})
    return None


def check_names(columns: Sequence[str], name: str) -> None:
    """Refuse two columns of one name: which is meant cannot be told, and a second target gives it away."""
    twice = [column for column in dict.fromkeys(columns) if column and columns.count(column) > 1]
    if twice:
        raise UserError(
            f"{name} has several columns named {twice[0]!r}. Rename them, or leave all but one out."
        )


def joined(frame: pl.DataFrame, roles: Roles, beside: Mapping[str, Any]) -> tuple[pl.DataFrame, Roles]:
    """The frame with what was given beside it as further columns, in their roles."""
    for role, values in beside.items():
        added = _named_columns(role, values)
        for name, array in added.items():
            _check_beside(frame, name, array)
        frame = frame.with_columns(_series(name, array) for name, array in added.items())
        roles = replace(roles, **{role: tuple(added) if role == "target" else next(iter(added))})
    return frame, roles


def _named_columns(role: str, values: Any) -> dict[str, np.ndarray]:
    """Columns by name, of a frame, an array or a list; one without a name has that of its role."""
    frame = frame_of(values)
    if frame is not None:
        return {column.name: column.to_numpy() for column in frame}
    array = numpy(values)
    if role == "target" and array.ndim == 2 and array.shape[1] > 1:
        return {f"{role}{i}": column for i, column in enumerate(array.T)}
    return {str(getattr(values, "name", None) or role): array.reshape(len(array), -1)[:, 0]}


def _series(name: str, array: np.ndarray) -> pl.Series:
    return pl.Series(name, array.tolist() if array.dtype == object else array)


def _check_beside(frame: pl.DataFrame, name: str, array: np.ndarray) -> None:
    if name in frame.columns:
        raise UserError(
            f"{name!r} was given beside the columns, and is also one of them. Leave it out of them: as an "
            "input it would give the answer away."
        )
    if len(array) != len(frame):
        raise UserError(f"{name} has {len(array)} entries and the table {len(frame)} rows; they must agree.")


def source(frame: pl.DataFrame, roles: Roles, name: str) -> Source:
    """The frame with its columns in their roles; rows without a target are left out, and that is said."""
    _known(frame, roles)
    frame = frame.with_columns(pl.selectors.by_dtype(*WIDE).cast(pl.Float64))
    labelled = frame.filter(_is_given(frame, roles.target))
    lost = len(frame) - len(labelled)
    if not len(labelled):
        raise UserError(_no_rows(name, len(frame), roles))
    inputs = labelled.select(_inputs(frame, roles))
    _plain(inputs)
    _plain(labelled.select(roles.target))
    target = labelled.select(roles.target).to_numpy()
    weight = None if roles.sample_weight is None else _weight(labelled[roles.sample_weight])
    groups = None if roles.split_by is None else _given(labelled[roles.split_by])
    return Source(
        view=Rows(len(labelled)),
        name=name,
        inputs=inputs,
        target=target[:, 0] if len(roles.target) == 1 else target,
        targets=roles.target,
        weight=weight,
        groups=groups,
        fingerprint=fingerprint(inputs, target, weight, groups),
        notes=(f"{lost} of {len(frame)} rows have no target and are left out.",) if lost else (),
    )


def _known(frame: pl.DataFrame, roles: Roles) -> None:
    """Every name must be that of a column, and there must be a target."""
    if not roles.target:
        shown = ", ".join(frame.columns[:12]) + (", …" if frame.width > 12 else "")
        raise UserError(f"Which column is to be predicted? Give target=; the columns are: {shown}.")
    single = [name for name in (roles.sample_weight, roles.split_by) if name is not None]
    for wanted in (*roles.target, *(roles.features or ()), *roles.drop, *single):
        if wanted not in frame.columns:
            raise UserError(f"There is no column {wanted!r}.{did_you_mean(wanted, frame.columns)}")
    if len(set(roles.target)) < len(roles.target):
        raise UserError(f"A column is named twice in target={list(roles.target)}. Name each one once.")


def _inputs(frame: pl.DataFrame, roles: Roles) -> list[str]:
    taken = {*roles.target, *roles.drop, roles.sample_weight, roles.split_by}
    wanted: Iterable[str] = frame.columns if roles.features is None else roles.features
    left = [name for name in wanted if name not in taken]
    if not left:
        raise UserError(
            f"No column is left to predict {', '.join(roles.target)} from. Check features= and drop=."
        )
    return left


def _is_given(frame: pl.DataFrame, target: tuple[str, ...]) -> pl.Expr:
    """Rows whose targets are all there: neither null nor NaN."""
    there = [pl.col(name).is_not_null() for name in target]
    numbers = [pl.col(name).is_nan().not_() for name in target if frame.schema[name].is_float()]
    return pl.all_horizontal(*there, *numbers)


def _no_rows(name: str, rows: int, roles: Roles) -> str:
    if not rows:
        return f"{name} has a header but no rows. Give at least a few dozen rows."
    wanted = " and ".join(roles.target)
    return f"{name}: none of the {rows} rows has a value for {wanted}. Is it the right column?"


def _plain(inputs: pl.DataFrame) -> None:
    for name, kind in inputs.schema.items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise UserError(
                f"Column {name!r} holds {kind}, which is not one value a row. Spread it over columns, or "
                f"drop={[name]!r}."
            )


def _weight(column: pl.Series) -> np.ndarray:
    if not column.dtype.is_numeric():
        raise UserError(
            f"The column of sample weights {column.name!r} must hold numbers, got {column.dtype}."
        )
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _given(column: pl.Series) -> np.ndarray:
    missing = column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)
    if missing:
        raise UserError(
            f"split_by={column.name!r} has {missing} missing values: such rows belong to no "
            "part. "
            "Fill them or leave these rows out."
        )
    return column.to_numpy()


def _values(column: Any) -> pl.Series:
    """One pandas column; its missing values become null."""
    if column.dtype.kind in "iufb" and isinstance(column.dtype, np.dtype):
        return pl.Series(column.to_numpy())
    missing = column.isna()
    values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    try:
        return pl.Series(values)
    except (TypeError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"Column {str(column.name)!r} mixes types ({first}). Make it all numbers or all text."
        ) from error
