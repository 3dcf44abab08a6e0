"""What is handed over as objects: a rule of a person's own is one, whatever it is called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import steepest as st
from steepest import rules, wrap
from steepest.optim.errors import UserError
from steepest.optim.rule import Number, Rule
from steepest.schedule import Cosine
from steepest.train.given import separate

CHANCE = np.random.default_rng(0)
X = CHANCE.normal(size=(80, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


@dataclass(frozen=True)
class Plain(Rule):
    """SGD, as somebody else would write it."""

    lr: Number = 0.1
    stretch: Number = 1.0

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any) -> Any:
        return (k.stretch * g,)


@dataclass(frozen=True)
class AdamW(Plain):
    """Another one, by a name that is taken."""


def fit(out: Path, **settings: Any) -> st.Run:
    usual: dict[str, Any] = {
        "budget": "10 steps",
        "hidden": [4],
        "lr": None,
        "batch_size": 16,
        "schedule": "constant",
    }
    return st.fit((X, Y), out=out, **usual | settings)


def weights(run: st.Run) -> torch.Tensor:
    return torch.cat([w.flatten() for w in load_file(run.folder / "model.safetensors").values()])


@pytest.mark.parametrize("rule", [Plain(), AdamW(), wrap.cautious(Plain()), rules.AdamW(lr=Cosine(0.1, 9))])
def test_what_no_name_stands_for_is_kept_as_an_object(rule: Rule) -> None:
    written, given = separate({"rule": rule})
    assert given.rule is rule
    assert written["rule"].startswith("object ")


@pytest.mark.parametrize("rule", [rules.AdamW(), wrap.cautious(rules.Lion())])
def test_what_a_name_stands_for_is_written_down(rule: Rule) -> None:
    written, given = separate({"rule": rule})
    assert given.rule is None
    assert rules.named(written["rule"], **written["hyper"], lr=written["lr"]) == rule


@pytest.mark.parametrize("rule", [Plain(lr=0.2), AdamW(lr=0.2)])
def test_a_rule_of_ones_own_trains_and_goes_on(tmp_path: Path, rule: Rule) -> None:
    run, same = fit(tmp_path / "own", rule=rule), fit(tmp_path / "sgd", rule="sgd", lr=0.2)
    # Ten updates, a product more in each.
    near = {"rtol": 0, "atol": 10 * 4 * torch.finfo(torch.float32).eps}
    torch.testing.assert_close(weights(run), weights(same), **near)
    assert st.resume(run.folder, data=(X, Y), rule=rule, budget="+5 steps").steps == 15


def test_a_rule_with_other_numbers_than_the_run_had_is_refused(tmp_path: Path) -> None:
    run = fit(tmp_path / "own", rule=Plain())
    with pytest.raises(UserError, match="holds its own numbers"):
        st.resume(run.folder, data=(X, Y), rule=Plain(stretch=2.0), budget="+5 steps")
