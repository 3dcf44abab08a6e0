"""`split`: which rows are trained on, which guide choices, which are looked at once; before all fitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from steepest.data.order import generator
from steepest.data.source import Source
from steepest.optim.errors import UserError

FEW = 10
"""Rows of a validation part below which one row more or less decides what counts as better."""

How = Literal["auto", "random", "stratified", "group", "time"]


class Stratified(Protocol):
    """What is to be learnt, as far as a split must know: its noun, and labels to share out evenly, if any."""

    noun: ClassVar[str]

    def strata(self, column: np.ndarray) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Split:
    """Rows of each part (int64). A part that came as a Source of its own has all of that source's rows.

    how  "random", "stratified", "group" or "time";   why: what was done, in words"""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    how: str
    why: str


def split(
    source: Source,
    target: Stratified,
    val: float | Source = 0.15,
    test: float | Source = 0.15,
    how: How = "auto",
    seed: int = 0,
) -> Split:
    """Rows for training, validation and test: shares of the source, or sources of their own.

    random      by chance
    stratified  every class in every part by its share; every class in the training part
    group       rows with one value of split_by stay together, groups by chance
    time        the latest by split_by are the test, those before them the validation; ties stay together
    """
    strata = None if source.target is None else target.strata(source.target)
    chosen = _how(source, how, strata is not None, target.noun)
    shares = [0.0 if isinstance(part, Source) else _share(part) for part in (val, test)]
    if sum(shares) >= 1:
        raise UserError(
            f"val={shares[0]:g} and test={shares[1]:g} leave nothing to train on: they must add up to < 1."
        )
    if source.view.own_order:
        parts = _of_stream(source, shares)
    elif (cut := source.view.cut(shares)) is not None:
        parts, chosen = cut, "time"
        _check_sizes(parts, shares, chosen)
    else:
        parts = _cut(*_order(source, strata, chosen, seed), shares)
        _check_sizes(parts, shares, chosen)
    own = [np.arange(part.examples or 0) if isinstance(part, Source) else None for part in (val, test)]
    made = [given if given is not None else part for given, part in zip([None, *own], parts, strict=True)]
    return Split(*made, how=chosen, why=_why(source, chosen, seed) + _few(len(made[1])))


def _how(source: Source, how: str, strata: bool, noun: str) -> str:
    known = ("auto", "random", "stratified", "group", "time")
    if how not in known:
        raise UserError(f"split must be one of {', '.join(known)}; got {how!r}.")
    if how in ("group", "time") and source.groups is None:
        raise UserError(f"split={how!r} needs split_by=, the column that holds the {how}.")
    if how == "stratified" and not strata:
        raise UserError(f"split='stratified' needs classes, and the target is {noun}. Use split='random'.")
    if how != "auto":
        return how
    if source.groups is not None:
        return "time" if source.groups.dtype.kind == "M" else "group"
    return "stratified" if strata else "random"


def _share(part: float) -> float:
    if isinstance(part, int | float) and not isinstance(part, bool) and 0 <= part < 1:
        return float(part)
    raise UserError(f"A part must be a share from 0 up to 1 or data of its own, got {part!r}.")


def _order(source: Source, strata: np.ndarray | None, how: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, ends): rows in the order in which the parts are cut off, training first, and the places where a
    cut may fall."""
    chance = generator(seed, "split")
    rows = chance.permutation(source.examples or 0)
    if how in ("group", "time"):
        _, block = np.unique(np.asarray(source.groups), return_inverse=True)
        number = block.max() + 1
        place = (chance.permutation(number) if how == "group" else np.arange(number))[block]
        rows = np.argsort(place, kind="stable")
        return rows, np.append(np.flatnonzero(np.diff(place[rows])) + 1, len(rows))
    if how == "stratified" and strata is not None:
        rows = rows[np.argsort(_spread(strata[rows]), kind="stable")]
    return rows, np.arange(1, len(rows) + 1)


def _spread(labels: np.ndarray) -> np.ndarray:
    """A place in [0, 1) for every row, evenly over its class and from 0 on: any stretch of places holds every
    class by its share, and the first stretch holds all classes."""
    _, codes, counts = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank / counts[codes]


def _cut(rows: np.ndarray, ends: np.ndarray, shares: list[float]) -> list[np.ndarray]:
    """Training, validation and test rows, in the data's order, cut where allowed nearest to the shares."""
    wanted = [round(len(rows) * (1 - sum(shares))), round(len(rows) * (1 - shares[1]))]
    places = [int(ends[np.abs(ends - want).argmin()]) for want in wanted]
    return [np.sort(part) for part in np.split(rows, places)]


def _check_sizes(parts: list[np.ndarray], shares: list[float], how: str) -> None:
    """Every part that has a share must have rows."""
    sizes = [len(part) for part in parts]
    if sizes[0] < 2 or any(share and not size for share, size in zip(shares, sizes[1:], strict=True)):
        whole = f" of whole {how}s" if how in ("group", "time") else ""
        raise UserError(
            f"{sum(sizes)} rows are too few for these parts{whole}: training, validation and test would have "
            f"{sizes[0]}, {sizes[1]} and {sizes[2]} rows. Give more rows, or other val= and test=."
        )


def _of_stream(source: Source, shares: list[float]) -> list[np.ndarray]:
    if any(shares):
        raise UserError(
            "A stream cannot be split. Give val= and test= as streams of their own, or 0 for none."
        )
    return [np.arange(source.examples or 0), np.empty(0, np.int64), np.empty(0, np.int64)]


def _why(source: Source, how: str, seed: int) -> str:
    words: dict[str, Callable[[], str]] = {
        "random": lambda: f"by chance (seed {seed})",
        "stratified": lambda: f"by chance (seed {seed}), every class by its share",
        "group": lambda: f"by whole groups of split_by, groups by chance (seed {seed})",
        "time": lambda: "by time: the latest rows are the test, those before them the validation",
    }
    return "in its own order" if source.view.own_order else words[how]()


def _few(rows: int) -> str:
    """A clause where the validation part is so small that what goes by it goes by chance."""
    if not 0 < rows < FEW:
        return ""
    counted = f"{rows} rows" if rows > 1 else "1 row"
    return (
        f"; the validation has {counted}, by which the best weights, decays and stop go: give more rows, "
        "or a larger val="
    )
