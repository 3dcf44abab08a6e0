"""Weights from a file: safetensors, which runs no code when it is read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from steepest.optim.errors import UserError


def load_weights(model: nn.Module, path: Path) -> list[str]:
    """Load weights and buffers by name from a safetensors file; all must fit, or nothing is loaded."""
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r} to start the weights from.")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise UserError(f"{str(path)!r} is not a whole safetensors file: {problem}") from problem
    misfits = _misfits(model.state_dict(), stored)
    if misfits:
        raise UserError(f"{str(path)!r} does not fit the model; nothing was loaded: {'; '.join(misfits)}.")
    model.load_state_dict(stored)
    return list(stored)


def _misfits(own: dict[str, Tensor], stored: dict[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in stored]
    unknown = [f"{name} is not in the model" for name in stored if name not in own]
    shapes = [
        f"{name} is {list(stored[name].shape)}, the model's {list(own[name].shape)}"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    return missing + unknown + shapes
