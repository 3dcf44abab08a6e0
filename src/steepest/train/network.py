"""The network of a recipe: made or taken, started, partly frozen, and looked into before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from steepest import models
from steepest.data import rng
from steepest.data.batches import batches, count
from steepest.data.order import key
from steepest.data.tree import apply as over_tree
from steepest.evidence import Evidence
from steepest.models import start
from steepest.models.probe import apply, forward_with
from steepest.optim import groups as group
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.train import memory
from steepest.train.given import Given
from steepest.train.loss import Loss
from steepest.train.prepare import Prepared, parts_of
from steepest.train.preprocessing import Preprocessing

LOOKED_AT = 256
"""Examples that the signal of a fresh network is measured on."""


def build(
    recipe: Recipe, given: Given, prepared: Prepared, loss: Loss
) -> tuple[nn.Module, tuple[Evidence, ...]]:
    """The network with its weights started, and what the look into it has shown."""
    with rng.preserved():
        rng.seed_all(key(recipe.seed, "weights"))
        outputs = prepared.target.shape(loss.target)
        model = make(recipe, given, prepared.preprocessing, outputs)
        inputs = _taken(model, prepared.train, recipe)
        for name, part in {"val": prepared.val, "test": prepared.test}.items():
            if parts_of(part):  # held in memory: a look costs nothing
                _taken(model, part, recipe, f" of the part {name!r}")
        start.initialise(model, recipe.init, key(recipe.seed, "start") % 2**63, inputs)
        _freeze(model, recipe.freeze)
        return model, _look(model, inputs)


def make(recipe: Recipe, given: Given, fitted: Preprocessing, wanted: tuple[int | None, ...]) -> nn.Module:
    """The person's network, what their function (input_shape, outputs) makes, or a model by name.

    wanted: shape of the outputs for one example, of which such a function is told the first number"""
    asked, shape, args = given.of(recipe, "model"), fitted.input_shape, recipe.model_args
    if isinstance(asked, nn.Module):
        return asked
    if not isinstance(asked, str) or ":" in asked:
        function = asked if not isinstance(asked, str) else models.imported(asked)
        name = asked if isinstance(asked, str) else None
        return models.made(function, shape, wanted[0] or 1, name, args)
    several = not isinstance(shape, tuple) or any(isinstance(branch, tuple | dict) for branch in shape)
    if several and asked in ("auto", *models.PRESETS):
        raise UserError(
            f"The model {asked!r} takes one array of inputs; these data have several ({shape}). "
            "Give a network of your own: model=net, called with the inputs by place or by name."
        )
    settings = {"hidden": recipe.hidden, "dropout": recipe.dropout, "args": args}
    return models.build(asked, shape, wanted, suits=fitted.suits if asked == "auto" else None, **settings)


def _taken(model: nn.Module, part: Any, recipe: Recipe, of: str = "") -> Any:
    """The first inputs, as many as there is memory for. Raises UserError where the network takes none."""
    first = next(batches(part, LOOKED_AT, seed=recipe.seed).once())[0][0]
    return next(memory.by_parts(lambda some: _check_takes(model, some, of), first))[1]


def forward(model: nn.Module, inputs: Any) -> Any:
    """What a network gives in test mode; it is afterwards as before."""
    with rng.preserved(model, training=False), torch.no_grad():
        return apply(model, inputs)


def _check_takes(model: nn.Module, inputs: Any, of: str = "") -> None:
    """A network that cannot take the data is refused with the shapes, not with a traceback of torch's."""
    try:
        forward(model, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if memory.ran_out(error):
            raise
        shapes = over_tree(lambda tensor: tuple(tensor.shape), inputs)
        kinds = over_tree(lambda tensor: str(tensor.dtype).removeprefix("torch."), inputs)
        raise UserError(
            f"The network cannot take inputs{of} of shape {shapes} and type {kinds}: {error}. "
            "Give a network made for these inputs, or leave model= out for a preset that fits."
        ) from error


def check_single(model: nn.Module, inputs: Any) -> None:
    """Batch norms cannot measure a variance on one example: said before the first step."""
    if count(inputs) > 1:
        return
    try:
        forward_with(model, (), lambda *_: None, inputs)
    except ValueError as error:
        raise UserError(
            f"The network cannot be trained on single examples ({error}). Its batch norms need several: "
            "give a larger batch_size or a smaller accumulate."
        ) from error


def _freeze(model: nn.Module, patterns: list[str]) -> None:
    weights = dict(model.named_parameters())
    *frozen, _ = group.split(list(weights), patterns)
    for name in (name for claimed in frozen for name in claimed):
        weights[name].requires_grad_(False)


def _look(model: nn.Module, inputs: Any) -> tuple[Evidence, ...]:
    """A verdict on the signal; none where there is nothing to measure it in."""
    affine = any(isinstance(module, start.Affine) for module in model.modules())
    few = isinstance(inputs, torch.Tensor) and len(inputs) < 2
    return (start.verdict(start.activations(model, inputs)),) if affine and not few else ()
