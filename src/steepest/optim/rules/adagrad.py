"""Rates for every coordinate: the gradient over the root of its gathered squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, coupled, descend_and_decay


@dataclass(frozen=True)
class Adagrad(Rule):
    """Sum of squares.   g ← g + weight_decay·w   s ← s + g²   u = g/(√s + ε)/(1 + (t - 1)·lr_decay)
    w ← w - lr·u

    lr: length of a coordinate's first step, in units of w.   State: s (1 float per weight), first `initial`.
    Duchi, Hazan & Singer 2011, JMLR 12; equals torch.optim.Adagrad."""

    lr: Number = 1e-2
    lr_decay: Number = 0.0
    weight_decay: Number = 0.0
    eps: Number = 1e-10
    initial: float = 0.0

    slots = ("s",)
    positive = ("s",)
    couple = staticmethod(coupled)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (xp.full_like(w, self.initial),)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"slowing": 1 / (1 + (t - 1) * self.lr_decay)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, s: Any) -> tuple[Any, ...]:
        s = s + g * g
        return k.slowing * g / (xp.sqrt(s) + k.eps), s


@dataclass(frozen=True)
class AdagradTF(Rule):
    """Adagrad with ε within the root.   s ← s + g²   u = g/√(s+ε)
    w ← w - lr·(u + weight_decay·w)

    lr: length of a coordinate's first step, in units of w, where g² is large beside `initial`.
    State: s (1 float per weight), first `initial`.
    Duchi, Hazan & Singer 2011, JMLR 12; equals keras.optimizers.Adagrad and optax.adagrad."""

    lr: Number = 1e-3
    eps: Number = 1e-7
    initial: float = 0.1
    weight_decay: Number = 0.0

    slots = ("s",)
    positive = ("s",)
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (xp.full_like(w, self.initial),)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, s: Any) -> tuple[Any, ...]:
        s = s + g * g
        return g / xp.sqrt(s + k.eps), s


@dataclass(frozen=True)
class Adadelta(Rule):
    """Steps in the units of w.   g ← g + weight_decay·w   v ← ρv+(1-ρ)g²   u = √(d+ε)/√(v+ε)·g
    d ← ρd+(1-ρ)u²   w ← w - lr·u

    lr: a factor without unit.   State: v, d (2 floats per weight).
    Zeiler 2012, arXiv:1212.5701, algorithm 1; equals torch.optim.Adadelta."""

    lr: Number = 1.0
    rho: Number = 0.9
    eps: Number = 1e-6
    weight_decay: Number = 0.0

    slots = ("v", "d")
    positive = ("v", "d")
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c": 1 - self.rho}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, d: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        u = xp.sqrt(d + k.eps) / xp.sqrt(v + k.eps) * g
        return u, v, lerp(d, u * u, k.c)
