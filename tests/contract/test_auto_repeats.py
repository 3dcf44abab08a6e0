"""A search with a budget in steps knows no clock: it repeats and resumes to the identical bits."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import steepest as st
from steepest.tuning.race import Race

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
    chosen = json.loads((run.folder / "search" / "chosen.json").read_text())
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
    real, calls = Race._measured, []

    def breaks(self: Race, arm: int, to: int, before: Any) -> Any:
        calls.append(arm)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, arm, to, before)

    monkeypatch.setattr(Race, "_measured", breaks)
    with pytest.raises(KeyboardInterrupt):
        st.fit((X, y), **SETTINGS, **OPEN, out="broken")
    assert_same(whole, st.resume("broken", data=(X, y)))


def test_the_winners_updates_are_those_of_a_run_under_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thawed, never restarted: the run is the one that the arm's rate, and then its own, would have given."""
    races, real = [], Race.race
    monkeypatch.setattr(Race, "race", lambda self, tell: races.append(self) or real(self, tell))
    found = st.fit((X, y), lr="auto", schedule="constant", patience=1000, out="found", **SETTINGS)
    chosen = json.loads((found.folder / "search" / "chosen.json").read_text())
    raced = races[0].arms[chosen["arm"]].lr

    def rate(step: int) -> float:
        return raced if step <= chosen["step"] else chosen["lr"]

    plain = SETTINGS | {"budget": f"{found.steps} steps"}
    alone = st.fit((X, y), schedule=rate, patience=1000, out="alone", **plain)
    one, other = (load_file(run.folder / "model.safetensors") for run in (found, alone))
    assert chosen["step"] > 0
    assert all(torch.equal(one[name], other[name]) for name in one)


def only(way: str, patch: pytest.MonkeyPatch) -> None:
    """Let every run be worse than what it may go back to, and this be the only way."""
    from steepest.tuning import insurance

    patch.setattr(insurance, "REGRET", dict.fromkeys(insurance.REGRET, -math.inf))
    other = {"_to_default", "_to_lower"} - {way}
    patch.setattr(insurance, other.pop(), lambda *given: None)


def test_a_bad_choice_is_taken_back_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default arm goes on from where it was stopped, as if it had been chosen."""
    settings: dict[str, Any] = SETTINGS | {"schedule": "constant", "patience": 1000}
    with monkeypatch.context() as patch:
        only("_to_default", patch)
        run = st.fit((X, y), lr="auto", out="back", **settings)
    shown = capsys.readouterr().out
    assert shown.count("measured first") == shown.count("run folder") == 1, "the start is shown once"
    assert shown.count("sanity sound") == 1, "what was told as it was measured is not told again"
    assert shown.count("num_threads") == 1, "and what was not is told on the start page"
    assert run.chosen["arm"] == 0
    assert run.chosen["lr"] == 1e-3
    assert run.status == "finished"
    assert [one.decided for one in run.evidence if one.choice == "insurance"] == ["adamw 0.001"]
    alone = st.fit((X, y), lr=1e-3, out="alone", **settings | {"budget": f"{run.steps} steps"})
    one, other = (load_file(path.folder / "model.safetensors") for path in (run, alone))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rate_that_is_too_high_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner goes on from where the search ended, at the next lower rate and the decay of that."""
    settings: dict[str, Any] = SETTINGS | {"schedule": "constant", "patience": 1000}
    kept = st.fit((X, y), lr="auto", weight_decay="auto", out="kept", **settings)
    with monkeypatch.context() as patch:
        only("_to_lower", patch)
        run = st.fit((X, y), lr="auto", weight_decay="auto", out="lower", **settings)
    assert run.status == "finished"
    assert (run.chosen["arm"], run.chosen["step"]) == (kept.chosen["arm"], kept.chosen["step"])
    assert run.chosen["lr"] == pytest.approx(kept.chosen["lr"] / 10**0.5)
    assert run.chosen["weight_decay"] > kept.chosen["weight_decay"]
    assert run.history["lr"].to_list()[-1] == pytest.approx(run.chosen["lr"])
    said = [one.decided for one in run.evidence if one.choice == "insurance"]
    assert said == [f"adamw {run.chosen['lr']:.3g}"]
    assert run.steps < kept.steps


def test_more_budget_goes_on_from_what_was_chosen() -> None:
    before = st.fit((X, y), lr="auto", schedule="auto", out="run", **SETTINGS).evidence
    more = st.resume("run", budget="+300 steps", data=(X, y))
    assert more.steps == st.Run("run").steps > 700
    # Nothing is chosen again; the new length stands beside the old one.
    assert [one.choice for one in more.evidence] == [*(one.choice for one in before), "horizon"]
    assert more.evidence[-1].decided == more.steps
