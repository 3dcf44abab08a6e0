"""The whole state of an optimizer as tensors by name: what a checkpoint keeps, free of order and pickles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from steepest.engine.state import slot_keys
from steepest.errors import UserError
from steepest.rule import Rule


def collect(optimizer: Any) -> dict[str, torch.Tensor]:
    """A copy of every slot as "<weight>/<slot>", of every counter in float64, of "steps" and "factor"."""
    tensors = {
        "steps": torch.tensor(optimizer.steps, dtype=torch.int64),
        "factor": torch.tensor(optimizer.factor, dtype=torch.float64),
    }
    for name, weight, rule in _weights(optimizer):
        entry = optimizer.state.get(weight, {})
        for word, key in _words(rule).items():
            if entry.get(key) is not None:
                counter = word not in rule.slots
                value = torch.as_tensor(entry[key]).detach()
                tensors[f"{name}/{word}"] = value.to(torch.float64, copy=True) if counter else value.clone()
    return tensors


def restore(optimizer: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the optimizer's state by copies of these tensors; a UserError lists whatever does not fit."""
    wanted = {
        f"{name}/{word}": (weight, key, word in rule.slots)
        for name, weight, rule in _weights(optimizer)
        for word, key in _words(rule).items()
    }
    problems = _problems(optimizer, wanted, tensors)
    if problems:
        raise UserError(f"The saved state does not fit, nothing was loaded: {'; '.join(problems)}.")
    optimizer.state.clear()
    for full_name, (weight, key, _) in wanted.items():
        if full_name in tensors:
            optimizer.state[weight][key] = tensors[full_name].detach().to(weight.device, copy=True)
    optimizer.steps, optimizer.factor = int(tensors["steps"]), float(tensors["factor"])


def _problems(optimizer: Any, wanted: dict[str, Any], tensors: dict[str, torch.Tensor]) -> list[str]:
    problems = [f"{name!r} is missing" for name in ("steps", "factor") if name not in tensors]
    problems += [f"{name!r} is nothing of it" for name in tensors if name not in wanted and "/" in name]
    known = {name.rpartition("/")[0] for name in tensors if "/" in name}
    for name, (weight, _, slot) in wanted.items():
        if name not in tensors:
            problems += [f"{name!r} is missing"] if name.rpartition("/")[0] in known else []
        elif slot and tensors[name].shape != weight.shape:
            problems.append(f"{name!r} is {tuple(tensors[name].shape)}, its weight {tuple(weight.shape)}")
    return problems


def _words(rule: Rule) -> dict[str, str]:
    """What is saved of a weight: the rule's names of slots and counters, with their keys in the state."""
    counters = ("step", *rule.shared)
    return dict(zip((*rule.slots, *counters), (*slot_keys(rule), *counters), strict=True))


def _weights(optimizer: Any) -> Iterator[tuple[str, torch.Tensor, Rule]]:
    number = 0
    for index, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or range(number, number + len(group["params"]))
        for name, weight in zip(names, group["params"], strict=True):
            yield str(name), weight, optimizer.template(index)
        number += len(group["params"])
