"""`Division`: into how many microbatches an update is cut, and what their gradients tell of the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steepest.data.tree import Tree
from steepest.data.varied import VariedPlan
from steepest.optim.batch import Following
from steepest.optim.engines.precision.formats import widened
from steepest.optim.noise import Critical, Pair
from steepest.train import memory

SECOND_MOMENTS = ("exp_avg_sq", "v", "square_avg", "sum")
"""Under what name an optimizer's state holds the squares that it divides gradients by."""


class Division:
    """What of the division into microbatches changes in a run.

    most    examples of a microbatch at most, since memory ran out; None before that
    policy  the one that goes by the noise of gradients, where there is one
    found   the new batch and the critical one that the last update has led to, until it is taken"""

    def __init__(self, varied: VariedPlan | None) -> None:
        self.most: int | None = None
        policy = None if varied is None else varied.policy
        self.policy = policy if isinstance(policy, Following) else None
        self.found: tuple[int, Critical] | None = None
        self._part: tuple[float, int] | None = None

    def pieces(self, window: Sequence[Tree]) -> list[Tree]:
        """The microbatches of an update."""
        return memory.pieces(window, self.most)

    def halve(self, pieces: Sequence[Tree], net: nn.Module) -> None:
        """Memory ran out at one of these: cut smaller from now on. Raises UserError where that cannot be."""
        self.most, self._part = memory.smaller(pieces, net), None

    def part(self, optimizer: Any, unit: float, examples: int) -> None:
        """The first microbatch's gradient is in, in this unit; nothing more."""
        if self.policy is not None:
            self._part = (squared(optimizer, self.policy.power > 1) / unit**2, examples)

    def whole(self, step: int, optimizer: Any, unit: float, examples: int) -> None:
        """The gradient of the whole of update `step` is in."""
        if self.policy is None or self._part is None:
            return
        (small, less), self._part = self._part, None
        large = squared(optimizer, self.policy.power > 1) / unit**2
        if less < examples and math.isfinite(small) and math.isfinite(large):
            self.found = self.policy.observe(step, Pair(small, large, less, examples))

    def numbers(self) -> dict[str, Any]:
        """What is to be saved."""
        return {"most": self.most, "policy": None if self.policy is None else self.policy.numbers()}

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Take over what `numbers` gave."""
        self.most = numbers["most"]
        if self.policy is not None and numbers["policy"] is not None:
            self.policy.load(numbers["policy"])


@torch.no_grad()
def squared(optimizer: Any, scaled: bool) -> float:
    """Squared norm of all gradients; with `scaled` in the units in which a rule of Adam's kind sees them, as
    far as its state holds squares for every weight. nan before it does."""
    every = (weight for group in optimizer.param_groups for weight in group["params"])
    weights = [weight for weight in every if weight.grad is not None]
    if scaled and not any(optimizer.state.get(weight) for weight in weights):
        return math.nan
    squares = [_square(optimizer.state.get(weight, {}), weight) for weight in weights] if scaled else [None]
    if any(v is None for v in squares):
        return sum(float(widened(weight.grad.detach()).square().sum()) for weight in weights)
    return sum(_in_units(weight.grad, v) for weight, v in zip(weights, squares, strict=True) if v is not None)


def _in_units(gradient: Tensor, v: Tensor) -> float:
    """Σ g²/(v + mean v): a coordinate that was at rest so far is measured by the others of its weight. Adam's
    own unit, which takes in the gradient itself, would make estimates biased; √v alone, unbounded."""
    v, mean = widened(v), float(widened(v).mean())
    return float((widened(gradient.detach()).square() / (v + mean)).sum()) if mean > 0 else 0.0


def _square(state: Mapping[str, Any], weight: Tensor) -> Tensor | None:
    found = (state.get(name) for name in SECOND_MOMENTS)
    return next((v for v in found if _fits(v, weight)), None)


def _fits(v: Any, weight: Tensor) -> bool:
    return isinstance(v, Tensor) and v.shape == weight.shape and v.is_floating_point()
