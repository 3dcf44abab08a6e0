"""The path of a rule over two landscapes of two weights, as a picture made of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from steepest.optim.engines import on_numpy
from steepest.optim.rule import Rule

STEPS = 60
RATES = tuple(10.0 ** (exponent / 4) for exponent in range(-16, 5))
"""Learning rates that are tried for the picture: that of a network would show no movement here."""

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character: four rows of two dots."""

Points: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True)
class Landscape:
    """A function of two weights, f(x, y), its gradient, the diagonal of its Hessian, and where to begin."""

    name: str
    f: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], tuple[Any, Any]]
    curvature: Callable[[Any, Any], tuple[Any, Any]]
    begin: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]


VALLEY = Landscape(
    "valley  f = ½(x + y)² + 10(y - x)²",
    lambda x, y: 0.5 * (x + y) ** 2 + 10 * (y - x) ** 2,
    lambda x, y: ((x + y) - 20 * (y - x), (x + y) + 20 * (y - x)),
    lambda x, y: (21.0, 21.0),
    (-1.6, -0.9),
    (-2.0, -1.5),
    (1.0, 1.0),
)
SADDLE = Landscape(
    "saddle  f = ½x² - ½y² + ¼y⁴",
    lambda x, y: 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4,
    lambda x, y: (x, y**3 - y),
    lambda x, y: (1.0, 3 * y**2 - 1),
    (1.6, 0.02),
    (-2.0, -1.5),
    (2.0, 1.5),
)


def path(rule: Rule, land: Landscape, steps: int = STEPS) -> Points:
    """Where the rule goes, a row (x, y) a step, from the beginning on; cut where it leaves all bounds."""
    w, shared = np.array([land.begin]), [dict(rule.shared)]
    slots: Any = rule.at(1).init(on_numpy.NUMPY, w)
    points = [w[0]]
    for t in range(1, steps + 1):
        g = np.array([land.gradient(*w[0])])
        past = points[-2] if t > 1 else w[0]
        seen = {"d": land.curvature(*w[0]), "p": land.gradient(*past)}
        reads = [np.array([seen[name]]) for name in rule.extra_inputs]
        with np.errstate(all="ignore"):
            ((w, *slots),), shared = on_numpy.step_all(rule, t, t, [(w, g, *reads, *slots)], shared)
        if not np.abs(w).max() < 1e3:
            break
        points.append(w[0])
    return np.array(points)


def suited(rule: Rule, land: Landscape) -> Rule:
    """The rule with that learning rate of RATES whose path lies lowest, on average over the steps."""

    def height(rate: float) -> float:
        points = path(replace(rule, lr=rate), land)
        return float(land.f(*points.T).mean()) if len(points) > STEPS else np.inf

    return replace(rule, lr=min(RATES, key=height))


def drawn(points: Points, land: Landscape, width: int = 36, height: int = 14) -> list[str]:
    """The path in braille dots over lines of equal height; S where it begins, E where it ends."""
    dots = _contours(land, 2 * width, 4 * height)
    ends = [_place(point, land, width, height) for point in (points[0], points[-1])]
    for before, after in pairwise(points):
        for share in np.linspace(0, 1, 24):
            column, row = _place(before + share * (after - before), land, 2 * width, 4 * height)
            if 0 <= column < 2 * width and 0 <= row < 4 * height:
                dots[row, column] = True
    lines = [
        [_letter(dots[4 * r : 4 * r + 4, 2 * c : 2 * c + 2]) for c in range(width)] for r in range(height)
    ]
    for (column, row), mark in zip(ends, "SE", strict=True):
        if 0 <= column < width and 0 <= row < height:
            lines[row][column] = mark
    return ["".join(line) for line in lines]


def _place(point: Any, land: Landscape, width: int, height: int) -> tuple[int, int]:
    """Column and row of a point."""
    share = (np.asarray(point) - land.low) / np.subtract(land.high, land.low)
    return int(share[0] * width // 1), int((1 - share[1]) * height // 1)


def _contours(land: Landscape, width: int, height: int) -> Any:
    """Dots of a raster, every third one, where the function crosses a level."""
    x = np.linspace(land.low[0], land.high[0], width)
    y = np.linspace(land.high[1], land.low[1], height)[:, None]
    level = np.floor(4 * np.cbrt(land.f(x, y) - land.f(x, y).min()))
    crossing = np.zeros((height, width), bool)
    crossing[:, 1:] |= level[:, 1:] != level[:, :-1]
    crossing[1:] |= level[1:] != level[:-1]
    return crossing & (np.add.outer(np.arange(height), np.arange(width)) % 3 == 0)


def _letter(dots: Any) -> str:
    bits = sum(_DOTS[row][column] for row in range(4) for column in range(2) if dots[row, column])
    return chr(_BRAILLE + bits)
