"""One forward pass to look inside a model, which leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm

from steepest.data.rng import preserved
from steepest.optim.engines.precision.formats import widened
from steepest.optim.errors import UserError


def apply(model: Callable[..., Any], inputs: Any) -> Any:
    """The model's outputs for inputs of several arrays too: a tuple by place, a dict by name."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


@torch.no_grad()
def forward_with(model: nn.Module, layers: Iterable[nn.Module], hook: Callable[..., Any], batch: Any) -> None:
    """Run the model once on `batch` with `hook(layer, inputs, output)` on `layers`."""
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with preserved(model):
            by_batch(model)
            apply(model, batch)
    finally:
        for one in hooks:
            one.remove()


def by_batch(model: nn.Module) -> list[RunningNorm]:
    """Put the model in a mode in which its batch norms, which are given, work as in training, and all else
    as in a test."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, RunningNorm)]
    for norm in norms:
        norm.training = True
    return norms


def spread(tree: Any) -> float:
    """σ over the examples of the tensors in a tree: the root of the variance averaged over all units.

    1 where there is nothing but whole numbers, such as tokens."""
    numbers = [widened(x) for x in _leaves(tree) if x.is_floating_point()]
    if any(len(x) < 2 for x in numbers):
        raise UserError("What tells examples apart is measured on two examples or more, got one.")
    variances = [x.var(dim=0, correction=0).flatten() for x in numbers]
    return float(torch.cat(variances).mean().sqrt()) if variances else 1.0


def _leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [leaf for branch in tree for leaf in _leaves(branch)] if isinstance(tree, tuple | list) else [tree]
