"""SM3: Adagrad from one sum an index of each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.shapes import AXES, empty, folded


@dataclass(frozen=True)
class SM3(Rule):
    """Adagrad whose sums are the least of the bounds that rows and columns give.
    n = min(a₀, a₁, …)+g²   aᵢ ← max of n over all axes but i   m ← momentum·m + (1-momentum)·g/√(n+ε)   u = m
    w ← w - lr·(u + weight_decay·w)

    aᵢ: one bound for each index of axis i; a vector's a₀ is Adagrad's sum. Axes beyond the fourth are one
    with it.
    lr: length of a coordinate's first step, in units of w.
    State: m (1 float per weight), a0 to a3 (one float for each index of each axis).
    Anil et al. 2019, arXiv:1901.11150, algorithm SM3-II; equals pytorch-optimizer's SM3(beta=0)."""

    lr: Number = 0.1
    momentum: Number = 0.9
    eps: Number = 1e-30
    weight_decay: Number = 0.0

    slots = ("m", "a0", "a1", "a2", "a3")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        shape = folded(w.shape)
        alone = [tuple(n if j == i else 1 for j, n in enumerate(shape)) for i in range(len(shape))]
        bounds = [xp.zeros(one, w) for one in alone]
        return xp.zeros_like(w), *bounds, *(empty(xp, w) for _ in range(AXES - len(shape)))

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.momentum}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, *bounds: Any) -> tuple[Any, ...]:
        shape = folded(w.shape)
        n = bounds[0]
        for bound in bounds[1 : len(shape)]:
            n = xp.minimum(n, bound)
        n = n + xp.reshape(g * g, shape)
        m = lerp(m, g / xp.sqrt(xp.reshape(n, w.shape) + k.eps), k.c1)
        highest = [_highest(xp, n, i) for i in range(len(shape))]
        return m, m, *highest, *bounds[len(shape) :]


def _highest(xp: Any, n: Any, axis: int) -> Any:
    others = tuple(i for i in range(n.ndim) if i != axis)
    return xp.max(n, axis=others, keepdims=True) if others else n
