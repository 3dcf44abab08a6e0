"""`Job`: network and batches are on one device whenever they meet. "meta" is a device without numbers."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from steepest.recipe import Recipe
from steepest.train import fitting
from steepest.train import job as jobs
from steepest.train.given import separate
from steepest.train.job import Job, build

CHANCE = np.random.default_rng(0)
X, Y = CHANCE.random((64, 4), np.float32), CHANCE.integers(0, 2, 64)
META = torch.device("meta")


class Examples(Dataset[Any]):
    """Read one by one, and moved batch by batch."""

    def __init__(self) -> None:
        self.targets = torch.from_numpy(Y)

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(X[index]), self.targets[index]


def built(data: Any, **settings: Any) -> Job:
    written, given = separate({"data": data, "rule": "sgd", "budget": "4 steps"} | settings)
    return build(Recipe.of(written), given)


def elsewhere(job: Job) -> Job:
    """The job on another device, its batches where they were."""
    moved = job.model.to(META)
    return replace(job, model=moved, runs=moved, device=META)


def test_the_network_is_moved_before_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    def forward(model: nn.Module, inputs: torch.Tensor) -> None:
        raise Seen(next(model.parameters()).device, inputs.device)

    monkeypatch.setattr(jobs.machine, "threads", lambda recipe, look: look())
    monkeypatch.setattr(jobs.network, "build", lambda *_: (nn.Linear(4, 2), ()))
    monkeypatch.setattr(jobs.network, "forward", forward)
    for data in ((X, Y), Examples()):
        with pytest.raises(Seen) as seen:
            built(data, device="meta", model="mlp")
        assert seen.value.args == (META, META)


def test_statistics_are_renewed_on_batches_that_were_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[torch.device] = []

    def renewed(model: nn.Module, batches: Iterable[torch.Tensor]) -> int:
        places.extend(batch.device for batch in batches)
        return len(places)

    monkeypatch.setattr(fitting, "renew_statistics", renewed)
    job = elsewhere(built(Examples(), batch_size=16))
    assert fitting.renew(job) == len(list(job.source.once()))
    assert set(places) == {META}


@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": 7}, {"batch_size": "full"}, {"accumulate": 2}], ids=str
)
def test_the_size_of_a_batch_is_that_of_the_loader(settings: dict[str, Any]) -> None:
    """Whatever is asked for, a loader brings batches of its own, and the run says which."""
    job = built(DataLoader(Examples(), 16), val=0, test=0, **settings)
    assert (job.size, job.recipe.batch_size, job.asked.batch_size) == (16, 16, 16)


def test_a_size_that_is_left_open_stays_so_in_what_repeats_the_run() -> None:
    job = built(DataLoader(Examples(), 16), val=0, test=0, batch_size="auto")
    assert (job.recipe.batch_size, job.asked.batch_size) == (16, "auto")


def test_columns_that_are_empty_are_told_before_training() -> None:
    holed = np.column_stack([X, np.full(len(X), np.nan)])
    (found,) = [one for one in built((holed, Y)).evidence if one.choice == "impute"]
    assert found.why == "empty in all training rows, so that nothing is learnt from them: column 4"
    assert "impute" not in [one.choice for one in built((X, Y)).evidence]
