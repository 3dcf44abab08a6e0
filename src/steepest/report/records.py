"""What a run folder tells, read with patience: a file may be missing or torn, and is then named."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from steepest.files import Folder
from steepest.optim.errors import UserError

ASKED = "asked.toml"
"""The recipe that a search was asked about, with "auto" where a setting was open."""

PLAN = "tune.json"
"""What of the question of a search is no recipe's."""

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,
    RecursionError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What parsers raise on a file that was cut, overwritten or is of another kind."""

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class History:
    """Columns of metrics.csv as float64 arrays of one length, with the event of each row beside them."""

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    events: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.events)

    def at(self, step: float | None) -> dict[str, float]:
        """The finite values of all rows of that step together; empty where there is none."""
        rows = np.flatnonzero(self.columns["step"] == step) if len(self) and step is not None else ()
        return {name: value for row in rows for name, value in self.row(int(row)).items()}

    def row(self, index: int) -> dict[str, float]:
        """The finite values of one row; -1 is the last one."""
        values = {name: float(column[index]) for name, column in self.columns.items()} if len(self) else {}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def occasions(self) -> dict[str, list[float]]:
        """Steps of each kind of event, in order of appearance."""
        found: dict[str, list[float]] = {}
        for step, event in zip(self.columns.get("step", ()), self.events, strict=True):
            for kind in re.findall(r"[\w-]+", event):
                found.setdefault(kind, []).append(float(step))
        return found

    def metrics(self) -> dict[str, list[str]]:
        """Columns by what they measure: {"loss": ["train/loss", "val/loss"], …}, the loss first."""
        found: dict[str, list[str]] = {}
        for name in self.columns:
            if "/" in name:
                found.setdefault(name.partition("/")[2], []).append(name)
        return dict(sorted(found.items(), key=lambda pair: pair[0] != "loss"))


@dataclass(frozen=True)
class Records:
    """Everything the report shows, and the folder as a shell takes it, its place. A part is empty where
    its file is missing or torn; `problems` says so."""

    name: str
    place: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    evidence: list[dict[str, Any]] = field(default_factory=list)
    history: History = field(default_factory=History)
    result: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def best_step(self) -> float | None:
        """The step whose weights were kept: the result's, else that of the last improvement."""
        told = self.result.get("best_step")
        improved = self.history.occasions().get("improved", [None])[-1]
        return float(told) if isinstance(told, int | float) else improved

    @property
    def guesses_numbers(self) -> bool:
        """Whether the guesses on record are numbers on a scale rather than classes."""
        return bool(self.examples) and np.issubdtype(self.examples["guess"].dtype, np.floating)

    @property
    def metrics(self) -> dict[str, Any]:
        """The flat dict of final metrics (`test/loss`, …)."""
        told = self.result.get("metrics")
        return told if isinstance(told, dict) else {}


def is_tuning(path: str | Path) -> bool:
    """Whether a folder is that of a search."""
    return (Path(path) / PLAN).exists()


def read(path: Path) -> Records:
    """The records of the run folder at `path`."""
    folder = Folder(path)
    files = (folder.recipe, folder.evidence, folder.metrics, folder.result, folder.env, folder.examples)
    _require_a_run(Path(path), files)
    reader = _Reader([])
    return Records(
        name=Path(path).resolve().name,
        place=shlex.quote(str(path)),
        recipe=reader.read(folder.recipe, reader.toml, {}, "the settings of the run are unknown"),
        evidence=reader.read(folder.evidence, reader.json_lines, [], "it is unknown why choices were made"),
        history=reader.read(folder.metrics, reader.history, History(), "there are no curves to show"),
        result=reader.read(folder.result, _json_object, {}, "the run has not finished, or was cut off"),
        env=reader.read(folder.env, _json_object, {}, "it is unknown where the run took place"),
        examples=reader.read(folder.examples, _examples, {}, "single predictions cannot be shown"),
        problems=reader.problems,
    )


