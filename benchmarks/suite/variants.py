"""Variants of a workload: one thing about it is otherwise, which shows what was tuned to the workload itself.

`named("mnist_mlp+tanh")` is one. The standard length stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.suite.cache import Parts
from benchmarks.suite.workloads import Workload
from steepest.optim.errors import UserError

ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.GELU)
WRONG = 0.1
"""Share of the training targets that are drawn anew."""
FACTOR = 10.0
"""Inputs are stretched by factors from 1/FACTOR to FACTOR."""


def _with_network(workload: Workload, name: str, change: Callable[[nn.Module], Any]) -> Workload:
    """The workload with its fresh network changed."""

    def network(parts: Parts, wide: int) -> nn.Module:
        model = workload.network(parts, wide)
        change(model)
        return model

    return replace(workload, name=f"{workload.name}+{name}", network=network)


def _with_data(workload: Workload, name: str, change: Callable[[Parts], Parts]) -> Workload:
    """The workload with its data changed, after what another variant does to them."""
    before = workload.changed
    joined = change if before is None else lambda parts: change(before(parts))
    return replace(workload, name=f"{workload.name}+{name}", changed=joined)


def swapped(model: nn.Module, kinds: tuple[type[nn.Module], ...], other: Callable[[], nn.Module]) -> None:
    """Put other modules in the place of all of these kinds."""
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    ]
    if not found:
        kind = " or ".join(one.__name__ for one in kinds)
        raise UserError(f"{type(model).__name__} has no {kind}, so this variant would change nothing.")
    for parent, name in found:
        setattr(parent, name, other())


def tanh(workload: Workload) -> Workload:
    """Tanh in the place of every activation."""
    return _with_network(workload, "tanh", lambda model: swapped(model, ACTIVATIONS, nn.Tanh))


def no_norm(workload: Workload) -> Workload:
    """No batch norms."""
    return _with_network(workload, "no_norm", lambda model: swapped(model, (nn.BatchNorm2d,), nn.Identity))


def bad_start(workload: Workload) -> Workload:
    """Every matrix three times as large at the start."""

    @torch.no_grad()
    def stretch(model: nn.Module) -> None:
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)

    return _with_network(workload, "bad_start", stretch)


def wide(workload: Workload) -> Workload:
    """Twice the width."""
    return replace(
        workload,
        name=f"{workload.name}+wide",
        network=lambda parts, wide: workload.network(parts, 2 * wide),
    )


def small_batch(workload: Workload) -> Workload:
    """A quarter of the examples in each batch."""
    return replace(workload, name=f"{workload.name}+small_batch", batch_size=max(1, workload.batch_size // 4))


def wrong_labels(workload: Workload) -> Workload:
    """A tenth of the training targets swapped with one another; validation and test stay right."""

    def spoil(parts: Parts) -> Parts:
        x, y = parts.train
        flat, chance = y.reshape(-1).clone(), torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(flat), generator=chance)[: int(WRONG * len(flat))]
        flat[chosen] = flat[chosen.roll(1)]
        return replace(parts, train=(x, flat.view_as(y)))

    return _with_data(workload, "wrong_labels", spoil)


def unscaled(workload: Workload) -> Workload:
    """Every feature in a unit of its own: stretched by a fixed factor, the same in all parts."""

    def stretch(parts: Parts) -> Parts:
        x = parts.train[0]
        if not x.is_floating_point():
            raise UserError(f"The inputs of {workload.name!r} are words, which have no scale.")
        axis = x.dim() - 1 if x.dim() == 3 else 1
        draw = torch.rand(x.shape[axis], generator=torch.Generator().manual_seed(0))
        factors = (FACTOR ** (2 * draw - 1)).view([-1 if i == axis else 1 for i in range(x.dim())])
        pairs = {name: getattr(parts, name) for name in ("train", "validation", "test")}
        return replace(parts, **{name: (x * factors, y) for name, (x, y) in pairs.items()})

    return _with_data(workload, "unscaled", stretch)


VARIANTS = {
    one.__name__: one for one in (tanh, no_norm, bad_start, wide, small_batch, wrong_labels, unscaled)
}
