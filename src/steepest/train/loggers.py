"""The loggers of a run: one that fails is left out from then on, and the run goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

OPTIONAL = ("event", "tick")
"""What a logger may do without."""


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
