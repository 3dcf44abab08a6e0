"""Small networks for a first honest result, in PyTorch's own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from torch import nn

from steepest.optim.errors import UserError

FIRST, WIDEST = 16, 256
"""Channels of the first convolution; channels at most."""

SMALLEST = 4
"""Shorter side, in pixels, of the smallest picture that is convolved again."""


def linear(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """One affine map: linear or logistic regression.   y = Wx + b"""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), outputs))


def mlp(input_shape: tuple[int, ...], outputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Dense layers of the widths `hidden`, each with ReLU, then an affine output layer."""
    return nn.Sequential(nn.Flatten(), *_dense(prod(input_shape), outputs, hidden, dropout))


def cnn(input_shape: tuple[int, ...], outputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Stages of a 3×3 convolution, batch norm and a halving until the shorter side is below 4; dense layers.

    Channels: 16 in the first stage, doubled by each stage up to 256. Batch norms see microbatches singly."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    while not layers or min(height, width) >= SMALLEST:
        wide = min(2 * channels, WIDEST) if layers else FIRST
        layers += _stage(channels, wide)
        channels, height, width = wide, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), *_dense(channels * height * width, outputs, hidden, dropout))


PRESETS = ("linear", "mlp", "cnn")
"""Models that come with the house; their settings are the recipe's `hidden` and `dropout`."""


class Model(Protocol):
    """A network by name.

    fits  whether it takes inputs of such a shape, without the batch, and gives outputs of such a shape for
          one example: (classes,), (classes, None) for outputs at every step of a free length
    make  the network; `args` are the recipe's model_args"""

    def fits(self, input_shape: Any, outputs: tuple[int | None, ...]) -> bool: ...

    def make(self, input_shape: Any, outputs: tuple[int | None, ...], **args: Any) -> nn.Module: ...


@dataclass(frozen=True)
class Preset:
    """A network of dense layers or convolutions.   axes: of its inputs, None for any number"""

    network: Callable[..., nn.Sequential]
    axes: int | None = None
    plain: bool = False

    def fits(self, input_shape: Any, outputs: tuple[int | None, ...]) -> bool:
        """One array of fixed sizes, and one row of outputs."""
        sizes = isinstance(input_shape, tuple) and bool(input_shape) and all(map(_is_count, input_shape))
        return sizes and len(outputs) == 1 and self.axes in (None, len(input_shape))

    def make(
        self,
        input_shape: tuple[int, ...],
        outputs: tuple[int | None, ...],
        *,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
    ) -> nn.Sequential:
        """The network; "linear" has no hidden layers."""
        settings = () if self.plain else (hidden, dropout)
        return self.network(input_shape, outputs[0], *settings)


LINEAR, MLP, CNN = Preset(linear, plain=True), Preset(mlp), Preset(cnn, axes=3)


def shape_of(outputs: int | tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape of the outputs for one example, where a number stands for one row."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def suited(input_shape: tuple[int, ...]) -> str:
    """The preset that "auto" stands for: the cnn for pictures (channels, height, width), else the mlp."""
    return "cnn" if len(input_shape) == 3 and min(input_shape[1:]) >= SMALLEST else "mlp"


def _stage(channels: int, wide: int) -> list[nn.Module]:
    # ReLU after the pooling is the same function as before it, at a quarter of the cost.
    convolution = nn.Conv2d(channels, wide, kernel_size=3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(wide), nn.MaxPool2d(2), nn.ReLU()]


def _dense(inputs: int, outputs: int, hidden: Sequence[int], dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    return [*layers, nn.Linear(inputs, outputs)]


def check(
    name: str,
    input_shape: object,
    outputs: tuple[int | None, ...],
    hidden: Sequence[int],
    dropout: float,
) -> None:
    """Raise UserError where a preset cannot be made so."""
    if len(outputs) > 1:
        raise UserError(
            f"The model {name!r} gives one row of outputs an example, and this task needs outputs at every "
            "position. Give a network of your own: model=net, with classes on the second axis."
        )
    if not isinstance(input_shape, tuple) or not input_shape or not all(_is_count(n) for n in input_shape):
        raise UserError(
            f"The preset {name!r} takes one input of fixed sizes, got {input_shape!r}. "
            f"For several inputs give a model of your own: model=package.module:function."
        )
    if name == "cnn" and (len(input_shape) != 3 or min(input_shape[1:]) < 2):
        raise UserError(
            f"The preset 'cnn' takes pictures of (channels, height, width) from 2×2, got {input_shape}. "
            f"The preset 'mlp' takes any sizes."
        )
    if not outputs or not _is_count(outputs[0]):
        raise UserError(f"outputs must be a whole number from 1, got {outputs!r}.")
    if not all(_is_count(width) for width in hidden):
        raise UserError(f"hidden must hold widths from 1, such as [256, 128], got {list(hidden)}.")
    if not 0 <= dropout < 1:
        raise UserError(
            f"dropout must lie in [0, 1), got {dropout!r}. It is the share of units switched off."
        )


def _is_count(n: object) -> bool:
    return isinstance(n, int) and n >= 1
