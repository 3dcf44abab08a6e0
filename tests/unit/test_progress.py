"""Progress is seldom on a terminal, and one line an evaluation elsewhere."""

import io
import os
import re
from typing import Any

import pytest
from rich.console import Console

from steepest.evidence import Evidence
from steepest.train import progress
from steepest.train.progress import PERIOD, LiveTable, PlainLines

EVALUATION = {"epoch": 2.0, "seconds": 3.14, "train/loss": 0.51234567, "lr": 1e-3, "grad_norm": 2.0}


def written(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


class Clock:
    """A clock that moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def never() -> float:
    raise AssertionError("the loss was read though nobody looks")


def test_elsewhere_it_is_one_line_an_evaluation() -> None:
    console = Console(file=io.StringIO(), width=40)
    shown = progress.progress(1000, console)
    shown.config({"lr": 0.001})
    for step in range(1, 501):
        shown.tick(step, never)
    shown.event("improved", 500)
    shown.log(EVALUATION, 500)
    shown.close("finished")
    assert written(console) == "step 500/1000  epoch 2  3.1s  train/loss 0.5123  lr 0.001  improved\n"
    assert written(console).isascii()


@pytest.mark.parametrize("kind", [PlainLines, LiveTable])
def test_what_was_doubted_is_said_again_at_the_end(kind: Any) -> None:
    console = Console(file=io.StringIO(), width=200)
    shown = kind(None, console)
    shown.decided(Evidence("sanity", "doubtful", "no gradient reaches l.weight"))
    shown.decided(Evidence("lr", 0.1, "beat 1e-3"))
    shown.close("finished")
    first, _, last = written(console).splitlines()
    assert first == last == "sanity doubtful — no gradient reaches l.weight"


def test_markup_in_a_name_stays_text() -> None:
    console = Console(file=io.StringIO())
    PlainLines(None, console).log({"val/[bold]": 1.0}, 3)
    assert written(console) == "step 3  val/[bold] 1\n"


@pytest.mark.parametrize("forced", [True, False])
def test_a_pipe_is_no_terminal_even_where_colours_are_forced(forced: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=forced)
    assert isinstance(progress.progress(None, console), PlainLines)


def test_a_terminal_gets_the_table() -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader), os.fdopen(follower, "w") as screen:
        console = Console(file=screen, force_terminal=True, force_interactive=True)
        assert isinstance(progress.progress(None, console), LiveTable)


def test_it_refreshes_at_most_once_a_period_and_reads_the_loss_only_then() -> None:
    clock, reads = Clock(), []
    shown = LiveTable(1000, terminal(), clock)
    for step in range(1, 1001):
        clock.now += 0.01
        shown.tick(step, lambda: reads.append(1) or 0.5)
    shown.close("finished")
    assert len(reads) <= 1 + 10.0 / PERIOD
    assert len(reads) >= 0.9 * 10.0 / PERIOD


def test_the_table_shows_the_last_evaluations_speed_and_what_is_left() -> None:
    clock, console = Clock(), terminal()
    shown = LiveTable(4000, console, clock)
    for step in range(100, 1100, 100):
        shown.tick(step, lambda: 0.25)
        shown.event("improved", step)
        shown.log(EVALUATION, step)
        clock.now += 1.0
    shown.close("finished")
    last = re.split(r"\x1b\[2K", written(console))[-1]
    assert "step 1000/4000  loss 0.25  100 steps/s  0:30 left" in last
    assert last.count("improved") == progress.ROWS
    assert "grad_norm" not in last
    assert last.rstrip().endswith("\x1b[?25h"), "the cursor is given back"


def test_before_the_first_step_nothing_is_drawn() -> None:
    console = terminal()
    shown = LiveTable(None, console)
    shown.config({})
    shown.close("failed")
    assert written(console) == ""


@pytest.mark.parametrize("kind", [PlainLines, LiveTable])
def test_an_event_belongs_to_one_evaluation(kind: type) -> None:
    console = terminal()
    shown = kind(None, console)
    shown.tick(1, lambda: 1.0)
    shown.event("guard", 1)
    shown.log({"lr": 0.1}, 1)
    shown.log({"lr": 0.1, "val/loss": 3.0}, 2)
    shown.close("finished")
    assert written(console).count("guard") == 1


def test_a_total_that_is_learnt_later_is_shown() -> None:
    clock, console = Clock(), terminal()
    shown = LiveTable(None, console, clock)
    shown.tick(1, lambda: 1.0)
    shown.total = 50
    clock.now += 1
    shown.tick(2, lambda: 1.0)
    shown.close("stopped")
    assert "step 1  loss" in written(console)
    assert "step 2/50" in written(console)
