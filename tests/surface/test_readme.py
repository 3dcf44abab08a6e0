"""The README and the docs say what can be typed; this holds them to it."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]

COMMANDS = {
    "main": "pip install -c constraints.txt . && steepest fit digits",
    "tests": "pip install -c constraints.txt '.[test]' && python -m pytest",
}

RUNNABLE = ["README.md", "docs/getting-started.md", "docs/own-loop.md", "docs/hypergradients.md"]
"""Pages whose Python runs as it is printed, given the names that a reader would have."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def identity(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("mark", COMMANDS)
def test_the_readme_holds_the_two_commands_where_the_build_reads_them(mark: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- ci: {mark} -->\n```console\n$ {COMMANDS[mark]}\n```\n" in text
    assert text.count(f"<!-- ci: {mark} -->") == 1


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_python_on_a_page_parses(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_files_that_a_page_links_to_stand(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_constraints_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin)] == []
    assert "torch==2.13.0" in pins


class Net(nn.Module):
    """A classifier with parts that the pages name in patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(torch.relu(self.embed(x)))))


def readers_names(folder: Path) -> dict[str, Any]:
    """A network, arrays, and the files that the pages speak of."""
    chance = np.random.default_rng(0)
    inputs = chance.normal(size=(120, 5)).astype(np.float32)
    labels = inputs[:, :3].argmax(1)
    people = pl.DataFrame(inputs, schema=["age", "hours", "years", "gain", "loss"])
    people.with_columns(pl.Series("income", [f"class {label}" for label in labels])).write_csv(
        folder / "people.csv"
    )
    people.write_csv(folder / "more-people.csv")
    return {"net": Net(), "X": inputs, "y": labels, "X_new": inputs[:7]}


@pytest.mark.parametrize("page", RUNNABLE)
def test_python_on_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = readers_names(tmp_path)
    for block in blocks(ROOT / page, "python"):
        exec(compile(block, page, "exec"), names)
