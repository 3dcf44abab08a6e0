"""`Snapshot`: everything that a run goes on from, as tensors by name and plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steepest.optim.errors import UserError


@dataclass(frozen=True)
class Snapshot:
    """The run after `step` updates, in memory of its own.

    model    the network's state_dict
    state    everything else that is tensors, under optimizer/…, average/…, random/…
    numbers  everything else, as JSON knows it; "best" and "good" are steps or None"""

    step: int
    model: dict[str, Tensor]
    state: dict[str, Tensor]
    numbers: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of `state` under name/…, without that beginning."""
        return {
            key.removeprefix(f"{name}/"): tensor
            for key, tensor in self.state.items()
            if key.startswith(f"{name}/")
        }

    @property
    def needs(self) -> list[int]:
        """Steps of the snapshots that this one may go back to."""
        return sorted({self.numbers[kind] for kind in ("best", "good") if self.numbers[kind] is not None})

    @property
    def finite(self) -> bool:
        """Whether every number of the model is finite."""
        return are_finite(self.model.values())


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with names that begin with name/."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def plain(net: nn.Module) -> nn.Module:
    """The network itself, out of the wrapping of torch.compile, which changes its names."""
    return getattr(net, "_orig_mod", net)


def is_finite(net: nn.Module) -> bool:
    """Whether every weight and buffer of the network is finite."""
    return are_finite([*net.parameters(), *net.buffers()])


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in these tensors is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def of_model(net: nn.Module) -> dict[str, Tensor]:
    """Copies of the network's weights and buffers by name. Raises UserError for state that is no tensor."""
    held = plain(net).state_dict()
    strange = [name for name, value in held.items() if not isinstance(value, Tensor)]
    if strange:
        raise UserError(
            f"The network keeps state that is no tensor ({', '.join(strange)}) and that cannot be saved "
            "without executing code on loading. Keep it in a buffer."
        )
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in held.items()}


def into_model(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into the network, in place. Raises UserError that lists all misfits, loading nothing."""
    held = plain(net).state_dict()
    differ = [f"{name} is not in the network" for name in tensors if name not in held]
    differ += [f"{name} is not in the saved state" for name in held if name not in tensors]
    differ += [
        f"{name} has shape {tuple(held[name].shape)} in the network, {tuple(tensor.shape)} in the saved state"
        for name, tensor in tensors.items()
        if name in held and held[name].shape != tensor.shape
    ]
    if differ:
        raise UserError(
            "The saved weights are not this network's: " + "; ".join(differ) + ". Nothing was loaded. "
            "Build the network as it was, or train into another folder."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            held[name].copy_(tensor)
