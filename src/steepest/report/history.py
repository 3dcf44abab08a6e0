"""The course of a run: one row an evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


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

    def last(self, kind: str) -> float | None:
        """Step of the last event of this kind."""
        steps = self.occasions().get(kind)
        return steps[-1] if steps else None

    def metrics(self) -> dict[str, list[str]]:
        """Columns by what they measure: {"loss": ["train/loss", "val/loss"], …}, the loss first."""
        found: dict[str, list[str]] = {}
        for name in self.columns:
            if "/" in name:
                found.setdefault(name.partition("/")[2], []).append(name)
        return dict(sorted(found.items(), key=lambda pair: pair[0] != "loss"))
