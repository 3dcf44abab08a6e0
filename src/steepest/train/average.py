"""The moving average of the weights: the weights to test and to ship."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steepest.data.rng import preserved
from steepest.models.probe import apply, by_batch
from steepest.optim.errors import UserError
from steepest.train import memory

UPDATES = "updates"
"""Name of the counter in `Average.state`."""


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

    def state(self) -> dict[str, Tensor]:
        """The averages by the names of the weights, and the counter."""
        return dict(zip(self._names, self._averages, strict=True)) | {UPDATES: torch.tensor(self.updates)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`; where names or shapes differ, all are listed and nothing is loaded."""
        own = self.state()
        wrong = [name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name)]
        if wrong:
            raise UserError(
                f"The saved average does not fit the model; it differs in {', '.join(sorted(wrong))}."
            )
        self.updates = int(state[UPDATES])
        _copy(self._averages, [state[name] for name in self._names])


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


def _shape(tensors: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
