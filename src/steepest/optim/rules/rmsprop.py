"""RMSprop and its family: the gradient over the root of its mean square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, coupled, depart_and_decay


def variance(xp: Any, v: Any, m: Any) -> Any:
    """Mean square about the mean, which rounding does not make negative; NaN stays.   max(v - m², 0)"""
    found = v - m * m
    return xp.where(found < 0, 0.0, found)


@dataclass(frozen=True)
class _MeanSquare(Rule):
    """What all have in common: v, a moving average of g²."""

    lr: Number = 1e-2
    alpha: Number = 0.99
    eps: Number = 1e-8

    positive = ("v",)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c": 1 - self.alpha}


@dataclass(frozen=True)
class RMSprop(_MeanSquare):
    """Root of the mean square.   g ← g + weight_decay·w   v ← αv+(1-α)g²   u = g/(√v + ε)
    w ← w - lr·u

    lr: length of a coordinate's step, in units of w; the first steps are up to 1/√(1-α) times as long.
    State: v (1 float per weight).
    Tieleman & Hinton 2012, COURSERA lecture 6.5; equals torch.optim.RMSprop."""

    weight_decay: Number = 0.0

    slots = ("v",)
    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        return g / (xp.sqrt(v) + k.eps), v


@dataclass(frozen=True)
class RMSpropMomentum(_MeanSquare):
    """RMSprop with velocity.   v as in RMSprop   b ← momentum·b + g/(√v + ε)   u = b
    w ← w - lr·u

    lr: as RMSprop's, times 1/(1 - momentum) along a steady gradient.   State: v, b (2 floats per weight).
    Tieleman & Hinton 2012, COURSERA lecture 6.5, with velocity; equals torch.optim.RMSprop(momentum=)."""

    momentum: Number = 0.9
    weight_decay: Number = 0.0

    slots = ("v", "b")
    signed = ("b",)
    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, b: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        b = k.momentum * b + g / (xp.sqrt(v) + k.eps)
        return b, v, b


@dataclass(frozen=True)
class RMSpropCentered(_MeanSquare):
    """RMSprop over the standard deviation.   v as in RMSprop   m ← αm+(1-α)g   u = g/(√max(v - m², 0) + ε)
    w ← w - lr·u

    lr: as RMSprop's.   State: v, m (2 floats per weight).
    Graves 2013, arXiv:1308.0850, equations 38-41 without momentum; equals
    torch.optim.RMSprop(centered=True), except where rounding makes v - m² negative (NaN there)."""

    weight_decay: Number = 0.0

    slots = ("v", "m")
    signed = ("m",)
    momenta = ()
    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, m: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        m = lerp(m, g, k.c)
        return g / (xp.sqrt(variance(xp, v, m)) + k.eps), v, m


@dataclass(frozen=True)
class RMSpropCenteredMomentum(_MeanSquare):
    """RMSprop over the standard deviation, with velocity.   b ← momentum·b + g/(√max(v - m², 0) + ε)   u = b
    w ← w - lr·u

    v and m as in RMSpropCentered.   lr: as RMSpropMomentum's.   State: v, m, b (3 floats per weight).
    Graves 2013, arXiv:1308.0850, equations 38-41; equals torch.optim.RMSprop(momentum=, centered=True)."""

    momentum: Number = 0.9
    weight_decay: Number = 0.0

    slots = ("v", "m", "b")
    signed = ("m", "b")
    momenta = ("b",)
    couple = staticmethod(coupled)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, m: Any, b: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        m = lerp(m, g, k.c)
        b = k.momentum * b + g / (xp.sqrt(variance(xp, v, m)) + k.eps)
        return b, v, m, b


@dataclass(frozen=True)
class RMSpropTF(_MeanSquare):
    """RMSprop with ε within the root, and velocity in units of w.   v ← αv+(1-α)g²
    b ← momentum·b + lr·g/√(v+ε)   u = b   w ← w - u - lr·weight_decay·w

    lr: as RMSprop's; a new rate counts for new gradients alone.
    State: v, b (2 floats per weight), v first `initial`.
    Tieleman & Hinton 2012, COURSERA lecture 6.5; equals keras.optimizers.RMSprop(rho=α), and with initial=1
    timm.optim.RMSpropTF(decoupled_decay=True)."""

    lr: Number = 1e-3
    alpha: Number = 0.9
    eps: Number = 1e-7
    momentum: Number = 0.0
    initial: float = 0.0
    weight_decay: Number = 0.0

    slots = ("v", "b")
    signed = ("b",)
    follow = staticmethod(depart_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.full_like(w, self.initial), xp.zeros_like(w)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, b: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        b = k.momentum * b + k.lr * g / xp.sqrt(v + k.eps)
        return b, v, b


@dataclass(frozen=True)
class RMSpropTFCentered(_MeanSquare):
    """RMSpropTF over the standard deviation.   v as in RMSpropTF   m ← αm+(1-α)g
    b ← momentum·b + lr·g/√(max(v - m², 0)+ε)   u = b   w ← w - u - lr·weight_decay·w

    lr: as RMSpropTF's.   State: v, m, b (3 floats per weight), v first `initial`.
    Graves 2013, arXiv:1308.0850, equations 38-41; equals keras.optimizers.RMSprop(centered=True), except
    where rounding makes v - m² + ε negative (NaN there)."""

    lr: Number = 1e-3
    alpha: Number = 0.9
    eps: Number = 1e-7
    momentum: Number = 0.0
    initial: float = 0.0
    weight_decay: Number = 0.0

    slots = ("v", "m", "b")
    signed = ("m", "b")
    momenta = ("b",)
    follow = staticmethod(depart_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return xp.full_like(w, self.initial), xp.zeros_like(w), xp.zeros_like(w)

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, v: Any, m: Any, b: Any) -> tuple[Any, ...]:
        v = lerp(v, g * g, k.c)
        m = lerp(m, g, k.c)
        b = k.momentum * b + k.lr * g / xp.sqrt(variance(xp, v, m) + k.eps)
        return b, v, m, b
