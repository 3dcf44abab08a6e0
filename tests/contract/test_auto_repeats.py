"""A search with a budget in steps knows no clock: it repeats and resumes to the identical bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import steepest as st
from steepest.tuning.halving import Halving

draw = np.random.default_rng(1)
X = draw.normal(size=(600, 5)).astype(np.float32)
y = (X[:, 0] + X[:, 1] > 0.5 * X[:, 2]).astype(np.int64)
OPEN = dict.fromkeys(("rule", "lr", "schedule", "weight_decay", "stop", "clip_norm"), "auto")
SETTINGS: dict[str, Any] = {"hidden": [8], "dropout": 0.2, "batch_size": 16, "budget": "700 steps"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def facts(run: st.Run) -> dict[str, Any]:
    """All that a run leaves, but for the seconds."""
    chosen = json.loads((run.folder / "resolved.json").read_text())
    evidence = [
        (one.choice, one.decided, one.why, one.gradients)
        for one in run.evidence
        if one.choice not in ("task", "num_threads")  # settled in the recipe, so not chosen again
    ]
    rows = run.history.drop("seconds").rows()
    return {"chosen": chosen, "evidence": evidence, "rows": rows, "metrics": run.metrics}


def assert_same(a: st.Run, b: st.Run) -> None:
    assert facts(a) == facts(b)
    one, other = (load_file(run.folder / "model.safetensors") for run in (a, b))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_recipe_repeats_the_search_and_the_run() -> None:
    first = st.fit("wine", **SETTINGS, **OPEN)
    assert first.recipe.open == tuple(name for name in first.recipe.open if name in OPEN)
    again = st.fit(first.folder / "recipe.toml")
    assert again.folder != first.folder
    assert_same(first, again)


def test_a_slow_machine_chooses_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    first = st.fit((X, y), **SETTINGS, **OPEN, out="quick")
    real = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 1000 * real())
    assert_same(first, st.fit((X, y), **SETTINGS, **OPEN, out="slow"))


@pytest.mark.parametrize("at", [3, *(pytest.param(at, marks=pytest.mark.full) for at in (1, 6))])
def test_a_search_that_breaks_off_goes_on_to_the_same_bits(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = st.fit((X, y), **SETTINGS, **OPEN, out="whole")
    real, calls = Halving._measured, []

    def breaks(self: Halving, candidate: int, to: int, before: Any) -> Any:
        calls.append(candidate)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, candidate, to, before)

    monkeypatch.setattr(Halving, "_measured", breaks)
    with pytest.raises(KeyboardInterrupt):
        st.fit((X, y), **SETTINGS, **OPEN, out="broken")
    assert_same(whole, st.resume("broken", data=(X, y)))


def test_the_winners_updates_are_those_of_a_run_under_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thawed, never restarted: the run is the one that the arm's rate, and then its own, would have given."""
    races, real = [], Halving.decide
    monkeypatch.setattr(Halving, "decide", lambda self, tell: races.append(self) or real(self, tell))
    found = st.fit((X, y), lr="auto", schedule="constant", patience=1000, out="found", **SETTINGS)
    chosen = found.resolved
    tested = races[0].candidates[chosen.trial or 0].lr

    def rate(step: int) -> float:
        return tested if step <= chosen.step else found.chosen["lr"]

    plain = SETTINGS | {"budget": f"{found.steps} steps"}
    alone = st.fit((X, y), schedule=rate, patience=1000, out="alone", **plain)
    one, other = (load_file(run.folder / "model.safetensors") for run in (found, alone))
    assert chosen.step > 0
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_budget_goes_on_from_what_was_chosen() -> None:
    before = st.fit((X, y), lr="auto", schedule="auto", out="run", **SETTINGS).evidence
    more = st.resume("run", budget="+300 steps", data=(X, y))
    assert more.steps == st.Run("run").steps > 700
    # Nothing is chosen again; the new length stands beside the old one.
    assert [one.choice for one in more.evidence] == [*(one.choice for one in before), "horizon"]
    assert more.evidence[-1].decided == more.steps
