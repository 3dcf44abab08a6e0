"""The whole state of an optimizer as tensors by name: what a checkpoint keeps, free of order and pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from steepest.optim.engines.kernels import arena
from steepest.optim.engines.named_state import LOST, Names, Weight, renamed
from steepest.optim.engines.precision.memory import EXTRAS, SCALE, flaw, in_8_bits
from steepest.optim.engines.state import slot_keys
from steepest.optim.engines.torch.saved import slot_shapes
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def collect(optimizer: Any) -> dict[str, torch.Tensor]:
    """A copy of every slot as "<weight>/<slot>", of every counter in float64, of "steps" and "factor"."""
    tensors = {
        "steps": torch.tensor(optimizer.steps, dtype=torch.int64),
        "factor": torch.tensor(optimizer.factor, dtype=torch.float64),
    }
    for name, weight, rule in _weights(optimizer):
        entry = optimizer.state.get(weight, {})
        counters = ("step", *rule.shared)
        for word, key in (_words(rule) | _beside(rule)).items():
            if entry.get(key) is not None:
                counter = word in counters
                value = torch.as_tensor(entry[key]).detach()
                tensors[f"{name}/{word}"] = value.to(torch.float64, copy=True) if counter else value.clone()
    return tensors


def restore(optimizer: Any, arrays: Mapping[str, Any], names_of: Names | None = None) -> None:
    """Replace the optimizer's state by copies of these arrays, of another framework's under its names too; a
    UserError lists whatever does not fit."""
    tensors = _tensors(optimizer, arrays, names_of)
    entries: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
    problems = [f"{name!r} is missing" for name in ("steps", "factor") if name not in tensors]
    known = {"steps", "factor"}
    for name, weight, rule in _weights(optimizer):
        names = {f"{name}/{word}": key for word, key in (_words(rule) | _beside(rule)).items()}
        entries[weight] = {key: tensors[full] for full, key in names.items() if full in tensors}
        known |= names.keys()
        problems += [f"{name + '/' + word!r} {what}" for word, what in _flaws(rule, weight, entries[weight])]
    problems += [f"{name!r} is nothing of it" for name in tensors if name not in known and "/" in name]
    if problems:
        raise UserError(f"The saved state does not fit, nothing was loaded: {'; '.join(problems)}.")
    optimizer.state.clear()
    for weight, entry in entries.items():
        for key, value in entry.items():
            optimizer.state[weight][key] = value.detach().to(weight.device, copy=True)
    arena.settle(optimizer.state)
    optimizer.steps, optimizer.factor = int(tensors["steps"]), float(tensors["factor"])


def _tensors(optimizer: Any, arrays: Mapping[str, Any], names: Names | None) -> dict[str, torch.Tensor]:
    """The arrays as tensors, under our names and with our axes."""
    if names is not None:
        weights = {name: Weight(rule, tuple(weight.shape)) for name, weight, rule in _weights(optimizer)}
        arrays = renamed(arrays, weights, names, to_torch=True)
    tensors = {name: x if isinstance(x, torch.Tensor) else torch.tensor(x) for name, x in arrays.items()}
    lost = {name: x.bfloat16() for name, x in tensors.items() if name.endswith(f"/{LOST}")}
    return tensors | lost


def _flaws(rule: Rule, weight: torch.Tensor, entry: dict[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """(word, what is wrong with it) for the saved state of one weight."""
    shapes: dict[str, torch.Size] = slot_shapes(rule, weight) | dict.fromkeys(EXTRAS, weight.shape)
    for word, key in (_words(rule) | _beside(rule)).items():
        if key not in entry:
            if entry and word in _words(rule):
                yield word, "is missing"
        elif key in shapes and entry[key].shape != shapes[key]:
            yield word, f"is {tuple(entry[key].shape)}, not {tuple(shapes[key])}"
    for word, key, one in zip(rule.slots, slot_keys(rule), in_8_bits(type(rule)), strict=True):
        what = flaw(entry, key, one) if key in entry else ""
        if what:
            yield word, what


def _words(rule: Rule) -> dict[str, str]:
    """What is saved of a weight: the rule's names of slots and counters, with their keys in the state."""
    counters = ("step", *rule.shared)
    return dict(zip((*rule.slots, *counters), (*slot_keys(rule), *counters), strict=True))


def _beside(rule: Rule) -> dict[str, str]:
    """The same for what may be saved besides: scales of slots in 8 bits, EXTRAS."""
    pairs = zip(rule.slots, slot_keys(rule), strict=True)
    return {f"{slot}{SCALE}": f"{key}{SCALE}" for slot, key in pairs} | dict(zip(EXTRAS, EXTRAS, strict=True))


def _weights(optimizer: Any) -> Iterator[tuple[str, torch.Tensor, Rule]]:
    number = 0
    for index, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or range(number, number + len(group["params"]))
        for name, weight in zip(names, group["params"], strict=True):
            yield str(name), weight, optimizer.template(index)
        number += len(group["params"])
