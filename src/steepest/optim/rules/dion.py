"""Dion: orthogonal steps of low rank, and what is left out kept for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.shapes import is_matrix, matrix, norm, refuse, transposed


@dataclass(frozen=True)
class Dion(Rule):
    """One power iteration a step towards the momentum's first singular vectors.
    b = m+g   p = orthogonal(b·q)   r = bᵀp   m ← b - (1-momentum)·p·rᵀ   q ← r with columns of length 1
    u = √(rows/cols)·p·qᵀ   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width).
    ε: added to the lengths of columns. rank: columns of q, at most the shorter side; they start as random
    numbers, of the seed alone.
    lr: largest change of an output's root mean square for an input's of 1.
    State: m (1 float per weight), q (rank floats a column).
    Ahn et al. 2025, arXiv:2504.05295, algorithm 1; equals microsoft/dion's dion_simple."""

    lr: Number = 0.01
    momentum: Number = 0.95
    eps: Number = 1e-8
    weight_decay: Number = 0.01
    rank: int = 128
    seed: int = 0

    slots = ("m", "q")
    signed = ("m",)
    whole = True
    fallback_lr_ratio = 0.03
    follow = staticmethod(descend_and_decay)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        rows, cols = matrix(w.shape)
        return xp.zeros_like(w), xp.normal((cols, min(self.rank, rows, cols)), self.seed, 0, w)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.momentum}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, q: Any) -> tuple[Any, ...]:
        rows, cols = matrix(w.shape)
        b = xp.reshape(m + g, (rows, cols))
        p, _ = xp.qr(b @ q)
        r = transposed(xp, b) @ p
        m = b - k.c1 * (p @ transposed(xp, r))
        q = r / (norm(xp, r, axis=0, keepdims=True) + k.eps)
        u = sqrt(rows / cols) * (p @ transposed(xp, q))
        return xp.reshape(u, w.shape), xp.reshape(m, w.shape), q
