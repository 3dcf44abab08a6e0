"""What a run writes down as it goes: metrics.csv, the loggers, and the mean training loss behind them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steepest.files import write_atomic, writing
from steepest.optim.errors import UserError
from steepest.train.loggers import Logger, Loggers

BEFORE = ("step", "epoch", "seconds", "train/loss")
AFTER = ("lr", "grad_norm", "factor", "event")
"""Columns of metrics.csv on either side of those of the evaluation."""


class MeanLoss:
    """Mean over examples of the training losses since the last reset, without waiting for the device."""

    BLOCK = 256
    """Losses held before they are added up; fixed, so that the sum does not depend on saving."""

    def __init__(self) -> None:
        self._total, self._examples = 0.0, 0
        self._losses: list[Tensor | float] = []
        self._counts: list[int] = []

    def add(self, loss: Tensor, examples: int) -> None:
        """One update's loss, detached."""
        self._losses.append(loss)
        self._counts.append(examples)
        if len(self._losses) == self.BLOCK:
            self._gather()

    def take(self) -> float:
        """The mean so far, NaN without any; and begin anew."""
        self._gather()
        mean = self._total / self._examples if self._examples else math.nan
        self._total, self._examples = 0.0, 0
        return mean

    def numbers(self) -> dict[str, Any]:
        """All that is held, to be saved."""
        return {
            "total": self._total,
            "examples": self._examples,
            "losses": _floats(self._losses),
            "counts": list(self._counts),
        }

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Take over what `numbers` gave."""
        self._total, self._examples = numbers["total"], numbers["examples"]
        self._losses = list(numbers["losses"])
        self._counts = list(numbers["counts"])

    def _gather(self) -> None:
        weighted = (loss * n for loss, n in zip(_floats(self._losses), self._counts, strict=True))
        self._total += math.fsum(weighted)
        self._examples += sum(self._counts)
        self._losses, self._counts = [], []


def _floats(losses: list[Tensor | float]) -> list[float]:
    """Those of before a resume are floats and come first; the others are read from the device at once."""
    known: list[float] = [loss for loss in losses if not isinstance(loss, Tensor)]
    held = [loss for loss in losses if isinstance(loss, Tensor)]
    return known + (torch.stack(held).tolist() if held else [])


class Record:
    """metrics.csv, kept to the rows that the run knows of, and the loggers beside it."""

    def __init__(self, path: Path | None, loggers: Sequence[Logger] = ()) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = path
        self.loggers = Loggers(loggers)

    def config(self, settings: dict[str, Any]) -> None:
        """Tell the loggers the settings."""
        self.loggers.tell("config", settings)

    def resume(self, rows: int) -> None:
        """Keep the first `rows` rows of an earlier process; later ones will be made again."""
        if self._path is None or not self._path.exists():
            return
        kept = _kept(self._path, rows)
        self.rows = [{k: _read(v) for k, v in row.items() if v != "" or k == "event"} for row in kept]
        write_atomic(self._path, _text(self.rows).encode())

    def add(self, row: dict[str, Any]) -> None:
        """One row of numbers, with its event under "event"."""
        known = columns(self.rows)
        self.rows.append(row)
        if self._path is not None:
            self._write(row, known)
        numbers = {name: float(value) for name, value in row.items() if name not in ("event", "step")}
        if row.get("event"):
            self.loggers.tell("event", row["event"], row["step"])
        self.loggers.tell("log", numbers, row["step"])

    def sync(self) -> None:
        """See that the rows are on the disk before a checkpoint that counts them."""
        if self._path is not None and self._path.exists():
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())

    def close(self, status: str) -> None:
        """Tell the loggers that the run has ended."""
        self.loggers.tell("close", status)

    def _write(self, row: dict[str, Any], known: list[str]) -> None:
        assert self._path is not None
        if set(row) <= set(known) and self._path.exists():
            with writing(self._path), open(self._path, "a", newline="", encoding="utf-8") as file:
                file.write(_line(row, known))
        else:
            write_atomic(self._path, _text(self.rows).encode())


def _kept(path: Path, rows: int) -> list[dict[str, str]]:
    """The first rows of the file. Raises UserError where one of them is not whole."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            kept = list(csv.DictReader(file))[:rows]
    except (UnicodeDecodeError, csv.Error):
        kept = [{"": None}]
    if any(None in row.values() or None in row for row in kept):
        raise UserError(
            f"{str(path)!r} is damaged: it does not hold rows of the same columns. Restore it, or move it "
            "away to go on without the earlier rows."
        )
    return kept


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of these rows: the step first, the event last, metrics between in order of appearance."""
    if not rows:
        return []
    seen = dict.fromkeys(name for row in rows for name in row)
    between = [name for name in seen if name not in (*BEFORE, *AFTER)]
    return [*BEFORE, *between, *AFTER]


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    names = columns(rows)
    return "".join([",".join(names) + "\r\n" if names else "", *(_line(row, names) for row in rows)])


def _line(row: Mapping[str, Any], names: Sequence[str]) -> str:
    made = io.StringIO()
    csv.writer(made).writerow([row.get(name, "") for name in names])
    return made.getvalue()


def _read(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