def _require_a_run(path: Path, files: tuple[Path, ...]) -> None:
    if not path.is_dir():
        raise UserError(
            f"There is no run folder at '{path}'. Give the folder that `fit` wrote, such as runs/digits."
        )
    if not any(file.exists() for file in files):
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"'{path}' is not a run folder: it holds none of {names}. Give the folder that `fit` wrote."
        )


@dataclass(frozen=True)
class _Reader:
    """Reads files one after the other and gathers what was wrong with them."""

    problems: list[str]

    def read(self, path: Path, parse: Callable[[Path], Parsed], empty: Parsed, consequence: str) -> Parsed:
        try:
            return parse(path)
        except FileNotFoundError:
            self.problems.append(f"{path.name} is missing: {consequence}.")
        except UNREADABLE as error:
            self.problems.append(f"{path.name} could not be read ({_brief(error)}): {consequence}.")
        return empty

    def toml(self, path: Path) -> dict[str, Any]:
        text = path.read_text("utf-8")
        settings = tomllib.loads(text)
        if not text.endswith("\n"):
            self.problems.append(f"{path.name}: the last line has no end; the file may have been cut short.")
        return settings

    def json_lines(self, path: Path) -> list[dict[str, Any]]:
        found = []
        for count, line in enumerate(path.read_text("utf-8", "replace").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                found.append(_object(json.loads(line)))
            except UNREADABLE as error:
                self.problems.append(f"{path.name}: line {count} was left out ({_brief(error)}).")
        return found

    def history(self, path: Path) -> History:
        text = path.read_text("utf-8", "replace")
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            self.problems.append(f"{path.name}: the last line was cut short and is left out.")
        head, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        whole = [row for row in rows if len(row) == len(head)]
        if len(whole) < len(rows):
            lost = len(rows) - len(whole)
            self.problems.append(
                f"{path.name}: {lost} of {len(rows)} lines do not fit the header and were left out."
            )
        if "step" not in head:
            raise ValueError("it has no column 'step'")
        columns = dict(zip(head, zip(*whole, strict=True), strict=True)) if whole else {}
        events = columns.pop("event", ("",) * len(whole))
        return History(
            {name: np.array([_float(cell) for cell in cells]) for name, cells in columns.items()}, events
        )


def _json_object(path: Path) -> dict[str, Any]:
    return _object(json.loads(path.read_text("utf-8")))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a table of names and values was due, got {type(value).__name__}")
    return value


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _examples(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    _check_guesses(found)
    _check_pictures(found)
    return found


def _check_guesses(found: dict[str, np.ndarray]) -> None:
    truth, guess = found["truth"], found["guess"]
    if truth.shape != guess.shape or truth.ndim not in (1, 2):
        raise ValueError(f"truth and guess do not fit together: {truth.shape} and {guess.shape}")
    if "score" in found and found["score"].shape != truth.shape[:1]:
        raise ValueError(f"score does not fit truth: {found['score'].shape} and {truth.shape}")
    if np.issubdtype(guess.dtype, np.floating):
        truth.astype(float)
    elif truth.ndim > 1:
        raise ValueError(f"one class an example was due, got {truth.shape}")


def _check_pictures(found: dict[str, np.ndarray]) -> None:
    if "pictures" not in found:
        return
    pictures, index = found["pictures"], found["picture_index"]
    shaped = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] == 3)
    if pictures.dtype != np.uint8 or not shaped or index.shape != pictures.shape[:1]:
        raise ValueError(f"pictures do not fit: {pictures.dtype} {pictures.shape}, index {index.shape}")
    if len(index) and (index.min() < 0 or index.max() >= len(found["truth"])):
        raise ValueError("picture_index points outside the examples")


def _brief(error: BaseException) -> str:
    said = str(error).splitlines()
    return said[0][:120] if said else type(error).__name__
