"""What `fit` measures where nothing is said, and what keeps it from that."""

from pathlib import Path
from typing import Any

import pytest

import steepest as st
from steepest import rules
from steepest.commands.opening import opened
from steepest.recipe import TUNED, Recipe
from steepest.schedule import Cosine
from steepest.train.given import separate


def left_open(**said: Any) -> set[str]:
    written, given = separate({"data": "digits"} | said)
    return set(opened(Recipe.of(written), given).open)


@pytest.mark.parametrize("said", [{}, {"budget": "30s"}, {"clip_norm": 1.0, "hidden": [8]}])
def test_what_is_not_said_is_measured(said: dict[str, Any]) -> None:
    assert left_open(**said) == set(TUNED)


@pytest.mark.parametrize(
    "said",
    [
        {"lr": 0.1},
        {"lr": None},
        {"lr": "none", "rule": "lion"},
        {"rule": rules.Lion(lr=1e-4)},
        {"rule": rules.SGD(lr=Cosine(0.1, 100))},
        {"schedule": Cosine(0.1, 100)},
        {"rule": "prodigy"},
        {"rule": "dog"},
    ],
    ids=str,
)
def test_a_rate_that_is_said_closes_all(said: dict[str, Any]) -> None:
    assert left_open(**said) == set()


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        ({"rule": "lion"}, {"rule"}),
        ({"hyper": {"beta1": 0.8}}, {"rule"}),
        ({"batch_size": 32}, {"batch_size"}),
        ({"weight_decay": 0.0}, {"weight_decay"}),
        ({"schedule": "cosine"}, {"schedule"}),
        ({"patience": 3}, {"schedule"}),
        ({"batch_size": "growing 8 to 64"}, {"batch_size", "schedule"}),
        ({"rule": "schedule_free_adamw"}, {"rule", "schedule"}),
    ],
)
def test_what_is_said_stays_and_what_it_leaves_nothing_of(said: dict[str, Any], closed: set[str]) -> None:
    assert left_open(**said) == set(TUNED) - closed


@pytest.mark.parametrize("said", [{"lr": "auto"}, {"lr": 0.1, "batch_size": "auto"}], ids=str)
def test_what_is_asked_for_in_words_is_all_that_is_measured(said: dict[str, Any]) -> None:
    assert left_open(**said) == {name for name, value in said.items() if value == "auto"}


@pytest.mark.parametrize("name", ["stop", "clip_norm", "num_threads"])
def test_to_ask_for_more_leaves_the_rest_open(name: str) -> None:
    assert left_open(**{name: "auto"}) == {*TUNED, name}


@pytest.mark.parametrize(
    ("said", "opened_too"),
    [({"lr": None}, set()), ({"lr": 0.01}, set()), ({"hyper": {"beta1": 0.8}}, set(TUNED) - {"rule"})],
    ids=["lr=None", "lr=0.01", "hyper"],
)
def test_a_recipe_of_a_run_is_closed_by_what_would_have_closed_it(
    said: dict[str, Any], opened_too: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = st.fit("iris", budget="30 steps", hidden=[4])
    assert set(st.fit(run.folder / "recipe.toml", **said).recipe.open) == opened_too


def test_a_run_with_nothing_said_is_measured_and_its_recipe_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = st.fit("breast_cancer", budget="400 steps", hidden=[8])
    assert {one.choice for one in run.evidence} >= set(TUNED)
    assert set(Recipe.read(run.folder / "recipe.toml").open) == set(TUNED)
    again = st.fit(run.folder / "recipe.toml")
    assert again.folder != run.folder
    weights, same = ((one.folder / "model.safetensors").read_bytes() for one in (run, again))
    assert weights == same
