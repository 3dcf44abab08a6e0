"""The weights to test and to ship, in the model for as long as a `with` block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from steepest.optim.engines.on_torch import TORCH, real, wide
from steepest.optim.engines.precision.memory import slots_in_full
from steepest.optim.engines.torch.groups import as_it_stands
from steepest.optim.engines.torch.passes import put_back
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

AVERAGE = "average"
"""The key of the optimizer's state under which a weight's moving average lies, where one is kept."""


def differs(optimizer: Any) -> bool:
    """Whether the weights to test and to ship are not those that are trained."""
    rules = map(optimizer.template, range(len(optimizer.param_groups)))
    return any(rule.evaluates() for rule in rules) or any(one.average for one in optimizer.memories)


def to_ship(optimizer: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, what to test and to ship in its place) for every weight where these differ.

    A moving average goes before what the rule says. Weights that never moved are what they are."""
    for index, group in enumerate(optimizer.param_groups):
        rule = as_it_stands(optimizer.form_of(index, group), group)
        for weight in group["params"]:
            entry = optimizer.state.get(weight) or {}
            if isinstance(entry.get(AVERAGE), Tensor):
                yield weight, entry[AVERAGE]
            elif rule.evaluates() and float(entry.get("step", 0)) > 0:
                yield weight, _evaluated(rule, weight, entry)


@contextmanager
def evaluated(optimizer: Any) -> Iterator[None]:
    """Within it the model holds the weights to test and to ship; after it those that are trained, to the bit.

    Steps and checkpoints of the optimizer are refused inside. One such block in another changes nothing."""
    if optimizer.evaluating:
        yield
        return
    optimizer.evaluating = True
    refusal = optimizer.register_step_pre_hook(lambda *_: refuse(optimizer, "takes no step"))
    try:
        with put_back() as keep:
            with torch.no_grad():
                for weight, shipped in to_ship(optimizer):
                    keep(weight)
                    weight.copy_(shipped)
            yield
    finally:
        refusal.remove()
        optimizer.evaluating = False


def refuse(optimizer: Any, what: str) -> None:
    """UserError inside a block of `evaluated`: the model does not hold the weights that the state is of."""
    if optimizer.evaluating:
        raise UserError(
            f"{type(optimizer).__name__} {what} inside `with optimizer.evaluate()`: the model holds the "
            "weights to test, not those that are trained. Leave the block first."
        )


def _evaluated(rule: Rule, weight: Tensor, entry: dict[str, Any]) -> Tensor:
    k, _ = rule.constants(HOST, int(entry["step"]), {name: float(entry[name]) for name in rule.shared})
    slots = list(map(real, slots_in_full(entry, slot_keys(rule), type(rule))))
    with torch.no_grad():
        shipped = rule.evaluate(TORCH, k, wide(real(weight.detach())), *slots)
    return torch.view_as_complex(shipped) if weight.is_complex() else shipped
