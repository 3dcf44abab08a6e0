"""Who goes on: arms compared in pairs on the same examples, worse ones dropped rung by rung."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steepest.choose.arms import Arm
from steepest.choose.constants import AHEAD, CLEARLY_WORSE, HALFWAY, KEPT, NEARLY, SEED_NOISE, TIE, WORSE


@dataclass(frozen=True)
class Standing:
    """An arm after a rung.   loss: its mean score;  behind: the best's lead;  z: that in standard errors"""

    arm: int
    loss: float
    behind: float
    error: float

    @property
    def z(self) -> float:
        """Standard errors behind the best."""
        return self.behind / self.error if self.behind else 0.0


def standings(scores: Mapping[int, Sequence[float]]) -> list[Standing]:
    """All arms, the best first; of equal ones the one that comes first.

    behind = mean(Lₐ - L_best)   error² = var(Lₐ - L_best)/n + (SEED_NOISE·L_best)²"""
    means = {arm: float(np.mean(losses)) for arm, losses in scores.items()}
    best = min(means, key=lambda arm: (_ordered(means[arm]), arm))
    found = [_against(arm, scores[arm], scores[best], arm == best) for arm in scores]
    return sorted(found, key=lambda one: (_ordered(one.loss), one.arm))


def survivors(ranked: Sequence[Standing], protected: int, start: float) -> list[int]:
    """The arms that go on to the next rung; the protected one always does, and the best.

    start: the loss before the first update"""
    most = math.ceil(KEPT * len(ranked))
    half = math.ceil(len(ranked) / 2)
    kept = [
        one.arm
        for place, one in enumerate(ranked)
        if place == 0 or _goes_on(one, place < half, _share(one, ranked[0], start))
    ][:most]
    return kept if protected in kept else [*kept[: max(most - 1, 1)], protected]


def clear(ranked: Sequence[Standing]) -> bool:
    """Whether the best leads all others so far that no further rung is needed."""
    return len(ranked) == 1 or ranked[1].z > AHEAD


def winner(ranked: Sequence[Standing], arms: Sequence[Arm], default: int, start: float) -> int:
    """The default where it cannot be told from the best; else, of the rates of the best arm's rule, the
    lowest that has come nearly as far.

    High rates lead at first and are too high for a longer run. But where nothing has been learnt yet, all
    rates are alike, down to none: then the default."""
    best = arms[ranked[0].arm]
    if any(one.arm == default and one.z <= TIE for one in ranked) or start <= ranked[0].loss:
        return default
    alike = [
        one.arm for one in ranked if _alike(arms[one.arm], best) and _share(one, ranked[0], start) >= NEARLY
    ]
    return min(alike, key=lambda arm: arms[arm].lr)


def _alike(arm: Arm, other: Arm) -> bool:
    return arm.rule == other.rule and arm.hyper == other.hyper


def _share(one: Standing, best: Standing, start: float) -> float:
    """How far an arm has come, in shares of the way of the best."""
    if not math.isfinite(one.loss) or start <= best.loss:
        return float(one.arm == best.arm)
    return (start - one.loss) / (start - best.loss)


def _goes_on(one: Standing, upper: bool, share: float) -> bool:
    if not math.isfinite(one.loss) or (one.z > CLEARLY_WORSE and share < HALFWAY):
        return False
    return upper or one.z <= WORSE or share >= NEARLY


def _against(arm: int, losses: Sequence[float], best: Sequence[float], is_best: bool) -> Standing:
    mean, least = float(np.mean(losses)), float(np.mean(best))
    noise = SEED_NOISE * abs(least) + 1e-30  # a loss of exactly 0 has no noise of its own
    if is_best or not math.isfinite(mean):
        return Standing(arm, mean, 0.0 if is_best else math.inf, noise)
    n = min(len(losses), len(best))
    apart = np.asarray(losses[-n:]) - np.asarray(best[-n:])
    spread = float(np.var(apart, ddof=1) / n) if n > 1 else 0.0
    return Standing(arm, mean, float(np.mean(apart)), math.sqrt(spread + noise**2))


def _ordered(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
