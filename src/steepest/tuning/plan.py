"""What a budget allows: how many candidates, how long they run, and when a search is not worth its price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from steepest.tuning.constants import (
    BOTH_ENDS,
    CANDIDATES,
    FEWEST_STEPS,
    FEWEST_UPDATES,
    FORWARD,
    KEPT,
    LARGEST_SHARE,
    LONGER,
    LONGEST,
    PREFLIGHT_SHARE,
    RANGE_TEST_SHARE,
    RUNGS,
    SCORES_SHARE,
    SPRINT,
    WARMUP,
)


@dataclass(frozen=True)
class Plan:
    """The stages of a search, in updates.

    updates  what the whole budget holds;   range_test  each range test;   scores  what all scores may cost
    candidates     how many are compared at most;   rungs  where each rung ends, none where the budget is too
    short
    rules    between how many rules successive halving decides"""

    updates: int
    range_test: int
    scores: float
    candidates: int
    rungs: tuple[int, ...]
    rules: int = 2

    @property
    def warmup(self) -> int:
        """Updates in which the rate of a candidate rises, where that is not a person's."""
        return round(WARMUP * self.rungs[0]) if self.rungs else 0

    @property
    def times(self) -> int:
        """Scores that will be taken at most, the one of the start among them."""
        return _times(self.candidates, self.rungs, self.rules)


def plan(
    updates: int,
    most: float = LARGEST_SHARE,
    range_tests: int = 1,
    beside: float = 0.0,
    score: float = 0.0,
    renewal: float = 0.0,
    rules: int = 2,
    candidates: int = CANDIDATES[1],
) -> Plan:
    """The plan for a budget.

    most   the share of it that a search may take;   range_tests  how many it will make
    beside gradient evaluations that come out of that share too: what was spent, the run's own evaluations
    score  gradient evaluations that one score costs at least;   renewal  what it costs beside its examples
    rules  how many are compared: the rates of one alone are compared for longer, where that leaves room to
    look around
    candidates   how many are worth it at most"""
    part = most / LARGEST_SHARE * min(1.0, LONGEST / max(updates, 1))
    range_test = max(round(part * RANGE_TEST_SHARE * updates), FEWEST_STEPS)
    scores = part * SCORES_SHARE * updates
    left = (
        (most - part * PREFLIGHT_SHARE) * updates
        - range_tests * (range_test + BOTH_ENDS) * (1 + FORWARD)
        - beside
    )
    usual, longer = (_rungs(part * factor * updates) for factor in (1.0, LONGER))
    room = partial(
        _room, left=left, most=candidates, rules=rules, scores=scores, score=score, renewal=renewal
    )
    rungs = longer if rules == 1 and room(longer) > CANDIDATES[0] else usual
    most_fit = room(rungs)
    return Plan(updates, range_test, scores, most_fit, rungs if most_fit else (), rules)


def sprint(
    updates: int,
    most: float = LARGEST_SHARE,
    beside: float = 0.0,
    score: float = 0.0,
    renewal: float = 0.0,
    candidates: int = CANDIDATES[1],
) -> Plan:
    """The plan for a budget that holds no more: rates of one rule on one rung, without a range test."""
    part, (share, fewest) = most / LARGEST_SHARE, SPRINT
    scores, rungs = part * SCORES_SHARE * updates, (max(round(part * share * updates), fewest),)
    left = (most - part * PREFLIGHT_SHARE) * updates - beside
    most_fit = _room(rungs, left, candidates, 1, scores, score, renewal)
    return Plan(updates, 0, scores, most_fit, rungs if most_fit else (), 1)


def _room(
    rungs: tuple[int, ...],
    left: float,
    most: int,
    rules: int,
    scores: float,
    score: float,
    renewal: float,
) -> int:
    """How many candidates most_fit. What the winner has trained is kept, and does not count."""

    def cost(candidates: int) -> float:
        times = _times(candidates, rungs, rules)
        scored = max(scores, times * score) + times * renewal
        return _dearest(candidates, rungs, rules) - rungs[-1] + scored

    return max((n for n in range(CANDIDATES[0], most + 1) if cost(n) <= left), default=0)


def _rungs(updates: float) -> tuple[int, ...]:
    ends = zip(RUNGS, FEWEST_UPDATES, strict=True)
    return tuple(max(round(share * updates), least) for share, least in ends)


def _times(candidates: int, rungs: tuple[int, ...], rules: int) -> int:
    return 1 + sum(running for running, _ in _stages(candidates, rungs, rules))


def _dearest(candidates: int, rungs: tuple[int, ...], rules: int) -> int:
    """Updates of all candidates, where every one goes on that may."""
    return sum(running * length for running, length in _stages(candidates, rungs, rules))


def _stages(candidates: int, rungs: tuple[int, ...], rules: int) -> list[tuple[int, int]]:
    """(candidates that run, updates of each) on every rung."""
    found, before = [], 0
    for end in rungs:
        found.append((candidates, end - before))
        candidates, before = (
            max(going_on(candidates), min(candidates, 2 + rules)),
            end,
        )  # the best, and all that are protected
    return found


def going_on(candidates: int) -> int:
    """How many candidates of a rung go on, protected ones aside, at most."""
    share, least = KEPT
    return max(math.ceil(share * candidates), min(candidates, least))
