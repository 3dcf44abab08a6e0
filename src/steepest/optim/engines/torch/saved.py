"""The state of an optimizer in torch's form and as tensors by name; checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch

from steepest.optim.engines.kernels.pointers import settle
from steepest.optim.engines.named_state import LOST, Names, Weight, renamed
from steepest.optim.engines.on_torch import start, wide
from steepest.optim.engines.precision.memory import EXTRAS, SCALE, Memory, flaw, in_8_bits, layout
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def aligned(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with its weights in the optimizer's order, by name where both sides have names.

    Raises UserError that lists every name or shape that does not fit. Numbers of groups and of weights are
    torch's to check."""
    own, theirs = optimizer.param_groups, saved["param_groups"]
    if len(own) != len(theirs) or any("param_names" not in group for group in (*own, *theirs)):
        problems = _misfits(optimizer, saved) if _same_sizes(own, theirs) else []
    else:
        saved, problems = _by_name(own, saved)
        problems = problems or _misfits(optimizer, saved)
    if problems:
        raise UserError(f"The checkpoint does not fit, nothing was loaded: {'; '.join(problems)}.")
    return saved


def adopt(optimizer: Any, saved: dict[str, Any]) -> None:
    """Take the state of a loaded checkpoint anew, in the dtype of arithmetic and in memory of its own.

    torch has just cast it to the dtype of the weights: moments of bf16 weights would lose their digits."""
    weights = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    indices = chain.from_iterable(group["params"] for group in saved["param_groups"])
    numbers = chain.from_iterable(
        [number] * len(group["params"]) for number, group in enumerate(optimizer.param_groups)
    )
    for index, weight, number in zip(indices, weights, numbers, strict=True):
        if index in saved["state"]:
            kept = _dtypes(optimizer.template(number), optimizer.memories[number], weight)
            entry = saved["state"][index].items()
            optimizer.state[weight].clear()
            optimizer.state[weight].update({key: _copy(key, value, weight, kept) for key, value in entry})
    settle(optimizer.state)
    counted = [int(entry["step"]) for entry in saved["state"].values() if "step" in entry]
    optimizer.steps = int(saved.get("steps", max(counted, default=0)))
    optimizer.factor = float(saved.get("factor", 1.0))


def _dtypes(rule: Rule, memory: Memory, weight: torch.Tensor) -> dict[str, torch.dtype]:
    """The dtype of each slot of a weight; of one in 8 bits that to convert it from, at the next update."""
    formats = layout(type(rule), memory, weight.dtype).slots
    full = wide(weight).dtype
    return {
        key: one.dtype if one.dtype and not one.foot else full
        for key, one in zip(slot_keys(rule), formats, strict=True)
    }


def _copy(key: str, value: Any, weight: torch.Tensor, kept: dict[str, torch.dtype]) -> Any:
    if not torch.is_tensor(value):
        return value
    if key in kept and (value.is_floating_point() or value.is_complex()):
        return value.to(weight.device, kept[key], copy=True)
    return value.to(weight.device, copy=True) if key in kept or is_beside(key) else value.clone()


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


def slot_shapes(rule: Rule, weight: torch.Tensor) -> dict[str, torch.Size]:
    """The shape of every slot of a weight, by its key in the state."""
    if type(rule).init is Rule.init:
        return dict.fromkeys(slot_keys(rule), weight.shape)
    slots = start(rule, weight)
    return {key: slot.shape for key, slot in zip(slot_keys(rule), slots, strict=True)}


def is_beside(key: str) -> bool:
    """Whether a key is none of a rule's slots, but of the way that numbers are kept."""
    return key.endswith(SCALE) or key in EXTRAS


def _misfits(optimizer: Any, saved: dict[str, Any]) -> list[str]:
    """What of the saved state does not belong to the rules and weights here."""
    problems = []
    for index, (ours, theirs) in enumerate(zip(optimizer.param_groups, saved["param_groups"], strict=True)):
        group = {**ours, **theirs, "params": ours["params"]}
        rule, keys = optimizer.form_of(index, group), optimizer.keys(index, group)
        labels = ours.get("param_names", theirs["params"])
        for label, weight, number in zip(labels, ours["params"], theirs["params"], strict=True):
            entry = saved["state"].get(number, {})
            problems += [
                f"{key} of {label!r} {what}" for key, what in _differences(rule, keys, weight, entry)
            ]
    return problems


def _differences(
    rule: Rule, keys: set[str], weight: torch.Tensor, entry: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for the saved state of one weight. keys: of slots that may be there."""
    wanted = slot_shapes(rule, weight)
    arrays = {key: value for key, value in entry.items() if torch.is_tensor(value) and value.dim() > 0}
    for key, value in arrays.items():
        if key in wanted and value.shape != wanted[key]:
            yield key, f"is {tuple(value.shape)}, its weight {tuple(weight.shape)}"
        elif key not in keys and not is_beside(key):
            yield key, f"is nothing of {type(rule).__name__}"
    for key, one in zip(slot_keys(rule), in_8_bits(type(rule)), strict=True):
        what = flaw(entry, key, one) if key in arrays else ""
        if what:
            yield key, what
    # A weight that never moved has no state; torch keeps a 0-dim weight's in 0-dim tensors.
    held = [key for key in wanted if torch.is_tensor(entry.get(key))]
    for key, shape in wanted.items() if held else ():
        if key not in held and shape.numel():
            yield key, "is missing"


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
    settle(optimizer.state)
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
