"""How many pairs it takes: at least, and to show a difference as it was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def least_pairs(level: float = 0.05) -> int:
    """Fewest pairs with which the sign-flip test can fall to this level: the least n with 2/2ⁿ ≤ level."""
    return math.ceil(math.log2(2 / level))


def pairs_needed(
    differences: Sequence[float] | np.ndarray, level: float = 0.05, power: float = 0.8, most: int = 1000
) -> int | None:
    """Pairs that would show such a mean difference amid such a spread, with this chance; None: over `most`.

    Of the two-sided t test at `level`, and never fewer than the sign-flip test needs. The mean and the spread
    are taken as seen: from few pairs the number is a rough one."""
    held = np.asarray(differences, np.float64)
    mean, spread = (abs(held.mean()), held.std(ddof=1)) if len(held) > 1 else (0.0, 0.0)
    if mean == 0:
        return None
    pairs = np.arange(least_pairs(level), most + 1)
    if spread == 0:
        return int(pairs[0])
    away = np.minimum(mean / spread * np.sqrt(pairs), 30)  # beyond 30 the chance is 1, and its tail a NaN
    enough = stats.nct.sf(stats.t.isf(level / 2, pairs - 1), pairs - 1, away) >= power
    return int(pairs[np.argmax(enough)]) if enough.any() else None
