"""Trees of tensors and numbers as JSON and tensors by name: what checkpoints, and messages between processes,
are written in. Reading one executes no code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from steepest.optim.errors import UserError


def packed(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """(what JSON knows, with a mark in the place of every tensor; the tensors by their places).

    Mappings with other keys than text, tuples and counters are marked, too, so that they come back as they
    were. Raises UserError for what is none of these nor text, a number or None."""
    found: dict[str, Tensor] = {}

    def walk(value: Any, place: str) -> Any:
        match value:
            case Tensor():
                place = place if place not in found else f"{place} {len(found)}"
                found[place] = value.detach().contiguous()
                return {"$tensor": place}
            case None | bool() | int() | float() | str():
                return value
            case np.generic():
                return value.item()
            case Mapping():
                pairs = list(value.items())
                if all(isinstance(name, str) and not name.startswith("$") for name, _ in pairs):
                    return {name: walk(one, f"{place}/{name}" if place else name) for name, one in pairs}
                mark = "$counts" if isinstance(value, Counter) else "$items"
                return {mark: [[walk(name, place), walk(one, f"{place}/{name}")] for name, one in pairs]}
            case tuple():
                return {"$tuple": [walk(one, f"{place}/{i}") for i, one in enumerate(value)]}
            case list():
                return [walk(one, f"{place}/{i}") for i, one in enumerate(value)]
        raise UserError(
            f"The state of {place!r} holds an object ({type(value).__name__}) that is neither tensor nor "
            "number and cannot be saved without executing code on loading. Leave it out of its state_dict, "
            "or give out=None."
        )

    return walk(tree, ""), found


def unpacked(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `packed` was given."""
    if isinstance(plain, list):
        return [unpacked(one, tensors) for one in plain]
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"$tensor": place}:
            return tensors[place]
        case {"$tuple": inner}:
            return tuple(unpacked(inner, tensors))
        case {"$items": pairs}:
            return dict(unpacked(pairs, tensors))
        case {"$counts": pairs}:
            return Counter(dict(unpacked(pairs, tensors)))
        case _:
            return {name: unpacked(one, tensors) for name, one in plain.items()}


def to_bytes(tree: Any) -> bytes:
    """A tree as one message."""
    plain, tensors = packed(tree)
    head = json.dumps(plain).encode()
    return len(head).to_bytes(8, "little") + head + safetensors.torch.save(tensors)


def from_bytes(content: bytes) -> Any:
    """The tree that `to_bytes` was given."""
    end = 8 + int.from_bytes(content[:8], "little")
    return unpacked(json.loads(content[8:end]), safetensors.torch.load(content[end:]))
