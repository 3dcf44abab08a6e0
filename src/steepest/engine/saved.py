"""Checkpoints in torch's form: matched by name, checked before anything is loaded, kept in full precision."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch

from steepest.engine.on_torch import wide
from steepest.errors import UserError


def aligned(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with its weights in the optimizer's order, by name where both sides have names.

    Raises UserError that lists every name or shape that does not fit. Numbers of groups and of weights are
    torch's to check."""
    own, theirs = optimizer.param_groups, saved["param_groups"]
    if len(own) != len(theirs) or any("param_names" not in group for group in (*own, *theirs)):
        problems = _misshapen(optimizer, saved) if _same_sizes(own, theirs) else []
    else:
        saved, problems = _by_name(own, saved)
        problems = problems or _misshapen(optimizer, saved)
    if problems:
        raise UserError(f"The checkpoint does not fit, nothing was loaded: {'; '.join(problems)}.")
    return saved


def adopt(optimizer: Any, saved: dict[str, Any]) -> None:
    """Take the state of a loaded checkpoint anew, in the dtype of arithmetic and in memory of its own.

    torch has just cast it to the dtype of the weights: moments of bf16 weights would lose their digits."""
    weights = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    indices = chain.from_iterable(group["params"] for group in saved["param_groups"])
    for index, weight in zip(indices, weights, strict=True):
        if index in saved["state"]:
            entry = saved["state"][index].items()
            optimizer.state[weight] = {key: _copy(value, weight) for key, value in entry}
    counted = [int(entry["step"]) for entry in saved["state"].values() if "step" in entry]
    optimizer.steps = int(saved.get("steps", max(counted, default=0)))
    optimizer.factor = float(saved.get("factor", 1.0))


def _copy(value: Any, weight: torch.Tensor) -> Any:
    if not torch.is_tensor(value):
        return value
    if value.shape != weight.shape or (value.dim() == 0 and value.dtype == torch.float64):
        return value.clone()
    return value.to(weight.device, wide(weight).dtype, copy=True)


def _same_sizes(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    return [len(group["params"]) for group in own] == [len(group["params"]) for group in theirs]


def _by_name(own: list[dict[str, Any]], saved: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    groups = saved["param_groups"]
    found = dict(chain.from_iterable(zip(g["param_names"], g["params"], strict=True) for g in groups))
    names = list(chain.from_iterable(group["param_names"] for group in own))
    problems = [f"{name!r} is missing in it" for name in names if name not in found]
    problems += [f"{name!r} is in it and not here" for name in found if name not in set(names)]
    if problems:
        return saved, problems
    ordered = [
        theirs | {"params": [found[name] for name in ours["param_names"]], "param_names": ours["param_names"]}
        for ours, theirs in zip(own, groups, strict=True)
    ]
    return saved | {"param_groups": ordered}, []


def _misshapen(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> list[str]:
    problems = []
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        labels = ours.get("param_names", theirs["params"])
        for label, weight, index in zip(labels, ours["params"], theirs["params"], strict=True):
            for key, value in saved["state"].get(index, {}).items():
                if torch.is_tensor(value) and value.dim() > 0 and value.shape != weight.shape:
                    problems.append(
                        f"{key} of {label!r} is {tuple(value.shape)}, its weight {tuple(weight.shape)}"
                    )
    return problems
