"""What is known of one rule outside the code: its path, and settings that show every number of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Gradient = Callable[[Any, int], Any]
Rate = Callable[[int], float]
Path = Callable[..., Iterator[Any]]

VECTORS = ((7,), (3, 2), (4,))
"""Shapes of weights for rules that look at elements, or at sums over a weight or the model."""

MATRICES = ((6, 4), (4, 6), (3, 2, 2, 2))
"""Shapes for rules that look at rows and columns; the last is a convolution's."""


@dataclass(frozen=True)
class Paper:
    """A rule by its name in the registry, its path, and settings beside the defaults.

    others  more settings, where one cannot show every branch
    model   True where the path is one of all weights together
    ships   True where it gives pairs: the weights that are trained, and those to test and to ship
    reads   what a step is given beyond the gradient: "squares" (never negative) or "curvature"
    steady  True where the paper says nothing of a rate that changes, or something else than the rule
    delicate  True where a rounding grows, as it does in a basis of almost equal eigenvalues
    """

    rule: str
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    others: tuple[dict[str, Any], ...] = ()
    model: bool = False
    ships: bool = False
    reads: str = ""
    steady: bool = False
    delicate: bool = False
    shapes: tuple[tuple[int, ...], ...] = VECTORS
