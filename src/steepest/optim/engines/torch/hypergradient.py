"""One-step hypergradients: how the weights after an update depend on what the update was made with.

dL⁺/dh = ⟨g⁺, ∂w⁺/∂h⟩, weights, state and gradient held; g⁺ the gradient at w⁺, of another batch than the
update's. Training computes g⁺ next anyway. ∂w⁺/∂h is found by forward mode: dual numbers go through the very
arithmetic of the rule, so that any rule will do, no graph is kept, and one array a weight is left."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from steepest.optim.engines.on_torch import TORCH, real, start, wide
from steepest.optim.engines.precision import memory
from steepest.optim.engines.precision.formats import widest
from steepest.optim.engines.pure import form, holding
from steepest.optim.engines.sharded import is_dtensor
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.rule import Rule

Column = Sequence[Tensor | None]
"""One array for each weight over all groups, None where there is none."""


@dataclass(frozen=True)
class Row:
    """A weight that moves: its place over all groups, the number of its group, the update t to come, shared
    scalars, (w, g, *reads, *slots) in the dtype of arithmetic."""

    place: int
    group: int
    t: int
    shared: dict[str, float]
    arrays: list[Tensor]


def tangents(
    optimizer: Any,
    speeds: Mapping[int, Mapping[str, float]],
    pushes: Column | None = None,
    *,
    scale: float = 1.0,
    gradients: Column | None = None,
    reads: Mapping[str, Column] | None = None,
) -> list[Tensor | None]:
    """∂w⁺/∂x of the coming update, for an x that hyperparameters and gradients depend on; nothing is written.

    speeds: group → hyperparameter → its derivative by x. That of lr counts for the rate in force, "lr_scale"
    and factor in it. pushes: the derivative of each gradient by x. scale, gradients, reads: as in `step`.
    None for a weight that does not move; where there is a kink, a slope on one of its sides."""
    _ready()
    made: list[Tensor | None] = [None] * sum(len(group["params"]) for group in optimizer.param_groups)
    with torch.no_grad(), forward_ad.dual_level():
        rules, rows = _read(optimizer, scale, gradients, reads or {}, pushes)
        held = [_dual(rule, speeds.get(index, {})) for index, rule in enumerate(rules)]
        for family in _families(rules, rows):
            for row, slope in zip(family, _slopes(held, family), strict=True):
                made[row.place] = slope
    return made


@cache
def _ready() -> None:
    """Let torch load what its first dual number needs: it warns of a part of its own that is out of date."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def dots(gradients: Column, slopes: Column) -> list[float]:
    """⟨g, ∂w/∂x⟩ of each weight, 0 where there is none of either; they add up to that of the model."""
    return [
        0.0 if g is None or slope is None else float((real(g.detach()) * slope).sum(dtype=widest(slope)))
        for g, slope in zip(gradients, slopes, strict=True)
    ]


def _read(
    optimizer: Any, scale: float, gradients: Column | None, reads: Mapping[str, Column], pushes: Column | None
) -> tuple[list[Rule], list[Row]]:
    """The rules of all groups with the numbers of the coming update, and the weights that it moves."""
    if optimizer.updates_in_backward is not None:
        optimizer.updates_in_backward.refuse("A hypergradient")
    now = optimizer._groups.follow(optimizer)
    if any(is_dtensor(weight) for own in now.weights for weight in own):
        raise UserError(
            "A hypergradient sums over whole weights, and these are split over processes (DTensors). Choose "
            "the rate by find_rate or a schedule, or train in one process."
        )
    rows: list[Row] = []
    place = 0
    for index, rule in enumerate(now.rules):
        for weight in now.weights[index]:
            gradient = weight.grad if gradients is None else gradients[place]
            if gradient is not None and weight.numel():
                inputs = [gradient, *(reads[name][place] for name in rule.extra_inputs)]
                row = _row(optimizer, place, index, rule, weight, inputs)
                push = None if pushes is None else pushes[place]
                rows.append(_scaled(row, now.turns[index] * scale, push))
            place += 1
    return now.rules, rows


def _row(optimizer: Any, place: int, index: int, rule: Rule, weight: Tensor, inputs: Sequence[Any]) -> Row:
    entry, keys = optimizer.state.get(weight) or {}, slot_keys(rule)
    kind = memory.layout(type(rule), optimizer.memories[index], weight.dtype)
    kept, w = memory.found(entry, kind, keys), real(weight.detach())
    if kept is None:
        w, slots = wide(w), [real(slot) for slot in start(rule, weight)]
    else:
        w, slots = memory.loaded(kind, w, [real(x) for x in kept])
    shared = {name: float(entry.get(name, first)) for name, first in rule.shared.items()}
    arrays = [w, *(real(x.detach()).to(w.dtype) for x in inputs), *slots]
    return Row(place, index, int(entry.get("step", 0)) + 1, shared, arrays)


