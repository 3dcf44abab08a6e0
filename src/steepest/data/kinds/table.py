"""A table: columns of any kinds, each encoded by its own, joined to one row of features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from steepest.data import kinds
from steepest.data.kinds import category, number
from steepest.data.kinds.encoder import Encoder, Settings
from steepest.data.tree import Tree
from steepest.optim.errors import UserError, did_you_mean


class Table(Encoder):
    """Numbers first, then the places of categories, then columns of other kinds, in the order of the table.

    numbers     columns that are read as numbers: of those kinds that have a function `numbers`
    categories  columns of text
    others      column → the encoder of its own kind"""

    def __init__(
        self,
        numbers: number.Numbers | None,
        categories: category.Categories,
        others: Mapping[str, Encoder],
    ) -> None:
        super().__init__()
        self.kind, self.numbers, self.categories, self.others = "table", numbers, categories, dict(others)
        parts = [numbers, categories if categories.categories else None, *others.values()]
        self.parts = nn.ModuleList(part for part in parts if part is not None)
        alone = self.encoders()
        self.shape = (
            alone[0].shape
            if len(alone) == 1
            else (sum(math.prod(n or 1 for n in part.shape) for part in self.encoders()),)
        )

    @property
    def suits(self) -> str:
        """That of a column that stands alone, else dense layers."""
        alone = self.encoders()
        return alone[0].suits if len(alone) == 1 else "mlp"

    def encoders(self) -> list[Encoder]:
        """The encoders that give features, in order."""
        return [part for part in self.parts if isinstance(part, Encoder)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        named = () if self.numbers is None else self.numbers.names
        return (*named, *self.categories.categories, *self.others)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every feature of numbers and categories."""
        held = self.categories.categories.items()
        places = (f"{name}={value}" for name, values in held for value in values)
        return (*(() if self.numbers is None else self.numbers.names), *places)

    def read(self, raw: Any) -> Tree:
        """What each part reads, alone or in a tuple; columns are found by name."""
        frame = self._frame(raw)
        for name in self.columns:
            if name not in frame.columns:
                raise UserError(f"The data lack the column {name!r}.{did_you_mean(name, frame.columns)}")
        others = iter(self.others)
        held = [
            part.read(frame if part in (self.numbers, self.categories) else frame[next(others)])
            for part in self.encoders()
        ]
        return held[0] if len(held) == 1 else tuple(held)

    def forward(self, *fields: Any) -> Tensor:
        """float32 (rows, features)."""
        features = [
            part(*field) if isinstance(field, tuple) else part(field)
            for part, field in zip(self.encoders(), fields, strict=True)
        ]
        return features[0] if len(features) == 1 else torch.cat([one.flatten(1) for one in features], 1)

    def config(self) -> dict[str, Any]:
        """The parts."""
        numbers = None if self.numbers is None else self.numbers.config()
        others = [[name, {"kind": part.kind, **part.config()}] for name, part in self.others.items()]
        return {"numbers": numbers, "categories": self.categories.config(), "others": others}

    def sentences(self) -> list[str]:
        """How many columns of which kind; what is left out."""
        named = () if self.numbers is None else self.numbers.names
        parts = [f"{len(named)} columns of numbers"] if named else []
        held = self.categories.categories.items()
        parts += [f"{name} in {len(values)} categories" for name, values in held if values]
        parts += [f"{name} as {part.kind}" for name, part in self.others.items()]
        lines = [f"Learns from {', '.join(parts)}."]
        if self.categories.left_out:
            shown = ", ".join(self.categories.left_out)
            lines.append(f"Left out, as nearly every row has another text there: {shown}.")
        return lines + [line for part in self.others.values() for line in part.sentences()]

    def _frame(self, raw: Any) -> pl.DataFrame:
        names = () if self.numbers is None else self.numbers.names
        plain = isinstance(raw, np.ndarray) and raw.ndim == 2 and self.columns == names
        if plain and raw.shape[1] == len(names):
            return pl.DataFrame(raw, schema=list(names), orient="row")
        if not isinstance(raw, pl.DataFrame):
            raise UserError(
                f"These inputs must come as a table with named columns, got {type(raw).__name__}."
            )
        return raw


def recognise(field: object, settings: Settings) -> str | None:
    """Frames."""
    return "a table" if isinstance(field, pl.DataFrame) else None


def fit(train: pl.DataFrame, name: str, settings: Settings) -> Table:
    """Each column by its kind, from the training rows. Raises UserError where no column is left."""
    found = {column.name: kinds.recognised(column, column.name, settings) for column in train}
    numeric = {name: kind for name, kind in found.items() if hasattr(kind[1], "numbers")}
    text = [name for name, (kind, _) in found.items() if kind == "category"]
    others = {
        name: kind.fit(train[name], name, settings)
        for name, (_, kind) in found.items()
        if name not in numeric and name not in text
    }
    categories = category.fit(train.select(text), settings)
    if not numeric and not others and not any(categories.categories.values()):
        shown = next((f", such as {value!r}" for name in text for value in train[name].drop_nulls()[:1]), "")
        raise UserError(
            f"No column is left to learn from: {', '.join(train.columns)} are empty, or hold text with "
            f"nearly as many values as rows{shown}. Give columns of numbers (0.5, not 0,5) or categories."
        )
    return Table(number.fit(train, numeric, settings) if numeric else None, categories, others)


def restore(config: Mapping[str, Any]) -> Table:
    """The table that a run folder keeps."""
    numbers = config["numbers"]
    if numbers is not None:
        numbers = number.restore(
            numbers, {name: (kind, kinds.KINDS[kind]) for name, kind in numbers["columns"]}
        )
    others = {name: kinds.restore(of) for name, of in config["others"]}
    return Table(numbers, category.restore(config["categories"]), others)


def check_text(frame: pl.DataFrame) -> None:
    """Refuse columns that are text because of a few entries: most of their many values are numbers."""
    for column in (frame[name] for name, kind in frame.schema.items() if kind == pl.String):
        given = column.drop_nulls()
        wrong = given.filter(given.str.strip_chars().cast(pl.Float64, strict=False).is_null())
        if given.n_unique() > 20 and 0 < len(wrong) < 0.2 * len(given):
            shown = ", ".join(repr(value) for value in wrong.unique(maintain_order=True)[:3])
            raise UserError(
                f"Column {column.name!r} holds text where numbers are due: {shown} in {len(wrong)} of "
                f"{len(column)} rows. Mend or empty these entries, or drop=[{column.name!r}]."
            )
