"""Microbatches: into how many an update is cut, what their gradients tell of the noise, and how an update is
made again where memory ran out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout

from steepest.data.rng import GENERATORS, capture, restore
from steepest.data.tree import Tree
from steepest.data.varied import VariedPlan
from steepest.optim.batch import Following
from steepest.optim.engines.precision.formats import widened
from steepest.optim.noise import Critical, Pair
from steepest.train import memory

SECOND_MOMENTS = ("exp_avg_sq", "v", "square_avg", "sum")
"""Under what name an optimizer's state holds the squares that it divides gradients by."""

LOOKED, EVERY = 10, 100
"""Whether code draws random numbers is looked at in the first LOOKED updates and one of EVERY after them: a
look copies the states of three generators, some 10 kB, and in each update would be dear beside small ones."""

DRAWING = (
    Dropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.RNNBase, nn.MultiheadAttention
)  # fmt: skip
"""Modules of torch that draw random numbers."""


class Microbatching:
    """What of the division into microbatches changes in a run.

    most    examples of a microbatch at most, since memory ran out; None before that
    policy  the one that goes by the noise of gradients, where there is one
    found   the new batch and the critical one that the last update has led to, until it is taken up"""

    def __init__(self, varied: VariedPlan | None, optimizer: torch.optim.Optimizer) -> None:
        self.most: int | None = None
        policy = None if varied is None else varied.policy
        self.policy = policy if isinstance(policy, Following) else None
        self.found: tuple[int, Critical] | None = None
        self._varied, self._optimizer = varied, optimizer
        self._part: tuple[float, int] | None = None

    def pieces(self, window: Sequence[Tree]) -> list[Tree]:
        """The microbatches of an update."""
        return memory.pieces(window, self.most)

    def halve(self, pieces: Sequence[Tree], net: nn.Module) -> None:
        """Memory ran out at one of these: cut smaller from now on. Raises UserError where that cannot be."""
        self.most, self._part = memory.smaller(pieces, net), None

    def part(self, unit: float, examples: int) -> None:
        """The first microbatch's gradient is in, in this unit; nothing more."""
        if self.policy is not None:
            self._part = (squared(self._optimizer, self.policy.power > 1) / unit**2, examples)

    def whole(self, step: int, unit: float, examples: int) -> None:
        """The gradient of the whole of update `step` is in."""
        if self.policy is None or self._part is None:
            return
        (small, less), self._part = self._part, None
        large = squared(self._optimizer, self.policy.power > 1) / unit**2
        if less < examples and math.isfinite(small) and math.isfinite(large):
            self.found = self.policy.observe(step, Pair(small, large, less, examples))

    def take_up(self, done: int) -> tuple[int, Critical]:
        """(the new batch from the next update on, the critical one): what the last update has led to."""
        assert self._varied is not None
        assert self.found is not None
        self._varied.forget(done)
        found, self.found = self.found, None
        return found

    def state_dict(self) -> dict[str, Any]:
        """The largest microbatch, and what the policy has recorded."""
        return {"most": self.most, "policy": None if self.policy is None else self.policy.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.most = state["most"]
        if self.policy is not None and state["policy"] is not None:
            self.policy.load_state_dict(state["policy"])


class StepBackup:
    """What the passes of an update change besides gradients, as it was before them, to be put back.

    That is running statistics, of modules that have such, and random numbers: torch's where a module draws
    them or may, being a person's own; torch's, NumPy's and Python's where passes were seen to draw them, in
    a person's loss, say. Of others nothing is kept, but in the updates in which it is looked."""

    def __init__(self, net: nn.Module) -> None:
        self._places = list(_changing(net))
        drawing = any(isinstance(module, DRAWING) or not _of_torch(module) for module in net.modules())
        self._drawn = {"torch", "cuda"} if drawing else set()
        self._updates = 0
        self._buffers: list[Tensor] = []
        self._chance: dict[str, Any] = {}

    def keep(self, wanted: bool) -> None:
        """An update begins;   wanted: whether it could begin anew."""
        self._buffers = [held[name].clone() for held, name in self._places if wanted]
        self._chance = capture(GENERATORS if self._looks() else self._drawn) if wanted else {}
        self._updates += 1

    def over(self) -> None:
        """Its passes are done: what they were seen to draw is kept from now on."""
        now = capture(self._chance.keys() - self._drawn)
        self._drawn |= {name for name, state in now.items() if not _same(self._chance[name], state)}

    @torch.no_grad()
    def put_back(self) -> None:
        """It begins anew."""
        for (held, name), before in zip(self._places, self._buffers, strict=False):
            held[name].copy_(before)
        restore(self._chance)

    def _looks(self) -> bool:
        return self._updates < LOOKED or self._updates % EVERY == 0


def _changing(net: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """(buffers of a module, name) of each that a forward pass may write to."""
    for module in net.modules():
        if isinstance(module, RunningNorm) or not _of_torch(module):
            yield from ((module._buffers, name) for name, held in module._buffers.items() if held is not None)


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.")


def _same(state: Any, other: Any) -> bool:
    if isinstance(state, Tensor):
        return torch.equal(state, other)
    return len(state) == len(other) and all(map(np.array_equal, state, other))


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
