"""`RuleDescent`: what the loop asks of an optimizer of steepest's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm

from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.torch import evaluate, passes


class RuleDescent:
    """Over an optimizer that scales inside its kernel and knows its state by name."""

    def __init__(self, opt: Any, net: nn.Module) -> None:
        self.opt = opt
        self.weights = list(chain.from_iterable(group["params"] for group in opt.param_groups))
        self.several, self.averages = passes.whose(opt), evaluate.differs(opt)
        self._norms = [module for module in net.modules() if isinstance(module, RunningNorm)]
        self._reads: dict[str, list[Tensor | None]] | None = None

    @property
    def factor(self) -> float:
        return self.opt.factor

    @factor.setter
    def factor(self, value: float) -> None:
        self.opt.factor = value

    @property
    def rate(self) -> float:
        return self.opt.rate

    def norm(self) -> float:
        """Norm of the whole gradient; nan where curvature that was looked at is not finite."""
        columns = (self._reads or {}).values()
        seen = [x for column in columns for x in column if x is not None]
        return self.opt.gradient_norm() if not seen or math.isfinite(norm(seen)) else math.nan

    def look(self, compute: Callable[[], Any]) -> Tensor:
        """Take all passes over one batch and give its loss; `step` then has all that it needs.

        Running statistics of batch norms take in the first pass alone."""
        calls: list[int] = []

        def counted() -> Any:
            calls.append(1)
            with _at_rest(self._norms) if len(calls) > 1 else nullcontext():
                return compute()

        loss, _, self._reads = passes.look(self.opt, counted)
        return loss

    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None:
        """One update with every gradient multiplied by `scale`."""
        if self.several and gradients is None:
            gradients = [weight.grad for weight in self.weights]
        reads, self._reads = self._reads, None
        self.opt.step(scale=scale, gradients=gradients, reads=reads)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(copies of all state by name, no numbers)."""
        return self.opt.state_by_name(), {}

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.opt.load_state_by_name(dict(tensors))

    def rewind(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take over the state of the weights; factor and schedules stay at today's."""
        steps, factor = self.opt.steps, self.opt.factor
        self.load(tensors, numbers)
        self.opt.steps, self.opt.factor = steps, factor
        for listener in self.opt.listeners:
            if hasattr(listener, "forget"):
                listener.forget()

    def pass_over(self) -> None:
        """A step went by without an update: schedules go on."""
        self.opt.steps += 1
        self._reads = None

    def evaluated(self) -> AbstractContextManager[None]:
        """Within it the network holds the weights to test."""
        return self.opt.evaluate()

    @torch.no_grad()
    def ship(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Put the weights to ship into the network, by the state that `state` gave; the optimizer stays."""
        if not self.averages:
            return
        held = self.state()
        self.load(tensors, numbers)
        for weight, shipped in evaluate.to_ship(self.opt):
            weight.copy_(shipped)
        self.load(*held)


@contextmanager
def _at_rest(norms: Sequence[RunningNorm]) -> Iterator[None]:
    """Batch norms go by their batch and keep their running statistics."""
    tracked = [norm for norm in norms if norm.track_running_stats]
    for one in tracked:
        one.track_running_stats = False
    try:
        yield
    finally:
        for one in tracked:
            one.track_running_stats = True
