"""`Columns`: a table of any types as one matrix of numbers, by what its training rows hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from steepest.data.scaling import Impute, Scale, Scaling
from steepest.data.scaling import fit as fit_scaling
from steepest.optim.errors import UserError, did_you_mean

MOST = 50
"""Categories of a column that get a place of their own: the most frequent ones. All others are zeros."""


@dataclass(frozen=True)
class Columns:
    """Columns of numbers, scaled, then one place for every category of every column of text.

    numbers     columns read as numbers; dates as days since 1970, yes and no as 1 and 0
    categories  column → its categories in order; missing and unseen ones give zeros
    left_out    columns of text with nearly as many values as rows: names, not categories
    """

    numbers: tuple[str, ...]
    scaling: Scaling
    categories: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every column of the matrix."""
        places = (f"{name}={value}" for name, values in self.categories.items() for value in values)
        return (*self.numbers, *places)

    def apply(self, frame: pl.DataFrame) -> np.ndarray:
        """The frame as float32 (rows, len(names)); its columns are found by name."""
        for name in (*self.numbers, *self.categories):
            if name not in frame.columns:
                raise UserError(f"The data lack the column {name!r}.{did_you_mean(name, frame.columns)}")
        scaled = self.scaling.apply(number_matrix(frame, self.numbers), self.numbers)
        return np.hstack(
            [scaled, *(_places(frame[name], values) for name, values in self.categories.items())]
        )


def fit(train: pl.DataFrame, scale: Scale, impute: Impute) -> Columns:
    """What the training rows hold."""
    text = [name for name, kind in train.schema.items() if is_text(kind)]
    left_out = tuple(name for name in text if _is_a_name(train[name]))
    numbers = tuple(name for name in train.columns if name not in text)
    categories = {name: _frequent(train[name]) for name in text if name not in left_out}
    if not numbers and not any(categories.values()):
        shown = next((f", such as {value!r}" for name in text for value in train[name].drop_nulls()[:1]), "")
        raise UserError(
            f"No column is left to learn from: {', '.join(train.columns)} are empty, or hold text with "
            f"nearly as many values as rows{shown}. Give columns of numbers (0.5, not 0,5) or categories."
        )
    # scikit-learn refuses a matrix without columns, which a table of categories alone has nothing against.
    matrix = number_matrix(train, numbers)
    scaling = fit_scaling(matrix, scale, impute, numbers) if numbers else Scaling(None, (), ())
    return Columns(numbers, scaling, categories, left_out)


def is_text(kind: pl.DataType) -> bool:
    """Whether a column of this type holds categories."""
    return kind in (pl.String, pl.Categorical, pl.Enum)


def number_matrix(frame: pl.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """These columns as float64 (rows, columns), missing values as NaN."""
    if not names:
        return np.empty((len(frame), 0))
    return frame.select(_number(frame, name) for name in names).to_numpy().astype(np.float64, copy=False)


def check_text(frame: pl.DataFrame) -> None:
    """Refuse columns that are text because of a few entries: most of their many values are numbers."""
    for column in (frame[name] for name, kind in frame.schema.items() if kind == pl.String):
        given = column.drop_nulls()
        wrong = given.filter(given.str.strip_chars().cast(pl.Float64, strict=False).is_null())
        if given.n_unique() > 20 and 0 < len(wrong) < 0.2 * len(given):
            shown = ", ".join(repr(value) for value in wrong.unique(maintain_order=True)[:3])
            raise UserError(
                f"Column {column.name!r} holds text where numbers are due: {shown} in {len(wrong)} of "
                f"{len(column)} "
                f"rows. Mend or empty these entries, or drop=[{column.name!r}]."
            )


def _number(frame: pl.DataFrame, name: str) -> pl.Expr:
    kind, column = frame.schema[name], pl.col(name)
    if is_text(kind):
        raise UserError(
            f"Column {name!r} holds text where the training data held numbers. Mend these entries."
        )
    if kind in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.timestamp("us") / 86_400_000_000
    if kind in (pl.Duration, pl.Time):
        return column.cast(pl.Int64).cast(pl.Float64)
    return column.cast(pl.Float64).fill_null(float("nan"))


def _is_a_name(column: pl.Series) -> bool:
    """Whether it has so many values that none says anything about another row."""
    return column.n_unique() > max(MOST, len(column) // 2)


def _frequent(column: pl.Series) -> tuple[str, ...]:
    """The most frequent categories, in the order of the alphabet."""
    entries = column.cast(pl.String).drop_nulls().alias("value")
    counts = entries.value_counts(name="rows").sort("rows", "value", descending=[True, False])
    return tuple(sorted(counts["value"].head(MOST).to_list()))


def _places(column: pl.Series, values: tuple[str, ...]) -> np.ndarray:
    """One-hot (rows, categories): 1 in the place of the row's category."""
    text = column.cast(pl.String)
    numbers = text.replace_strict(list(values), range(len(values)), default=-1, return_dtype=pl.Int64)
    known = numbers.fill_null(-1).to_numpy()
    rows = np.flatnonzero(known >= 0)
    places = np.zeros((len(column), len(values)), dtype=np.float32)
    places[rows, known[rows]] = 1
    return places
