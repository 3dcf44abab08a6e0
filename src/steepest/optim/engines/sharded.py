"""Weights that are split over processes: DTensors (fully_shard, tensor parallelism) and FSDP's flat shards.

Rules that go by elements move the part that lies in this process, and their sums are added up over the mesh.
Rules of whole arrays are refused, but for those that are right on DTensors as they are (`Rule.shardable`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.optim.engines.precision.memory import Memory
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule


def is_dtensor(x: Any) -> bool:
    """Whether a tensor is one of torch.distributed.tensor, of which each process holds a part."""
    return hasattr(x, "placements")


def is_flat_shard(weight: Any) -> bool:
    """Whether a weight is of FullyShardedDataParallel: what this process holds of it, without its shape."""
    return bool(getattr(weight, "_fsdp_flattened", False)) and processes() > 1


def processes() -> int:
    """How many processes work together; 1 where none do."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def local(x: Any, like: Any = None) -> Tensor:
    """The part of a tensor that lies in this process, split as `like` is; it shares memory with the whole."""
    if not is_dtensor(x):
        return x
    wanted = x.placements if like is None else like.placements
    if x.placements != wanted:
        x = x.redistribute(placements=wanted)
    return x.to_local()


def pointer(x: Tensor) -> int:
    """Where a tensor lies; every DTensor says 0 of itself, so that its part is asked."""
    return local(x.detach()).data_ptr() if is_dtensor(x) else x.data_ptr()


class OverMeshes:
    """`Reduce` over the meshes of DTensors: one collective for all weights that are split alike."""

    def sum(self, rows: Any, weights: Sequence[Any]) -> Any:
        """For each weight its sums over the processes that hold other parts of it."""
        found: dict[Any, list[int]] = {}
        for number, weight in enumerate(weights):
            if is_dtensor(weight):
                found.setdefault((weight.device_mesh, weight.placements), []).append(number)
        made = np.array(rows)
        for (mesh, placements), own in found.items():
            total = torch.from_numpy(made[own]).to(mesh.device_type)
            for dimension, placement in enumerate(placements):
                if placement.is_shard():
                    torch.distributed.all_reduce(total, group=mesh.get_group(dimension))
            made[own] = total.cpu().numpy()
        return made


OVER_MESHES = OverMeshes()


def refuse(rule: Rule, memory: Memory, weight: Any) -> None:
    """UserError where a rule cannot rightly move a weight of which this process holds a part."""
    name, shape = type(rule).__name__, tuple(weight.shape)
    if is_flat_shard(weight) and (rule.sums or rule.whole):
        raise UserError(
            f"{name} needs whole weights, or sums over them, and was given flat shards of "
            "FullyShardedDataParallel, which do not tell where a weight begins. Use fully_shard, whose "
            "weights are DTensors, or a rule that goes by elements without sums, such as AdamW."
        )
    if not is_dtensor(weight):
        return
    if rule.whole and not rule.shardable:
        raise UserError(
            f"{name} looks at whole weights, and was given one of shape {shape} that is split over "
            "processes (a DTensor). Use a rule that goes by elements, such as AdamW, or Muon; or keep this "
            "weight whole in every process (DistributedDataParallel)."
        )
    if memory.state_dtype != "float32" or memory.rounding == "stochastic":
        kept = f"state_dtype={memory.state_dtype!r}, rounding={memory.rounding!r}"
        raise UserError(
            f"{name} was asked for {kept} on a weight of shape {shape} that is split over processes (a "
            'DTensor), where few bits are not made yet. Leave state_dtype="float32", rounding="nearest".'
        )


def refuse_unsynchronised(what: str, weights: Sequence[Any], even_split: bool = False) -> None:
    """UserError where gradients would be used before DistributedDataParallel has averaged them.

    even_split: DTensors cannot be used either."""
    if processes() > 1 and any(even_split or not is_dtensor(weight) for weight in weights):
        raise UserError(
            f"{what} uses gradients of this process alone, before they are averaged over the "
            f"{processes()} processes, whose weights would drift apart. Use a rule of one pass, such as "
            "AdamW, and call step() after backward()."
        )
