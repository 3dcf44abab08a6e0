"""Adam-mini: Adam with one second moment a block of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steepest.optim.errors import UserError
from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments


@dataclass(frozen=True)
class AdamMini(Rule):
    """Adam with the mean square of a block for its second moment.
    m ← β₁m+(1-β₁)g   v ← β₂v+(1-β₂)·mean of g² over the block   u = m̂/(√v̂+ε)
    w ← w - lr·(u + weight_decay·w)

    blocks: 0 for one block a row (an output neuron, a token of an embedding), and one for a whole vector;
    n for n equal groups of rows, as heads of attention are; 1 for the whole array.
    lr: length of a coordinate's step, in units of w. State: m (1 float per weight), v (1 float a block).
    Zhang et al. 2024, arXiv:2406.16793, algorithms 1 and 2;
    equals the authors' Adam_mini on each kind of block."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    blocks: int = 0

    slots = ("m", "v")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.zeros_like(w), xp.zeros((self._count(w.shape),), w)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return moments(xp, t, self.beta1, self.beta2)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        block = (self._count(w.shape), -1)
        m = lerp(m, g, k.c1)
        v = lerp(v, xp.mean(xp.reshape(g * g, block), axis=1), k.c2)
        size = xp.reshape(xp.sqrt(k.unbias2 * v) + k.eps, (-1, 1))
        return xp.reshape(k.unbias1 * xp.reshape(m, block) / size, w.shape), m, v

    def _count(self, shape: Sequence[int]) -> int:
        """How many blocks a weight of this shape has."""
        rows = shape[0] if len(shape) > 1 else 1
        blocks = 1 if len(shape) < 2 else self.blocks or rows
        if blocks and rows % blocks:
            raise UserError(
                f"AdamMini's blocks ({blocks}) must divide the rows of a weight of shape {tuple(shape)}. "
                "Give such weights a rule of their own: groups={pattern: AdamMini(blocks=0)}."
            )
        return blocks
