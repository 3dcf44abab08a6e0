"""The reference engine: one weight, one step, in float64, nothing written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from steepest.maths import HOST
from steepest.rule import Rule

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def step(
    rule: Rule, step: int, t: int, w: Any, g: Any, slots: Sequence[Any], shared: Mapping[str, float]
) -> tuple[Array, tuple[Array, ...], dict[str, float]]:
    """New (weight, slots, shared scalars) of a weight in its update t, at the global step of the schedules.

    Start from `rule.init(np, w)` and `rule.shared`. Arrays of any float dtype go in, float64 comes out."""
    k, shared = rule.at(step).constants(HOST, t, shared)
    w, g, *slots = (np.asarray(array, np.float64) for array in (w, g, *slots))
    u, *slots = rule.direction(np, k, w, g, *slots)
    return rule.follow(np, k, w, u), tuple(slots), shared
