"""Small networks for a first honest result, in PyTorch's own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from torch import nn

from steepest.optim.errors import UserError, did_you_mean

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


PRESETS: dict[str, Callable[..., nn.Sequential]] = {"linear": linear, "mlp": mlp, "cnn": cnn}


def build(
    name: str,
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    hidden: Sequence[int] = (256, 128),
    dropout: float = 0.0,
) -> nn.Module:
    """The preset of that name; "auto" takes the cnn for pictures (channels, height, width), else the mlp.

    input_shape: sizes of one example, without the batch.   outputs: numbers given for each example, ≥ 1.
    hidden: widths of the dense layers between input (or convolutions) and output; "linear" has none.
    dropout: share of hidden units switched off in training, in [0, 1)."""
    _check(name, input_shape, outputs, hidden, dropout)
    if name == "auto":
        name = suited(input_shape)
    if name == "linear":
        return linear(input_shape, outputs)
    return PRESETS[name](input_shape, outputs, hidden, dropout)


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


def _check(name: str, input_shape: object, outputs: int, hidden: Sequence[int], dropout: float) -> None:
    if name != "auto" and name not in PRESETS:
        raise UserError(f"There is no model named {name!r}.{did_you_mean(name, ['auto', *PRESETS])}")
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
    if not _is_count(outputs):
        raise UserError(f"outputs must be a whole number from 1, got {outputs!r}.")
    if not all(_is_count(width) for width in hidden):
        raise UserError(f"hidden must hold widths from 1, such as [256, 128], got {list(hidden)}.")
    if not 0 <= dropout < 1:
        raise UserError(
            f"dropout must lie in [0, 1), got {dropout!r}. It is the share of units switched off."
        )


def _is_count(n: object) -> bool:
    return isinstance(n, int) and n >= 1
