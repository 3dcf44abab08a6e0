"""The face for loops of one's own: drop-in optimizers, `optimizer` for a model, and `loop`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, ClassVar

import torch

from steepest import rules
from steepest.engine.of_model import optimizer
from steepest.engine.optimizer import RuleOptimizer
from steepest.errors import UserError
from steepest.rule import Rule

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "RMSprop",
    "RuleOptimizer",
    "loop",  # noqa: F822  # see __getattr__
    "optimizer",
]


def __getattr__(name: str) -> Any:
    if name == "loop":
        from steepest.train.loop import loop

        return loop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _form(rule: type[Rule], **structure: float) -> Rule:
    return rule(**structure)  # type: ignore[arg-type]


class DropIn(RuleOptimizer):
    """One of torch.optim's optimizers: its arguments, defaults, complaints, groups, state and checkpoints.

    foreach and fused choose among torch's implementations and mean nothing here; capturable and
    differentiable are refused."""

    twin: ClassVar[type[torch.optim.Optimizer]]
    form: ClassVar[Callable[[dict[str, Any]], Rule]]

    def __init_subclass__(cls) -> None:
        cls.__signature__ = inspect.signature(cls.twin)  # type: ignore[attr-defined]

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        defaults = type(self).twin([torch.nn.Parameter(torch.empty(0))], *args, **kwargs).defaults
        super().__init__(params, type(self).form(defaults), defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights, with hyperparameters of their own where given."""
        for word in ("capturable", "differentiable"):
            if param_group.get(word, self.defaults.get(word)):
                raise UserError(f"{word}=True is torch.optim's alone. Leave it out, or use torch.optim here.")
        super().add_param_group(param_group)

    def template(self, index: int) -> Rule:
        """The formula that the group's flags choose; the flags may change at any time."""
        return type(self).form(self.param_groups[index])


def _sgd(group: dict[str, Any]) -> Rule:
    if group["nesterov"]:
        return _form(rules.Nesterov)
    return _form(rules.Momentum if group["momentum"] else rules.SGD)


def _rmsprop(group: dict[str, Any]) -> Rule:
    if group["centered"]:
        return _form(rules.RMSpropCenteredMomentum if group["momentum"] else rules.RMSpropCentered)
    return _form(rules.RMSpropMomentum if group["momentum"] else rules.RMSprop)


def _adam(group: dict[str, Any]) -> Rule:
    if group.get("decoupled_weight_decay"):
        return _adamw(group)
    return _form(rules.AMSGrad if group["amsgrad"] else rules.Adam)


def _adamw(group: dict[str, Any]) -> Rule:
    return _form(rules.AMSGradW if group["amsgrad"] else rules.AdamW)


class SGD(DropIn):
    """torch.optim.SGD: plain, with momentum, or Nesterov's."""

    twin, form = torch.optim.SGD, staticmethod(_sgd)


class Adagrad(DropIn):
    """torch.optim.Adagrad."""

    twin = torch.optim.Adagrad
    form = staticmethod(lambda group: _form(rules.Adagrad, initial=group["initial_accumulator_value"]))


class Adadelta(DropIn):
    """torch.optim.Adadelta."""

    twin, form = torch.optim.Adadelta, staticmethod(lambda group: _form(rules.Adadelta))


class RMSprop(DropIn):
    """torch.optim.RMSprop: plain, with momentum, centred, or both."""

    twin, form = torch.optim.RMSprop, staticmethod(_rmsprop)


class Adam(DropIn):
    """torch.optim.Adam, with amsgrad and decoupled_weight_decay."""

    twin, form = torch.optim.Adam, staticmethod(_adam)


class AdamW(DropIn):
    """torch.optim.AdamW, with amsgrad."""

    twin, form = torch.optim.AdamW, staticmethod(_adamw)


class Adamax(DropIn):
    """torch.optim.Adamax."""

    twin, form = torch.optim.Adamax, staticmethod(lambda group: _form(rules.Adamax))


class NAdam(DropIn):
    """torch.optim.NAdam, with decoupled_weight_decay."""

    twin = torch.optim.NAdam
    form = staticmethod(lambda group: _form(rules.NAdamW if group["decoupled_weight_decay"] else rules.NAdam))


class Lion(RuleOptimizer):
    """Lion with the arguments and state of its authors' optimizer; torch has none."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, rules.Lion(lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=weight_decay))
