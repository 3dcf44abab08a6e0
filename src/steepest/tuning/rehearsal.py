"""`Rehearsal`: a copy of a model with an optimizer of its own, moved one update at a time at any rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from steepest.optim import rules
from steepest.optim.engines.torch import curvature, passes
from steepest.optim.engines.torch.of_model import optimizer
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError


@dataclass(frozen=True)
class Rehearsal:
    """The copy and what moves it.

    name    of the rule;   ratios  of the groups' rates to the largest
    clip_norm  largest norm of the whole gradient, or None"""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    name: str
    ratios: tuple[float, ...]
    clip_norm: float | None

    @classmethod
    def of(cls, model: nn.Module, rule: Any, clip_norm: float | None) -> Rehearsal:
        """Of a rule or its name, or of an optimizer of the model, which is copied with its state."""
        if isinstance(rule, torch.optim.Optimizer):
            _check_own(model, rule)
            copied, moves = _copied(model, rule)
            name = type(rule).__name__
        else:
            chosen = rules.chosen(rule)
            copied, _ = _copied(model, None)
            moves, name = optimizer(copied, chosen), rules.name_of(chosen)
        return cls(copied, moves, name, _ratios(moves), clip_norm)

    def step(self, rate: float, compute: Callable[[], Any]) -> float:
        """One update at this rate; the loss before it.   compute: gives the loss, or (loss, outputs)"""
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = rate * ratio
        self.optimizer.zero_grad()
        if isinstance(self.optimizer, RuleOptimizer):
            loss = self._by_rule(self.optimizer, compute)
        else:
            loss = self._by_closure(compute)
        self._check_in_force(rate)
        return loss

    def _by_rule(self, moves: RuleOptimizer, compute: Callable[[], Any]) -> float:
        """Rules may take more than one pass over the batch."""
        labels = any(map(curvature.by_labels, moves.rules))
        loss, gradients, reads = passes.look(moves, compute if labels else lambda: loss_in(compute()))
        self._clip()
        moves.step(gradients=gradients, reads=reads)
        return float(loss)

    def _by_closure(self, compute: Callable[[], Any]) -> float:
        """An optimizer that is none of ours is given the closure where it must have one."""
        losses: list[float] = []

        def closure() -> Any:
            self.optimizer.zero_grad()
            loss = loss_in(compute())
            loss.backward()
            self._clip()
            losses.append(float(loss.detach()))
            return loss

        asks = inspect.signature(self.optimizer.step).parameters.get("closure")
        if asks is not None and asks.default is inspect.Parameter.empty:
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        return losses[0]

    def _clip(self) -> None:
        if self.clip_norm is not None:
            moved = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(moved, self.clip_norm)

    def _check_in_force(self, rate: float) -> None:
        """A schedule inside an optimizer writes its own rate over any other."""
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            if float(group["lr"]) != rate * ratio:
                raise UserError(
                    "A schedule gives the rate of this optimizer itself, so that no other can be tried. Give "
                    "one whose lr is a number."
                )


def loss_in(value: Any) -> Any:
    """The loss of what a function gives that may give (loss, outputs)."""
    return value[0] if isinstance(value, tuple) else value


def _copied(model: nn.Module, own: torch.optim.Optimizer | None) -> tuple[nn.Module, Any]:
    """Deep copies of both together, so that the one moves the other."""
    memo: dict[int, Any] = {}
    try:
        copied, moves = deepcopy(model, memo), deepcopy(own, memo)
        if own is not None and not isinstance(
            own, RuleOptimizer
        ):  # torch copies the groups and the state alone
            left = {name: value for name, value in vars(own).items() if name not in vars(moves)}
            vars(moves).update({k: deepcopy(v, memo) for k, v in left.items() if not callable(v)})
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"The model cannot be copied ({error}), and find_rate trains a copy only. Remove from it what "
            "was computed from weights, or give a model made anew."
        ) from error
    return copied, moves


def _check_own(model: nn.Module, own: torch.optim.Optimizer) -> None:
    weights = {id(weight) for weight in model.parameters()}
    if any(id(weight) not in weights for group in own.param_groups for weight in group["params"]):
        raise UserError("The optimizer moves weights that are not the model's. Give it with its own model.")
    if any("lr" not in group for group in own.param_groups):
        raise UserError(f"{type(own).__name__} has groups without an 'lr', so that no rate can be tried.")


def _ratios(moves: torch.optim.Optimizer) -> tuple[float, ...]:
    """Rates of the groups in shares of the largest; where all are 0, as before a warm-up, all alike."""
    rates = [float(group["lr"]) for group in moves.param_groups]
    return tuple(rate / max(rates) for rate in rates) if any(rates) else (1.0,) * len(rates)
