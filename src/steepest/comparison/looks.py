"""How often a comparison was judged: where seeds are added until something is separable, chance adds up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from steepest.comparison.findings import LEVEL
from steepest.comparison.power import least_pairs


def level_of(earlier: Sequence[int], strategies: int) -> float:
    """What to test at after verdicts on so many seeds each: LEVEL/2ᵏ after k of them, so that the chance of a
    false claim in any is below 2·LEVEL. With seeds too few to separate anything nothing was risked."""
    level = LEVEL
    for seeds in sorted(earlier):
        if seeds >= least_pairs(level / max(strategies - 1, 1)):
            level /= 2
    return level


def noted(path: Path) -> list[int]:
    """The seeds of every verdict on all of its runs, as verdict.json holds them."""
    return json.loads(path.read_text(encoding="utf-8")).get("looks", []) if path.exists() else []
