"""A run's network that lies elsewhere than in the processor's memory, as `fit(device=…)` leaves it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from steepest.train import loss
from steepest.train import metrics as measuring

ELSEWHERE = torch.device("meta")
X, Y = np.random.default_rng(0).standard_normal((60, 4), dtype=np.float32), np.arange(60) % 3
DATA = {"one": (X, Y), "by place": ((X, X), Y), "by name": ({"left": X, "right": X}, Y)}


class Minding(nn.Module):
    """A network that takes inputs only where its weights are; what it answers can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        every = [*inputs, *named.values()]
        assert {x.device for x in every} == {self.layer.weight.device}
        if self.layer.weight.device == ELSEWHERE:
            return torch.eye(3)[torch.arange(len(every[0])) % 3]
        return self.layer(sum(every))


@pytest.fixture(params=DATA)
def moved(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """(the run, its network elsewhere; the data)."""
    data = DATA[request.param]
    run = st.fit(
        data, model=Minding(), lr=None, budget="2 steps", test=0, num_threads=1, out=tmp_path / "run"
    )
    assert run.model.to(ELSEWHERE)
    return run, data


def test_rows_to_predict_are_moved_there(moved: Any) -> None:
    run, data = moved
    assert [*map(int, run.predict(data[0]))] == [*Y]
    assert run.probabilities(data[0]).shape == (60, 3)


def test_rows_to_evaluate_are_moved_there_with_their_targets(
    moved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = moved
    places = []
    seen = SimpleNamespace(update=lambda _, target, *__: places.append(target.device), compute=dict)
    monkeypatch.setattr(measuring, "build", lambda *_, **__: seen)
    monkeypatch.setattr(loss, "build", lambda *_, **__: lambda _, target, *__: places.append(target.device))
    run.evaluate(data)
    assert places == [ELSEWHERE, ELSEWHERE]
