"""One face over the optimizers that the loop drives: steepest's own, and any of torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from steepest.train.rule_descent import RuleDescent
from steepest.train.torch_descent import TorchDescent


class Descent(Protocol):
    """What the loop asks of an optimizer.

    opt       the optimizer
    weights   the parameters that it moves
    several   the name of a rule that takes more than one pass over a batch; empty where each takes one
    averages  whether the weights to test and to ship are not those that are trained
    factor    on the rate of every group
    rate      in force in the first group"""

    opt: Any
    weights: list[nn.Parameter]
    several: str
    averages: bool

    @property
    def factor(self) -> float: ...
    @factor.setter
    def factor(self, value: float) -> None: ...
    @property
    def rate(self) -> float: ...
    def norm(self) -> float: ...
    def look(self, compute: Callable[[], Any]) -> Tensor: ...
    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None: ...
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]: ...
    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None: ...
    def rewind(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None: ...
    def pass_over(self) -> None: ...
    def evaluated(self) -> AbstractContextManager[None]: ...
    def ship(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None: ...


def of(opt: torch.optim.Optimizer, net: nn.Module) -> Descent:
    """The face of this optimizer. Raises UserError where it moves a weight that is not the network's."""
    return RuleDescent(opt, net) if hasattr(opt, "state_by_name") else TorchDescent(opt, net)
