"""Evaluation: the weights that are tested and shipped, and the user's function that measures them without a
trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steepest.data.rng import preserved
from steepest.models.probe import apply, by_batch
from steepest.optim.errors import UserError, did_you_mean
from steepest.train import memory
from steepest.train.record import MeanLoss
from steepest.world import ALONE, World


class Average:
    """A moving average of the trained weights.   a ← a + (1-d)(w - a),  d = min(decay, (1+t)/(10+t))

    decay: share of the average that an update keeps, in (0, 1); 0.999 remembers about 1000 updates. The
    second bound lets the average follow closely at the start. Half precision is averaged in float32.
    State: 1 float per weight."""

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise UserError(f"average must lie in (0, 1), got {decay!r}. It is the decay: 0.999 is usual.")
        self.decay = decay
        self.updates = 0
        trained = [(name, w) for name, w in model.named_parameters() if w.requires_grad]
        self._names = [name for name, _ in trained]
        self._weights = [w for _, w in trained]
        self._averages = [_precise(w.detach()).clone() for w in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now, after an update of them."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, [_precise(w) for w in self._weights], 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within it the model holds the averages; after it the very same weights as before."""
        kept = [w.detach().clone() for w in self._weights]
        _copy(self._weights, self._averages)
        try:
            yield
        finally:
            _copy(self._weights, kept)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the averages by the names of the weights, and how many updates they have seen."""
        pairs = zip(self._names, self._averages, strict=True)
        return {"updates": self.updates, "weights": {name: average.clone() for name, average in pairs}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; where names or shapes differ, all are listed and nothing is loaded."""
        own = dict(zip(self._names, self._averages, strict=True))
        saved = state["weights"]
        wrong = [name for name in own.keys() | saved.keys() if _shape(own, name) != _shape(saved, name)]
        if wrong:
            raise UserError(
                f"The saved average does not fit the model; it differs in {', '.join(sorted(wrong))}."
            )
        self.updates = int(state["updates"])
        _copy(self._averages, [saved[name] for name in self._names])


class Evaluation:
    """Measures the evaluation weights: the averaged ones where an average is kept.

    shows    gives a context in which the network holds them; None: they are those that are trained
    measure  a function without arguments → {metric: number}; a name without "/" is put under val/; None: the
             training loss is all there is
    losses   of the updates since the last evaluation
    world    the processes that share the run: each measures, and what the main one finds counts"""

    def __init__(
        self,
        net: nn.Module,
        measure: Callable[[], Mapping[str, float]] | None,
        monitor: str,
        shows: Callable[[], AbstractContextManager[None]] | None,
        losses: MeanLoss | None = None,
        world: World = ALONE,
    ) -> None:
        self.monitor = monitor
        self._net = net
        self._measure = measure
        self._shows = shows
        self._losses, self._world = losses or MeanLoss(), world

    def __call__(self) -> tuple[dict[str, float], float]:
        """(metrics of this moment, the monitored one). Raises UserError where that is not among them."""
        metrics = {"train/loss": self._losses.take()} | self._measured()
        if self.monitor not in metrics:
            raise UserError(
                f"monitor is {self.monitor!r}, which the evaluation does not measure."
                + did_you_mean(self.monitor, metrics)
            )
        return metrics, metrics[self.monitor]

    @property
    def averages(self) -> bool:
        """Whether the evaluation weights are others than those that are trained."""
        return self._shows is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it the network holds the evaluation weights; after it all is as it was."""
        averaged = nullcontext() if self._shows is None else self._shows()
        with preserved(self._net), averaged:
            yield

    def _measured(self) -> dict[str, float]:
        if self._measure is None:
            return {}
        with self.shown():
            found = self._world.broadcast(dict(self._measure()))
        return {name if "/" in name else f"val/{name}": float(value) for name, value in found.items()}


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Any]) -> int:
    """Measure the running statistics of batch norms anew, as plain means over these batches of inputs.

    Averaged weights were never run, so the statistics gathered in training belong to others. Everything else
    runs as in a test. Returns how many batches were used: 0 where the model has no such layer."""
    used = 0
    with preserved(model, buffers=False):
        norms = by_batch(model)
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's sign for the mean over all batches
            for inputs in batches if norms else ():
                for _ in memory.by_parts(partial(apply, model), inputs, memory.fewest(model)):
                    pass
                used += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return used


@torch.no_grad()
def _copy(to: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    torch._foreach_copy_(list(to), list(source))


def _precise(w: Tensor) -> Tensor:
    return w.float() if w.dtype in (torch.bfloat16, torch.float16) else w


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
