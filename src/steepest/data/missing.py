"""Gaps: missing values, counted by column in the training part and in all in the others, before they are
filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from steepest.data.kinds.category import is_text
from steepest.data.kinds.encoder import Impute
from steepest.data.kinds.number import numbers
from steepest.data.tree import Tree, leaves

NAMED = 6
"""Most columns that are named one by one."""


def told(
    inputs: Tree, train: np.ndarray, impute: Impute, others: Sequence[tuple[Tree, np.ndarray]] = ()
) -> str:
    """What is filled and what is empty among these rows, as a sentence; nothing where there are no gaps.

    others  (inputs, rows) of further parts, whose gaps are filled by the same numbers"""
    holes = _in(inputs, train)
    filled = {name: gaps for name, gaps in holes.items() if gaps < len(train)}
    empty = [name for name in holes if name not in filled]
    parts = []
    if filled:
        where, total = _listed([f"{name} ({gaps})" for name, gaps in filled.items()]), sum(filled.values())
        are = ("gap", "is") if total == 1 else ("gaps", "are")
        parts.append(f"{total} {are[0]} of the training rows {are[1]} filled by the {impute}: {where}")
    if empty:
        parts.append(f"empty in all training rows, so that nothing is learnt from them: {_listed(empty)}")
    if more := sum(_beside(empty, _in(_numbers(held), rows)) for held, rows in others):
        are = "gap of other rows is" if more == 1 else "gaps of other rows are"
        parts.append(f"{more} {are} filled by the {impute} of the training rows")
    return "; ".join(parts)


def _beside(empty: list[str], holes: dict[str, int]) -> int:
    """Gaps of the columns that the training rows can fill."""
    return sum(gaps for name, gaps in holes.items() if name not in empty)


def _in(inputs: Tree, rows: np.ndarray) -> dict[str, int]:
    """Columns with gaps among these rows, and how many."""
    if isinstance(inputs, pl.DataFrame):
        return dict(_of_frame(inputs[rows])) if inputs.width else {}
    return dict(_of_arrays(inputs, rows))


def _numbers(inputs: Tree) -> Tree:
    """Without columns of text, which nothing is filled into."""
    if not isinstance(inputs, pl.DataFrame):
        return inputs
    return inputs.select(name for name, kind in inputs.schema.items() if not is_text(kind))


def _of_frame(frame: pl.DataFrame) -> Iterator[tuple[str, int]]:
    """Columns with gaps; of text only empty ones, as a missing category is one like any other."""
    for name, kind in frame.schema.items():
        if is_text(kind):
            gaps = len(frame) if frame[name].null_count() == len(frame) else 0
        else:
            gaps = int(np.isnan(numbers(frame[name])).sum())
        if gaps:
            yield name, gaps


def _of_arrays(inputs: Tree, train: np.ndarray) -> Iterator[tuple[str, int]]:
    """Columns of matrices with gaps; those of pictures and series are refused where they are scaled."""
    every = list(leaves(inputs))
    for number, values in enumerate(every):
        if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind == "f":
            counts, of = np.isnan(values[train]).sum(axis=0), f" of input {number}" if len(every) > 1 else ""
            yield from ((f"column {at}{of}", int(counts[at])) for at in np.flatnonzero(counts))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
