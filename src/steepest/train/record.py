"""What a run writes down as it goes: metrics.csv, the loggers, and the mean training loss behind them.

A logger that fails is left out from then on, and the run goes on.
"""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from steepest.files import write_atomic, writing
from steepest.optim.errors import UserError
from steepest.world import ALONE, World

BEFORE = ("step", "epoch", "seconds", "train/loss")
AFTER = ("lr", "grad_norm", "factor", "event")
"""Columns of metrics.csv on either side of those of the evaluation."""

OPTIONAL = ("event", "tick")
"""What a logger may do without."""


class MeanLoss:
    """Mean over the examples of all processes of the training losses since the last reset.

    Adding one does not wait for the device."""

    BLOCK = 256
    """Losses held before they are added up; fixed, so that the sum does not depend on saving."""

    def __init__(self, world: World = ALONE) -> None:
        self._world = world
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
        total, examples = self._world.sum(self._total), self._world.sum(self._examples)
        mean = total / examples if examples else math.nan
        self._total, self._examples = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """All that is held, to be saved."""
        return {
            "total": self._total,
            "examples": self._examples,
            "losses": _floats(self._losses),
            "counts": list(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._total, self._examples = state["total"], state["examples"]
        self._losses, self._counts = list(state["losses"]), list(state["counts"])

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

    def state_dict(self) -> dict[str, Any]:
        """How many rows there are."""
        return {"rows": len(self.rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the first rows of an earlier process; later ones will be made again."""
        if self._path is None or not self._path.exists():
            return
        kept = _kept(self._path, state["rows"])
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


class Logger(Protocol):
    """Where a run's numbers go besides metrics.csv.

    A logger may also have `tick(step, loss)`, called after every step with a function that returns the loss,
    and `event(word, step)`, called before the `log` of a row at which something happened."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the numbers of one row."""
        ...

    def config(self, settings: dict[str, Any]) -> None:
        """Take the settings, once, before the first row."""
        ...

    def close(self, status: str) -> None:
        """The run has ended: finished, stopped or failed."""
        ...


class Loggers:
    """Tells each of them, in their order. What goes wrong in one is a warning: no log is worth a training.

    ticks: whether any of them wants to hear of every step."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._on = list(loggers)
        self.ticks = any(hasattr(logger, "tick") for logger in loggers)

    def tell(self, word: str, *arguments: Any) -> None:
        """Call the method of that name of all that are still told."""
        for logger in self._on.copy():
            if word in OPTIONAL and not hasattr(logger, word):
                continue
            try:
                getattr(logger, word)(*arguments)
            except Exception as error:  # whatever a person's logger may raise
                self._leave_out(logger, word, error)

    def _leave_out(self, logger: Logger, word: str, error: Exception) -> None:
        self._on.remove(logger)
        warnings.warn(
            f"The logger {type(logger).__name__} failed in {word} ({type(error).__name__}: {error}) and "
            "is told no more. The run goes on; metrics.csv has every row.",
            stacklevel=2,
        )


def saying_where(name: str, hook: Callable[..., object], save: Callable[[], str]) -> Callable[..., object]:
    """The hook; where it raises the run is saved first, and a note on the error says how to go on."""

    def call(*arguments: Any) -> None:
        try:
            hook(*arguments)
        except Exception as error:
            error.add_note(f"{name} raised this, which ends the run. {save()}".rstrip())
            raise

    return call
