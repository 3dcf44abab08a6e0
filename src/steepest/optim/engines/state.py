"""Names: how torch calls a rule's slots and hyperparameters, and the counters that every weight carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch

from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

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
    "ASGD": {"a": "ax"},
    "RAdam": _ADAM,
    "RAdamW": _ADAM,
    "Rprop": {"p": "prev", "s": "step_size"},
    "AdafactorTorch": {"r": "row_var", "c": "col_var", "v": "variance"},
    "Muon": {"m": "momentum_buffer"},
    "MuonMatched": {"m": "momentum_buffer"},
    "NAdam": _ADAM,
    "NAdamW": _ADAM,
    "Lion": {"m": "exp_avg"},
}
"""Rule → slot → key of torch.optim's state (Lion's is its authors'). Other rules keep their own names."""


@cache
def _torchs(rule: type[Rule]) -> dict[str, str]:
    """torch's names of a rule's slots; those of a wrapped rule are its inner one's."""
    return next((TORCH_SLOTS[one.__name__] for one in rule.__mro__ if one.__name__ in TORCH_SLOTS), {})


def slot_keys(rule: Rule | type[Rule]) -> tuple[str, ...]:
    """Keys of the optimizer's state in the order of the rule's slots."""
    cls = rule if isinstance(rule, type) else type(rule)
    known = _torchs(cls)
    return tuple(known.get(slot, slot) for slot in cls.slots)


Place: TypeAlias = tuple[str, int | None]


@cache
def places(rule: type[Rule]) -> dict[str, Place]:
    """Where torch's param_groups hold each number of a rule: (entry, place in its tuple or None)."""
    found: dict[str, Place] = {name: (name, None) for name in rule.numbers()}
    betas = [name for name in ("beta1", "beta2", "beta3") if name in found]
    if betas[:2] == ["beta1", "beta2"]:
        found |= {name: ("betas", index) for index, name in enumerate(betas)}
    return found


def group_of(rule: Rule, step: int = 1) -> dict[str, Any]:
    """The entries of torch's param_groups that hold this rule's hyperparameters at a global step."""
    now = rule.at(step)
    group: dict[str, Any] = {}
    for name, (entry, place) in places(type(rule)).items():
        value = getattr(now, name)
        group[entry] = value if place is None else (*group.get(entry, ()), value)
    return group


def follow_schedules(rule: Rule, step: int, group: dict[str, Any]) -> None:
    """Write what the rule's schedules say at a global step into an entry of param_groups."""
    due = [name for name in rule.numbers() if callable(getattr(rule, name))]
    now = rule.at(step) if due else rule
    for name in due:
        entry, place = places(type(rule))[name]
        value, old = getattr(now, name), group[entry]
        group[entry] = value if place is None else (*old[:place], value, *old[place + 1 :])


def at_step(step: int, entries: Mapping[str, Any]) -> dict[str, Any]:
    """These entries of a group with their schedules replaced by the values at a global step."""
    return {entry: _now(step, value) for entry, value in entries.items()}


def following(rule: Rule, entries: Mapping[str, Any]) -> Rule:
    """The rule with what these entries of a group say: their schedules, and no schedule where they hold a
    number."""
    held = _held(rule, entries).items()
    found = {name: value for name, value in held if callable(value) or callable(getattr(rule, name))}
    return replace(rule, **{k: v if callable(v) else number(v) for k, v in found.items()}) if found else rule


def scheduled(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these entries of a group that are schedules, or tuples with schedules in them."""
    return {entry: value for entry, value in entries.items() if _follows(value)}


def _follows(value: Any) -> bool:
    return callable(value) or (type(value) is tuple and any(map(callable, value)))


def _now(step: int, value: Any) -> Any:
    if type(value) is tuple:
        return tuple(_now(step, one) for one in value)
    return value(step) if callable(value) else value


def as_it_stands(rule: Rule, group: Mapping[str, Any]) -> Rule:
    """The rule with the numbers that stand in a group; UserError where one of them cannot be."""
    return replace(rule, **{name: number(value) for name, value in _held(rule, group).items()})


def _held(rule: Rule, group: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a group for each number of a rule, as far as it holds them."""
    held = {name: place for name, place in places(type(rule)).items() if place[0] in group}
    for entry in {entry for entry, place in held.values() if place is not None}:
        wanted, given = sum(own == entry for own, _ in held.values()), group[entry]
        if not isinstance(given, tuple | list) or len(given) != wanted:
            raise UserError(f"{entry} of {type(rule).__name__} must be {wanted} numbers, got {given!r}.")
    return {name: group[entry] if at is None else group[entry][at] for name, (entry, at) in held.items()}


def number(value: Any) -> Any:
    """A float, also out of a 0-dim tensor. What is no number stays as it is: the rule refuses it by name."""
    # float(tensor) warns where the tensor wants a gradient, as a differentiable step's may.
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else value.tolist()
    return float(value) if hasattr(value, "__float__") and not isinstance(value, bool) else value


class Counters:
    """Updates done (`step`) and shared scalars of each weight of a family: one buffer each.

    The optimizer's state holds 0-dim views of the buffers; so adding once to a buffer counts for all weights,
    and whoever writes to an entry is heard."""

    def __init__(self, rule: Rule, size: int) -> None:
        first = {"step": 0.0, **rule.shared}
        # NumPy's memory: it stays ours, whatever becomes of a tensor that shares it.
        self.arrays = {
            name: np.full(size, value, np.float32 if name == "step" else np.float64)
            for name, value in first.items()
        }
        tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        self.views = {name: [tensor[row] for row in range(size)] for name, tensor in tensors.items()}
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

    def at(self, row: int) -> tuple[int, dict[str, float]]:
        """(updates done, shared scalars) of a row."""
        return int(self.step[row]), {name: float(array[row]) for name, array in self.shared.items()}

    def moments(self, rows: Sequence[int]) -> list[tuple[tuple[int, dict[str, float]], list[int]]]:
        """The rows that share their counters: ((updates done, shared scalars), rows) a set of values."""
        found: dict[tuple[float, ...], list[int]] = {}
        for row in rows:
            found.setdefault(tuple(float(array[row]) for array in self.arrays.values()), []).append(row)
        return [(self.at(same[0]), same) for same in found.values()]

    def advance(self, done: np.ndarray) -> None:
        """Count one update of the rows where `done` is 1, not 0.

        An array, for NumPy takes twice as long to add a number."""
        np.add(self.step, done, self.step)

    def share(self, rows: Sequence[int], shared: dict[str, float]) -> None:
        """Keep these shared scalars for the rows."""
        for name, value in shared.items():
            self.shared[name][rows] = value

    def copy_shared(self, source: int, row: int) -> None:
        """Give a row the shared scalars of another."""
        for array in self.shared.values():
            array[row] = array[source]
