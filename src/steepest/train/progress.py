"""How training goes, shown while it goes: a live table on a terminal, one line an evaluation anywhere else.

Both are loggers (`log`, `config`, `close`) with one thing more: `tick`, called after every step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steepest.evidence import Evidence

PERIOD = 0.2
"""Seconds between refreshes, at least."""
ROWS = 6
"""Evaluations that the live table holds."""
QUIET = ("factor", "grad_norm", "val/precision", "val/recall")
"""What an evaluation records and does not show."""


class Progress(Protocol):
    """What the loop tells, and whoever shows it. `total` is the last step, where it is known."""

    total: int | None

    def config(self, settings: Mapping[str, Any]) -> None:
        """The settings of the run, once."""

    def event(self, word: str, step: int) -> None:
        """What happened at the evaluation that `log` tells next: improved, decay, guard, …"""

    def decided(self, evidence: Evidence) -> None:
        """A choice was made and is on record; its line is to be seen at once."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One evaluation."""

    def tick(self, step: int, loss: Callable[[], float]) -> None:
        """One step is done; `loss` reads the last loss, and is called only when it is to be shown."""

    def close(self, status: str) -> None:
        """Nothing more will come."""


def progress(total: int | None = None, console: Console | None = None) -> Progress:
    """The live table where `console` is a terminal that a person looks at, else plain lines."""
    console = Console() if console is None else console
    looked_at = console.is_interactive and console.file.isatty() and not console.is_jupyter
    return LiveTable(total, console) if looked_at else PlainLines(total, console)


class PlainLines:
    """One line an evaluation, in ASCII, for logs."""

    def __init__(self, total: int | None, console: Console) -> None:
        self.total = total
        self._console = console
        self._event = ""
        self._doubts: list[Evidence] = []

    def config(self, settings: Mapping[str, Any]) -> None:
        """Nothing: lines are for evaluations."""

    def event(self, word: str, step: int) -> None:
        """Kept for the end of the line."""
        self._event = word

    def decided(self, evidence: Evidence) -> None:
        """lr 3.1e-3 — beat 1e-3 by .021±.004 (z=4.9, n=1024); edge .031"""
        self._doubts += _doubt(evidence)
        _say(self._console, evidence)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """step 500  epoch 12.5  3.2s  train/loss 0.1234  val/loss 0.2341  lr 0.001  improved"""
        shown = (_phrase(name, value) for name, value in _shown(metrics).items())
        of = f"/{self.total}" if self.total else ""
        line = "  ".join(filter(None, (f"step {step}{of}", *shown, self._event)))
        self._event = ""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tick(self, step: int, loss: Callable[[], float]) -> None:
        """Nothing: a log is not an animation."""

    def close(self, status: str) -> None:
        """Doubts once more: the end is what is read."""
        for one in self._doubts:
            _say(self._console, one)


class LiveTable:
    """The last evaluations and a bar, refreshed in place by `tick`, at most once in PERIOD seconds."""

    def __init__(
        self, total: int | None, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self._console = console
        self._clock = clock
        self._due = 0.0
        self._begun: tuple[float, int] | None = None
        self._now = (0.0, 0, "")
        self._event = ""
        self._rows: deque[tuple[int, dict[str, float], str]] = deque(maxlen=ROWS)
        self._doubts: list[Evidence] = []
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._whole)

    def config(self, settings: Mapping[str, Any]) -> None:
        """Nothing: the start page has shown them."""

    def event(self, word: str, step: int) -> None:
        """Kept for the end of the row."""
        self._event = word

    def decided(self, evidence: Evidence) -> None:
        """The same line as elsewhere, above the table, where it stays."""
        self._doubts += _doubt(evidence)
        _say(self._console, evidence)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a row, seen from the next refresh on."""
        self._rows.append((step, _shown(metrics), self._event))
        self._event = ""

    def tick(self, step: int, loss: Callable[[], float]) -> None:
        """Refresh when it is time."""
        now = self._clock()
        if now < self._due:
            return
        if self._begun is None:
            self._begun = (now, step)
            self._live.start()
        self._due = now + PERIOD
        self._now = (now, step, _number(loss()))
        self._live.refresh()

    def close(self, status: str) -> None:
        """Show the last rows and leave them standing, with doubts below: the end is what is read."""
        if self._begun:
            now, step, loss = self._now
            if self._rows and self._rows[-1][0] > step:
                step, row, _ = self._rows[-1]
                self._now = (now, step, _number(row["train/loss"]) if "train/loss" in row else loss)
            self._live.stop()
        for one in self._doubts:
            _say(self._console, one)

    def _whole(self) -> RenderableType:
        return Group(self._table(), self._bar()) if self._rows else self._bar()

    def _table(self) -> Table:
        names = list(dict.fromkeys(name for _, row, _ in self._rows for name in row))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("step", *names):
            table.add_column(Text(name), justify="right")
        table.add_column("")
        for step, row, event in self._rows:
            cells = (Text(_number(row[name]) if name in row else "") for name in names)
            table.add_row(str(step), *cells, event, style="bold" if event == "improved" else "")
        return table

    def _bar(self) -> Table:
        now, step, loss = self._now
        grid = Table.grid(padding=(0, 2))
        drawn = (
            [ProgressBar(total=self.total, completed=step, width=30, complete_style="cyan")]
            if self.total
            else []
        )
        of = f"/{self.total}" if self.total else ""
        grid.add_row(*drawn, f"step {step}{of}", f"loss {loss}", *self._speed(now, step))
        return grid

    def _speed(self, now: float, step: int) -> list[str]:
        """Steps a second since the start, evaluations included, and the time that is left at that speed."""
        begun, first = self._begun or (now, step)
        if step <= first or now <= begun:
            return []
        speed = (step - first) / (now - begun)
        left = (
            [f"{_clock_face((self.total - step) / speed)} left"] if self.total and self.total > step else []
        )
        return [f"{speed:.3g} steps/s", *left]


def _doubt(evidence: Evidence) -> list[Evidence]:
    """What the look before training found amiss."""
    return [evidence] if (evidence.choice, evidence.decided) == ("sanity", "doubtful") else []


def _say(console: Console, evidence: Evidence) -> None:
    # rich flushes what it prints, and lifts it above a table that is live.
    console.print(str(evidence), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in QUIET}


def _phrase(name: str, value: float) -> str:
    return f"{value:.1f}s" if name == "seconds" else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _clock_face(seconds: float) -> str:
    """12.4 → 0:12, 3725 → 1:02:05"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
