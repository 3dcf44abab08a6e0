"""docs/conformance.md says what was measured, of every rule, and knows the cause of every disagreement."""

from pathlib import Path
from typing import Any

import pytest

from steepest import rules

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers import document

    return document


def peers(document: Any) -> list[dict[str, Any]]:
    return [row for row in document.read("conformance")[1] if "rule" in row]


def test_the_page_is_made_from_the_results(document: Any) -> None:
    found = document.PAGE.read_text(encoding="utf-8")
    assert found == document.page(), "run: python benchmarks/conformance.py document"


def test_every_rule_was_measured_and_equals_its_paper(document: Any) -> None:
    ours = [row for row in peers(document) if row["peer"] == "steepest"]
    assert {row["rule"] for row in ours} == set(rules.registry())
    assert [row for row in ours if not row["equal"]] == []


def test_every_disagreement_has_a_cause_that_explains_it(document: Any) -> None:
    apart = [row for row in peers(document) if not row["equal"]]
    assert [row for row in apart if "cause" not in row] == []
    assert [row for row in apart if row["left"] > max(1e-2 * row["deviation"], 1e-9)] == []
