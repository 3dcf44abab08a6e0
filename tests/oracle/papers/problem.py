"""A noisy quadratic for each weight of a small model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from papers.paper import Array

SILENT = (1, 4)
"""Steps at which the first element of every weight has no gradient."""


@dataclass(frozen=True)
class Problem:
    """Weights of these shapes. The last of several starts at zero, where norms are zero too.

    size      what gradients are multiplied by: small ones go through no clipping, and feel every ε
    shake     not 0 for gradients that are off by a few roundings, other ones for every number
    extended  weights in the processor's longest format"""

    shapes: tuple[tuple[int, ...], ...]
    seed: int = 0
    size: float = 1.0
    shake: int = 0
    extended: bool = False

    def start(self) -> list[Array]:
        """The weights before the first step."""
        ws = [np.random.default_rng([self.seed, i]).normal(size=shape) for i, shape in enumerate(self.shapes)]
        ws = [*ws[:-1], np.zeros_like(ws[-1])] if len(ws) > 1 else ws
        return [w.astype(np.longdouble) for w in ws] if self.extended else ws

    def _curvature(self, i: int) -> Array:
        shape = self.shapes[i]
        return np.random.default_rng([self.seed, i, 7]).uniform(0.1, 1, shape)

    def gradient(self, i: int, w: Array, t: int) -> Array:
        """Of weight i at step t; the noise depends on the step alone."""
        shape = self.shapes[i]
        target = np.random.default_rng([self.seed, i, 8]).normal(0, 2, shape)
        noise = np.random.default_rng([self.seed, i, 9, t]).normal(size=shape)
        g = self.size * (self._curvature(i) * (w - target) + noise)
        if t in SILENT:
            g.flat[:1] = 0
        return g * self._rounding(i, t) if self.shake else g

    def _rounding(self, i: int, t: int) -> Array:
        draw = np.random.default_rng([self.shake, i, t])
        return 1 + 4 * np.finfo(np.float64).eps * draw.normal(size=self.shapes[i])

    def gradients(self, ws: list[Array], t: int) -> list[Array]:
        """Of all weights."""
        return [self.gradient(i, w, t) for i, w in enumerate(ws)]

    def reading(self, kind: str, i: int, t: int) -> Array:
        """An estimate of the curvature of weight i, of either sign; or, never negative, of its square."""
        noise = np.random.default_rng([self.seed, i, 10, t]).normal(size=self.shapes[i])
        d = self._curvature(i) * (1 + noise)
        return d * d if kind == "squares" else d
