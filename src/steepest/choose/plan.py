"""What a budget allows: how many arms, how long they run, and when a search is not worth its price."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steepest.choose.constants import (
    ARMS,
    EDGE_SHARE,
    FEWEST_STEPS,
    FEWEST_UPDATES,
    FORWARD,
    KEPT,
    LARGEST_SHARE,
    RUNGS,
    SANITY_SHARE,
    SCORES_SHARE,
    WARMUP,
)


@dataclass(frozen=True)
class Plan:
    """The stages of a search, in updates.

    updates  what the whole budget holds;   ramp  each range test;   scores  what all scores may cost
    arms     how many race at most;   rungs  where each rung ends, none where the budget is too short"""

    updates: int
    ramp: int
    scores: float
    arms: int
    rungs: tuple[int, ...]

    @property
    def warmup(self) -> int:
        """Updates in which the rate of an arm rises, where that is not a person's."""
        return round(WARMUP * self.rungs[0]) if self.rungs else 0

    @property
    def times(self) -> int:
        """Scores that will be taken at most, the one of the start among them."""
        return _times(self.arms, self.rungs)


def plan(
    updates: int, most: float = LARGEST_SHARE, ramps: int = 1, beside: float = 0.0, score: float = 0.0
) -> Plan:
    """The plan for a budget.

    most   the share of it that a search may take;   ramps  range tests that it will make
    beside gradient evaluations that come out of that share too: what was spent, the run's own evaluations
    score  gradient evaluations that one score costs at least"""
    part = most / LARGEST_SHARE
    ramp = max(round(part * EDGE_SHARE * updates), FEWEST_STEPS)
    rungs = tuple(
        max(round(part * share * updates), least) for share, least in zip(RUNGS, FEWEST_UPDATES, strict=True)
    )
    scores = part * SCORES_SHARE * updates
    left = (most - part * SANITY_SHARE) * updates - ramps * ramp * (1 + FORWARD)
    left -= max(beside - rungs[-1], 0)  # what the winner has trained is kept, and pays for as much

    def cost(arms: int) -> float:
        return _cost(arms, rungs) + max(scores, _times(arms, rungs) * score)

    arms = max((n for n in range(ARMS[0], ARMS[1] + 1) if cost(n) <= left), default=0)
    return Plan(updates, ramp, scores, arms, rungs if arms else ())


def _times(arms: int, rungs: tuple[int, ...]) -> int:
    return 1 + sum(running for running, _ in _stages(arms, rungs))


def _cost(arms: int, rungs: tuple[int, ...]) -> int:
    return sum(running * length for running, length in _stages(arms, rungs))


def _stages(arms: int, rungs: tuple[int, ...]) -> list[tuple[int, int]]:
    """(arms that run, updates of each) on every rung."""
    found, before = [], 0
    for end in rungs:
        found.append((arms, end - before))
        arms, before = going_on(arms), end
    return found


def going_on(arms: int) -> int:
    """How many arms of a rung go on at most."""
    share, least = KEPT
    return max(math.ceil(share * arms), min(arms, least))
