"""The race as a whole, on scores that are made up: what counts on which rung."""

from pathlib import Path
from typing import Any

import pytest

from steepest.evidence import Evidence
from steepest.tuning import halving as room
from steepest.tuning.candidates import Candidate
from steepest.tuning.halving import Halving
from steepest.tuning.journal import Journal
from steepest.tuning.plan import Plan
from steepest.tuning.trial import Held

START = 3.0
RUNGS = (10, 30)
CANDIDATES = {
    "adamw": Candidate("adamw", 1e-3),
    "fast": Candidate("adamw", 1e-2),
    "muon": Candidate("muonmatched", 1e-2),
}
TREND, CREDIT = 0.5, {"muonmatched": (2.0, 1.1)}


@pytest.fixture(autouse=True)
def _known_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is where they count, which a calibration of their values leaves as it is."""
    monkeypatch.setattr(room, "TREND", TREND)
    monkeypatch.setattr(room, "CREDIT", CREDIT)


@pytest.fixture
def tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(name=its loss after each rung) → (for each rung the arms, the best first, and what each counts as;
    the last standings)."""

    def run(**scores: tuple[float, float]) -> Any:
        names, told = list(scores), list[Evidence]()
        candidates = [CANDIDATES[name] for name in names]

        def measured(halving: Halving, candidate: int, to: int, before: Any) -> dict[str, Any]:
            loss = scores[names[candidate]][RUNGS.index(to)]
            return {"step": to, "scores": [loss] * 50, "losses": [loss] * to, "norms": [], "dead": ""}

        monkeypatch.setattr(Halving, "_measured", measured)
        journal = Journal(tmp_path / "search")
        journal.once("start", lambda: [START] * 50)
        halving = Halving(
            job=None,  # type: ignore[arg-type]  # nothing is trained
            journal=journal,
            plan=Plan(updates=1000, range_test=12, scores=30.0, candidates=len(candidates), rungs=RUNGS),
            held=Held((None,), 50, 1.0),
            candidates=candidates,
            climbs=False,
            warmup=None,
            asked=lambda: None,
            late=lambda: False,
            charge=lambda gradients: None,
        )
        last = halving.decide(told.append)
        known = {CANDIDATES[name].name: name for name in names}
        return [{known[row["arm"]]: row["counted"] for row in one.candidates} for one in told], last

    return run


def test_a_rule_has_the_credit_of_the_rung_that_it_is_on(tested: Any) -> None:
    """Nobody gets better after the first rung: a credit of 2 puts Muon first there, one of 1.1 does not."""
    (first, second), last = tested(adamw=(1.0, 1.0), muon=(1.6, 1.6))
    assert [*first] == ["muon", "adamw"]
    assert [*second] == ["adamw", "muon"]
    assert first == pytest.approx({"muon": 1.6 * (1.6 / START), "adamw": 1.0})
    assert second == pytest.approx({"muon": 1.6 * (1.6 / START) ** 0.1, "adamw": 1.0})
    assert last[0].trial == 0


def test_on_the_last_rung_it_counts_how_an_arm_has_come_there(tested: Any) -> None:
    """The high rate leads on both rungs by its loss, and has gone nowhere since the first."""
    (first, second), last = tested(adamw=(2.0, 1.0), fast=(0.9, 0.95))
    assert first == pytest.approx({"fast": 0.9, "adamw": 2.0}), "there is no way yet to go on from"
    assert [*second] == ["adamw", "fast"]
    assert second == pytest.approx({"adamw": 1.0 * (1 / 2) ** TREND, "fast": 0.95 * (0.95 / 0.9) ** TREND})
    assert last[0].trial == 0


def test_credit_is_for_the_way_that_an_arm_is_expected_to_have_come(tested: Any) -> None:
    (_, second), last = tested(adamw=(1.0, 0.8), muon=(1.6, 0.95))
    expected = 0.95 * (0.95 / 1.6) ** TREND
    assert second["muon"] == pytest.approx(expected * (expected / START) ** 0.1)
    assert second["adamw"] == pytest.approx(0.8 * 0.8**TREND)
    assert last[0].trial == 1
