"""What is measured in a fit is on record, shown when it is decided, and told afterwards."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits

import steepest as st
from steepest import evidence
from steepest.commands import lifecycle
from steepest.files import Folder
from steepest.recipe import Recipe
from steepest.train.given import separate

DATA = load_digits(return_X_y=True)
OPEN = ("rule", "lr", "schedule", "weight_decay", "clip_norm", "stop")


class Screen(io.StringIO):
    """Notes each line beside what else has happened."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__()
        self.happened = happened

    def write(self, text: str) -> int:
        self.happened += [f"shown {line}" for line in text.splitlines()]
        return super().write(text)


def test_each_decision_is_told_as_soon_as_it_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    append = evidence.append

    def noted(path: Path, one: evidence.Evidence) -> None:
        append(path, one)
        happened.append(f"recorded {one}")

    monkeypatch.setattr(evidence, "append", noted)
    console = Console(file=Screen(happened), width=200)
    settings: dict[str, Any] = {"data": DATA, "model": "mlp", "hidden": [16], "budget": "600 steps"}
    written, given = separate(settings | dict.fromkeys(OPEN, "auto"))
    run = lifecycle.begin(Folder(tmp_path / "run"), Recipe.of(written), given, console)
    assert {one.choice for one in run.evidence} >= set(OPEN)
    for one in run.evidence:
        if one.choice in OPEN:
            assert happened[happened.index(f"recorded {one}") + 1] == f"shown {one}"
    assert {picture["kind"] for one in run.evidence if (picture := one.picture)} >= {"range", "curves"}
    _told_afterwards(run)


def _told_afterwards(run: st.Run) -> None:
    """The report draws it, the explanation tells it, the program has what was chosen."""
    pictures = [one for one in run.evidence if one.picture]
    assert run.report().read_text().count('class="measured"') == len(pictures)
    told = run.explain()
    assert all(f"\n{one.choice}: " in told for one in run.evidence)
    names: dict[str, Any] = {"__name__": "program"}
    exec(run.code(), names)
    assert names["LR"] == run.chosen["lr"]
    *_, decided = [one.decided for one in run.evidence if one.choice == "horizon"]
    assert names["STEPS"] == decided
    assert names["PATIENCE"] == run.chosen["patience"]
    assert "falls" in run.code(), "the machine may lower the rate"
    inputs, target = (part[:32] for part in run.tensors(data=DATA)["train"])
    model = names["build_model"]()
    before = names["loss_of"](model(inputs), target).item()
    optimizer = names["build_optimizer"](model)
    for _ in range(30):
        names["update"](model, optimizer, (inputs, target))
    assert names["loss_of"](model(inputs), target).item() < before
    assert all(bool(torch.isfinite(w).all()) for w in model.parameters())


def test_nothing_is_trained_between_a_decision_and_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is late is late by updates, which are what a search is made of."""
    passes, made, shown = [0], dict[str, int](), dict[str, int]()
    backward, begin = torch.Tensor.backward, evidence.Evidence.__init__

    def counted(tensor: torch.Tensor, *args: Any, **more: Any) -> None:
        passes[0] += 1
        backward(tensor, *args, **more)

    def noted(one: evidence.Evidence, *args: Any, **more: Any) -> None:
        begin(one, *args, **more)
        made.setdefault(str(one), passes[0])

    class Now(io.StringIO):
        def write(self, text: str) -> int:
            shown.update({line: passes[0] for line in text.splitlines() if line not in shown})
            return super().write(text)

    monkeypatch.setattr(torch.Tensor, "backward", counted)
    monkeypatch.setattr(evidence.Evidence, "__init__", noted)
    settings: dict[str, Any] = {"data": DATA, "model": "mlp", "hidden": [16], "budget": "600 steps"}
    written, given = separate(settings | dict.fromkeys((*OPEN, "batch_size"), "auto"))
    folder, console = Folder(tmp_path / "run"), Console(file=Now(), width=200)
    run = lifecycle.begin(folder, Recipe.of(written), given, console)
    told = {str(one) for one in run.evidence if one.choice in (*OPEN, "batch_size")}
    assert len(told) >= len(OPEN) + 1
    assert len({made[line] for line in told}) > 2, (
        "decisions are made one after the other, not all at the end"
    )
    assert {line: shown[line] for line in told} == {line: made[line] for line in told}


FIT = """
import steepest as st
from sklearn.datasets import load_digits
st.fit(load_digits(return_X_y=True), model="mlp", hidden=[16], budget="100000 steps")
"""


def test_a_line_goes_through_a_pipe_while_the_run_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIT]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert any(line.startswith("edge of ") for line in child.stdout)
            assert child.poll() is None, "buffered until its end"
            assert not list(tmp_path.glob("**/result.json"))
        finally:
            child.kill()
