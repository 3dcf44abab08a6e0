"""Which weights of a model are hidden matrices: what rules of matrices are made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from steepest.optim.errors import UserError
from steepest.optim.groups import no_decay
from steepest.optim.rule import Rule
from steepest.optim.rules.shapes import matrix

LINEAR = torch.nn.Linear
CONVOLUTION = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def takes_all(rule: Rule) -> bool:
    """Whether a rule moves weights of any shape, so that nothing need be split off."""
    return rule.takes((2,))


def hidden(model: torch.nn.Module, rule: Rule, weights: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of the weights, out of these, that a rule of matrices should move.

    Not embeddings, whose rows are seldom used, nor the head, whose rows are classes; not biases, norms, or
    what is a vector in all but its axes, such as a class token. The head is the last linear layer, in the
    order in which layers were made, or the last convolution where there is none."""
    last = _head(model)
    found = {
        name
        for name, weight in weights.items()
        if rule.takes(weight.shape)
        and weight is not last
        and min(weight.shape[:2]) > 1
        and min(matrix(weight.shape)) > 1
        and not no_decay(name, weight.shape, kind(model, name))
    }
    if not found:
        raise UserError(
            f"{type(rule).__name__} moves hidden matrices, and this model has none: its weights are "
            "embeddings, vectors and its last layer. Use a rule that goes by elements, such as AdamW; or say "
            f"which weights are meant, groups={{{next(iter(weights))!r}: rule}}."
        )
    return found


def kind(model: torch.nn.Module, name: str) -> str:
    """Class name of the module that holds a weight."""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def _head(model: torch.nn.Module) -> Any:
    """The weight of the last layer; one that is shared with an embedding too."""
    for sort in (LINEAR, CONVOLUTION):
        layers = [layer for layer in model.modules() if isinstance(layer, sort)]
        if layers:
            return layers[-1].weight
    return None
