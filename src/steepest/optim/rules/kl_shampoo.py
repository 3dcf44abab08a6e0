"""KL-Shampoo: Shampoo whose two matrices explain the gradients together, and which needs no grafting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.kronecker import eigenbasis, iterated
from steepest.optim.rules.shapes import as_they_are, is_matrix, matrix, refuse, transposed


@dataclass(frozen=True)
class KLShampoo(Rule):
    """Momentum over the covariance s₀⊗s₁ that is nearest to the gradients' in Kullback-Leibler divergence.
    s₀ ← β₂s₀+(1-β₂)·g·s₁⁻¹·gᵀ/cols   s₁ ← β₂s₁+(1-β₂)·gᵀ·s₀⁻¹·g/rows   m ← β₁m+(1-β₁)g
    u = q₀·[q₀ᵀ·m·q₁/(√(d₀d₁ᵀ)+ε)]·q₁ᵀ   w ← w - lr·(u + weight_decay·w)

    qᵢ, dᵢ: eigenvectors and eigenvalues by which sᵢ⁻¹ is known: dᵢ follows every step, at least `damping` and
    first `initial`; every `every` steps qᵢ ← orthogonal(sᵢ·qᵢ). Step 1 finds the qᵢ and moves nothing.
    For matrices (out, in); a convolution is (out, in·height·width).
    lr: length of a typical coordinate's step, in units of w.
    State: m (1 float per weight); s0, q0, d0 and s1, q1, d1 (2n²+n for a side of n).
    Lin et al. 2025, arXiv:2509.03378, the practical form (QR, moving averages of eigenvalues)."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.98
    eps: Number = 1e-8
    damping: Number = 1e-12
    initial: Number = 0.1
    weight_decay: Number = 0.0
    every: int = 10

    slots = ("m", "s0", "s1", "q0", "q1", "d0", "d1")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        sides = matrix(w.shape)
        shapes = [(n, n) for n in (*sides, *sides)] + [(n,) for n in sides]
        return xp.zeros_like(w), *(xp.zeros(shape, w) for shape in shapes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {
            "c1": 1 - self.beta1,
            "c2": 1 - self.beta2,
            "lr": xp.where(t > 1, self.lr, 0.0),
            "first": t == 1,
            "due": (t - 1) % self.every == 0,
        }

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, *state: Any) -> tuple[Any, ...]:
        flat = [xp.reshape(x, matrix(w.shape)) for x in (g, m)]
        u, m, *following = xp.cond(k.first, partial(_begin, xp, k), partial(_go_on, xp, k), *flat, *state)
        return xp.reshape(u, w.shape), xp.reshape(m, w.shape), *following


def _begin(xp: Any, k: Any, g: Any, m: Any, s0: Any, s1: Any, *state: Any) -> tuple[Any, ...]:
    rows, cols = g.shape
    s0 = lerp(s0, g @ transposed(xp, g) / cols, k.c2)
    s1 = lerp(s1, transposed(xp, g) @ g / rows, k.c2)
    values = [d + k.initial for d in state[2:]]
    return 0.0 * m, m, s0, s1, eigenbasis(xp, s0), eigenbasis(xp, s1), *values


def _go_on(
    xp: Any, k: Any, g: Any, m: Any, s0: Any, s1: Any, q0: Any, q1: Any, d0: Any, d1: Any
) -> tuple[Any, ...]:
    rows, cols = g.shape
    m = lerp(m, g, k.c1)
    down, across = xp.reshape(d0, (-1, 1)), xp.reshape(d1, (1, -1))
    inner = transposed(xp, q0) @ m @ q1 / (xp.sqrt(down * across) + k.eps)
    u = q0 @ inner @ transposed(xp, q1)
    left, right = transposed(xp, q0) @ g, g @ q1
    both = left @ q1
    s0 = lerp(s0, (right / across) @ transposed(xp, right) / cols, k.c2)
    s1 = lerp(s1, transposed(xp, left) @ (left / down) / rows, k.c2)
    d0 = xp.maximum(lerp(d0, xp.mean(both * both / across, axis=1), k.c2), k.damping)
    d1 = xp.maximum(lerp(d1, xp.mean(both * both / down, axis=0), k.c2), k.damping)
    q0, q1 = xp.cond(k.due, partial(_refreshed, xp, s0, s1), as_they_are, q0, q1)
    return u, m, s0, s1, q0, q1, d0, d1


def _refreshed(xp: Any, s0: Any, s1: Any, q0: Any, q1: Any) -> tuple[Any, Any]:
    return iterated(xp, s0, q0), iterated(xp, s1, q1)
