"""Gradient descent, and velocity: the gradient itself or a running sum of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.rule import Number, Rule, coupled, depart_and_decay


@dataclass(frozen=True)
class SGD(Rule):
    """Steepest descent.   g ← g + weight_decay·w   u = g
    w ← w - lr·u

    lr: units of w per unit of g.   State: none.
    Robbins & Monro 1951, doi:10.1214/aoms/1177729586; equals torch.optim.SGD."""

    lr: Number = 1e-3
    weight_decay: Number = 0.0

    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any) -> tuple[Any, ...]:
        return (g,)


@dataclass(frozen=True)
class Momentum(Rule):
    """Heavy ball.   g ← g + weight_decay·w   b ← momentum·b + (1 - dampening)·g, undampened at t = 1   u = b
    w ← w - lr·u

    lr: units of w per unit of g; a steady gradient is followed 1/(1 - momentum) times as far.
    State: b (1 float per weight).
    Polyak 1964, doi:10.1016/0041-5553(64)90137-5; equals torch.optim.SGD(momentum=, dampening=)."""

    lr: Number = 1e-3
    momentum: Number = 0.9
    dampening: Number = 0.0
    weight_decay: Number = 0.0

    slots = ("b",)
    signed = ("b",)
    couple = staticmethod(coupled)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"share": xp.where(t == 1, 1.0, 1 - self.dampening)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, b: Any) -> tuple[Any, ...]:
        b = k.momentum * b + k.share * g
        return b, b


@dataclass(frozen=True)
class Nesterov(Rule):
    """Momentum that looks ahead.   g ← g + weight_decay·w   b ← momentum·b + g   u = g + momentum·b
    w ← w - lr·u

    The weights are those at the point looked ahead to, where gradients are taken.
    lr: units of w per unit of g.   State: b (1 float per weight).
    Nesterov 1983 in the form of Sutskever et al. 2013, ICML;
    equals torch.optim.SGD(momentum=, nesterov=True)."""

    lr: Number = 1e-3
    momentum: Number = 0.9
    weight_decay: Number = 0.0

    slots = ("b",)
    signed = ("b",)
    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, b: Any) -> tuple[Any, ...]:
        b = k.momentum * b + g
        return g + k.momentum * b, b


@dataclass(frozen=True)
class MomentumTF(Rule):
    """Heavy ball whose velocity is a step, in units of w.   v ← momentum·v - lr·g   u = -v
    w ← w - u - lr·weight_decay·w

    Momentum and this one part where lr changes: here a new rate counts for new gradients alone.
    lr: units of w per unit of g.   State: v (1 float per weight).
    Sutskever et al. 2013, ICML, equations 1-2; equals keras.optimizers.SGD(momentum=)."""

    lr: Number = 1e-2
    momentum: Number = 0.9
    weight_decay: Number = 0.0

    slots = ("v",)
    signed = ("v",)
    follow = staticmethod(depart_and_decay)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        v = k.momentum * v - k.lr * g
        return -v, v


@dataclass(frozen=True)
class NesterovTF(MomentumTF):
    """Nesterov's, its velocity a step in units of w.   v ← momentum·v - lr·g   u = lr·g - momentum·v
    w ← w - u - lr·weight_decay·w

    lr: units of w per unit of g.   State: v (1 float per weight).
    Sutskever et al. 2013, ICML, equations 3-4; equals keras.optimizers.SGD(momentum=, nesterov=True)."""

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        v = k.momentum * v - k.lr * g
        return k.lr * g - k.momentum * v, v
