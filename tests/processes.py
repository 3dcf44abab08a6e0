"""Programs in processes of their own, which begin as forks of one that has imported the libraries already.

A fresh interpreter spends seconds on imports before it does what a test is about. The process that is forked
has run nothing: it holds no threads, no locks, no state of a test. What starts up itself is held by tests of
imports and of the command line, which start an interpreter.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = (
    "sklearn.datasets",
    "sklearn.metrics",
    "torch._dynamo",
    "steepest.commands.compare",
    "steepest.commands.fit",
    "steepest.commands.resume",
    "steepest.report",
    "steepest.train.loop",
)
"""What programs of tests import: none of it may run anything, or start a thread."""
CONTEXT.set_forkserver_preload(list(IMPORTED))
PLACES: list[Path] = []
"""Where that is written which they print: one place, as long as tests run."""
NUMBERS = count()
COMMAND_LINE = "from steepest.commands.cli import main; main()"


class Process:
    """A program that runs: as much of `subprocess.Popen` as tests ask for."""

    def __init__(
        self, program: str, *arguments: object, cwd: Path | str | None = None, **environment: str
    ) -> None:
        number = next(NUMBERS)
        files = [str(PLACES[-1] / f"{number}-{name}") for name in ("out", "err")]
        everything = {**os.environ, **environment}
        given = (program, [str(one) for one in arguments], str(cwd or os.getcwd()), everything, files)
        self._files = files
        self._process = CONTEXT.Process(target=run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """What it printed and what it complained of, when it has ended."""
        self._process.join()
        out, err = (Path(file).read_text() if os.path.exists(file) else "" for file in self._files)
        return out, err

    def printed(self) -> str:
        """What it has printed so far."""
        return Path(self._files[0]).read_text() if os.path.exists(self._files[0]) else ""


def steepest(*arguments: object, program: str = COMMAND_LINE, **how: Any) -> Process:
    """The command line with these words, or a program that begins with others and goes on as it."""
    return Process(program, *arguments, **how)


def run(program: str, arguments: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    """In the child: be an interpreter that was started with -c, which leaves charts blank."""
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    from charts import Figure, left_blank

    Figure.savefig = left_blank
    sys.argv = ["-c", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


@contextmanager
def served(place: Path) -> Iterator[None]:
    """Give programs a place for what they print, and let the process that is forked end with the tests."""
    PLACES.append(place)
    yield
    PLACES.pop()
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
