"""A comparison on the terminal: a bar over its runs, and its verdict as a table."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from steepest.comparison import words
from steepest.comparison.runs import Result
from steepest.comparison.verdict import Verdict
from steepest.evidence import Evidence
from steepest.report.rendering import number


class Bar:
    """Runs as they go: a bar where a person looks at the terminal, else one line a run.

    metric   what is told of a run;   total   runs;   done   of these already"""

    def __init__(self, metric: str, total: int, done: int, console: Console) -> None:
        self._metric, self._total, self._console = metric, total, console
        self._done = done
        columns = TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=console, disable=not _looked_at(console))
        self._task = self._progress.add_task("", total=total, completed=done)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def trial(self, strategy: str, lr: float) -> None:
        """A short run begins."""
        self._progress.update(self._task, description=f"{strategy}: trying the rate {lr:.3g}")

    def decided(self, choice: Evidence) -> None:
        """A rate is measured."""
        self._say(str(choice))

    def begins(self, strategy: str, seed: int, done: int) -> None:
        """A run begins, after `done` others."""
        self._progress.update(self._task, description=f"{strategy}, seed {seed}", completed=done)

    def ended(self, result: Result) -> None:
        """A run has ended."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        value = "failed" if result.value is None else f"{self._metric} {result.value:.4g}"
        spent = f"{result.spent['steps']:.0f} steps  {result.spent['seconds']:.1f}s"
        self._say(f"{self._done}/{self._total}  {result.strategy}  seed {result.seed}  {value}  {spent}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=not self._console.is_terminal)


def show(verdict: Verdict, console: Console) -> None:
    """The table of strategies, then the verdict in sentences."""
    console.print(standings(verdict))
    for sentence in words.sentences(verdict):
        console.print(Text(sentence))
    console.print(Text(words.headline(verdict), style="bold"))


def standings(verdict: Verdict) -> Table:
    """One row a strategy, the leader's in bold; the test part beside what is judged."""
    tested, lead = words.tested(verdict), words.leader(verdict)
    seen = [tested] if any(tested in one.metrics for one in verdict.standings) else []
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate([*words.columns(verdict), *seen]):
        table.add_column(name, justify="right" if place else "left")
    for one in verdict.standings:
        cells = [*words.row(one), *(number(one.metrics.get(name)) for name in seen)]
        bold = lead is not None and one.strategy == lead.strategy
        table.add_row(*map(Text, cells), style="bold" if bold else "")
    return table


def _looked_at(console: Console) -> bool:
    return console.is_interactive and console.file.isatty() and not console.is_jupyter
