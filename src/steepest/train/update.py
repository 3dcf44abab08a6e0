"""From a loss to moved weights: backward, the guard, clipping, step.

The guard keeps a loss or gradient that is not finite from the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.optim.clipping import ClipAdaptive, ClipNorm, ClipValue
from steepest.optim.errors import UserError
from steepest.train import memory
from steepest.train.evaluation import Average
from steepest.train.optimizer_adapter import OptimizerAdapter, total_norm
from steepest.train.record import MeanLoss
from steepest.world import ALONE, World


class Verdict(Enum):
    """What becomes of an update; the value is the word in the column `event`."""

    GO = ""
    SKIP = "guard"
    REWIND = "rewind"
    GIVE_UP = "failed"


class Diverged(UserError):
    """Training met non-finite numbers again and again; the sentence says where the batch lies."""

    exit_code = 1


@dataclass(frozen=True)
class Strikes:
    """Updates withheld in a row, and rewinds so far."""

    in_a_row: int = 0
    rewinds: int = 0


@dataclass(frozen=True)
class Guard:
    """Withholds an update that is not finite; after `strikes` of them in a row the run goes back to its last
    good state with `factor` on the rate; after `rewinds` of those it gives up."""

    strikes: int = 5
    rewinds: int = 3
    factor: float = 0.5

    def observe(self, state: Strikes, finite: bool) -> tuple[Strikes, Verdict]:
        """The state after one more update, and what becomes of it."""
        if finite:
            return (state if not state.in_a_row else replace(state, in_a_row=0)), Verdict.GO
        if state.in_a_row + 1 < self.strikes:
            return replace(state, in_a_row=state.in_a_row + 1), Verdict.SKIP
        if state.rewinds >= self.rewinds:
            return state, Verdict.GIVE_UP
        return Strikes(0, state.rewinds + 1), Verdict.REWIND


@dataclass(frozen=True)
class LossScale:
    """Factor on the loss before the backward pass, taken back before the update.

    Halved at every gradient that is not finite, doubled after `patience` finite ones in a row.
    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2."""

    value: float = 65536.0
    good: int = 0
    patience: int = 2000

    def after(self, finite: bool) -> LossScale:
        """The scale for the next update."""
        if not finite:
            return replace(self, value=self.value / 2, good=0)
        if self.good + 1 < self.patience:
            return replace(self, good=self.good + 1)
        return replace(self, value=self.value * 2, good=0)


class Update:
    """One update of the weights from the microbatches of a window.

    norm      of the last update's gradient, before clipping; None where it was not measured
    guard     its settings, or None
    strikes   of the guard
    scale     of the loss in 16-bit floats; None otherwise
    losses    take in the loss of every update that is made
    averaged  follows the weights, where an average of them is kept"""

    def __init__(
        self,
        optimizer: OptimizerAdapter,
        losses: MeanLoss,
        averaged: Average | None = None,
        *,
        guard: Guard | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        clip_adaptive: float | None = None,
        scale: LossScale | None = None,
        world: World = ALONE,
    ) -> None:
        self.norm: float | None = None
        self.strikes = Strikes()
        self.scale = scale
        self.guard, self._world = guard, world
        self._optimizer, self._losses, self._averaged = optimizer, losses, averaged
        self._clip = None if clip_norm is None else ClipNorm(clip_norm)
        self._changes = [
            kind(limit)
            for kind, limit in ((ClipValue, clip_value), (ClipAdaptive, clip_adaptive))
            if limit is not None
        ]
        if scale is not None and optimizer.several:
            raise UserError(
                f"{optimizer.several} takes more than one pass over a batch, and the loss scale of "
                'precision="16" fits one. Take "bf16" or "32".'
            )
        self._checks = guard is not None or scale is not None
        self.measures = self._checks or clip_norm is not None

    def backward(self, loss: Tensor | Callable[[], Any], share: float) -> Tensor:
        """Add the gradient of a microbatch that holds this share of the window's examples; its loss."""
        if self._optimizer.several:
            return self._look(loss, share)
        value = loss if isinstance(loss, Tensor) else self._forward(loss)
        if self.scale is not None:
            share *= self.scale.value
        if share == 1.0:
            value.backward()
        else:
            value.backward(torch.full_like(value, share))
        return value

    def _forward(self, compute: Callable[[], Any]) -> Tensor:
        """The loss; where several processes share the run, memory runs out in all of them or in none: in a
        backward pass they would wait for each other."""
        if self._world.size == 1:
            return compute()
        value, failed = None, None
        try:
            value = compute()
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            failed = error
        if self._world.any(failed is not None):
            raise failed or MemoryError("out of memory in another process")
        assert value is not None
        return value

    def _look(self, compute: Tensor | Callable[[], Any], share: float) -> Tensor:
        name = self._optimizer.several
        if isinstance(compute, Tensor):
            raise UserError(
                f"{name} takes more than one pass over a batch: give steps.step a function that computes the "
                "loss, as in steps.step(lambda: loss_of(net(x), y))."
            )
        if share != 1.0:
            raise UserError(
                f"{name} takes more than one pass over a batch, which must be whole: accumulate=1."
            )
        return self._optimizer.look(compute)

    def apply(self, loss: Tensor, examples: int, measure: bool) -> Verdict:
        """Move the weights, or not; the verdict says.

        loss, examples: of the window;   measure: is the norm wanted?"""
        unscale = 1.0 if self.scale is None else 1.0 / self.scale.value
        self.norm = self._optimizer.norm() * unscale if self.measures or measure else None
        verdict = self._judge(float(loss)) if self._checks else Verdict.GO
        if verdict is Verdict.GO:
            self._step(unscale)
            self._losses.add(loss, examples)
            if self._averaged is not None:
                self._averaged.update()
        else:
            self._optimizer.pass_over()
        self.clear()
        return verdict

    @property
    def rate(self) -> float:
        """The learning rate in force in the first group."""
        return self._optimizer.rate

    @property
    def several(self) -> str:
        """The name of a rule that takes more than one pass over a batch; empty where each takes one."""
        return self._optimizer.several

    def scale_rates(self, factor: float) -> None:
        """Multiply the rate of every group by this factor, in place of the one before."""
        self._optimizer.scale_rates(factor)

    @property
    def in_a_row(self) -> int:
        """Updates that the guard has withheld, one after the other."""
        return self.strikes.in_a_row

    def told(self) -> str:
        """What the guard has met, a clause."""
        return f"gradient norm {self.norm:g}, after {self.strikes.rewinds} rewinds"

    def always_measure(self) -> None:
        """Measure the norm in every update."""
        self.measures = True

    @property
    def shows(self) -> Callable[[], AbstractContextManager[None]] | None:
        """What puts the evaluation weights into the network; None: they are those that are trained."""
        if self._averaged is not None:
            return self._averaged.swapped
        return self._optimizer.evaluated if self._optimizer.averages else None

    @property
    def unit(self) -> float:
        """What gradients are multiplied by before `apply`."""
        return 1.0 if self.scale is None else self.scale.value

    def state_dict(self) -> dict[str, Any]:
        """The norm, the strikes and the scale."""
        scale = None if self.scale is None else asdict(self.scale)
        return {"norm": self.norm, "strikes": asdict(self.strikes), "scale": scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.norm, self.strikes = state["norm"], Strikes(**state["strikes"])
        self.scale = LossScale(**state["scale"]) if state["scale"] else None

    def clear(self) -> None:
        """Forget all gradients."""
        for weight in self._optimizer.weights:
            weight.grad = None

    def _judge(self, loss: float) -> Verdict:
        assert self.norm is not None
        finite, sound = self._world.all(isfinite(self.norm)), self._world.all(isfinite(loss))
        if self.scale is not None:
            overflowed = sound and not finite and self.scale.value > 1.0
            self.scale = self.scale.after(finite)
            if overflowed or self.guard is None:
                return Verdict.GO if finite else Verdict.SKIP
        assert self.guard is not None
        self.strikes, verdict = self.guard.observe(self.strikes, finite and sound)
        return verdict

    def _step(self, unscale: float) -> None:
        gradients, norm, scale = None, self.norm, unscale
        if self._changes:
            gradients = self._changed(unscale)
            scale = 1.0
            norm = total_norm(gradients) if self._clip else None
        if self._clip is not None and norm is not None:
            scale *= self._clip.scale(norm)
        self._optimizer.step(scale, gradients)

    def _changed(self, unscale: float) -> list[Tensor | None]:
        """Gradients in natural units after the transforms; p.grad stays as it is."""
        gradients: list[Tensor | None] = [weight.grad for weight in self._optimizer.weights]
        with torch.no_grad():
            for i, (weight, gradient) in enumerate(zip(self._optimizer.weights, gradients, strict=True)):
                if gradient is not None:
                    changed = gradient if unscale == 1.0 else gradient * unscale
                    for change in self._changes:
                        changed = change.apply(torch, weight, changed)
                    gradients[i] = changed
        return gradients


def save_batches(path: Path, batches: list[Any]) -> None:
    """The microbatches of one update as arrays named batch<i>/<place in the tree>, without pickles."""
    arrays: dict[str, Any] = {
        f"batch{i}{name}": array for i, batch in enumerate(batches) for name, array in _leaves(batch)
    }
    np.savez(path, allow_pickle=False, **arrays)


def _leaves(tree: Any, name: str = "") -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        parts = list(tree.items())
    elif isinstance(tree, tuple | list):
        parts = list(enumerate(tree))
    else:
        array = tree.detach().cpu() if isinstance(tree, torch.Tensor) else tree
        return [(name, _plain(array))]
    return [leaf for key, branch in parts for leaf in _leaves(branch, f"{name}/{key}")]


def _plain(array: Any) -> np.ndarray:
    """As NumPy knows it: bfloat16 becomes float32."""
    if isinstance(array, torch.Tensor) and array.dtype == torch.bfloat16:
        array = array.float()
    return np.asarray(array)
