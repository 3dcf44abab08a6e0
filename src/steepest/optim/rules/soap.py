"""SOAP: Adam in the basis that Shampoo would use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments
from steepest.optim.rules.kronecker import (
    axes_of,
    eigenbasis,
    iterated,
    squares,
    tracked,
    turned,
    turned_back,
)
from steepest.optim.rules.shapes import AXES, as_they_are, folded


@dataclass(frozen=True)
class SOAP(Rule):
    """Adam in the eigenvectors qᵢ of each axis' products of gradients.   sᵢ ← β₂sᵢ+(1-β₂)·G₍ᵢ₎G₍ᵢ₎ᵀ
    m ← β₁m+(1-β₁)g   g', m' = g, m turned by every qᵢ   v ← β₂v+(1-β₂)g'²   d = m'·√(1-β₂ᵗ)/((1-β₁ᵗ)·(√v+ε))
    u = d turned back   w ← w - lr·(u + weight_decay·w)

    Step 1 finds the qᵢ and moves nothing; t counts from there. Every `every` steps qᵢ ← orthogonal(sᵢ·qᵢ), v
    goes along in the order of the eigenvalues. Axes longer than `largest`, and those of vectors, are not
    turned; those beyond the fourth are one with it.
    lr: length of a coordinate's step, in units of w.
    State: m, v (2 floats per weight), s0 to s3 and q0 to q3 (2n² for an axis of n).
    Vyas et al. 2024, arXiv:2409.11321, algorithm 3; equals the authors' SOAP without weight decay, which they
    apply after the step, and up to a ramp of 10⁻⁶ that settles the order of equal eigenvalues."""

    lr: Number = 3e-3
    beta1: Number = 0.95
    beta2: Number = 0.95
    eps: Number = 1e-8
    weight_decay: Number = 0.01
    every: int = 10
    largest: int = 10000

    slots = ("m", "v", "s0", "s1", "s2", "s3", "q0", "q1", "q2", "q3")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        axes = self._axes(w)
        return xp.zeros_like(w), xp.zeros_like(w), *squares(xp, w, axes), *squares(xp, w, axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        made = moments(xp, xp.maximum(t - 1, 1), self.beta1, self.beta2)
        root2 = xp.sqrt(made.pop("unbias2"))
        turns = {"first": t == 1, "due": (t - 1) % self.every == 0}
        return made | turns | {"root2": root2, "lr": xp.where(t > 1, self.lr, 0.0)}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, *both: Any) -> tuple[Any, ...]:
        axes, shape = self._axes(w), folded(w.shape)
        flat = [xp.reshape(x, shape) for x in (g, m, v)]
        begin, go_on = partial(_begin, xp, k, axes), partial(_go_on, xp, k, axes)
        u, m, v, *following = xp.cond(k.first, begin, go_on, *flat, *both)
        return *(xp.reshape(x, w.shape) for x in (u, m, v)), *following

    def _axes(self, w: Any) -> tuple[int, ...]:
        return axes_of(w.shape, self.largest) if len(w.shape) > 1 else ()


def _begin(xp: Any, k: Any, axes: Any, g: Any, m: Any, v: Any, *both: Any) -> tuple[Any, ...]:
    s = tracked(xp, k.c2, g, axes, both[:AXES])
    q = [eigenbasis(xp, one) if i in axes else one for i, one in enumerate(s)]
    return 0.0 * m, m, v, *s, *q


def _go_on(xp: Any, k: Any, axes: Any, g: Any, m: Any, v: Any, *both: Any) -> tuple[Any, ...]:
    s, q = both[:AXES], both[AXES:]
    m = lerp(m, g, k.c1)
    turned_g = turned(xp, g, axes, q)
    v = lerp(v, turned_g * turned_g, k.c2)
    d = k.unbias1 * turned(xp, m, axes, q) / (k.root2 * (xp.sqrt(v) + k.eps))
    u = turned_back(xp, d, axes, q)
    s = tracked(xp, k.c2, g, axes, s)
    v, *q = xp.cond(k.due, partial(_refreshed, xp, axes, s), as_they_are, v, *q)
    return u, m, v, *s, *q


def _refreshed(xp: Any, axes: Any, s: Any, v: Any, *bases: Any) -> tuple[Any, ...]:
    """v and the bases after one power iteration, in the order of their eigenvalues."""
    q = list(bases)
    for axis in axes:
        order = xp.argsort(-xp.sum(q[axis] * (s[axis] @ q[axis]), axis=0))
        v = xp.take(v, order, axis)
        q[axis] = iterated(xp, s[axis], xp.take(q[axis], order, 1))
    return v, *q
