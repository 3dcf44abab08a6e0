"""The look before a search: what it doubts, and what it lets be."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.train.given import separate
from steepest.train.job import build
from steepest.tuning.preflight import preflight_check

draw = np.random.default_rng(0)
X, Y = draw.normal(size=(200, 6)).astype(np.float32), np.arange(200) % 4


def doubts(gain: float, labels: np.ndarray = Y, **settings: Any) -> str:
    """What a network says of itself whose outputs are so many times the usual ones."""
    torch.manual_seed(0)
    net = nn.Linear(6, 1 if settings.get("loss") == "binary" else labels.max() + 1)
    with torch.no_grad():
        net.weight.mul_(gain)
    written, given = separate({"data": (X, labels), "model": net, "lr": "auto", **settings})
    return preflight_check(build(Recipe.of(written), given), 100).why


@pytest.mark.parametrize(
    ("settings", "fair"),
    [
        ({}, "4 classes gives 1.39"),
        ({"loss": "focal"}, "4 classes gives 1.39"),
        ({"class_weight": [0.01] * 4}, "4 classes gives 1.39"),
        ({"loss": "binary", "labels": Y % 2}, "2 classes gives 0.693"),
    ],
    ids=["plain", "focal", "weighed", "binary"],
)
def test_a_network_that_is_sure_of_wrong_answers_is_doubted_under_any_loss_of_classes(
    settings: dict[str, Any], fair: str
) -> None:
    assert fair in doubts(100.0, **settings)
    assert "sure of wrong answers" not in doubts(1.0, **settings)


@pytest.mark.parametrize("settings", [{"class_weight": [30.0] * 4}, {"label_smoothing": 0.1}], ids=str)
def test_what_makes_a_loss_large_is_no_doubt(settings: dict[str, Any]) -> None:
    assert "sure of wrong answers" not in doubts(1.0, **settings)


def test_a_parameter_that_is_not_finite_is_named() -> None:
    last = nn.Linear(5, 4)
    nn.init.constant_(last.weight, torch.nan)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), last)
    written, given = separate({"data": (X, Y), "model": net, "lr": "auto"})
    with pytest.raises(UserError, match=r"the network's parameter 2\.weight holds numbers that are"):
        preflight_check(build(Recipe.of(written), given), 100)
