"""The reference engine of steepest beside the others."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from papers import PAPERS
from papers.problem import Problem
from trajectories import of_rule

from peers import deviation
from peers.peer import Peer
from steepest import rules


def run(peer: Peer, h: SimpleNamespace, problem: Problem, steps: int) -> tuple[list[Any], list[Any]]:
    """(weights after each step, weights to ship after each step)."""
    return of_rule(rules.named(peer.rule, **vars(h)), PAPERS[peer.rule], problem, steps)


def results() -> Iterator[dict[str, Any]]:
    """One result a rule and setting."""
    for name in rules.registry():
        yield from deviation.measured(Peer(name, "steepest", lambda *_: None), run)
