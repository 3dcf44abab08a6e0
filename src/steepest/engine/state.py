"""Names: how torch calls a rule's slots and hyperparameters, and the counters that every weight carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from steepest.rule import Rule

_SQUARE = {"v": "square_avg"}
_ADAM = {"m": "exp_avg", "v": "exp_avg_sq"}
TORCH_SLOTS: dict[str, dict[str, str]] = {
    "Momentum": {"b": "momentum_buffer"},
    "Nesterov": {"b": "momentum_buffer"},
    "Adagrad": {"s": "sum"},
    "Adadelta": _SQUARE | {"d": "acc_delta"},
    "RMSprop": _SQUARE,
    "RMSpropMomentum": _SQUARE | {"b": "momentum_buffer"},
    "RMSpropCentered": _SQUARE | {"m": "grad_avg"},
    "RMSpropCenteredMomentum": _SQUARE | {"m": "grad_avg", "b": "momentum_buffer"},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "AMSGrad": _ADAM | {"a": "max_exp_avg_sq"},
    "AMSGradW": _ADAM | {"a": "max_exp_avg_sq"},
    "Adamax": {"m": "exp_avg", "n": "exp_inf"},
    "NAdam": _ADAM,
    "NAdamW": _ADAM,
    "Lion": {"m": "exp_avg"},
}
"""Rule → slot → key of torch.optim's state (Lion's is its authors'). Other rules keep their own names."""


def slot_keys(rule: Rule | type[Rule]) -> tuple[str, ...]:
    """Keys of the optimizer's state in the order of the rule's slots."""
    cls = rule if isinstance(rule, type) else type(rule)
    known = TORCH_SLOTS.get(cls.__name__, {})
    return tuple(known.get(slot, slot) for slot in cls.slots)


def group_of(rule: Rule, step: int = 1) -> dict[str, Any]:
    """The entries of torch's param_groups that hold this rule's hyperparameters at a global step."""
    now = rule.at(step)
    group = {name: getattr(now, name) for name in rule.numbers()}
    if {"beta1", "beta2"} <= group.keys():
        group["betas"] = (group.pop("beta1"), group.pop("beta2"))
    return group


def follow_schedules(rule: Rule, step: int, group: dict[str, Any]) -> None:
    """Write what the rule's schedules say at a global step into an entry of param_groups."""
    if any(callable(getattr(rule, name)) for name in rule.numbers()):
        now = rule.at(step)
        for name in rule.numbers():
            if callable(getattr(rule, name)):
                _write(group, name, getattr(now, name))


def _write(group: dict[str, Any], name: str, value: float) -> None:
    if name in group:
        group[name] = value
    else:
        beta1, beta2 = group["betas"]
        group["betas"] = (value, beta2) if name == "beta1" else (beta1, value)


def values_in(names: Sequence[str], group: dict[str, Any]) -> list[float]:
    """The hyperparameters of these names in an entry of param_groups, 0-dim tensors read out."""
    values = [group[name] if name in group else group["betas"][name == "beta2"] for name in names]
    return [value if type(value) is float else float(value) for value in values]


class Counters:
    """Updates done (`step`) and shared scalars of each weight of a group: one buffer each.

    The optimizer's state holds 0-dim views of the buffers; so adding once to a buffer counts for all weights,
    and whoever writes to an entry is heard."""

    def __init__(self, rule: Rule, size: int) -> None:
        first = {"step": 0.0, **rule.shared}
        tensors = {
            name: torch.full((size,), value, dtype=torch.float32 if name == "step" else torch.float64)
            for name, value in first.items()
        }
        self.views = {name: [tensor[row] for row in range(size)] for name, tensor in tensors.items()}
        self.arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.step = self.arrays["step"]
        self.memory = [array.data for array in self.arrays.values()]
        self.shared = {name: self.arrays[name] for name in rule.shared}

    def adopt(self, row: int, entry: dict[str, Any]) -> None:
        """Take over the counters of one weight's state; its entries become views of the buffers."""
        for name, views in self.views.items():
            old = entry.get(name)
            if old is views[row]:
                continue
            if old is not None:
                views[row].fill_(float(old))
            elif name == "step" and any(value is not None for value in entry.values()):
                views[row].fill_(
                    1.0
                )  # torch.optim.SGD keeps velocity and no count: one update at least is done
            entry[name] = views[row]

    def snapshot(self) -> bytes:
        """All the numbers, to see later whether somebody else changed them."""
        return b"".join(self.memory)

    def moments(self, rows: Sequence[int]) -> list[tuple[dict[str, float], list[int]]]:
        """The rows that share their counters: ({"step": t, …}, rows) for each set of values."""
        found: dict[tuple[float, ...], list[int]] = {}
        for row in rows:
            found.setdefault(tuple(float(array[row]) for array in self.arrays.values()), []).append(row)
        return [(dict(zip(self.arrays, values, strict=True)), same) for values, same in found.items()]

    def advance(self, done: np.ndarray, shared: dict[str, float]) -> None:
        """Count one update of the rows where `done` is 1, not 0, and keep their new shared scalars.

        An array, for NumPy takes twice as long to add a number."""
        np.add(self.step, done, self.step)
        for name, value in shared.items():
            self.shared[name][done > 0] = value
