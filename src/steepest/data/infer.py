"""`task`: what is to be learnt from a target, and why that was taken to be so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steepest.data.source import Source
from steepest.optim.errors import UserError

FEW = 20
"""Whole numbers of at most so many different values are labels; a quality from 3 to 9 is, an age is not."""


@dataclass(frozen=True)
class Task:
    """What is to be learnt.

    kind     "classification"; "binary" where there are two classes; "regression"
    classes  the labels as text, in the order of the outputs; None for regression
    outputs  numbers that a model gives for an example: classes, or targets of a regression
    targets  names of the columns to predict
    why      why it was taken for that
    """

    kind: Literal["classification", "binary", "regression"]
    targets: tuple[str, ...]
    outputs: int
    classes: tuple[str, ...] | None
    why: str

    def sentences(self) -> list[str]:
        """Lines for people: what is predicted, and why it is taken for that."""
        what = " and ".join(self.targets)
        if self.classes is None:
            return [f"Predicts the number {what} (regression): {self.why}."]
        shown = ", ".join(self.classes[:10]) + (", …" if self.outputs > 10 else "")
        return [f"Predicts {what}, one of {self.outputs} classes ({shown}): {self.why}."]


def task(source: Source, task: Literal["auto", "classification", "regression"] = "auto") -> Task:
    """The task that the target poses, or the one that was asked for, with the target checked for it."""
    if source.target is None:
        raise UserError("There is no target to learn from. Give target=, or (X, y).")
    if task not in ("auto", "classification", "regression"):
        raise UserError(f"task must be 'auto', 'classification' or 'regression', got {task!r}.")
    kind, why = _kind(source) if task == "auto" else (task, "as asked")
    if kind == "regression":
        _check_numbers(source.target, source.targets)
        return Task("regression", source.targets, len(source.targets), None, why)
    labels = _check_classes(source)
    kind = "binary" if len(labels) == 2 else "classification"
    return Task(kind, source.targets, len(labels), tuple(map(label, labels)), why)


def label(value: Any) -> str:
    """One class as text: 3 and 3.0 are "3", True is "true"."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def labels_of(target: np.ndarray) -> list[str]:
    """Every entry of a target as the text of its class."""
    return [label(value) for value in target.tolist()]


def _kind(source: Source) -> tuple[str, str]:
    """(kind, why) from the values of the target."""
    target = source.target
    assert target is not None
    if target.ndim == 2:
        return "regression", f"{target.shape[1]} targets at once"
    if target.dtype.kind not in "iufmM":
        return (
            "classification",
            "its values are text" if target.dtype.kind != "b" else "its values are yes or no",
        )
    if target.dtype.kind in "mM":
        raise UserError(
            f"The target {source.targets[0]!r} holds dates or times. Give numbers, such as days from a start."
        )
    if source.kind in ("dataset", "stream"):
        whole = target.dtype.kind in "iu"
        return (
            ("classification", "whole numbers") if whole else ("regression", "numbers with a fraction's type")
        )
    distinct = np.unique(target[np.isfinite(target)])
    if not np.equal(np.mod(distinct, 1), 0).all():
        return "regression", "its values have fractions"
    few = len(distinct) <= min(FEW, max(2, len(target) // 5))
    if few or source.kind == "images":
        return "classification", f"{len(distinct)} different whole numbers"
    return "regression", f"{len(distinct)} different whole numbers"


def _check_numbers(target: np.ndarray, names: Sequence[str]) -> None:
    """A regression's target: finite numbers, at least two different ones."""
    for name, column in zip(names, target.reshape(len(target), -1).T, strict=True):
        values = finite_numbers(name, column)
        if (values == values[0]).all():
            raise UserError(
                f"The target {name!r} is constant: every row is {values[0]:g}, so there is nothing to learn. "
                "Is it the right column?"
            )


def finite_numbers(name: str, column: np.ndarray) -> np.ndarray:
    """A target as float64. Raises UserError for text, NaN and infinity, naming the first row."""
    values = _as_numbers(name, column)
    _check_finite(name, values)
    return values


def _as_numbers(name: str, column: np.ndarray) -> np.ndarray:
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        examples = ", ".join(repr(str(value)) for value in sorted(set(map(str, column)))[:3])
        raise UserError(
            f"The target {name!r} holds text ({examples}) where a regression needs numbers. Give "
            "task='classification' or another target."
        ) from None


def _check_finite(name: str, values: np.ndarray) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        kind = "infinite" if np.isinf(values[bad][0]) else "NaN"
        raise UserError(
            f"The target {name!r} is {kind} in {bad.sum()} of {len(values)} rows, first in row "
            f"{bad.argmax()} "
            "(from 0). Mend these rows or leave them out."
        )


def _check_classes(source: Source) -> list[Any]:
    """The classes of a target, in order; there must be two at least, and rows enough for each."""
    target, name = source.target, " and ".join(source.targets)
    assert target is not None
    handed_out = source.kind in ("dataset", "stream")
    if target.ndim == 2 and not handed_out:
        raise UserError(
            f"Several targets ({name}) can be predicted together as numbers only. Give one target; for "
            "one-hot "
            "labels give y.argmax(axis=1)."
        )
    if source.kind == "stream" and source.examples is None:
        raise UserError(
            "The number of classes of a stream without a length cannot be known. Give a DataLoader with a "
            "length, "
            "or bring your own loop: steepest.torch.loop."
        )
    gaps = np.array([value is None or value != value for value in target]) if target.dtype == object else None
    if gaps is not None or target.dtype.kind == "f":
        _check_finite(name, target if gaps is None else np.where(gaps, np.nan, 0.0))
    classes = sorted(set(target.ravel().tolist()), key=lambda value: (isinstance(value, str), value))
    if len(classes) < 2:
        raise UserError(
            f"The target {name!r} has one class only, {label(classes[0])!r}, so there is nothing to tell "
            "apart. "
            "Is it the right column?"
        )
    if 2 * len(classes) > target.size:
        raise UserError(
            f"The target {name!r} has {len(classes)} classes on {len(target)} rows, fewer than two rows a "
            "class. "
            "Is it a name or a number of each row? Choose another target, or task='regression'."
        )
    return _check_range(source, classes)


def _check_range(source: Source, classes: list[Any]) -> list[Any]:
    """A Dataset or stream hands out labels as they are: they must be whole numbers from 0 on."""
    if source.kind not in ("dataset", "stream"):
        return classes
    if not all(isinstance(value, int) and value >= 0 for value in classes):
        raise UserError(
            f"Labels of a Dataset must be whole numbers from 0 on, got {label(classes[0])!r} among them."
        )
    if classes[-1] >= source.target.size:  # type: ignore[arg-type]
        raise UserError(
            f"Label {classes[-1]} is out of range: {len(classes)} different labels should be numbered 0 … "
            f"{len(classes) - 1}. Number them so in the Dataset."
        )
    return list(range(classes[-1] + 1))
