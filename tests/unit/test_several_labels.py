"""A Dataset may hand out several labels an example, such as the letters of a text."""

import pytest
import torch
from torch import nn

import steepest as st
from steepest.optim.errors import UserError


class Text(torch.utils.data.Dataset):
    """Windows of letters; the answer to each letter is the letter itself."""

    def __init__(self) -> None:
        self.x = torch.randint(0, 5, (80, 6), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.x[index]


class Letters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x).transpose(1, 2)


def trained(tmp_path, **settings):
    usual = {"task": "classification", "budget": "60 steps", "rule": "adamw", "lr": 0.1}
    return st.fit(Text(), model=Letters(), out=tmp_path / "run", **(usual | settings))


def test_every_label_counts(tmp_path) -> None:
    metrics = trained(tmp_path).metrics
    assert metrics["test/accuracy"] == 1.0
    assert metrics["test/loss"] < 0.1


def test_they_cannot_be_stratified(tmp_path) -> None:
    with pytest.raises(UserError, match="several labels"):
        trained(tmp_path, split="stratified")


def test_arrays_of_several_labels_are_learnt_alike(tmp_path) -> None:
    x = Text().x
    run = st.fit((x, x), model=Letters(), out=tmp_path / "run", budget="60 steps", rule="adamw", lr=0.1)
    assert run.metrics["test/accuracy"] == 1.0
    assert run.recipe.task == "positions"


def test_several_numbers_are_no_classes(tmp_path) -> None:
    with pytest.raises(UserError, match="one target"):
        st.fit((torch.randn(80, 6), torch.randn(80, 2)), out=tmp_path / "run", task="classification")
