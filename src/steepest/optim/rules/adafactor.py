"""Adafactor: second moments by row and column, in the forms of the paper, torch, Big Vision and optax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, depart_and_decay, descend_and_decay
from steepest.optim.rules.factored import (
    Axes,
    averages,
    clipped,
    followed,
    full,
    largest_two,
    last_two,
    moment,
    over_root,
)
from steepest.optim.rules.shapes import rms


def _share(xp: Any, t: Any, decay_rate: Any) -> Any:
    """What is new in an average that forgets ever more slowly.   t^-decay_rate"""
    return xp.exp(-decay_rate * xp.log(t))


def _decay_fully(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """w ← w - u - weight_decay·w: the rate has no part in it."""
    return w - (u + k.weight_decay * w)


@dataclass(frozen=True)
class Adafactor(Rule):
    """A step relative to the weight's size, over second moments by row and column.
    r ← βr+(1-β)·mean over columns of (g²+eps1)   c the same over rows   β = 1 - t^-decay_rate
    V = r·c/mean(r)   d = g/√V   u = max(eps2, RMS(w))·min(lr, 1/√t)·d/max(1, RMS(d)/threshold)
    w ← w - lr·weight_decay·w - u

    r, c: over the two longest axes; other axes count matrices. The V of a vector is not factored.
    lr: the largest step, in shares of RMS(w).
    State: r, c of a matrix (one float a row and one a column), v of a vector (1 float per weight).
    Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 and 5."""

    lr: Number = 1e-2
    decay_rate: Number = 0.8
    eps1: Number = 1e-30
    eps2: Number = 1e-3
    threshold: Number = 1.0
    weight_decay: Number = 0.0

    slots = ("r", "c", "v")
    whole = True
    follow = staticmethod(depart_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        axes = self._axes(w)
        return *averages(xp, w, axes), full(xp, w, axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"new": _share(xp, t, self.decay_rate), "step": xp.minimum(self.lr, 1 / xp.sqrt(t))}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, r: Any, c: Any, v: Any) -> tuple[Any, ...]:
        axes = self._axes(w)
        r, c, v = followed(xp, k.new, g * g + k.eps1, axes, r, c, v)
        u = clipped(xp, over_root(xp, g, axes, r, c, v), k.threshold)
        return xp.maximum(rms(xp, w), k.eps2) * k.step * u, r, c, v

    def _axes(self, w: Any) -> Axes:
        return largest_two(w.shape)


@dataclass(frozen=True)
class AdafactorTorch(Adafactor):
    """Adafactor as torch has it: eps1 bounds the moments and is not within them.
    r ← βr+(1-β)·mean over columns of g²   c the same over rows   β = 1 - t^-decay_rate
    V = max(r·c/max(mean(r), eps1), eps1²)   d = g/√V
    u = max(eps2, RMS(w))·min(lr, 1/√t)·d/max(1, RMS(d)/threshold)   w ← w - lr·weight_decay·w - u

    r, c: over the last two axes; those before them count matrices.
    eps1: torch's default is the distance from 1 to the next number of the dtype; here that of float32.
    lr: the largest step, in shares of RMS(w).
    State: r, c of a matrix (one float a row and one a column), v of a vector (1 float per weight).
    Shazeer & Stern 2018, arXiv:1804.04235; equals torch.optim.Adafactor(beta2_decay=-decay_rate)."""

    eps1: Number = 2.0**-23

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return Adafactor.scalars(self, xp, t) | {"least": self.eps1 * self.eps1}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, r: Any, c: Any, v: Any) -> tuple[Any, ...]:
        axes = self._axes(w)
        r, c, v = followed(xp, k.new, g * g, axes, r, c, v)
        moments = xp.maximum(moment(xp, axes, r, c, v, k.eps1), k.least)
        u = clipped(xp, g / xp.sqrt(moments), k.threshold)
        return xp.maximum(rms(xp, w), k.eps2) * k.step * u, r, c, v

    def _axes(self, w: Any) -> Axes:
        return last_two(w.shape)


@dataclass(frozen=True)
class AdafactorBigVision(Rule):
    """Adafactor as vision transformers use it: a rate like Adam's, momentum, no clipping.
    r ← βr+(1-β)·mean over columns of (g²+eps1)   c the same over rows   β = min(cap, 1 - t^-decay_rate)
    V = r·c/mean(r)   m ← momentum·m + (1-momentum)·g/√V   u = m   w ← w - lr·(u + weight_decay·w)

    r, c: over the two longest axes, if the shorter is factor_from long; otherwise V is full.
    lr: length of a coordinate's step, in units of w.
    State: m (1 float per weight); r, c of a matrix (one a row, one a column), v of others (1 per weight).
    Zhai et al. 2022, arXiv:2106.04560, section 3.4;
    equals timm's AdafactorBigVision(momentum_dtype=float32)."""

    lr: Number = 1e-3
    decay_rate: Number = 0.8
    cap: Number = 0.999
    momentum: Number = 0.9
    eps1: Number = 1e-30
    weight_decay: Number = 0.0
    factor_from: int = 32

    slots = ("m", "r", "c", "v")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        axes = largest_two(w.shape, self.factor_from)
        return xp.zeros_like(w), *averages(xp, w, axes), full(xp, w, axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        new = xp.maximum(1 - self.cap, _share(xp, t, self.decay_rate))
        return {"new": new, "c1": 1 - self.momentum}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, r: Any, c: Any, v: Any) -> tuple[Any, ...]:
        axes = largest_two(w.shape, self.factor_from)
        r, c, v = followed(xp, k.new, g * g + k.eps1, axes, r, c, v)
        m = lerp(m, over_root(xp, g, axes, r, c, v), k.c1)
        return m, m, r, c, v


@dataclass(frozen=True)
class AdafactorOptax(Adafactor):
    """Adafactor as optax has it: the rate times the weight's size, and a decay apart from the rate.
    r ← βr+(1-β)·mean over columns of (g²+eps1)   c the same over rows   β = 1 - t^-decay_rate
    V = r·c/mean(r)   d = g/√V   u = max(eps2, RMS(w))·d/max(1, RMS(d)/threshold)
    w ← w - lr·u - weight_decay·w

    r, c: over the two longest axes, if the shorter is factor_from long; otherwise V is full.
    lr: length of a step, in shares of RMS(w). weight_decay: per step, whatever lr is.
    State: r, c of a matrix (one float a row and one a column), v of others (1 float per weight).
    Shazeer & Stern 2018, arXiv:1804.04235; equals optax.adafactor(learning_rate=lr)."""

    factor_from: int = 128

    follow = staticmethod(_decay_fully)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"new": _share(xp, t, self.decay_rate)}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, r: Any, c: Any, v: Any) -> tuple[Any, ...]:
        axes = self._axes(w)
        r, c, v = followed(xp, k.new, g * g + k.eps1, axes, r, c, v)
        u = clipped(xp, over_root(xp, g, axes, r, c, v), k.threshold)
        return k.lr * xp.maximum(rms(xp, w), k.eps2) * u, r, c, v

    def _axes(self, w: Any) -> Axes:
        return largest_two(w.shape, self.factor_from)