def _dual(rule: Rule, speeds: Mapping[str, float]) -> Rule:
    """The rule with dual numbers for the hyperparameters that move."""
    for name in speeds:
        if name not in rule.numbers():
            raise UserError(
                f"{type(rule).__name__} has no number {name!r}.{did_you_mean(name, rule.numbers())}"
            )
    numbers = {name: torch.tensor(getattr(rule, name), dtype=torch.float64) for name in speeds}
    slopes = {name: torch.tensor(speed, dtype=torch.float64) for name, speed in speeds.items()}
    return holding(rule, {name: forward_ad.make_dual(x, slopes[name]) for name, x in numbers.items()})


def _scaled(row: Row, scale: float, push: Tensor | None) -> Row:
    """The row with its gradient as the rule will see it, a dual number where it moves."""
    w, g, *rest = row.arrays
    g = scale * g
    if push is not None:
        g = forward_ad.make_dual(g, scale * real(push.detach()).to(g.dtype))
    return replace(row, arrays=[w, g, *rest])


def _families(rules: Sequence[Rule], rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of one form of rule together, for their sums may run over all of them."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(form(rules[row.group]), []).append(row)
    return list(found.values())


def _slopes(rules: Sequence[Rule], rows: Sequence[Row]) -> list[Tensor]:
    """The tangent of each weight after the update."""
    found: dict[int, list[int]] = {}
    constants = _constants(rules, rows)
    for n, k in enumerate(constants):
        found.setdefault(n if rules[rows[n].group].whole else -id(k), []).append(n)
    slopes: list[Any] = [None] * len(rows)
    for numbers in found.values():
        rule, k = rules[rows[numbers[0]].group], constants[numbers[0]]
        for n, slope in zip(numbers, _together(rule, k, [rows[n].arrays for n in numbers]), strict=True):
            slopes[n] = slope
    return slopes


def _together(rule: Rule, k: Any, rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The same for rows of one rule and one k, end to end in one array: dual numbers are slow to start."""
    if rule.whole:
        return [_slope(rule, k, arrays) for arrays in rows]
    laid = [torch.cat([x.flatten() for x in column]) for column in zip(*rows, strict=True)]
    slope = _slope(rule, k, laid)
    # A power of a state that is 0 has no slope there. Such a coordinate never had a gradient.
    if slope.isnan().any():
        slope = torch.where(slope.isnan() & laid[0].isfinite(), 0.0, slope)
    pieces = slope.split([arrays[0].numel() for arrays in rows])
    return [piece.view(arrays[0].shape) for piece, arrays in zip(pieces, rows, strict=True)]


def _slope(rule: Rule, k: Any, arrays: Sequence[Tensor]) -> Tensor:
    slope = forward_ad.unpack_dual(rule.update(DUAL, k, *arrays)[0]).tangent
    return torch.zeros_like(arrays[0]) if slope is None else slope


def _constants(rules: Sequence[Rule], rows: Sequence[Row]) -> list[Any]:
    """k of each row, as `WeightGroup` makes them: sums run over all rows where the scope is the model."""
    if not rules[rows[0].group].sums:
        return _made(rules, rows, [1] * len(rows), [()] * len(rows))
    sums: list[Any] = []  # on the CPU, for weights may lie on several devices
    for row, k in zip(rows, _made(rules, rows, [0] * len(rows), [()] * len(rows)), strict=True):
        addends = rules[row.group].addends(DUAL, k, *row.arrays)
        sums.append([_summed(x.expand(row.arrays[0].shape)) for x in addends])
    sizes = [row.arrays[0].numel() for row in rows]
    if rules[rows[0].group].scope == "model":
        sizes, sums = (
            [sum(sizes)] * len(rows),
            [[sum(column) for column in zip(*sums, strict=True)]] * len(rows),
        )
    return _made(rules, rows, sizes, sums)


def _made(rules: Sequence[Rule], rows: Sequence[Row], sizes: Sequence[int], sums: Sequence[Any]) -> list[Any]:
    """k of each row in its dtype and on its device, made once for all of which the same goes in."""
    known: dict[Any, Any] = {}
    made = []
    for row, n, total in zip(rows, sizes, sums, strict=True):
        dtype, device = row.arrays[0].dtype, row.arrays[0].device
        key = (row.group, row.t, *row.shared.values(), id(total) if total else 0, dtype, device)
        if key not in known:
            k, _ = rules[row.group].constants(DUAL, row.t, row.shared, n, total)
            known[key] = type(k)(*(_cast(number, dtype, device) for number in k))
        made.append(known[key])
    return made


def _summed(x: Tensor) -> Tensor:
    return x.sum(dtype=widest(x)).to("cpu", torch.float64)


def _cast(number: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A number in the dtype of arithmetic, so that it does not widen it, where the arithmetic is done."""
    is_float = isinstance(number, Tensor) and number.is_floating_point()
    return number.to(dtype).to(device) if is_float else number


def _root(x: Any) -> Any:
    """√x whose slope at 0 is 0, not ∞: what never had a gradient does not move, whatever h is."""
    if not isinstance(x, Tensor) or not (x == 0).any():
        return TORCH.sqrt(x)
    return torch.where(x == 0, 0.0, torch.sqrt(torch.where(x == 0, 1.0, x)))


DUAL = SimpleNamespace(**vars(TORCH) | {"sqrt": _root})
"""`xp` for dual numbers."""
