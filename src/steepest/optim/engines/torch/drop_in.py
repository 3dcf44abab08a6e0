"""`DropIn`: what makes an optimizer of ours take the place of one of torch.optim's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from inspect import Parameter
from typing import Any, ClassVar

import torch

from steepest.optim.engines.state import as_it_stands, at_step, scheduled, slot_keys
from steepest.optim.engines.torch.of_rule import KEPT
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.optim.rule import Rule


@lru_cache(1024)
def form(rule: type[Rule], **structure: Any) -> Rule:
    """The rule with this structure; its numbers are those of a group. Made once."""
    return rule(**structure)


class DropIn(RuleOptimizer):
    """One of torch.optim's optimizers: its arguments, defaults, complaints, groups, state and checkpoints.

    Any number may be a 0-dim tensor, read at every step, or a schedule.
    foreach, fused: choose among torch's implementations and mean nothing here.
    capturable: means nothing here; a step reads numbers on the host and cannot go into a CUDA graph.
    differentiable: the update is recorded by autograd, operation by operation.
    moments, rounding, average, seed: by name only; how weights and state are kept, see RuleOptimizer."""

    twin: ClassVar[type[torch.optim.Optimizer]]
    form: ClassVar[Callable[[dict[str, Any]], Rule]]
    by_group = (*RuleOptimizer.by_group, "_due")

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "twin"):
            theirs = inspect.signature(cls.twin)
            kept = [Parameter(name, Parameter.KEYWORD_ONLY, default=own) for name, own in KEPT.items()]
            cls.__signature__ = theirs.replace(parameters=[*theirs.parameters.values(), *kept])  # type: ignore[attr-defined]

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        kept = {name: kwargs.pop(name) for name in KEPT if name in kwargs}
        given = inspect.signature(self.twin).bind(params, *args, **kwargs).arguments
        del given["params"]
        self._given = scheduled(given)
        self._due: list[dict[str, Any]] = []
        defaults = self._defaults(at_step(1, given))
        super().__init__(params, type(self).form(defaults), defaults, **kept)

    @classmethod
    def _defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """torch's, or torch's complaint with what we say of the number."""
        weight = torch.nn.Parameter(torch.empty(0, 0))
        try:
            return cls.twin([weight], **given).defaults
        except (TypeError, ValueError, IndexError) as error:
            arguments = inspect.signature(cls.twin).bind([weight], **given)
            arguments.apply_defaults()
            entries = {name: one for name, one in arguments.arguments.items() if name != "params"}
            try:
                as_it_stands(cls.form(entries), entries)
            except UserError as ours:
                theirs = f"{error}. " if isinstance(error, ValueError) else ""
                raise UserError(f"{theirs}{ours}") from error
            raise

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights, with hyperparameters (numbers, 0-dim tensors, schedules) of their own where given."""
        if "rule" in param_group:
            raise UserError(
                f"{type(self).__name__} is one rule; for others take RuleOptimizer or optimizer(model, …)."
            )
        super().add_param_group(param_group)
        own = {entry: value for entry, value in param_group.items() if entry in self.defaults}
        self._due.append(scheduled(self._given | own))

    @property
    def timed(self) -> bool:
        """Whether schedules write to param_groups."""
        return any(self._due)

    def template(self, index: int) -> Rule:
        """The formula that the group's flags choose; they may change at any time."""
        group, due = self.param_groups[index], self._due[index]
        if due:
            group.update(at_step(self.steps + 1, due))
        return type(self).form(group)

    def form_of(self, index: int, group: dict[str, Any]) -> Rule:
        """The formula that these entries of a group choose."""
        return type(self).form(group)

    def keys(self, index: int, group: dict[str, Any]) -> set[str]:
        """The keys of the state under any flags: they may have been others when it was made."""
        flags = {"momentum": 0.9, "centered": True, "amsgrad": True, "nesterov": False}
        every = group | {name: value for name, value in flags.items() if name in group}
        return {*slot_keys(type(self).form(every)), *super().keys(index, group)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_given": self._given, "_due": self._due}


class Densifying(DropIn):
    """Takes sparse gradients, as dense ones: where a gradient is zero, these rules leave the weight."""

    def move(self, scale: float, gradients: Any = None, reads: Any = None, zero_grad: bool = False) -> None:
        """The update itself."""
        try:
            super().move(scale, gradients, reads, zero_grad)
        except UnsupportedGradient:
            given = _gradients(self) if gradients is None else gradients
            if not any(g is not None and g.is_sparse for g in given):
                raise
            super().move(scale, self.dense(given), reads)
            if zero_grad:
                self.clear(gradients)

    def dense(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients made dense."""
        return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]


class Real(DropIn):
    """Takes no complex weights, and says so as torch does."""

    def move(self, scale: float, gradients: Any = None, reads: Any = None, zero_grad: bool = False) -> None:
        """The update itself."""
        given = _gradients(self) if gradients is None else gradients
        weights = (weight for group in self.param_groups for weight in group["params"])
        if any(weight.is_complex() and g is not None for weight, g in zip(weights, given, strict=True)):
            raise UnsupportedGradient(f"{type(self).__name__} does not support complex parameters")
        super().move(scale, gradients, reads, zero_grad)


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | None]:
    return [weight.grad for group in optimizer.param_groups for weight in group["params"]]
