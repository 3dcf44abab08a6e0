"""Metrics: sums kept on the device batch by batch, read once at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.optim.engines.precision.formats import widened, widest
from steepest.optim.errors import UserError
from steepest.tasks import Target
from steepest.tasks.target import Measures

UserMetric = Callable[[Any, Any], Any]


class Metrics:
    """Measures of one part of the data (training, validation, test), in its device's widest float, weighted
    by sample weights.

    loss        Σ n·loss / Σ w over batches of n examples: the weighted mean of the examples' losses
    what the task is measured by, and the user's own, each called once with all outputs and targets of the
    part
    """

    def __init__(self, measures: Measures, extra: Mapping[str, UserMetric]):
        self._measures = measures
        self._extra = dict(extra)
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._loss = _Mean()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all that is measured."""
        return ("loss", *self._measures.names, *self._extra)

    @torch.no_grad()
    def update(
        self, outputs: Tensor, target: Tensor, weight: Tensor | None = None, loss: Tensor | None = None
    ) -> None:
        """Count a batch in; nothing waits for the device.   weight: one number an example."""
        w = _weights(outputs, weight)
        self._measures.update(outputs, target, w)
        if loss is not None:
            self._loss.update(widened(loss.detach()) * len(w), w.sum())
        if self._extra:
            self._batches.append((outputs.detach(), target))

    def compute(self) -> dict[str, float]:
        """All measures of what was counted, as floats: the one place that reads the device."""
        measured = self._loss.compute() | self._measures.compute()
        if not measured:
            raise UserError("There is nothing to measure: this part of the data gave no batch.")
        values = torch.stack(list(measured.values())).tolist()
        return dict(zip(measured, values, strict=True)) | self._own()

    def reset(self) -> None:
        """Forget what was counted."""
        self._measures.reset()
        self._loss.reset()
        self._batches.clear()

    def _own(self) -> dict[str, float]:
        if not self._extra:
            return {}
        outputs, target = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        return {name: _number(name, metric(outputs, target)) for name, metric in self._extra.items()}


def build(target: Target, extra: Mapping[str, UserMetric] | None = None) -> Metrics:
    """The metrics of a target, and the user's own in `extra`: {name: function(outputs, target) → number}."""
    measures = target.metrics()
    extra = dict(extra or {})
    for name, metric in extra.items():
        if name in ("loss", *measures.names):
            raise UserError(f"The metric {name!r} is measured already. Give yours another name.")
        if not callable(metric):
            raise UserError(f"The metric {name!r} must be a function of (outputs, target), got {metric!r}.")
    return Metrics(measures, extra)


class _Mean:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sums: tuple[Tensor, Tensor] | None = None

    def update(self, total: Tensor, weight: Tensor) -> None:
        self._sums = (
            (total, weight) if self._sums is None else (self._sums[0] + total, self._sums[1] + weight)
        )

    def compute(self) -> dict[str, Tensor]:
        return {} if self._sums is None else {"loss": self._sums[0] / self._sums[1]}


def _weights(outputs: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return torch.ones(len(outputs), dtype=widest(outputs), device=outputs.device)
    return widened(weight.detach()).flatten()


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise UserError(
            f"The metric {name!r} must return one number, got {type(value).__name__}."
        ) from problem
