"""The networks of the suite, small enough for one thread. wide: factor of all hidden widths.

Activations and norms are modules of their own, so that a variant can put others in their place.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int, activation: type[nn.Module]) -> nn.Module:
    """Dense layers with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *hidden)):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


def digits_cnn(wide: int) -> nn.Module:
    """Two convolutions of 5×5 with pooling, a hidden layer; MNIST."""
    first, second, hidden = 8 * wide, 16 * wide, 64 * wide
    return nn.Sequential(
        *(nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(49 * second, hidden), nn.ReLU(), nn.Linear(hidden, 10)),
    )


class Residual(nn.Module):
    """Two convolutions of 3×3 beside a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)),
        )
        straight = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if straight else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def resnet8(wide: int) -> nn.Module:
    """Eight layers: a stem, three residual blocks, a dense one; CIFAR-10."""
    a, b, c = 8 * wide, 16 * wide, 32 * wide
    return nn.Sequential(
        *(nn.Conv2d(3, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()),
        *(Residual(a, a, 1), Residual(a, b, 2), Residual(b, c, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10)),
    )


class SpokenLSTM(nn.Module):
    """An LSTM over frames of sound, its states averaged over time."""

    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        self.lstm, self.head = nn.LSTM(features, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, frames, features)."""
        return self.head(self.lstm(x)[0].mean(1))


class LetterRNN(nn.Module):
    """An Elman network that gives scores of the next letter after each: gradients through it may explode."""

    def __init__(self, letters: int, embedded: int, width: int):
        super().__init__()
        self.letters, self.rnn = nn.Embedding(letters, embedded), nn.RNN(embedded, width, batch_first=True)
        self.head = nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, context) of letters. Gives (batch, letters, context)."""
        return self.head(self.rnn(self.letters(x))[0]).transpose(1, 2)


class Block(nn.Module):
    """Attention and a network of two layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.gather = nn.Linear(width, width, bias=False)
        self.widen, self.activation = nn.Linear(width, 4 * width, bias=False), nn.GELU()
        self.narrow = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x: (batch, context, width); seen: what may be attended to, as a mask of (batch, 1, 1, context)."""
        parts = self.query_key_value(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=self.causal)
        x = x + self.gather(found.transpose(1, 2).flatten(2))
        return x + self.narrow(self.activation(self.widen(self.norm2(x))))


def start_small(model: nn.Module, layers: int) -> None:
    """Matrices from N(0, 0.02²); those that lead into a shortcut smaller by the root of their number."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            into_shortcut = name.endswith(("gather.weight", "narrow.weight"))
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if into_shortcut else 0.02)


class GPT(nn.Module):
    """Letters in, scores of the next letter out; the embedding of letters is also the head."""

    def __init__(self, letters: int, context: int, width: int, heads: int = 4, layers: int = 2):
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters, bias=False)
        self.head.weight = self.letters.weight
        start_small(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, context) of letters. Gives (batch, letters, context)."""
        h = self.blocks(self.letters(x) + self.places.weight[: x.shape[1]])
        return self.head(self.norm(h)).transpose(1, 2)


class SentenceTransformer(nn.Module):
    """One block over words, averaged over those that are there; word 0 fills up short sentences."""

    def __init__(self, words: int, context: int, width: int, classes: int):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(context, width)
        self.block, self.norm = Block(width, 4, causal=False), nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        start_small(self, layers=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, context) of words."""
        there = x != 0
        h = self.block(self.words(x) + self.places.weight, there[:, None, None])
        weight = there[..., None].to(h)
        return self.head((self.norm(h) * weight).sum(1) / weight.sum(1).clamp(min=1))


class SentenceCNN(nn.Module):
    """Convolutions over 3, 4 and 5 words, the largest answer of each (Kim 2014, arXiv:1408.5882)."""

    def __init__(self, words: int, width: int, filters: int, classes: int):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.filters = nn.ModuleList(nn.Conv1d(width, filters, span, padding=span - 1) for span in (3, 4, 5))
        self.activation, self.head = nn.ReLU(), nn.Linear(3 * filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, context) of words."""
        h = self.words(x).transpose(1, 2)
        return self.head(torch.cat([self.activation(one(h)).amax(2) for one in self.filters], 1))
