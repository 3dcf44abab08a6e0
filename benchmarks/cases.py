"""Models whose weights are updated: a small network, a deep one of many tensors, one matrix, a GPT."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from paired import Step, seconds
from torch import Tensor

Shapes: TypeAlias = Sequence[tuple[int, ...]]


def perceptron(weights: Sequence[Tensor]) -> Tensor:
    """64 digits of 8x8 through two hidden layers."""
    x = torch.randn(64, 64)
    for w, b in zip(weights[::2], weights[1::2], strict=True):
        x = F.linear(x, w.reshape(b.numel(), -1), b).relu()
    return x.square().mean()


def convolutions(weights: Sequence[Tensor]) -> Tensor:
    """32 pictures of 8x8 through 54 convolutions of 64 channels, each normed."""
    x = torch.randn(32, 64, 8, 8)
    for w, gain, shift in zip(weights[::3], weights[1::3], weights[2::3], strict=True):
        x = x + F.batch_norm(F.conv2d(x, w, padding=1), None, None, gain, shift, training=True).relu()
    return x.square().mean()


def matrix(weights: Sequence[Tensor]) -> Tensor:
    """64 rows through one matrix of 5000x5000."""
    return F.linear(torch.randn(64, 5000), weights[0].view(5000, 5000)).square().mean()


def transformer(weights: Sequence[Tensor]) -> Tensor:
    """64 tokens through the 12 blocks of GPT-2."""
    x = torch.randn(1, 64, 768)
    for n in range(0, len(weights), 12):
        n1, b1, qkv, qkv_b, out, out_b, n2, b2, up, up_b, down, down_b = weights[n : n + 12]
        q, k, v = F.linear(F.layer_norm(x, (768,), n1, b1), qkv, qkv_b).view(1, 64, 36, 64).chunk(3, 2)
        seen = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)), is_causal=True)
        x = x + F.linear(seen.transpose(1, 2).reshape(1, 64, 768), out, out_b)
        x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (768,), n2, b2), up, up_b)), down, down_b)
    return x.square().mean()


@dataclass(frozen=True)
class Case:
    """Shapes of weights, a loss of them, and how to time an update: lengths of blocks, number of pairs."""

    shapes: Shapes
    loss: Callable[[Sequence[Tensor]], Tensor]
    blocks: tuple[int, ...]
    pairs: int

    def weights(self) -> list[torch.nn.Parameter]:
        """Weights with gradients."""
        weights = [torch.nn.Parameter(0.05 * torch.randn(shape)) for shape in self.shapes]
        for weight in weights:
            weight.grad = 0.05 * torch.randn_like(weight)
        return weights

    def training(self, times: int = 7) -> float:
        """Seconds of a pass forward and backward, the median."""
        weights = self.weights()
        took = [seconds(lambda: self.loss(weights).backward()) for _ in range(times)]
        return statistics.median(took[2:])


BLOCK = [(768,), (768,), (2304, 768), (2304,), (768, 768), (768,), (768,), (768,)]
BLOCK += [(3072, 768), (3072,), (768, 3072), (768,)]
CASES = {
    "6 tensors, 26k": Case(
        [(128, 64), (128,), (128, 128), (128,), (10, 128), (10,)], perceptron, (1, 20, 200), 100
    ),
    "162 tensors, 2M": Case([(64, 64, 3, 3), (64,), (64,)] * 54, convolutions, (1, 5, 50), 50),
    "1 tensor, 25M": Case([(25_000_000,)], matrix, (1,), 15),
    "144 tensors, 85M": Case(BLOCK * 12, transformer, (1,), 9),
}


def stepper(kind: Any, shapes: Shapes, **options: Any) -> Step:
    """The step of an optimizer of weights of these shapes, warmed up."""
    return warm(kind(Case(shapes, matrix, (), 0).weights(), **options).step)


def warm(step: Step) -> Step:
    """The step, after three of them."""
    for _ in range(3):
        step()
    return step
