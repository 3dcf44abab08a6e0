"""L-BFGS with its two loops over vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from papers.paper import Array, Paper, Rate


def lbfgs(
    ws: list[Array], gradient: Callable[[list[Array], int], list[Array]], lr: Rate, *, weight_decay: float
) -> Iterator[list[Array]]:
    """Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4 and 7.5, ten pairs, no line search.

    All weights are one vector. Before the first pair the step is 1/‖g‖₁ of the gradient, at most 1."""
    shapes, ends = [w.shape for w in ws], np.cumsum([w.size for w in ws])[:-1]
    x, pairs, before = np.concatenate([w.ravel() for w in ws]), deque(maxlen=10), None
    for t in count(1):
        parts = [part.reshape(shape) for part, shape in zip(np.split(x, ends), shapes, strict=True)]
        g = np.concatenate([part.ravel() for part in gradient(parts, t)]) + weight_decay * x
        if before is not None:
            s, y = x - before[0], g - before[1]
            if s @ y > 1e-10 * np.linalg.norm(s) * np.linalg.norm(y):
                pairs.append((s, y))
        before = x, g
        x = x - lr(t) * newtons(g, pairs)
        yield [part.reshape(shape) for part, shape in zip(np.split(x, ends), shapes, strict=True)]


def newtons(g: Array, pairs: deque[tuple[Array, Array]]) -> Array:
    """Algorithm 7.4."""
    if not pairs:
        return min(1.0, 1 / float(np.abs(g).sum())) * g
    q, alphas = g, []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = s @ y / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (s @ y))
    return r


PAPERS = [Paper("lbfgs", lbfgs, {"lr": 0.3, "weight_decay": 0.1}, model=True, delicate=True)]
