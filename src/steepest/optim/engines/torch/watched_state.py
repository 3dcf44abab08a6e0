"""The state of an optimizer: torch's names of slots, counters, and dicts that note when somebody reaches in.

Looking at every tensor of the state before a step costs as much as the step of a small network. Whoever
replaces one, or moves its memory, gets hold of it through these dicts first.

A limit: a tensor that was taken out at some step, and is still held, is looked at in the next step and then
no more. Whoever gives it other memory later (`held.data = …`, `held.set_(…)`) must take it from the state
again, or steps go on in the memory of before, which is kept alive. Writing into it is always seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

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


class Watch:
    """`touched`: whether anybody has reached into the state since this was last set to False."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        self.touched = True


class Entry(dict[str, Any]):
    """The state of one weight."""

    __slots__ = ("watch",)

    def __init__(self, watch: Watch, entries: Mapping[str, Any] | None = None) -> None:
        super().__init__(entries or {})
        self.watch = watch

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Entries(defaultdict[Any, Any]):
    """The state of all weights. Copies and pickles are plain dicts in a plain defaultdict, as torch's are."""

    def __init__(self, state: Mapping[Any, dict[str, Any]]) -> None:
        watch = Watch()
        super().__init__(lambda: Entry(watch), {w: Entry(watch, entry) for w, entry in state.items()})
        self.watch = watch

    def __reduce__(self) -> Any:
        return defaultdict, (dict,), None, None, iter(list(self.items()))

    def hush(self) -> None:
        """Note from now on who reaches in; a plain dict that was put in cannot be watched."""
        self.watch.touched = any(type(entry) is not Entry for entry in dict.values(self))


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        self.watch.touched = True
        return method(self, *arguments, **named)

    return noted


for _kind in (Entry, Entries):
    for _name in (
        "__getitem__", "__setitem__", "__delitem__", "__ior__", "__iter__", "get", "pop", "popitem",
        "setdefault", "update", "clear", "items", "values", "copy",
    ):  # fmt: skip
        setattr(_kind, _name, _noting(getattr(_kind, _name)))
