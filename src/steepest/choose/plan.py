"""What a budget allows: how many arms, how long they run, and when a search is not worth its price."""

from __future__ import annotations

from dataclasses import dataclass

from steepest.choose.constants import (
    ARMS_FEW,
    ARMS_MANY,
    EDGE_SHARE,
    FEWEST_STEPS,
    FULL,
    KEPT,
    LADDER,
    LARGEST_SHARE,
    RUNGS_FEW,
    RUNGS_MANY,
    SCORES_SHARE,
    WARMUP,
)


@dataclass(frozen=True)
class Plan:
    """The stages of a search, in updates.

    updates  what the whole budget holds;   ramp  all range tests together;   scores  what scores may cost
    arms     how many race at most;   rungs  where each rung ends, none where the budget is too short"""

    updates: int
    ramp: int
    scores: float
    arms: int
    rungs: tuple[int, ...]

    @property
    def families(self) -> int:
        """How many range tests the ramp allows."""
        return max(1, min(3, self.ramp // (2 * FEWEST_STEPS)))

    @property
    def warmup(self) -> int:
        """Updates in which the rate of an arm rises, where that is not a person's."""
        return round(WARMUP * self.rungs[0]) if self.rungs else 0

    @property
    def times(self) -> int:
        """Scores that will be taken at most, the one of the start among them."""
        running, taken = self.arms, 1
        for _ in self.rungs:
            taken, running = taken + running, -int(-KEPT * running // 1)
        return taken


def plan(updates: int, most: float = LARGEST_SHARE) -> Plan:
    """The plan for a budget.   most: the share of it that a search may take; all stages shrink with it"""
    part = most / LARGEST_SHARE
    ramp = max(round(part * EDGE_SHARE * updates), FEWEST_STEPS)
    shares = RUNGS_MANY if updates >= FULL else RUNGS_FEW if updates >= LADDER else ()
    arms = ARMS_MANY if updates >= FULL else ARMS_FEW
    rungs = tuple(max(round(part * share * updates), 1) for share in shares)
    return Plan(updates, ramp, part * SCORES_SHARE * updates, arms, rungs)
