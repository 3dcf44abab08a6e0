"""How weights start, and whether the signal survives the way through the layers at step 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from steepest.evidence import Evidence
from steepest.models.probe import forward_with, spread
from steepest.models.weights_file import load_weights
from steepest.optim.errors import UserError, did_you_mean

SPREAD = 100.0
"""Factor of the signal in a layer over that at the input, or its inverse, that is called a fault."""

Affine = nn.Linear | nn.modules.conv._ConvNd
"""Layers whose weight matrix is drawn; norms, embeddings and recurrent layers keep their own start."""


def initialise(model: nn.Module, how: str | Path, seed: int, batch: Any = None) -> list[str]:
    """Draw the weights of linear and convolution layers anew, biases 0; returns the names of these layers.

    default     nothing is drawn: the weights stay as the model came
    kaiming     normal, σ = √(2 / fan in), for ReLU.   He et al. 2015, arXiv:1502.01852
    xavier      uniform, σ = √(2 / (fan in + fan out)).   Glorot & Bengio 2010
    orthogonal  orthogonal rows or columns times √2, for ReLU.   Saxe et al. 2013, arXiv:1312.6120
    lsuv        orthogonal, then every layer scaled to outputs of σ = 1 on `batch`, the inputs of some
                examples.   Mishkin & Matas 2016, arXiv:1511.06422
    *.safetensors   weights and buffers by name from a file; all must fit, or nothing is loaded"""
    if str(how).endswith(".safetensors"):
        return load_weights(model, Path(how))
    if how == "default":
        return []
    if how not in DRAWS:
        known = ["default", *DRAWS, "weights.safetensors"]
        raise UserError(f"There is no start of weights named {str(how)!r}.{did_you_mean(str(how), known)}")
    if how == "lsuv" and batch is None:
        raise UserError("The start 'lsuv' scales layers by what it measures: it needs a batch of inputs.")
    layers = _affine_layers(model)
    if not layers:
        raise UserError("The model has no linear or convolution layer to start. Leave init='default'.")
    _draw(layers.values(), DRAWS[str(how)], seed)
    if how == "lsuv":
        _scale_to_unit_variance(model, layers, batch)
    return list(layers)


def activations(model: nn.Module, batch: Any) -> dict[str, float]:
    """σ of what tells examples apart: in the input (""), then in each linear and convolution layer's output.

    The root of the variance over the examples, averaged over the units; what is the same for all examples,
    such as a bias, does not count. Needs two examples or more. The model is left as it was."""
    seen = {"": spread(batch)}
    names = {layer: name for name, layer in _affine_layers(model).items()}

    def note(layer: Affine, inputs: Any, output: Tensor) -> None:
        seen[names[layer]] = spread(output)

    forward_with(model, names, note, batch)
    return seen


def verdict(measured: dict[str, float]) -> Evidence:
    """What `activations` mean: "sound", "vanishing", "exploding", "dead" or "not finite", with the layer."""
    named = {name or "the input": std for name, std in measured.items()}
    first, *_, last = [*named.values(), *named.values()]
    decided, at = _judge(first, named)
    why = {
        "sound": f"σ of the signal goes from {first:.3g} at the input to {last:.3g} in the last layer",
        "vanishing": f"σ falls from {first:.3g} to {named[at]:.3g} in {at}; try init='lsuv'",
        "exploding": f"σ grows from {first:.3g} to {named[at]:.3g} in {at}; try init='lsuv'",
        "dead": f"{at} is the same for every example; try init='kaiming', look for constant inputs",
        "not finite": f"{at} has infinite or undefined values; look at the scale of the input",
    }[decided]
    table = [{"layer": name, "std": std} for name, std in named.items()]
    return Evidence("start of the weights", decided, why, table)


def _judge(first: float, named: dict[str, float]) -> tuple[str, str]:
    for name, std in named.items():
        if not std < float("inf"):
            return "not finite", name
        if std == 0:
            return "dead", name
        if std < first / SPREAD:
            return "vanishing", name
        if std > first * SPREAD:
            return "exploding", name
    return "sound", "the input"


def _kaiming(weight: Tensor, generator: Generator) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def _xavier(weight: Tensor, generator: Generator) -> None:
    nn.init.xavier_uniform_(weight, generator=generator)


def _orthogonal(weight: Tensor, generator: Generator) -> None:
    nn.init.orthogonal_(weight, gain=sqrt(2), generator=generator)


DRAWS: dict[str, Callable[[Tensor, Generator], None]] = {
    "kaiming": _kaiming,
    "xavier": _xavier,
    "orthogonal": _orthogonal,
    "lsuv": _orthogonal,
}


def _affine_layers(model: nn.Module) -> dict[str, Affine]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, Affine) and not is_parametrized(layer)
    }


@torch.no_grad()
def _draw(layers: Iterable[Affine], draw: Callable[[Tensor, Generator], None], seed: int) -> None:
    generator = Generator().manual_seed(seed)
    for layer in layers:
        weight = torch.empty_like(layer.weight, device="cpu")
        draw(weight, generator)
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.zero_()


def _scale_to_unit_variance(model: nn.Module, layers: dict[str, Affine], batch: Any) -> None:
    # With the bias at 0 a layer's output is linear in its weight: one division is exact, and the next layer
    # already sees the divided output. A layer that is met twice is scaled the first time.
    waiting = dict.fromkeys(layers.values())

    def scale(layer: Affine, inputs: Any, output: Tensor) -> Tensor | None:
        std = output.float().std()
        if layer not in waiting or not 0 < std < float("inf"):
            return None
        del waiting[layer]
        layer.weight.div_(std)
        return output / std

    forward_with(model, list(waiting), scale, batch)
