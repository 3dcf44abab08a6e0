"""The examples run, from any folder, and say what they found."""

from pathlib import Path

import pytest

from processes import Process

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "drop_in.py": "largest difference of a weight",
    "fit_csv.py": "test/accuracy",
    "own_loop.py": "error before",
}


RUN = """
import runpy, sys, warnings
warnings.simplefilter("error")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    process = Process(RUN, EXAMPLES / name, cwd=tmp_path)
    printed, complained = process.communicate()
    assert process.returncode == 0, complained
    assert SAYS[name] in printed
