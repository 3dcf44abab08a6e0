"""When a hyperparameter moves, and how far: only where the signal stands out of its noise.

A sample is the share of a gradient that is left, after its step, along the change that a hyperparameter would
make: a cosine where the gradient keeps its length. The scales of the loss and of the weights do not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

LEAST = 5
"""Samples below which nothing is said of their noise."""
FULL = 0.1
"""The mean cosine from which on a move is a whole one."""


def mean_and_error(samples: Sequence[float]) -> tuple[float, float]:
    """(mean, its standard error)."""
    if len(samples) < 2:
        return (samples[0] if samples else 0.0), math.inf
    return float(np.mean(samples)), float(np.std(samples, ddof=1)) / math.sqrt(len(samples))


def move(samples: Sequence[float], gain: float) -> float:
    """How far to move against the mean: by `gain` at most, and not at all within two standard errors."""
    mean, error = mean_and_error(samples)
    if len(samples) < LEAST or abs(mean) <= 2 * error:
        return 0.0
    return -math.copysign(gain * min(1.0, abs(mean) / FULL), mean)


def moves_apart(
    samples: Sequence[Sequence[float]],
    shares: Sequence[float],
    gain: float,
    room: Callable[[int, float], bool],
) -> list[float]:
    """How far each of several goes relative to the others: Σ shares·move = 0.

    samples: a row a moment, a column each. What all have in common does not count: one step ahead, shorter
    steps nearly always look better, whatever they are worth in the end.
    room: (number, move) → whether it may go so far; who may not stays, and the others go without it, as they
    do without a column of zeros, in which nothing has moved."""
    rows, moves = np.asarray(samples, float), [0.0] * len(shares)
    free = [number for number in range(len(shares)) if len(rows) and rows[:, number].any()]
    while len(free) > 1:
        made = _balanced(rows[:, free], np.asarray(shares, float)[free], gain)
        stuck = {number for number, by in zip(free, made, strict=True) if not room(number, by)}
        if not stuck:
            for number, by in zip(free, made, strict=True):
                moves[number] = by
            break
        free = [number for number in free if number not in stuck]
    return moves


def _balanced(rows: np.ndarray, shares: np.ndarray, gain: float) -> list[float]:
    shares = shares / shares.sum()
    apart = rows - (rows @ shares)[:, None]
    moves = np.array([move(column.tolist(), gain) for column in apart.T])
    moves = moves - moves @ shares
    largest = float(np.abs(moves).max())
    return (moves * min(1.0, gain / largest) if largest else moves).tolist()
