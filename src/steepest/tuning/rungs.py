"""Who goes on: arms compared in pairs on the same examples, worse ones dropped rung by rung."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steepest.tuning.arms import Arm, alike
from steepest.tuning.constants import (
    ALIKE,
    CLEARLY_WORSE,
    HALFWAY,
    HARDLY,
    NEARLY,
    SEED_NOISE,
    TIE,
    TREND,
    WORSE,
)


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


def credited(
    scores: Mapping[int, Sequence[float]], credit: Mapping[int, float], start: float
) -> dict[int, Sequence[float]]:
    """Losses as if each arm had come `credit` times as far from the loss of the start, in logarithms: a loss
    that is nearly nothing does not fall below it.   L ← L·(mean L/start)^(credit - 1)"""
    return {arm: _scaled(losses, start, credit[arm] - 1) for arm, losses in scores.items()}


def expected(scores: Sequence[float], before: Sequence[float]) -> list[float]:
    """Losses as they would be if an arm went on as it came.   L ← L·(mean L/mean L₁)^TREND"""
    return _scaled(scores, float(np.mean(before)), TREND)


def _scaled(scores: Sequence[float], before: float, power: float) -> list[float]:
    """Losses after so much more of the way from `before`; as they are where there are no logarithms."""
    now = float(np.mean(scores))
    if not (now > 0 and before > 0 and math.isfinite(now) and math.isfinite(before)):
        return list(scores)
    return [loss * (now / before) ** power for loss in scores]


def survivors(ranked: Sequence[Standing], protected: Sequence[int], start: float, most: int) -> list[int]:
    """The arms that go on to the next rung; protected ones always do, and the best.

    start: the loss before the first update;   most: how many the plan has room for"""
    half = math.ceil(len(ranked) / 2)
    kept = [
        one.arm
        for place, one in enumerate(ranked)
        if place == 0 or _goes_on(one, place < half, _share(one, ranked[0], start))
    ]
    return list(dict.fromkeys([kept[0], *protected, *kept[1:]]))[: max(most, 1 + len(protected))]


def winner(arms: Sequence[Arm], ranked: Sequence[Standing], default: int, start: float) -> int:
    """The best arm; the default where it cannot be told from it, or where nothing has been learnt yet."""
    tied = any(one.arm == default and one.z <= TIE for one in ranked)
    return default if tied or start <= ranked[0].loss else _inner(arms, ranked)


def _inner(arms: Sequence[Arm], ranked: Sequence[Standing]) -> int:
    """The best arm, or, where it is the highest rate of its rule that is left, the next lower one that is as
    good: what is beyond was not seen for as long, and a rate that is too high costs more than one too low."""
    own = [one for one in ranked if alike(arms[one.arm], arms[ranked[0].arm])]
    highest, *lower = sorted(own, key=lambda one: arms[one.arm].lr, reverse=True)
    as_good = [one for one in lower if one.z <= ALIKE]
    return as_good[0].arm if as_good and highest is ranked[0] else ranked[0].arm


def lower(arms: Sequence[Arm], ranked: Sequence[Standing], best: int) -> int:
    """The next lower rate than the best arm's where it is hardly behind: after a single rung high rates lead
    that a second one would show to stand still."""
    below = [one for one in ranked if alike(arms[one.arm], arms[best]) and arms[one.arm].lr < arms[best].lr]
    following = max(below, key=lambda one: arms[one.arm].lr, default=None)
    return following.arm if following is not None and following.z <= HARDLY else best


def peak(arms: Sequence[Arm], best: int, losses: Mapping[int, float]) -> float:
    """The rate between those that were tried: the lowest point of the parabola through the best arm and its
    neighbours, over logarithms; the best arm's own where it is outermost, not the lowest of the three, or
    beside one that is not finite.

    losses  of arms at the end of one rung"""
    order = sorted((a for a in losses if alike(arms[a], arms[best])), key=lambda a: arms[a].lr)
    place = order.index(best)
    three = order[max(place - 1, 0) : place + 2]
    x, y = [math.log(arms[a].lr) for a in three], [losses[a] for a in three]
    if len(three) < 3 or not all(map(math.isfinite, y)) or y[1] > min(y):
        return arms[best].lr
    curvature, slope, _ = np.polyfit(np.subtract(x, x[1]), y, 2)
    inside = np.clip(-slope / (2 * curvature), x[0] - x[1], x[2] - x[1]) if curvature > 0 else 0.0
    return math.exp(x[1] + float(inside))


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
