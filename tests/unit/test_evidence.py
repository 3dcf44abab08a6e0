"""Evidence: a line a choice, readable by older and newer versions, shown when it is made."""

import io
import json
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from steepest import evidence
from steepest.evidence import Evidence, shown
from steepest.optim.errors import UserError
from steepest.train.progress import LiveTable, PlainLines

WHY = "beat 1e-3 by .021±.004 (z=4.9, n=1024); edge .031"
WHOLE = Evidence(
    "lr",
    0.0031,
    WHY,
    [{"arm": "adamw 0.001", "loss": 0.52}],
    1.5,
    interval=(0.013, 0.029),
    gradients=300,
    reused=90,
    picture={"kind": "curves", "lines": [{"name": "adamw 0.001", "x": [1, 2], "y": [0.9, 0.52]}]},
)


def test_all_of_it_comes_back() -> None:
    assert Evidence.from_json(WHOLE.to_json()) == WHOLE
    assert isinstance(Evidence.from_json(WHOLE.to_json()).interval, tuple)


def test_a_line_of_an_older_version_loads() -> None:
    old = '{"choice": "init", "decided": "default", "why": "sound", "candidates": [], "seconds": 0.1}'
    found = Evidence.from_json(old)
    assert (found.choice, found.interval, found.gradients, found.reused) == ("init", None, 0, 0)
    assert found.picture is None


def test_what_a_newer_version_adds_is_left_out_and_stays_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    newer = json.dumps(json.loads(WHOLE.to_json()) | {"of_tomorrow": [1, 2]})
    path.write_text(newer + "\n", encoding="utf-8")
    assert evidence.read(path) == [WHOLE]
    evidence.append(path, Evidence("stop", None, "by the noise of evaluations"))
    assert path.read_text(encoding="utf-8").splitlines()[0] == newer
    assert [one.choice for one in evidence.read(path)] == ["lr", "stop"]


@pytest.mark.parametrize("line", ["{}", "[1]", '{"choice": 1', '{"choice": "a", "decided": 1}', "3"])
def test_a_damaged_line_is_refused_and_not_written_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text(f"{line}\n{WHOLE.to_json()}\n", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        evidence.append(path, WHOLE)
    assert path.read_text(encoding="utf-8").startswith(line)


def test_a_torn_last_line_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text(WHOLE.to_json() + '\n{"choice": "t', encoding="utf-8")
    evidence.append(path, Evidence("stop", 3, "why"))
    assert [one.choice for one in evidence.read(path)] == ["lr", "stop"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0031, "3.1e-3"),
        (1e-3, "1e-3"),
        (0.031, "0.031"),
        (0.0, "0"),
        (1.0, "1"),
        (0.9999, "0.9999"),
        (0.999, "0.999"),
        (0.99617, "0.9962"),
        (0.9871, "0.987"),
        (-0.999949, "-0.999949"),
        (1234.5, "1234"),
        (2.5e9, "2.5e9"),
        (-0.00012345, "-1.23e-4"),
        (128, "128"),
        (True, "True"),
        (None, "none"),
        (float("inf"), "inf"),
        ({"lr": 0.0031, "rule": "adamw"}, "lr 3.1e-3, rule adamw"),
        ([0.0031, 2], "3.1e-3, 2"),
    ],
)
def test_values_are_short(value: object, said: str) -> None:
    assert shown(value) == said


def test_a_choice_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=40)
    PlainLines(None, console).decided(WHOLE)
    assert console.file.getvalue() == f"lr 3.1e-3 — {WHY}\n"  # type: ignore[attr-defined]


def test_markup_in_a_choice_stays_text() -> None:
    console = Console(file=io.StringIO())
    PlainLines(None, console).decided(Evidence("[bold]", "[red]", "[/]"))
    assert console.file.getvalue() == "[bold] [red] — [/]\n"  # type: ignore[attr-defined]


def test_beside_a_live_table_it_is_written_above() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    table = LiveTable(100, console)
    table.tick(1, lambda: 0.5)
    table.decided(WHOLE)
    seen = console.file.getvalue()  # type: ignore[attr-defined]
    table.close("finished")
    assert f"lr 3.1e-3 — {WHY}\n" in seen, "before the next refresh"
    assert seen.index(WHY) < seen.rindex("step 1/100"), "the table stands below it"


def test_through_a_pipe_it_arrives_while_the_process_goes_on() -> None:
    """The child ends when its input does, which is after its line has been read."""
    child = (
        "import sys\n"
        "from rich.console import Console\n"
        "from steepest.evidence import Evidence\n"
        "from steepest.train.progress import progress\n"
        "progress(100, Console()).decided(Evidence('lr', 0.1, 'measured'))\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", child], text=True, **pipes) as process:
        try:
            assert select.select([process.stdout], [], [], 300)[0], "it lies in a buffer"
            assert process.stdout is not None
            assert process.stdout.readline() == "lr 0.1 — measured\n"
        finally:
            process.kill()
