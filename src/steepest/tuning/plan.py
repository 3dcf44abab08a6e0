"""What a budget allows: how many arms, how long they run, and when a search is not worth its price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from steepest.tuning.constants import (
    ARMS,
    BOTH_ENDS,
    EDGE_SHARE,
    FEWEST_STEPS,
    FEWEST_UPDATES,
    FORWARD,
    KEPT,
    LARGEST_SHARE,
    LONGER,
    LONGEST,
    RUNGS,
    SANITY_SHARE,
    SCORES_SHARE,
    SPRINT,
    WARMUP,
)


@dataclass(frozen=True)
class Plan:
    """The stages of a search, in updates.

    updates  what the whole budget holds;   ramp  each range test;   scores  what all scores may cost
    arms     how many race at most;   rungs  where each rung ends, none where the budget is too short
    rules    between how many rules the race decides"""

    updates: int
    ramp: int
    scores: float
    arms: int
    rungs: tuple[int, ...]
    rules: int = 2

    @property
    def warmup(self) -> int:
        """Updates in which the rate of an arm rises, where that is not a person's."""
        return round(WARMUP * self.rungs[0]) if self.rungs else 0

    @property
    def times(self) -> int:
        """Scores that will be taken at most, the one of the start among them."""
        return _times(self.arms, self.rungs, self.rules)


def plan(
    updates: int,
    most: float = LARGEST_SHARE,
    ramps: int = 1,
    beside: float = 0.0,
    score: float = 0.0,
    renewal: float = 0.0,
    rules: int = 2,
    arms: int = ARMS[1],
) -> Plan:
    """The plan for a budget.

    most   the share of it that a search may take;   ramps  range tests that it will make
    beside gradient evaluations that come out of that share too: what was spent, the run's own evaluations
    score  gradient evaluations that one score costs at least;   renewal  what it costs beside its examples
    rules  how many race: the rates of one alone race for longer, where that leaves room to look around
    arms   how many are worth it at most"""
    part = most / LARGEST_SHARE * min(1.0, LONGEST / max(updates, 1))
    ramp = max(round(part * EDGE_SHARE * updates), FEWEST_STEPS)
    scores = part * SCORES_SHARE * updates
    left = (most - part * SANITY_SHARE) * updates - ramps * (ramp + BOTH_ENDS) * (1 + FORWARD) - beside
    usual, longer = (_rungs(part * factor * updates) for factor in (1.0, LONGER))
    room = partial(_room, left=left, most=arms, rules=rules, scores=scores, score=score, renewal=renewal)
    rungs = longer if rules == 1 and room(longer) > ARMS[0] else usual
    racing = room(rungs)
    return Plan(updates, ramp, scores, racing, rungs if racing else (), rules)


def sprint(
    updates: int,
    most: float = LARGEST_SHARE,
    beside: float = 0.0,
    score: float = 0.0,
    renewal: float = 0.0,
    arms: int = ARMS[1],
) -> Plan:
    """The plan for a budget that holds no more: rates of one rule on one rung, without a range test."""
    part, (share, fewest) = most / LARGEST_SHARE, SPRINT
    scores, rungs = part * SCORES_SHARE * updates, (max(round(part * share * updates), fewest),)
    left = (most - part * SANITY_SHARE) * updates - beside
    racing = _room(rungs, left, arms, 1, scores, score, renewal)
    return Plan(updates, 0, scores, racing, rungs if racing else (), 1)


def _room(
    rungs: tuple[int, ...],
    left: float,
    most: int,
    rules: int,
    scores: float,
    score: float,
    renewal: float,
) -> int:
    """How many arms fit. What the winner has trained is kept, and does not count."""

    def cost(arms: int) -> float:
        times = _times(arms, rungs, rules)
        scored = max(scores, times * score) + times * renewal
        return _dearest(arms, rungs, rules) - rungs[-1] + scored

    return max((n for n in range(ARMS[0], most + 1) if cost(n) <= left), default=0)


def _rungs(updates: float) -> tuple[int, ...]:
    ends = zip(RUNGS, FEWEST_UPDATES, strict=True)
    return tuple(max(round(share * updates), least) for share, least in ends)


def _times(arms: int, rungs: tuple[int, ...], rules: int) -> int:
    return 1 + sum(running for running, _ in _stages(arms, rungs, rules))


def _dearest(arms: int, rungs: tuple[int, ...], rules: int) -> int:
    """Updates of all arms, where every one goes on that may."""
    return sum(running * length for running, length in _stages(arms, rungs, rules))


def _stages(arms: int, rungs: tuple[int, ...], rules: int) -> list[tuple[int, int]]:
    """(arms that run, updates of each) on every rung."""
    found, before = [], 0
    for end in rungs:
        found.append((arms, end - before))
        arms, before = max(going_on(arms), min(arms, 2 + rules)), end  # the best, and all that are protected
    return found


def going_on(arms: int) -> int:
    """How many arms of a rung go on, protected ones aside, at most."""
    share, least = KEPT
    return max(math.ceil(share * arms), min(arms, least))
