"""Objects of the user's, named by where they can be imported: `package.module:function`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from steepest.optim.errors import UserError, did_you_mean


def imported(path: str) -> Any:
    """The object that `package.module:name` names; a UserError says which half is missing."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UserError(f"An import path is written package.module:name, got {path!r}.")
    module = _module(module_name, path)
    if not hasattr(module, name):
        near = did_you_mean(name, (known for known in vars(module) if not known.startswith("_")))
        raise UserError(f"Module {module_name!r} has no {name!r} (from {path!r}).{near}")
    return getattr(module, name)


def load(path: str, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """The network that the user's function at `path` makes, called as function(input_shape, outputs).

    input_shape: sizes of one example, without the batch.   outputs: numbers given for each example."""
    return made(imported(path), input_shape, outputs, path)


def made(
    make: Any,
    input_shape: Any,
    outputs: int,
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network that a function makes; a UserError where it is none, takes other arguments, or fails to.

    args: further settings that it takes by name"""
    name = name or f"model={getattr(make, '__qualname__', type(make).__qualname__)}"
    wanted = f"{name} must be a function of (input_shape, outputs)"
    if not callable(make):
        raise UserError(f"{wanted}, got {type(make).__name__}.")
    try:
        model = make(input_shape, outputs, **(args or {}))
    except TypeError as problem:
        raise UserError(f"{wanted}; called with {input_shape}, {outputs} it fails: {problem}.") from problem
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return a torch.nn.Module, got {type(model).__name__}.")
    return model


def _module(name: str, path: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        raise UserError(
            f"Cannot import {missing.name!r}, which {path!r} needs. Start where the module lies, install it, "
            f"or put its folder on PYTHONPATH."
        ) from missing
