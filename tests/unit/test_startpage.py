"""The start page says what will happen and why."""

import io

import pytest
from rich.console import Console
from torch import nn

from steepest.evidence import Evidence
from steepest.recipe import Recipe
from steepest.train import startpage

NET = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def recipe(**settings: object) -> Recipe:
    return Recipe.of({"data": "digits", **settings})


def test_all_of_it_is_on_the_page() -> None:
    console = Console(file=io.StringIO(), width=300)
    chosen = [Evidence("init", "default", "activations [bold]keep[/bold] their size")]
    sizes = {"train": 1257, "val": 270, "test": None}
    console.print(startpage.lines(recipe(), ["Ten classes."], NET, ["adamw on 2 weights"], sizes, chosen))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    for sentence in (
        "steepest fit digits",
        "Ten classes.",
        "Examples: train 1,257, val 270, test unknown. The test part is looked at once, at the end.",
        "23 weights to train.",
        "Layers: Linear, ReLU, Linear.",
        "adamw on 2 weights",
        "Loss auto, batches of 64, schedule plateau, seed 0, on cpu.",
        "At most 100 epochs; val/loss is measured every epoch.",
        "init default — activations [bold]keep[/bold] their size",
    ):
        assert sentence in told


def test_data_in_memory_have_no_name() -> None:
    console = Console(file=io.StringIO(), width=300)
    told = Recipe.of({"data": "object builtins.tuple"})
    console.print(startpage.lines(told, ["Ten classes."], NET, [], {}, []))
    assert "steepest fit (tuple in memory)" in console.file.getvalue()  # type: ignore[attr-defined]


def test_frozen_weights_are_counted_apart() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].requires_grad_(False)
    assert startpage.weights(net) == "3 weights to train, 6 frozen."


def test_a_deep_model_is_cut() -> None:
    deep = nn.Sequential(*(nn.Identity() for _ in range(startpage.LAYERS + 5)))
    assert startpage.layers(deep).endswith("Identity and 5 more.")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patience": None}, "Training runs to that end"),
        ({"patience": 6}, "the rate falls to 0.3 of itself; where that has not helped twice in a row"),
        ({"max_decays": 3, "patience": 1}, "3 times in a row"),
        ({"max_decays": 0, "patience": 6}, "After 6 evaluations without gain training stops."),
        ({"schedule": "cosine", "patience": 9}, "After 9 evaluations without gain training stops."),
    ],
)
def test_stopping_is_told_as_it_will_be(settings: dict, said: str) -> None:
    assert said in startpage.stopping(recipe(**settings))


def test_the_whole_set_at_once_and_parts_of_a_batch_are_told() -> None:
    assert "all examples at once" in startpage.descent(recipe(batch_size="full"))
    assert "batches of 64, each in 4 parts" in startpage.descent(recipe(accumulate=4))
