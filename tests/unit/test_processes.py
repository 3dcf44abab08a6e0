"""Programs that begin as forks do what programs do that an interpreter was started for."""

import importlib
import signal
import time
from pathlib import Path

import processes
from processes import Process, steepest


def test_what_is_imported_ahead_is_there() -> None:
    """A name that has moved would be passed over without a word, and every program begin seconds later."""
    for name in processes.IMPORTED:
        importlib.import_module(name)


def test_a_program_has_its_words_its_place_and_its_environment(tmp_path: Path) -> None:
    program = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['WORD']); sys.exit(3)"
    process = Process(program, "a", 1, cwd=tmp_path, WORD="said")
    printed, complained = process.communicate()
    assert (process.returncode, printed, complained) == (3, f"['a', '1'] {tmp_path} said\n", "")


def test_an_error_is_shown_and_a_signal_ends_it() -> None:
    process = Process("1 / 0")
    assert "ZeroDivisionError" in process.communicate()[1]
    assert process.returncode == 1
    process = Process("print('begun', flush=True)\nwhile True: pass")
    while not process.printed():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == "begun\n"
    assert process.returncode == -signal.SIGKILL


def test_the_command_line_is_that_of_people() -> None:
    process = steepest("rules", "adamw")
    assert "w ← " in process.communicate()[0]
    assert process.returncode == 0


def test_a_program_begins_with_no_thread_but_its_own() -> None:
    program = "import os; print(len(os.listdir('/proc/self/task')))"
    assert Process(program).communicate()[0] == "1\n"
