"""Shampoo: an inverse root of products of gradients on each axis of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from steepest.optim.maths import debias, lerp
from steepest.optim.quantity import choice
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.adam import moments
from steepest.optim.rules.kronecker import axes_of, root, squares
from steepest.optim.rules.shapes import AXES, along, as_they_are, empty, folded, gram, norm, ratio

GRAFTS = ("adam", "sgd", "none")


@dataclass(frozen=True)
class Shampoo(Rule):
    """Momentum between inverse roots of what its axes vary by.   sᵢ ← retain·sᵢ + G₍ᵢ₎G₍ᵢ₎ᵀ, axis i of k
    m ← β₁m+(1-β₁)g   u = m̂ times (sᵢ + damping·I)^(-1/2k) along every axis   u ← u·‖d‖/‖u‖
    w ← w - lr·(u + weight_decay·w)

    d: what gives the length: Adam's direction (graft="adam"), m̂ ("sgd"); "none" leaves u as it is.
    retain: 1 for sums, else averages, whose new part has the weight 1 - retain. every: steps between roots.
    Axes longer than `largest` are left alone and do not count; those beyond the fourth are one with it.
    lr: as that of the rule that gives the length, in units of w.
    State: m and, for "adam", v (2 floats per weight); s0 to s3, their roots p0 to p3 (2n² for an axis of n).
    Gupta, Koren & Singer 2018, arXiv:1802.09568, algorithm 2;
    grafting by Agarwal et al. 2020, arXiv:2002.11803, as in facebookresearch/optimizers."""

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    retain: Number = 1.0
    eps: Number = 1e-8
    damping: Number = 1e-12
    weight_decay: Number = 0.0
    graft: str = "adam"
    every: int = 1
    largest: int = 1024

    slots = ("m", "v", "s0", "s1", "s2", "s3", "p0", "p1", "p2", "p3")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("Shampoo's graft", self.graft, GRAFTS)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        axes = axes_of(w.shape, self.largest)
        v = xp.zeros_like(w) if self.graft == "adam" else empty(xp, w)
        return xp.zeros_like(w), v, *squares(xp, w, axes), *squares(xp, w, axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        fades = self.retain < 1
        kept = xp.where(fades, self.retain, 0.5)
        return moments(xp, t, self.beta1, self.beta2) | {
            "new": xp.where(fades, 1 - self.retain, 1.0),
            "unfade": xp.where(fades, 1 / debias(xp, kept, t), 1.0),
            "due": (t - 1) % self.every == 0,
        }

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any, *both: Any) -> tuple[Any, ...]:
        axes = axes_of(w.shape, self.largest)
        shape, (s, p) = folded(w.shape), (both[:AXES], both[AXES:])
        x = xp.reshape(g, shape)
        s = [k.retain * one + k.new * gram(xp, x, i) if i in axes else one for i, one in enumerate(s)]
        both = xp.cond(k.due, partial(_roots, xp, k, axes), as_they_are, *s, *p)
        m = lerp(m, g, k.c1)
        v = lerp(v, g * g, k.c2) if self.graft == "adam" else v
        u = xp.reshape(k.unbias1 * m, shape)
        for axis in axes:
            u = along(xp, u, axis, both[AXES + axis])
        return self._grafted(xp, k, xp.reshape(u, w.shape), m, v), m, v, *both

    def _grafted(self, xp: Any, k: Any, u: Any, m: Any, v: Any) -> Any:
        if self.graft == "none":
            return u
        d = k.unbias1 * m
        d = d / (xp.sqrt(k.unbias2 * v) + k.eps) if self.graft == "adam" else d
        return ratio(xp, u * norm(xp, d), norm(xp, u))


def _roots(xp: Any, k: Any, axes: Any, *both: Any) -> tuple[Any, ...]:
    """The statistics as they are, and their roots anew."""
    power, s = -0.5 / max(len(axes), 1), both[:AXES]
    roots = [root(xp, k.unfade * one, k.damping, power) if i in axes else one for i, one in enumerate(s)]
    return *s, *roots
