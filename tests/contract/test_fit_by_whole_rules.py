"""`fit` by rules of matrices: the split, words among hyperparameters, repeating and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import steepest as st
from steepest import rules
from steepest.optim.errors import UserError

PICTURES, DIGITS = load_digits(return_X_y=True)
DATA = (PICTURES[:400].astype(np.float32) / 16, DIGITS[:400])
CHANCE = 0.1


def fit(out: Path, rule: Any, **settings: Any) -> Any:
    return st.fit(
        DATA,
        **{"model": "mlp", "hidden": [32, 16], "lr": None, "budget": "40 steps"} | settings,
        rule=rule,
        out=out,
    )


def shipped(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("rule", ["muon", "soap", "adafactor"])
def test_fit_takes_the_name_of_a_rule_of_arrays(rule: str, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", rule, schedule="cosine")
    assert run.metrics["val/accuracy"] > 3 * CHANCE
    assert run.recipe.rule == rule


def test_words_and_counts_are_repeated_from_the_recipe(tmp_path: Path) -> None:
    rule = rules.MuonMatched(lr=5e-3, steps=4, coefficients="quintic", nesterov=False)
    first = fit(tmp_path / "first", rule)
    kept = first.recipe
    assert kept.hyper | {"steps": 4, "coefficients": "quintic", "nesterov": False} == kept.hyper
    fit(tmp_path / "again", kept.rule, hyper=kept.hyper, lr=kept.lr, weight_decay=kept.weight_decay)
    assert shipped(tmp_path / "again") == shipped(tmp_path / "first")


def test_a_wrong_word_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"coefficients cannot be 'quintics'.*'quintic'"):
        fit(tmp_path / "run", "muon", hyper={"coefficients": "quintics"})


def test_a_model_without_hidden_matrices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this model has none"):
        fit(tmp_path / "run", "muon", model="linear")


@pytest.mark.parametrize("rule", ["muon", "kron"])
def test_a_run_that_was_cut_goes_on_to_the_same_weights(rule: str, tmp_path: Path) -> None:
    """State of other shapes than the weights, shared scalars, two groups."""
    whole = fit(tmp_path / "whole", rule, schedule="constant", budget="30 steps")
    fit(tmp_path / "cut", rule, schedule="constant", budget="20 steps")
    longer = st.resume(tmp_path / "cut", budget="+10 steps", data=DATA)
    assert longer.metrics["val/loss"] == whole.metrics["val/loss"]
    assert shipped(tmp_path / "cut") == shipped(tmp_path / "whole")
